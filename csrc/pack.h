// Offline packing: from codes to the lists that the kernels walk. Knows nothing about instructions, only how many lanes
// a vector has.
//
// A *row* is one sum over a set of a filter's codes, and one accumulator. Encodings:
//
//   two_group  the codes +1, and the codes -1, where they occur: y = scale*plus - negative_scale*minus.
//              A signed-binary filter with one sign has one row, and costs what a {0,1} filter costs.
//   rewritten  the codes +1, and one row shared by all filters that sums everything: y = 2*scale*plus - scale*total.
//              Only for codes -1 and +1 with one scale.
//
// With skip_zeros off, `sparse` has a further row of the codes 0 (one more unique weight, of coefficient 0), and
// `table` adds entry 0, a vector of zeros, where a row's pattern in a channel group is empty; with skip_zeros on
// neither is touched.
#pragma once

#include <mutex>
#include <string>

#include "conv.h"
#include "kernels.h"

namespace sbkit {

struct PlanOptions {
  bool table = true;  // false: sparse
  bool skip_zeros = true;
  bool rewritten = false;
  int group = 0;  // G of the table algorithm; 0: chosen by the cost model
  int threads = 1;
};

constexpr int kMaxGroup = 10;

class Plan {
 public:
  Plan(const ConvShape& shape, const Weights& weights, const Kernel& kernel, const PlanOptions& options);
  void run(const float* x,
           float* y);  // x [N][C][H][W] -> y [N][K][P][Q]; calls on one plan take turns, it owns the buffers

  int group() const { return job_.group; }
  int64_t weight_bytes() const;  // what the online side reads: entries, row headers, terms
  const Operations& operations() const { return operations_; }
  std::string geometry() const;  // "grid 1x4x4, tile 2x2, 2 groups a pass"

 private:
  struct Row {
    int64_t filter;  // -1: the row of everything
    int8_t code;
  };
  struct Geometry {
    Grid grid;
    int32_t tile_h, tile_w, group, groups_per_pass;
  };
  void choose_geometry(const PlanOptions& options);
  void lay_out(const Geometry& geometry);
  double cycles(const PlanOptions& options) const;
  void allocate(int threads);
  void fill_lists(const Weights& weights, bool skip_zeros);
  bool selects(const Weights& weights, const Row& row, int64_t c, int64_t tap) const;

  ConvShape shape_;
  const Kernel& kernel_;
  double row_density_ = 0;  // fraction of a row's codes that it sums, on average
  std::vector<Row> rows_;
  std::vector<Term> terms_;
  std::vector<int32_t> first_term_;
  std::vector<Pass> passes_;
  std::vector<PassRow> pass_rows_;
  std::vector<uint16_t> entries_;
  std::vector<float> channel_sign_;
  AlignedBuffer packed_, plane_, table_, accumulators_;
  Job job_{};
  Operations operations_;
  std::mutex mutex_;
};

}  // namespace sbkit
