// Patterns of codes and the programs that make tables of their sums.
//
// A pattern holds the code of each channel of a group: it is the number sum of digit[c] * 3^c, where the digit is 0 for
// the code 0, 1 for +1 and 2 for -1.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "limits.h"
#include "rows.h"

namespace sbkit {

struct RowPatterns {
  int added = 0, subtracted = 0;  // of digits 0 and 1
  int whole() const { return added + 2 * subtracted; }
  int opposite() const { return subtracted + 2 * added; }
};

// What a row adds and what it subtracts of a group of channels, at one tap.
inline RowPatterns row_patterns(const Rows& rows, const Row& row, int64_t first_channel, int channels, int64_t tap) {
  RowPatterns patterns;
  for (int c = 0, power = 1; c < channels; c++, power *= 3) {
    const CodeSet code = rows.code(row, first_channel + c, tap);
    patterns.added += code & row.add ? power : 0;
    patterns.subtracted += code & row.subtract ? power : 0;
  }
  return patterns;
}

// All patterns but the empty one of `channels` channels whose digits lie between `least` and `most`.
std::vector<int> all_patterns(int channels, int least, int most);

// The patterns that occur in the layer, each up to its sign, in the groups of exactly `channels` channels where groups
// are of `group`; nothing if there are more than kMostPatterns.
std::optional<std::vector<int>> occurring_patterns(const ConvShape& shape, const Rows& rows, int group, int channels);

// How the table of a group of channels is made. Each pattern, up to its sign, has a slot of the table. Single channels
// are copied in. Any other pattern takes one add: it is the sum or difference of the pattern of its lower half of the
// channels, rounded up, and that of its upper half, which are made likewise.
class TableProgram {
 public:
  struct Slot {
    int index;
    bool negated;  // whether the slot holds the opposite of the pattern
  };
  TableProgram() = default;  // without slots: none can be made
  TableProgram(int channels, const std::vector<int>& patterns, bool zero_slot);

  int slots() const { return slots_; }
  const std::vector<int>& channel_slots() const { return channel_slots_; }
  const std::vector<Step>& steps() const { return steps_; }  // in slots
  Slot slot(int pattern) const;                              // of a pattern that has one

 private:
  int require(int pattern, int first, int size);
  int slots_ = 0;
  std::vector<int> channel_slots_;
  std::vector<Step> steps_;
  std::unordered_map<int, int> slot_of_;  // by pattern, 2 * slot + negated
};

}  // namespace sbkit
