#include "integer_chains.h"

#include <stdexcept>

namespace sbkit {

namespace {

struct Chain {
  std::array<int, kChainLanes> most{};  // of the lanes' sums
  std::vector<int> items;
};

bool fits(const Chain& chain, const ChainItem& item) {
  bool beyond = false;
  for (int i = 0; i < kChainLanes; i++) beyond |= chain.most[i] + item.most[i] > 255;
  return !beyond;
}

// Each item goes into the oldest chain with room, of the few that are kept open, so that items of one tap stay close.
std::vector<Chain> chains_of(const std::vector<ChainItem>& items, size_t length) {
  constexpr size_t kOpen = 16;
  std::vector<Chain> closed, open;
  for (size_t i = 0; i < items.size(); i++) {
    size_t at = 0;
    while (at < open.size() && !fits(open[at], items[i])) at++;
    if (at == open.size()) {
      if (open.size() == kOpen) closed.push_back(open.front()), open.erase(open.begin()), at--;
      open.emplace_back();
    }
    for (int lane = 0; lane < kChainLanes; lane++) open[at].most[lane] += items[i].most[lane];
    open[at].items.push_back(static_cast<int>(i));
    if (open[at].items.size() == length) closed.push_back(open[at]), open.erase(open.begin() + at);
  }
  closed.insert(closed.end(), open.begin(), open.end());
  return closed;
}

}  // namespace

int chain_instructions(int length, bool has_signs) { return length * (has_signs ? 3 : 2) + 2; }

Chained chained(const std::vector<ChainItem>& items, bool has_signs) {
  std::vector<Chain> best;
  int best_length = 0;
  for (int length : {1, 2, 3, 4, 6, 8}) {
    std::vector<Chain> found = chains_of(items, length);
    if (best_length && found.size() * chain_instructions(length, has_signs) >=
                           best.size() * chain_instructions(best_length, has_signs))
      continue;
    best = std::move(found), best_length = length;
  }
  Chained chained;
  chained.length = best_length;
  for (const Chain& chain : best) {
    for (int most : chain.most) {
      if (most > 255) throw std::logic_error("a chain of look-ups overflows");
    }
    for (int i : chain.items) chained.items.push_back(items[i]);
    while (chained.items.size() % best_length) chained.items.emplace_back();
  }
  return chained;
}

std::vector<int> parts_of(const Chained& chained) {
  constexpr int kMost16 = 65535;
  std::vector<int> parts{0};
  std::array<int, kChainLanes> sums{};
  for (size_t first = 0; first < chained.items.size(); first += chained.length) {
    std::array<int, kChainLanes> most{};
    bool beyond = false;
    for (int lane = 0; lane < kChainLanes; lane++) {
      for (int i = 0; i < chained.length; i++) most[lane] += chained.items[first + i].most[lane];
      beyond |= sums[lane] + most[lane] > kMost16;
    }
    if (beyond) parts.push_back(static_cast<int>(first)), sums.fill(0);
    for (int lane = 0; lane < kChainLanes; lane++) sums[lane] += most[lane];
  }
  return parts;
}

}  // namespace sbkit
