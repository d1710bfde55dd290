// What the offline side (pack.cpp) hands to the ISA files, and the one table through which they are called.
//
// SIMD lanes are image blocks. The output plane is cut into a grid of equal blocks and lane l owns block l (a grid over
// images, rows and columns: grid_n * grid_h * grid_w = lanes). A shift by one pixel inside a block is then a move to
// the neighbouring vector, so the taps of a window need neither unaligned loads nor im2col, for any window and stride.
// Idle lanes compute zeros that are not stored.
//
// A block is worked through in strips of tile_h output rows, a strip in tiles of tile_h x tile_w output positions (at
// most kMaxPositions, whose accumulators live in registers). For each tile the channels come in passes. In a pass each
// of the tile's input positions has `slots` vectors:
//
//   sparse   the packed activations of the pass's channels, in place, one slot each;
//   table    for each group of G channels the 2^G sums of its subsets: slot = (group in pass) * 2^G + subset. They are
//            built anew for every tile, so that they stay in the first-level cache.
//
// The pass then adds, for each row (pack.h) that needs any, the listed slots to the row's accumulators. That loop is
// most of the cost, and it is the same code for both algorithms.
#pragma once

#include <cstdint>

namespace sbkit {

constexpr int kMaxPositions = 8, kMaxTileRows = 2;

struct Grid {
  int32_t n, h, w;  // lanes along images, rows and columns
};

struct Pass {
  int32_t first_channel, channels;  // channels of this pass
  int32_t first_row, rows;          // its part of Job::pass_rows
  int64_t first_entry;              // its part of Job::entries
};

struct PassRow {
  int32_t row;    // accumulator
  int32_t count;  // entries it adds in this pass
};

struct Term {  // y[filter] = sum over its terms of coefficient * accumulator[row]
  int32_t row;
  float coefficient;
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
  int32_t table_h, table_w;    // input positions of a tile, halo included
  // Padded copy of one channel of grid.n images, from which lanes are cut
  int64_t plane_h, plane_w;
  // Plan. Slots lie as [input row][slot][column]; an entry is a vector's index there. Columns are sorted by their
  // remainder modulo the stride, so that output positions next to each other read vectors next to each other.
  int32_t group;    // G; 0: slots are the channels themselves
  int32_t slots;    // vectors per input position
  int32_t columns;  // vectors per slot and input row: table_w or, without tables, packed_w, up to a multiple of stride
  int32_t packed_columns;  // the same of the packed activations
  int32_t pass_channels;   // channels of every pass but perhaps the last
  int32_t rows;            // accumulators
  int32_t passes;
  const Pass* pass;
  const PassRow* pass_rows;
  const uint16_t* entries;
  const Term* terms;
  const int32_t* first_term;  // [K + 1]
  const float* channel_sign;  // [C]
  // Buffers, 64-byte aligned. Per thread: strides in floats.
  float* packed;        // [pass][packed_h][pass_channels][packed_columns] vectors, shared
  float* plane;         // [thread]
  float* table;         // [thread]
  float* accumulators;  // [thread][tiles][rows][positions] vectors
  int64_t plane_stride, table_stride, accumulators_stride;
  int32_t threads;
};

struct Kernel {
  const char* isa;
  int32_t lanes;
  bool (*supported)();
  void (*run)(const Job&, const float* x, float* y);
};

// Kernels compiled into this library, the widest last. `supported` asks the CPU.
extern const Kernel kKernels[];
extern const int kKernelCount;

void run_scalar(const Job&, const float* x, float* y);
void run_avx2(const Job&, const float* x, float* y);
void run_avx512(const Job&, const float* x, float* y);
void run_neon(const Job&, const float* x, float* y);

}  // namespace sbkit
