// Offline packing: from codes to the lists that the kernels walk. Knows nothing about instructions, only how many lanes
// a vector has.
//
// A *row* is one sum over a filter's codes, and one accumulator. Encodings:
//
//   two_group  the codes +1 added, the codes -1 subtracted. Filters whose -1 has another scale than their +1 have two
//              rows. A signed-binary filter costs what a {0,1} filter costs, whatever the sign of its regions as long
//              as a region is no smaller than a channel group.
//   rewritten  the codes +1, and one row shared by all filters that sums everything: y = 2*scale*plus - scale*total.
//              Only for codes -1 and +1 with one scale.
//   signed     of `table` alone: a channel group's whole pattern, +1 and -1 together, is one entry of the table, up to
//              its sign. Only with one scale.
//   codebook   of `table` alone: as `signed`, but the table holds only patterns that occur in the layer. Where training
//              has limited those, groups can be larger. Only with one scale.
//
// With skip_zeros off, `sparse` and `dataflow` have a further row of the codes 0 (one more unique weight, of
// coefficient 0), and `table` adds a vector of zeros where a row's pattern in a channel group is empty; with skip_zeros
// on neither is touched.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "conv.h"
#include "dataflow.h"
#include "kernels.h"

namespace sbkit {

enum class Algorithm { kSparse, kTable, kDataflow };
enum class Encoding { kTwoGroup, kRewritten, kSigned, kCodebook };

struct PlanOptions {
  Algorithm algorithm = Algorithm::kTable;
  Encoding encoding = Encoding::kTwoGroup;
  bool skip_zeros = true;
  int group = 0;  // channels of a table or of a graph; 0: chosen here
  int threads = 1;
  bool tune = false;        // time the cost model's best choices and keep the fastest
  std::vector<float> bias;  // [K]
  bool relu = false;
  std::vector<Graph> graphs;     // of `dataflow`, one a tile, as planned before; empty: planned here
  std::vector<int32_t> choices;  // of the geometry, as Plan::choices gave them before; empty: made here
};

constexpr int kMaxGroup = 10;         // of `table`
constexpr int kMaxTernaryGroup = 6;   // of `table`, signed, with codes of all three values
constexpr int kMaxCodebookGroup = 16;  // of `table`, codebook
constexpr int kMaxPatterns = 1024;     // of one table, codebook
constexpr int kMaxTileChannels = 32;  // of `dataflow`

// How the table of a group of channels is made. A pattern holds a code of each channel. Patterns up to their sign have
// one slot each; single channels are copied in, any other pattern is the sum or difference of the pattern of its lower
// half of the channels, rounded up, and that of its upper half, made likewise: one add a pattern.
class TableProgram {
 public:
  TableProgram() = default;
  // Of `channels` channels, with slots for `patterns`: each is the sum of digit[c] * 3^c, digit being 0, 1 for the code
  // +1, 2 for -1.
  TableProgram(int channels, const std::vector<int>& patterns, bool zero_slot);

  int slots() const { return slots_; }
  const std::vector<int>& channel_slots() const { return channel_slots_; }
  const std::vector<Step>& steps() const { return steps_; }  // in slots
  // Of a pattern that has one; negated if the slot holds the opposite.
  int slot(int pattern, bool* negated) const;

 private:
  int require(int pattern, int first, int size);
  int slots_ = 0;
  std::vector<int> channel_slots_;
  std::vector<Step> steps_;
  std::unordered_map<int, int> slot_of_;  // by pattern, 2 * slot + negated
};

class Plan {
 public:
  Plan(const ConvShape& shape, const Weights& weights, const Kernel& kernel, const PlanOptions& options);
  // x [N][C][H][W] -> y [N][K][P][Q], residual null or of y's shape; calls on one plan take turns, it owns the buffers
  void run(const float* x, const float* residual, float* y);

  int group() const { return packing_.job.group; }
  double cost() const { return cost_; }  // estimated cycles or, tuned, seconds: to compare plans made alike
  int64_t weight_bytes() const;          // what the online side reads: entries, row headers, programs, terms
  const Operations& operations() const { return operations_; }
  std::string geometry() const;  // "grid 1x4x4, tile 2x2, 8 channels a pass"
  const std::vector<Graph>& graphs() const { return options_.graphs; }
  std::vector<int32_t> choices() const;  // what geometry() says, to make the same plan again

 private:
  struct Row {
    int64_t filter;        // -1: the row of everything
    int8_t add, subtract;  // codes whose activations are added, subtracted; kNone: none
  };
  struct Geometry {
    Grid grid{};
    int32_t tile_h = 0, tile_w = 0, group = 0, groups_per_pass = 0, blocks = 0;
    std::vector<int32_t> choices() const {
      return {grid.n, grid.h, grid.w, tile_h, tile_w, group, groups_per_pass, blocks};
    }
  };
  struct Packing {  // what a run reads; moving it leaves the job's pointers valid
    Job job{};
    std::vector<Block> blocks;
    std::vector<Term> terms;
    std::vector<int32_t> first_term;
    std::vector<Pass> passes;
    std::vector<Copy> copies;
    std::vector<Step> steps;
    std::vector<PassRow> pass_rows;
    std::vector<uint16_t> entries;
    AlignedBuffer packed, plane, table, accumulators;
    int64_t repeated_entries = 0;  // of the shared row, in all filter blocks but the first
  };
  static constexpr int8_t kNone = 2;

  void make_rows();
  void plan_graphs();
  Sets sets_of(int64_t first_channel, int64_t channels) const;
  void count_entries(int first_group, int last_group);
  std::vector<std::pair<double, Geometry>> geometries();
  void choose_geometry();
  void lay_out(const Geometry& geometry);
  double cycles(const Geometry& geometry) const;
  void build(const Geometry& geometry);
  Packing fastest(std::vector<Packing> candidates);
  void allocate();
  void fill_lists();
  void fill_program(Pass* pass);
  void list_entries(const Row& row, const Pass& pass, std::vector<uint16_t>* adds, std::vector<uint16_t>* subtracts);
  void count_operations();
  int8_t code(const Row& row, int64_t c, int64_t tap) const {
    return weights_.codes[(row.filter * shape_.C + c) * shape_.R * shape_.S + tap];
  }
  bool whole_patterns() const {
    return options_.encoding == Encoding::kSigned || options_.encoding == Encoding::kCodebook;
  }
  std::pair<int, int> added_and_subtracted(const Row& row, int64_t first_channel, int channels, int64_t tap) const;
  std::optional<std::vector<int>> patterns(int group, int channels) const;
  const TableProgram& program(int group, int channels);

  ConvShape shape_;
  Weights weights_;
  const Kernel& kernel_;
  PlanOptions options_;
  bool mixed_ = false, zeros_ = false;        // a filter with codes of both signs; any code 0
  std::map<std::pair<int, int>, TableProgram> programs_;  // by channels of a group and of this one: the last is smaller
  std::vector<int64_t> entry_count_;          // by group
  std::vector<std::vector<int64_t>> values_;  // of `dataflow`: nodes and entries, by tile
  std::vector<Row> rows_;                     // by filter, the shared row last
  std::vector<int32_t> first_row_;            // [K + 1]
  std::vector<float> coefficients_;           // of the rows
  Packing packing_;
  double cost_ = 0;
  Operations operations_;
  std::mutex mutex_;
};

}  // namespace sbkit
