// Look-ups whose bytes are added before they are widened: `lookup` in chains. See integer_kernels.h for the bounds.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace sbkit {

constexpr int kChainLanes = 32;

struct ChainItem {  // one look-up, of each lane's filter
  int64_t table = 0;
  std::array<uint8_t, kChainLanes> code{}, sign{};
  std::array<uint8_t, kChainLanes> most{};  // of what a lane adds to its byte
};

// The items in chains of one length, the cheapest, the last of a chain with nothing to add where it is not full.
struct Chained {
  int length = 1;
  std::vector<ChainItem> items;
};
Chained chained(const std::vector<ChainItem>& items, bool has_signs);

// The first items of parts whose 16-bit sums hold, in each lane.
std::vector<int> parts_of(const Chained& chained);

// Vector instructions of a chain at one position, loads left out.
int chain_instructions(int length, bool has_signs);

}  // namespace sbkit
