#include "integer_masks.h"

#include <algorithm>
#include <map>

namespace sbkit {

FilterMasks::FilterMasks(const IntegerRequest& request, int group)
    : group(group),
      filters(narrow(request.shape.K) + request.rewritten),
      groups(narrow(ceil_div(request.shape.C, group))),
      taps(narrow(request.shape.R * request.shape.S)),
      masks_(static_cast<size_t>(filters) * groups * taps * 2) {
  const int64_t C = request.shape.C;
  for (int64_t f = 0; f < filters; f++) {
    const int64_t k = f - request.rewritten;
    for (int64_t c = 0; c < C; c++) {
      for (int64_t tap = 0; tap < taps; tap++) {
        const int code = k < 0 ? 1 : request.codes[(k * C + c) * taps + tap];
        if (code == 0 || (code < 0 && request.rewritten)) continue;
        masks_[((f * groups + c / group) * taps + tap) * 2 + (code < 0)] |= 1u << c % group;
      }
    }
  }
}

uint32_t MaskTable::take(uint32_t* mask) const {
  uint32_t part = *mask;
  while (__builtin_popcount(part) > capacity_) part &= part - 1;
  *mask ^= part;
  return part;
}

MaskTable::MaskTable(const FilterMasks& masks, int capacity) : capacity_(capacity), channel_slots_(masks.group, -1) {
  std::map<uint32_t, int64_t> occurring;
  if (masks.group <= 16) {
    std::vector<int64_t> count(size_t{1} << masks.group);
    for (uint32_t mask : masks.all()) count[mask]++;
    for (uint32_t mask = 1; mask < count.size(); mask++) {
      if (count[mask]) occurring[mask] = count[mask];
    }
  }
  std::vector<uint32_t> parts;
  for (const auto& [mask, count] : occurring) {
    nonzeros_ += count * __builtin_popcount(mask);
    for (uint32_t rest = mask; rest; entries_ += count) parts.push_back(take(&rest));
  }
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  std::stable_sort(parts.begin(), parts.end(),
                   [](uint32_t a, uint32_t b) { return __builtin_popcount(a) < __builtin_popcount(b); });
  slot_of_[0] = 0;
  uint32_t channels = 0;
  for (uint32_t part : parts) channels |= part;
  for (int c = 0; c < masks.group; c++) {
    if (channels >> c & 1) require(1u << c);
  }
  // Searching what a mask can be made of takes long for many masks, and tables of many masks are of no use.
  constexpr size_t kMostMasks = 1024;
  if (parts.size() > kMostMasks) {
    slots_ = 1 << 20;
    return;
  }
  for (uint32_t part : parts) require(part);
}

void MaskTable::require(uint32_t mask) {
  if (slot_of_.count(mask)) return;
  if ((mask & (mask - 1)) == 0) {
    channel_slots_[__builtin_ctz(mask)] = slots_;
  } else {
    uint32_t largest = 0;  // of those that the mask contains
    for (size_t i = made_.size(); i-- > 0;) {
      const uint32_t part = made_[i];
      if ((part & mask) != part) continue;
      if (!largest || __builtin_popcount(part) > __builtin_popcount(largest)) largest = part;
      if (!slot_of_.count(mask ^ part)) continue;
      largest = part;
      break;
    }
    require(mask ^ largest);
    steps_.push_back({slots_, slot_of_.at(largest), slot_of_.at(mask ^ largest)});
  }
  slot_of_[mask] = slots_++;
  made_.push_back(mask);
}

}  // namespace sbkit
