// Data-flow graphs of the dataflow algorithm: which sums a tile's filters share. Offline and plain C++; knows nothing
// about instructions or layouts.
//
// A tile is `channels` consecutive channels with all R*S taps, for all K filters. Its input c*R*S + r*S + s is the
// activation under tap (r, s) of the tile's c-th channel. What it must compute is given as sets of inputs: what each
// row (rows.h) adds, such as the codes +1 of a filter, is one set, and what it subtracts is another.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "conv.h"

namespace sbkit {

// Values 0..inputs-1 are the tile's inputs; value inputs + i is node i, the sum of two earlier values, the smaller one
// first. sums[i] lists the values, ascending, whose sum is that of set i.
struct Graph {
  int32_t inputs = 0;
  std::vector<std::array<int32_t, 2>> nodes;
  std::vector<std::vector<int32_t>> sums;

  // Additions per output position: one a node, and one for each value of each sum (accumulators start at zero).
  int64_t adds() const;
};

using Sets = std::vector<std::vector<int32_t>>;

// Greedy merging of shared pairs: while some pair of values occurs in two sets or more, the most frequent (ties: the
// smallest first value, then the smallest second) becomes a node and replaces the pair in every set that holds both.
// Each node thus saves an addition or more. The result depends on nothing but the sets, not even on their order.
// Throws std::invalid_argument for an input outside 0..inputs-1 or twice in a set.
Graph merge_pairs(int32_t inputs, const Sets& sets);

// The number of channels per tile, of 1, 2, 4, 8, 16 and 32 up to C, whose graphs need the fewest additions per channel
// (ties: the fewest channels), judged by merging a few tiles across the layer. Larger tiles share more, but a kernel
// keeps all values of a tile at hand. Sizes whose judged tiles have more than `most_values` inputs and nodes are
// therefore out, although in rare cases a tile that was not judged has more. `sets_of` gives the sets of the tile that
// starts at `first_channel`. Throws std::invalid_argument if one channel is too many.
int choose_tile(const ConvShape& shape, const std::function<Sets(int64_t first_channel, int64_t channels)>& sets_of,
                int64_t most_values);

}  // namespace sbkit
