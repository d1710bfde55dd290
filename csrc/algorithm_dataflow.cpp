// `dataflow` makes, per output position and tile of channels, the nodes of a graph of sums that all filters share
// (dataflow.h). A row then adds the values that are left of its sets of inputs.
#include <algorithm>

#include "algorithm.h"
#include "dataflow.h"

namespace sbkit {

namespace {

constexpr int64_t kCachedValues = 2048;  // of a graph: 128 KiB of 64-byte vectors, beyond which sums are slow to fetch

class Dataflow : public Algorithm {
 public:
  explicit Dataflow(const Request& request) : Algorithm(request, !request.skip_zeros) {
    own_programs = true;
    const ConvShape& shape = request.shape;
    int tile = request.group;
    if (tile == 0) {
      tile = choose_tile(
          shape, [this](int64_t first, int64_t channels) { return sets(first, channels); }, kCachedValues);
    }
    first_group = last_group = narrow(std::min<int64_t>(tile, shape.C));
    for (int64_t first = 0; first < shape.C; first += first_group) {
      const int64_t channels = std::min<int64_t>(first_group, shape.C - first);
      graphs_.push_back(merge_pairs(narrow(channels * shape.R * shape.S), sets(first, channels)));
      const int64_t nodes = static_cast<int64_t>(graphs_.back().nodes.size());
      nodes_ += nodes, entries_ += graphs_.back().adds() - nodes;
      most_values_ = std::max(most_values_, graphs_.back().inputs + nodes);
    }
    size_t set = 0;
    for (const Row& row : rows.all) {
      first_set_.push_back(set);
      set += (row.add != 0) + (row.subtract != 0);
    }
  }

  void lay_out_slots(Job* job) const override {
    job->slots = narrow(most_values_);
    job->columns = job->copy_w = job->tile_w;
    job->fill_h = job->tile_h, job->fill_step = job->stride;
    job->below = job->slots * job->columns;
  }

  int64_t entries(int) const override { return entries_; }
  int64_t steps(const Job&) const override { return nodes_; }

  void write_program(const Job& job, const Pass& pass, std::vector<Copy>* copies,
                     std::vector<Step>* steps) const override {
    int32_t slot = 0;
    for (int32_t c = 0; c < pass.channels; c++) {
      for (int64_t r = 0; r < request.shape.R; r++) {
        for (int64_t s = 0; s < request.shape.S; s++) {
          const int64_t packed_row = (r * job.pass_channels + c) * job.packed_columns;
          copies->push_back({slot++ * job.columns, narrow(packed_row + column(job, s, job.packed_columns))});
        }
      }
    }
    auto at = [&](int32_t value) { return static_cast<uint16_t>(value * job.columns); };
    for (const auto& node : graph(job, pass).nodes) steps->push_back({at(slot++), at(node[0]), at(node[1]), 0});
  }

  void list(const Job& job, const Pass& pass, int32_t row, Entries* entries) const override {
    size_t set = first_set_[row];
    auto copy = [&](std::vector<uint16_t>* to) {
      for (const int32_t value : graph(job, pass).sums[set]) to->push_back(static_cast<uint16_t>(value * job.columns));
      set++;
    };
    if (rows.all[row].add) copy(&entries->adds);
    if (rows.all[row].subtract) copy(&entries->subtracts);
  }

  void count(int64_t steps, Operations* operations) const override {
    operations->node_adds = steps * request.shape.P() * request.shape.Q();
  }

 private:
  // What a tile computes: for each row the inputs that it adds, then those that it subtracts.
  Sets sets(int64_t first_channel, int64_t channels) const {
    const int64_t taps = request.shape.R * request.shape.S;
    Sets found;
    for (const Row& row : rows.all) {
      std::vector<int32_t> added, subtracted;
      for (int64_t c = 0; c < channels; c++) {
        for (int64_t tap = 0; tap < taps; tap++) {
          const CodeSet code = rows.code(row, first_channel + c, tap);
          if (code & row.add) added.push_back(narrow(c * taps + tap));
          if (code & row.subtract) subtracted.push_back(narrow(c * taps + tap));
        }
      }
      if (row.add) found.push_back(std::move(added));
      if (row.subtract) found.push_back(std::move(subtracted));
    }
    return found;
  }

  const Graph& graph(const Job& job, const Pass& pass) const {
    return graphs_[static_cast<size_t>(pass.first_channel / job.pass_channels)];
  }

  std::vector<Graph> graphs_;      // one a tile
  std::vector<size_t> first_set_;  // of each row
  int64_t nodes_ = 0, entries_ = 0, most_values_ = 0;
};

}  // namespace

std::unique_ptr<Algorithm> make_dataflow(const Request& request) { return std::make_unique<Dataflow>(request); }

}  // namespace sbkit
