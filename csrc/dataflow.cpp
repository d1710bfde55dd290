#include "dataflow.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <stdexcept>
#include <string>

#include "limits.h"

namespace sbkit {

namespace {

// The state of merge_pairs. How many sets hold a pair is counted when its later value is created, and can only fall
// from then on, because a value is never put back into a set. Pairs therefore wait in buckets by their last known
// count; a pair is counted again when its turn comes, and moved down if it has lost sets meanwhile.
class Merger {
 public:
  Merger(int32_t inputs, const Sets& sets)
      : words_((sets.size() + 63) / 64), buckets_(sets.size() + 1), shared_(sets.size()) {
    graph_.inputs = inputs;
    graph_.sums = sets;
    for (int32_t value = 0; value < inputs; value++) add_value();
    for (size_t i = 0; i < sets.size(); i++) {
      std::vector<int32_t>& set = graph_.sums[i];
      std::sort(set.begin(), set.end());
      for (size_t j = 0; j < set.size(); j++) {
        if (set[j] < 0 || set[j] >= inputs || (j > 0 && set[j] == set[j - 1])) {
          throw std::invalid_argument("a set holds input " + std::to_string(set[j]) +
                                      "; allowed: each of 0 to inputs - 1 = " + std::to_string(inputs - 1) + " once");
        }
        add_holder(set[j], static_cast<int32_t>(i));
      }
    }
    for (int32_t first = 0; first < inputs; first++) {
      for (int32_t set : holders_[first]) {
        const std::vector<int32_t>& values = graph_.sums[set];
        for (auto v = std::upper_bound(values.begin(), values.end(), first); v < values.end(); v++) meet(*v);
      }
      for (int32_t second : met_) {
        if (together_[second] > 1) buckets_[together_[second]].push_back({first, second});
      }
      forget();
    }
  }

  Graph run() {
    for (size_t count = buckets_.size() - 1; count > 1; count--) {
      std::vector<Pair> known = std::move(buckets_[count]);
      known.erase(std::remove_if(known.begin(), known.end(), [&](const Pair& pair) { return !still(pair, count); }),
                  known.end());
      std::sort(known.begin(), known.end());
      auto next = known.begin();
      std::priority_queue<Pair, std::vector<Pair>, std::greater<Pair>> created;  // with this count, meanwhile
      while (next < known.end() || !created.empty()) {
        Pair pair;
        if (created.empty() || (next < known.end() && *next < created.top())) {
          pair = *next++;
        } else {
          pair = created.top();
          created.pop();
        }
        if (!still(pair, count)) continue;
        const int32_t node = merge(pair, count);
        for (int32_t value : met_) {
          const size_t both = together_[value];
          if (both == count) {
            created.push({value, node});
          } else if (both > 1) {
            buckets_[both].push_back({value, node});
          }
        }
        forget();
      }
    }
    return std::move(graph_);
  }

 private:
  using Pair = std::array<int32_t, 2>;

  void add_value() {
    holders_.emplace_back();
    bits_.resize(bits_.size() + words_);
    together_.push_back(0);
  }

  void add_holder(int32_t value, int32_t set) {
    holders_[value].push_back(set);
    bits_[value * words_ + set / 64] |= uint64_t{1} << set % 64;
  }

  // Whether `count` sets still hold the pair. They are then in shared_; if not, the pair moves to its new bucket.
  bool still(const Pair& pair, size_t count) {
    const bool swap = holders_[pair[1]].size() < holders_[pair[0]].size();
    const uint64_t* bits = bits_.data() + pair[swap ? 0 : 1] * words_;
    size_t shared = 0;
    for (int32_t set : holders_[pair[swap ? 1 : 0]]) {
      shared_[shared] = set;  // overwritten by the next unless it counts: no branch to mispredict
      shared += bits[set / 64] >> set % 64 & 1;
    }
    if (shared == count) return true;
    if (shared > 1) buckets_[shared].push_back(pair);
    return false;
  }

  // Replaces the pair by a new node in the shared sets, and meets the values that the node shares them with.
  int32_t merge(const Pair& pair, size_t count) {
    const int32_t node = graph_.inputs + static_cast<int32_t>(graph_.nodes.size());
    graph_.nodes.push_back(pair);
    add_value();
    for (size_t i = 0; i < count; i++) {
      const int32_t set = shared_[i];
      std::vector<int32_t>& values = graph_.sums[set];
      size_t kept = 0;
      for (int32_t value : values) {
        if (value == pair[0] || value == pair[1]) continue;
        values[kept++] = value;
        meet(value);
      }
      values.resize(kept);
      values.push_back(node);
      add_holder(node, set);
    }
    for (int32_t value : pair) {
      uint64_t* bits = bits_.data() + value * words_;
      for (size_t i = 0; i < count; i++) bits[shared_[i] / 64] &= ~(uint64_t{1} << shared_[i] % 64);
      std::vector<int32_t>& holders = holders_[value];
      holders.erase(std::remove_if(holders.begin(), holders.end(),
                                   [bits](int32_t set) { return !(bits[set / 64] >> set % 64 & 1); }),
                    holders.end());
    }
    return node;
  }

  void meet(int32_t value) {
    if (together_[value]++ == 0) met_.push_back(value);
  }

  void forget() {
    for (int32_t value : met_) together_[value] = 0;
    met_.clear();
  }

  Graph graph_;  // its sums are the sets as they are now
  size_t words_;
  std::vector<std::vector<int32_t>> holders_;  // of each value: the sets that hold it, and the same as bits
  std::vector<uint64_t> bits_;
  std::vector<std::vector<Pair>> buckets_;  // by count
  std::vector<int32_t> shared_;             // the sets that hold the pair at hand
  std::vector<int32_t> met_, together_;     // the values met, and how often
};

}  // namespace

int64_t Graph::adds() const {
  int64_t count = static_cast<int64_t>(nodes.size());
  for (const auto& sum : sums) count += static_cast<int64_t>(sum.size());
  return count;
}

Graph merge_pairs(int32_t inputs, const Sets& sets) {
  if (inputs < 0) throw std::invalid_argument("inputs = " + std::to_string(inputs) + "; allowed: an integer >= 0");
  return Merger(inputs, sets).run();
}

int choose_tile(const ConvShape& shape, const std::function<Sets(int64_t, int64_t)>& sets_of, int64_t most_values) {
  constexpr int kJudgedChannels = 16, kJudgedTiles = 2;  // judge at least so many of each
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int size = 1; size <= kMostDataflowChannels && size <= shape.C; size *= 2) {
    const int64_t whole_tiles = shape.C / size, inputs = size * shape.R * shape.S;
    const int64_t judged = std::min<int64_t>(whole_tiles, std::max(kJudgedTiles, kJudgedChannels / size));
    int64_t adds = 0, values = inputs;
    for (int64_t i = 0; i < judged && values <= most_values; i++) {
      const Graph graph = merge_pairs(static_cast<int32_t>(inputs), sets_of(i * whole_tiles / judged * size, size));
      adds += graph.adds();
      values = std::max(values, inputs + static_cast<int64_t>(graph.nodes.size()));
    }
    if (values > most_values) break;  // larger tiles have more
    const double per_channel = double(adds) / double(judged * size);
    if (per_channel < least) least = per_channel, best = size;
  }
  if (best == 0) {
    throw std::invalid_argument("one channel of " + std::to_string(shape.K) + " filters of " + std::to_string(shape.R) +
                                "x" + std::to_string(shape.S) + " needs more than " + std::to_string(most_values) +
                                " values; use another algorithm");
  }
  return best;
}

}  // namespace sbkit
