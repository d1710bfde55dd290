#include "patterns.h"

#include <algorithm>
#include <utility>

namespace sbkit {

namespace {

constexpr int kPowerOfThree[kMostCodebookChannels + 1] = {
    1,     3,      9,      27,      81,      243,      729,     2187, 6561, 19683,
    59049, 177147, 531441, 1594323, 4782969, 14348907, 43046721};

int digit(int pattern, int channel) { return pattern / kPowerOfThree[channel] % 3; }

// The pattern of all opposite codes.
int opposite(int pattern, int channels) {
  int result = 0;
  for (int c = 0; c < channels; c++) result += (3 - digit(pattern, c)) % 3 * kPowerOfThree[c];
  return result;
}

}  // namespace

std::vector<int> all_patterns(int channels, int least, int most) {
  std::vector<int> found;
  for (int pattern = 1; pattern < kPowerOfThree[channels]; pattern++) {
    bool allowed = true;
    for (int c = 0; c < channels && allowed; c++) allowed = digit(pattern, c) >= least && digit(pattern, c) <= most;
    if (allowed) found.push_back(pattern);
  }
  return found;
}

std::optional<std::vector<int>> occurring_patterns(const ConvShape& shape, const Rows& rows, int group, int channels) {
  std::vector<int> found;
  std::vector<bool> seen(static_cast<size_t>(kPowerOfThree[channels]));
  const int64_t tail = shape.C - shape.C % group;  // the last channels, if they are fewer than a group
  for (int64_t c = channels == group ? 0 : tail; c + channels <= shape.C; c += group) {
    for (const Row& row : rows.all) {
      for (int64_t tap = 0; tap < shape.R * shape.S; tap++) {
        const RowPatterns patterns = row_patterns(rows, row, c, channels, tap);
        const int pattern = std::min(patterns.whole(), patterns.opposite());
        if (seen[pattern]) continue;
        seen[pattern] = true;
        found.push_back(pattern);
        if (found.size() > kMostPatterns) return std::nullopt;
      }
    }
  }
  return found;
}

TableProgram::TableProgram(int channels, const std::vector<int>& patterns, bool zero_slot) {
  if (zero_slot) slot_of_[0] = 2 * slots_++;
  for (int c = 0; c < channels; c++) {
    slot_of_[kPowerOfThree[c]] = 2 * slots_;
    slot_of_[2 * kPowerOfThree[c]] = 2 * slots_ + 1;
    channel_slots_.push_back(slots_++);
  }
  for (const int pattern : patterns) {
    if (pattern != 0) require(pattern, 0, channels);
  }
  // Sums of equal depth do not wait for each other, and additions next to additions keep the loop's branch predictable.
  std::vector<int> depth(static_cast<size_t>(slots_), 0);
  for (const Step& step : steps_) depth[step.to] = std::max(depth[step.a], depth[step.b]) + 1;
  std::stable_sort(steps_.begin(), steps_.end(), [&](const Step& a, const Step& b) {
    return std::pair(depth[a.to], a.subtract) < std::pair(depth[b.to], b.subtract);
  });
}

// 2 * slot + negated of a pattern that touches only channels first .. first + size - 1. Makes the pattern if it is new.
int TableProgram::require(int pattern, int first, int size) {
  const auto known = slot_of_.find(pattern);
  if (known != slot_of_.end()) return known->second;
  const int half = (size + 1) / 2, split = kPowerOfThree[first + half];
  const int lower = pattern % split, upper = pattern - lower;
  int found;
  if (lower == 0) {
    found = require(upper, first + half, size - half);
  } else if (upper == 0) {
    found = require(lower, first, half);
  } else {
    const int a = require(lower, first, half), b = require(upper, first + half, size - half);
    found = 2 * slots_ + (a & 1);
    auto field = [](int value) { return static_cast<uint16_t>(value); };
    steps_.push_back({field(slots_++), field(a / 2), field(b / 2), field((a ^ b) & 1)});
  }
  slot_of_[pattern] = found;
  slot_of_[opposite(pattern, static_cast<int>(channel_slots_.size()))] = found ^ 1;
  return found;
}

TableProgram::Slot TableProgram::slot(int pattern) const {
  const int found = slot_of_.at(pattern);
  return {found / 2, (found & 1) == 1};
}

}  // namespace sbkit
