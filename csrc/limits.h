// How much a plan can hold. sbkit/way.py has the limits of groups and patterns too, and a test holds the two equal.
#pragma once

#include <cstdint>

namespace sbkit {

// Channels of a table, by what its patterns are made of, and of a tile of `dataflow`.
constexpr int kMostSubsetChannels = 10, kMostTernaryChannels = 6, kMostCodebookChannels = 16;
constexpr int kMostDataflowChannels = 32;
constexpr int kMostPatterns = 1024;  // of one table
constexpr int kMostThreads = 1024;
constexpr int64_t kMostSlots = 65535;  // entries and their counts have 16 bits

}  // namespace sbkit
