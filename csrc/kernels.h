// What the offline side (plan.h) hands to the ISA files, and the one table through which they are called.
//
// SIMD lanes are image blocks. The output plane is cut into a grid of equal blocks and lane l owns block l (a grid over
// images, rows and columns: grid_n * grid_h * grid_w = lanes). A shift by one pixel inside a block is then a move to
// the neighbouring vector, so the taps of a window need neither unaligned loads nor im2col, for any window and stride.
// Idle lanes compute zeros that are not stored.
//
// A block is worked through in strips of tile_h output rows, a strip in tiles of tile_h x tile_w output positions
// (whose accumulators live in registers). For each tile the channels come in passes. In a pass the tile has `slots`
// vectors per position, filled by the pass's program of copies and of sums of two slots:
//
//   sparse    no program: the slots are the packed activations of the pass's channels, in place;
//   table     per input position, for each group of G channels, the sums of all patterns of codes that they can have;
//   dataflow  per output position, the nodes of the pass's data-flow graph, its inputs before them.
//
// They are filled anew for every tile, so that they stay in the first-level cache. The pass then adds, for each row
// (rows.h) that needs any, the listed slots to the row's accumulators, or subtracts them. That loop is most of the
// cost, and it is the same code for all algorithms.
#pragma once

#include <cstdint>

namespace sbkit {

struct Grid {
  int32_t n, h, w;  // lanes along images, rows and columns
};

struct Copy {  // vectors: `to` from the fill row's start, `from` from the packed row of the pass
  int32_t to, from;
};

struct Step {  // slot[to] = slot[a] + slot[b], or a - b; in vectors from the fill row's start
  uint16_t to, a, b, subtract;
};

struct Pass {
  int32_t first_channel, channels;  // channels of this pass
  int32_t first_row, rows;          // its part of Job::pass_rows
  int64_t first_entry;              // its part of Job::entries
  int32_t first_copy, copies;       // its part of Job::copies
  int32_t first_step, steps;        // its part of Job::steps
};

struct PassRow {
  int32_t row;               // accumulator
  uint16_t adds, subtracts;  // entries of this pass, first those to add
};

struct Term {  // y[filter] = sum over its terms of coefficient * accumulator[row]
  int32_t row;
  float coefficient;
};

struct Block {  // consecutive filters with rows and lists of their own, so that threads can share filters out
  int32_t first_filter, filters, first_pass;
};

struct Job {
  // Layer
  int64_t N, C, H, W, K, P, Q;
  int32_t stride, padding;
  // Geometry, in vectors
  Grid grid;
  int32_t tile_h, tile_w;      // output positions of a tile
  int32_t strips, tiles;       // strips of a block, tiles of a strip (the last of each may hang over)
  int32_t block_h, block_w;    // output positions of a block that are stored
  int32_t packed_h, packed_w;  // input positions of a block, halo included
  // Padded copy of one channel of grid.n images, from which lanes are cut
  int64_t plane_h, plane_w;
  // Plan. Slots lie as [fill row][slot][column]; an entry is a vector's index there, for the tile's first position.
  // Columns are sorted by their remainder modulo the stride, so that output positions next to each other read vectors
  // next to each other.
  int32_t group;                      // channels that share a table or a graph; 0: slots are the channels themselves
  int32_t slots;                      // vectors per position
  int32_t columns;                    // vectors per slot and fill row
  int32_t fill_h, fill_step, copy_w;  // fill rows, packed rows between them, vectors of one copy
  int32_t below;                      // from a position's slot to that of the position below, in vectors
  int32_t packed_columns;             // packed_w up to a multiple of stride
  int32_t pass_channels;              // channels of every pass but perhaps the last
  int32_t passes, blocks;
  int32_t most_rows;  // rows of the block that has most
  const Block* block;
  const Pass* pass;  // [blocks][passes]
  const Copy* copies;
  const Step* steps;
  const PassRow* pass_rows;
  const uint16_t* entries;
  const Term* terms;
  const int32_t* first_term;  // [K + 1]
  const float* channel_sign;  // [C]
  const float* bias;          // [K]
  bool relu;
  // Buffers, 64-byte aligned. Per thread: strides in floats.
  float* packed;        // [pass][packed_h][pass_channels][packed_columns] vectors, shared
  float* plane;         // [thread], zero outside the image
  float* table;         // [thread]
  float* accumulators;  // [thread][tiles][most_rows][positions] vectors
  int64_t plane_stride, table_stride, accumulators_stride;
  int32_t threads;
};

struct Kernel {
  const char* isa;
  int32_t lanes, max_positions;  // floats of a vector; output positions whose accumulators leave registers free
  bool (*supported)();
  void (*run)(const Job&, const float* x, const float* residual, float* y);  // residual: of y's shape, or null
};

// Kernels compiled into this library, the widest last. `supported` asks the CPU.
extern const Kernel* const kKernels[];
extern const int kKernelCount;

int64_t l1_bytes();  // of the first-level data cache; 32 KiB where the system does not say

extern const Kernel kScalar, kAvx2, kAvx512, kNeon;  // each in its own file

}  // namespace sbkit
