// The masks of channels that a layer's filters add or subtract, and the program that makes a table of their sums.
#pragma once

#include <unordered_map>
#include <vector>

#include "integer.h"
#include "integer_kernels.h"

namespace sbkit {

// For every filter, group of channels and tap: the channels to add and those to subtract, bit c being the group's
// channel c. With `rewritten`, filter 0 is the shared sum of all activations and the others follow.
class FilterMasks {
 public:
  FilterMasks(const IntegerRequest& request, int group);

  const int group, filters, groups, taps;
  // `sign` is 0 for the channels to add, 1 for those to subtract.
  uint32_t at(int64_t filter, int64_t group_index, int64_t tap, int sign) const {
    return masks_[((filter * groups + group_index) * taps + tap) * 2 + sign];
  }
  const std::vector<uint32_t>& all() const { return masks_; }

 private:
  std::vector<uint32_t> masks_;  // [filters][groups][taps][2]
};

// The slots of a table: slot 0 is the empty mask's, of zeros. Masks of more than `capacity` channels are the sum of
// several, which are slots in their place.
class MaskTable {
 public:
  MaskTable(const FilterMasks& masks, int capacity);

  int slots() const { return slots_; }
  int slot(uint32_t mask) const { return slot_of_.at(mask); }
  const std::vector<int>& channel_slots() const { return channel_slots_; }  // [group], -1: not needed
  const std::vector<IntegerStep>& steps() const { return steps_; }          // in slots
  int64_t entries() const { return entries_; }                              // of all filters, groups and taps
  int64_t nonzeros() const { return nonzeros_; }

  // Takes as many channels off the mask as one entry may have, and returns them.
  uint32_t take(uint32_t* mask) const;

 private:
  void require(uint32_t mask);
  int capacity_, slots_ = 1;
  int64_t entries_ = 0, nonzeros_ = 0;
  std::unordered_map<uint32_t, int> slot_of_;
  std::vector<uint32_t> made_;  // masks with a slot, those with few channels first
  std::vector<int> channel_slots_;
  std::vector<IntegerStep> steps_;
};

}  // namespace sbkit
