// What the offline side of `table` for integers hands to the ISA files.
//
// Lanes are output positions. A lane has 8 or 16 bits, eight neighbouring lanes are a *unit*: up to 8 consecutive
// positions of one row of one image. Units are independent of each other: a *tile* is as many as a vector holds, each
// with up to `rows` rows below one another, whose accumulators stay in registers.
//
// For each group of channels a table holds the sums of the masks of channels that occur, one *slot* each. A slot has
// lines, one for each input row that the tile's windows touch, and a line has two vectors in neighbouring memory, the
// *copies*, which differ in the input column they begin with. Each tap of a window is one load at a fixed offset from
// the slot, for any window and stride; the line of the row below is the next one.
//
// 16-bit lanes: an entry is loaded and added. Units have 8, 7 or 6 positions; with fewer than 8 a copy serves several
// taps, at offsets of a lane each.
//
// 8-bit lanes, 7 positions a unit: the entries of a *chain* are added as bytes, which the packer sees to not to
// overflow. The chain's sum is then added twice: to bytes, which keep the sum modulo 256, and to 64-bit lanes, one per
// unit, where carries run on into the next byte. The second minus the first leaves the carries, which are the high
// bytes of 16-bit sums. So widening costs one instruction a chain. The eighth byte, nobody's position, takes the last
// carry.
//
// Bounds, with M = 2^a - 1:
//   chain          its non-zeros * M <= 255;
//   16-bit sums    of a filter between two flushes to 32 bits: (codes +1 and -1) * M <= 65535. A filter's accumulators
//                  begin at its (codes -1) * M, so the true sums never leave 0 to 65535, and the flush subtracts it;
//   32-bit sums    2 * C*R*S*M < 2^31 (integer.h).
// The packer decides all of them from each filter's actual codes.
#pragma once

#include <cstdint>

#include "outer_kernels.h"

