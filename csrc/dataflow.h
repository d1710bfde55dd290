// Data-flow graphs of the dataflow algorithm: which sums a tile's filters share. Offline and plain C++; knows nothing
// about instructions or layouts.
//
// A tile is `channels` consecutive channels with all R*S taps, for all K filters. Its input c*R*S + r*S + s is the
// activation under tap (r, s) of the tile's c-th channel. What it must compute is given as sets of inputs: each part of
// each row (pack.h), such as the codes +1 of a filter, is one.
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

// Values of a graph, inputs and nodes, that a plan can hold: its indices have 16 bits.
constexpr int64_t kMaxValues = 65535;

// Throws std::invalid_argument unless the graph computes exactly these sets, each input of a set once, and has at most
// kMaxValues values.
void check_graph(const Graph& graph, const Sets& sets);

// The number of channels per tile, of 1, 2, 4, 8, 16 and 32 up to C, whose graphs need the fewest additions per channel
// (ties: the fewest channels), judged by merging a few tiles across the layer. Larger tiles share more, but a kernel
// keeps all values of a tile at hand: sizes whose judged tiles have more than `most_values` are out. (A tile that was
// not judged can in rare cases have more.) `sets_of` gives the sets of the tile that starts at `first_channel`. Throws
// std::invalid_argument if one channel is too many.
int choose_tile(const ConvShape& shape, const std::function<Sets(int64_t first_channel, int64_t channels)>& sets_of,
                int64_t most_values = kMaxValues);

// Graphs as flat arrays, to be saved.
struct GraphArrays {
  std::vector<int32_t> graphs;   // of each graph: inputs, number of nodes, number of sums
  std::vector<int32_t> nodes;    // of each node: its two values
  std::vector<int32_t> lengths;  // of each sum: how many values
  std::vector<int32_t> sums;     // those values
};

GraphArrays to_arrays(const std::vector<Graph>& graphs);

// The inverse. Throws std::invalid_argument for arrays that to_arrays cannot have written: every index of a graph that
// it returns is in range. That the graphs compute the right sums is for check_graph to say.
std::vector<Graph> from_arrays(const GraphArrays& arrays);

}  // namespace sbkit
