// Packing: from codes to the lists that the kernels walk.
#pragma once

#include <vector>

#include "algorithm.h"

namespace sbkit {

// All that a run reads and its buffers. Moving a packing leaves the pointers of its job valid.
struct Packing {
  Job job{};
  std::vector<Block> blocks;
  std::vector<Term> terms;
  std::vector<int32_t> first_term;
  std::vector<Pass> passes;
  std::vector<Copy> copies;
  std::vector<Step> steps;
  std::vector<PassRow> pass_rows;
  std::vector<uint16_t> entries;
  std::vector<float> channel_sign, bias;
  AlignedBuffer packed, plane, table, accumulators;
  int64_t repeated_entries = 0;  // of the shared row, in all filter blocks but the first

  int64_t weight_bytes() const;
  Operations operations(const Algorithm& algorithm) const;
};

// The lists and buffers of a job with these sizes.
Packing pack(const Algorithm& algorithm, const Job& job);

}  // namespace sbkit