namespace sbkit {

// What a run does once its tables are made: take the sums from them, and round and store these.
enum Stage { kSums = 1, kFinish = 2, kAllStages = 3 };

struct IntegerUnit {
  int64_t from;       // of its first row's first column in the padded activations, channel 0
  int64_t to;         // of its first position in y, filter 0
  int32_t rows, columns;  // that are stored
};

struct IntegerCopy {
  int64_t from;  // from a unit's first column; -1: unused
};

struct IntegerLine {
  int64_t from;        // from a unit's first row
  int32_t least_rows;  // needed by tiles of so many rows and more
};

struct IntegerStep {  // slot[to] = slot[a] + slot[b], in bytes from the group's table
  int32_t to, a, b;
};

struct IntegerPass {
  int32_t first_group, groups;
  bool fill;            // make the tables of these groups; else they stand since the pass before
  bool begin, flush;    // of 16-bit sums
  int32_t first_row;    // its part of IntegerJob::rows
  int64_t first_entry;  // its part of IntegerJob::entries
};

struct IntegerRow {
  int32_t filter;            // of its block; the shared sum is filter 0 where there is one
  uint16_t adds, subtracts;  // in loads of four entries, first those to add
  uint16_t start;            // where accumulators begin
};

struct IntegerBlock {  // consecutive filters with lists of their own, so that threads can share filters out
  int32_t first_filter, filters, first_pass;
};

struct IntegerJob {
  int64_t N, C, H, W, K, P, Q;
  int32_t stride, padding;
  int32_t stages;  // of Stage, those to execute
  // Padded activations [N][C][padded_h][pitch], columns sorted by their remainder modulo the stride
  int64_t padded_h, pitch, phase_columns;
  // Geometry
  int32_t lane_bits, chain;   // chain: entries of one
  int32_t tiles, rows_of_tile;  // most rows of a tile
  int32_t group, slot_bytes, group_bytes;
  int32_t lines, pairs, phases;  // pairs of copies; remainders modulo the stride that rows of a window have
  int32_t passes, blocks, steps;
  bool shared;  // y = 2 * sum - shared sum
  const IntegerUnit* unit;       // [tiles][units of a vector]
  const int32_t* rows_in_tile;   // [tiles]
  const IntegerLine* line;       // [lines]
  const IntegerCopy* copy;       // [2 * pairs]
  const int32_t* channel_slot;   // [group], in bytes from the group's table; -1: no entry has the channel
  const IntegerStep* step;
  const IntegerBlock* block;
  const IntegerPass* pass;  // [blocks][passes]
  const IntegerRow* rows;
  const uint16_t* entries;  // in bytes from the pass's tables
  // Rounding; scale is null for raw sums
  const float *scale, *bias;
  float residual_scale, most;
  // Buffers, 64-byte aligned; strides in bytes
  uint8_t* padded;
  uint8_t* table;  // [thread], zeros where nothing is filled in
  uint8_t* sums;   // [thread][filter][rows_of_tile]: vectors of 16-bit sums, or pairs of 64-bit lanes and of bytes
  uint8_t* wide;   // [thread][filter][rows_of_tile][units]: 8 sums of 32 bits
  int64_t table_stride, sums_stride, wide_stride;
  int32_t threads;
};

// `lookup`: lanes are filters. For each input position a table has the sums of up to 16 masks of every group of
// channels, 16 bytes a group, groups one after another. A mask's non-zeros * M are at most 255. CPUs differ in the form
// that they take the filters' codes in.
//
// Quads: four groups are a table of 64 bytes in a register. One instruction looks up four masks each of 16 filters (a
// byte of every group in each 32-bit lane), another adds the four to the filter's 32-bit sum, with a sign each. There
// is nothing else to bound. A layer of one or two groups with stride 1 has no other group between the tables of two
// neighbouring positions: a quad has those of four or two of them, for as many taps of a row.
//
// Chains: one group is a table of 16 bytes in each half of a register, and one instruction looks up its masks of 32
// filters; or, for blocks of 16 filters and fewer, the halves have two groups of one tap. The bytes of a *chain* of
// look-ups are added as bytes, then as 16-bit words and, shifted, as the words' high bytes: the low bytes' sum is the
// first sum minus 256 times the second. A value v to subtract is added as most_value XOR v = most_value - v, where
// most_value = 2^b - 1 is at least the largest sum of a mask; a filter's sum then is too large by most_value times its
// masks to subtract. Bounds, where a mask to add has its non-zeros * M and one to subtract most_value:
//   chain          for each lane <= 255;
//   16-bit sums    for each lane <= 65535 between two moves to 32 bits, of which a block's *parts* are.
// The packer decides both from the filters' actual codes.
enum class LookupForm { kQuads, kChains };

struct LookupItem {  // of the filters of a block: one quad of a tap or of neighbouring taps, or look-up
  int64_t table;     // its table, in bytes from that of the window's first position
};

struct LookupBlock {  // 32 filters, or one of its parts, which follow one another
  int32_t first_filter, first_item, items;
  int32_t parts;   // this one and those behind it
  int32_t chain;   // items, a multiple of it
  bool few;        // 16 filters at most: quads have one vector of sums, chains two groups in a look-up
};

struct LookupJob {
  int64_t N, C, H, W, K, P, Q;
  int32_t stride, padding, window_h, window_w, threads;
  int32_t stages;                       // of Stage, those to execute
  int32_t group, quads, most_channels;  // most channels of a mask
  int32_t rows_of_chunk;                // output rows whose tables are made at once
  int32_t rows_at_once;                 // of these, rows whose sums are finished at once, from the first-level cache
  int64_t padded_w, pixel_bytes;        // of the activations in channels last: [table rows][padded_w][pixel_bytes]
  int64_t row_bytes, chunk_rows;        // of the tables: [chunk_rows][padded_w][position_bytes]
  int64_t position_bytes;               // 64 a quad, or 16 a group; what is filled beyond belongs to the next position
  int32_t blocks;
  bool shared;                          // y = 2 * sum - sum of all activations under the window
  bool has_signs;                       // else every filter's are all the same, and sign[] has it
  const uint8_t* select;                // [most_channels][64]: of a quad's channels, each mask's i-th; 255: none
  const LookupBlock* block;
  const LookupItem* items;
  const uint8_t* codes;  // quads: [item][32 filters][4 groups], the mask plus 16 * its place; chains: [item][32]
  const int8_t* signs;   // as codes: +1 and -1; chains: 0 and most_value
  const int32_t* sign;   // [K rounded up to 32]
  const int32_t* excess;  // [K rounded up to 32], what a sum of chains is too large by
  const float *scale, *bias;
  float residual_scale, most;
  uint8_t *last, *table;  // [thread], activations in channels last, and tables
  int32_t* sums;          // [thread][rows_at_once * Q rounded up to 16][32]
  int32_t* totals;        // [thread], with `shared`: of the chunk's input positions, then of its output positions
  int64_t last_stride, table_stride, sums_stride, totals_stride;  // bytes
};

// Executes `times` * kPeakOperations operations of one kind, as fast as the CPU can, on the first kPeakOperations vectors
// of a buffer, which the first-level cache holds. What it leaves in `result` keeps the compiler from leaving it out.
using PeakLoop = void (*)(const uint8_t* buffer, int64_t times, uint8_t* result);
constexpr int kPeakOperations = 256, kMostVectorBytes = 64;

struct LookupBody {
  LookupForm form;
  bool slow;
  PeakLoop lookups;  // each added to a sum; null: not known
  void (*run)(const LookupJob& job, const uint8_t* x, const uint8_t* residual, void* y);
};

// Layers that are kept in full precision between layers of integers: products of floats, on panels. An entry is a tap.
constexpr int kFullFilters = 4;  // that share loads of the panel

struct FullJob : PanelJob {
  bool floats;           // x is float32, else uint8_t
  const float* weights;  // [blocks of kFullFilters][taps][kFullFilters]
  const float* bias;     // [K]
  float *padded, *panel;
};

// Activations of another step size: y = min(((x * multiplier >> 8) + bias) >> shift, most). No intermediate value leaves 16
// bits but the product, of which vectors keep the upper 16.
struct RegridRule {
  int32_t multiplier, bias, shift, most;  // multiplier and bias from 0 to 65535, shift 0 to 8, most 0 to 255
};

// Bytes of floats: y = clamp(round(x / step), low, high) + zero.
struct QuantizeGrid {
  float step, low, high, zero;  // zero is -low
};

struct IntegerKernel {
  const char* isa;
  int32_t vector_bytes;
  int32_t most_rows_bytes, most_rows_words;  // of a tile: what registers hold
  double load, add;                          // cycles of a vector load and of a vector addition
  bool (*supported)();
  void (*run_table)(const IntegerJob& job, const uint8_t* x, const uint8_t* residual, void* y);
  const LookupBody* (*lookup)();             // the best that the CPU can run
  void (*run_full)(const FullJob& job, const void* x, uint8_t* y);
  OuterBody (*outer)();                      // the best that the CPU can run
  void (*quantize)(const float* x, int64_t count, const QuantizeGrid& grid, uint8_t* y);
  void (*regrid)(const uint8_t* x, int64_t count, const RegridRule& rule, uint8_t* y);
  // y[k] = bias[k] + sum over c of weight[c][k] * x[c].
  void (*linear)(const float* x, int64_t C, const float* weight, const float* bias, int64_t K, float* y);
  PeakLoop additions, bytes, words;  // of vectors in registers; of vectors of bytes or words as they are loaded
};

// Plain C++, for CPUs without the instructions that `lookup` is for; AVX2; AVX-512 with VBMI and VNNI.
extern const LookupBody kLookupPlain, kLookupAvx2, kLookupAvx512;

// Compiled into this library, the widest last. `supported` asks the CPU.
extern const IntegerKernel* const kIntegerKernels[];
extern const int kIntegerKernelCount;

extern const IntegerKernel kIntegerScalar, kIntegerAvx2, kIntegerAvx512, kIntegerNeon;  // each in its own file

}  // namespace sbkit
