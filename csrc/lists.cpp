#include "lists.h"

#include <algorithm>
#include <numeric>

namespace sbkit {

namespace {

template <class T>
int32_t count(const std::vector<T>& values) {
  return narrow(static_cast<int64_t>(values.size()));
}

class Packer {
 public:
  Packer(const Algorithm& algorithm, const Job& job) : algorithm_(algorithm), rows_(algorithm.rows) {
    packing_.job = job;
    packing_.first_term.push_back(0);
  }

  Packing run() {
    for (int32_t b = 0; b < packing_.job.blocks; b++) {
      add_block(b);
      std::vector<Entries> lists(block_rows_.size());
      for (int32_t p = 0; p < packing_.job.passes; p++) add_pass(b, p, &lists);
    }
    allocate();
    point();
    return std::move(packing_);
  }

 private:
  // Consecutive filters, their rows, and how the rows join into outputs.
  void add_block(int32_t b) {
    Job& job = packing_.job;
    const int64_t first_filter = job.K * b / job.blocks, end_filter = job.K * (b + 1) / job.blocks;
    packing_.blocks.push_back({narrow(first_filter), narrow(end_filter - first_filter), b * job.passes});
    const int32_t first_row = rows_.first[first_filter];
    own_rows_ = rows_.first[end_filter] - first_row;
    block_rows_.resize(static_cast<size_t>(own_rows_));
    std::iota(block_rows_.begin(), block_rows_.end(), first_row);
    if (!rows_.shared.empty()) block_rows_.push_back(count(rows_.all) - 1);
    job.most_rows = std::max(job.most_rows, count(block_rows_));
    for (int64_t k = first_filter; k < end_filter; k++) {
      for (int32_t i = rows_.first[k]; i < rows_.first[k + 1]; i++)
        packing_.terms.push_back({i - first_row, rows_.coefficients[i]});
      if (!rows_.shared.empty()) packing_.terms.push_back({own_rows_, rows_.shared[k]});
      packing_.first_term.push_back(count(packing_.terms));
    }
  }

  void add_pass(int32_t b, int32_t p, std::vector<Entries>* lists) {
    const Job& job = packing_.job;
    Pass pass{};
    pass.first_channel = p * job.pass_channels;
    pass.channels = narrow(std::min<int64_t>(job.pass_channels, job.C - pass.first_channel));
    add_program(b, p, &pass);
    for (size_t i = 0; i < lists->size(); i++) {
      Entries& list = (*lists)[i];
      list.adds.clear(), list.subtracts.clear();
      algorithm_.list(job, pass, block_rows_[i], &list);
    }
    // Rows of equally many entries stand one after the other, which makes the inner loops' lengths predictable. The
    // first pass visits every row, because it is the one that sets the accumulators.
    std::vector<int32_t> order(lists->size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) {
      const Entries &a = (*lists)[i], &b = (*lists)[j];
      return std::pair(a.adds.size(), a.subtracts.size()) < std::pair(b.adds.size(), b.subtracts.size());
    });
    pass.first_row = count(packing_.pass_rows);
    pass.first_entry = static_cast<int64_t>(packing_.entries.size());
    for (const int32_t i : order) {
      const auto& [adds, subtracts] = (*lists)[i];
      if (adds.empty() && subtracts.empty() && p > 0) continue;
      packing_.entries.insert(packing_.entries.end(), adds.begin(), adds.end());
      packing_.entries.insert(packing_.entries.end(), subtracts.begin(), subtracts.end());
      packing_.pass_rows.push_back({i, static_cast<uint16_t>(adds.size()), static_cast<uint16_t>(subtracts.size())});
      pass.rows++;
      if (b > 0 && i == own_rows_) packing_.repeated_entries += static_cast<int64_t>(adds.size());
    }
    packing_.passes.push_back(pass);
  }

  void add_program(int32_t b, int32_t p, Pass* pass) {
    const Pass* before = nullptr;  // a pass with the same program
    if (b > 0) {
      before = &packing_.passes[p];
    } else if (p > 0 && !algorithm_.own_programs && pass->channels == packing_.passes.back().channels) {
      before = &packing_.passes.back();
    }
    if (before) {
      pass->first_copy = before->first_copy, pass->copies = before->copies;
      pass->first_step = before->first_step, pass->steps = before->steps;
      return;
    }
    pass->first_copy = count(packing_.copies), pass->first_step = count(packing_.steps);
    algorithm_.write_program(packing_.job, *pass, &packing_.copies, &packing_.steps);
    pass->copies = count(packing_.copies) - pass->first_copy, pass->steps = count(packing_.steps) - pass->first_step;
  }

  void allocate() {
    Job& job = packing_.job;
    const int64_t lanes = algorithm_.request.kernel->lanes, channels = int64_t{job.passes} * job.pass_channels;
    // In whole vectors of the widest kind, so that every thread's part is aligned.
    auto aligned = [](std::initializer_list<int64_t> sizes) { return ceil_div(checked_product(sizes), 16) * 16; };
    job.plane_stride = aligned({job.grid.n, job.plane_h, job.plane_w});
    job.table_stride = aligned({job.fill_h, job.columns, job.slots, lanes});
    job.accumulators_stride = aligned({job.tiles, job.most_rows, job.tile_h, job.tile_w, lanes});
    packing_.packed = AlignedBuffer(checked_product({channels, job.packed_h, job.packed_columns, lanes}));
    packing_.plane = AlignedBuffer(checked_product({job.plane_stride, job.threads}));
    packing_.table = AlignedBuffer(checked_product({job.table_stride, job.threads}));
    packing_.accumulators = AlignedBuffer(checked_product({job.accumulators_stride, job.threads}));
    std::fill_n(packing_.plane.get(), job.plane_stride * job.threads, 0.0f);  // the padding; the image is written over
    std::fill_n(packing_.table.get(), job.table_stride * job.threads, 0.0f);  // the slots of zeros
  }

  void point() {
    Job& job = packing_.job;
    packing_.channel_sign = algorithm_.request.weights.channel_sign;
    packing_.bias = algorithm_.request.bias;
    job.block = packing_.blocks.data(), job.pass = packing_.passes.data();
    job.copies = packing_.copies.data(), job.steps = packing_.steps.data();
    job.pass_rows = packing_.pass_rows.data(), job.entries = packing_.entries.data();
    job.terms = packing_.terms.data(), job.first_term = packing_.first_term.data();
    job.channel_sign = packing_.channel_sign.data(), job.bias = packing_.bias.data();
    job.relu = algorithm_.request.relu;
    job.packed = packing_.packed.get(), job.plane = packing_.plane.get(), job.table = packing_.table.get();
    job.accumulators = packing_.accumulators.get();
  }

  const Algorithm& algorithm_;
  const Rows& rows_;
  Packing packing_;
  std::vector<int32_t> block_rows_;  // of the block at hand, in Rows::all; the shared row last
  int32_t own_rows_ = 0;             // of these, the rows that are not shared
};

}  // namespace

int64_t Packing::weight_bytes() const {
  return static_cast<int64_t>(entries.size() * sizeof(uint16_t) + pass_rows.size() * sizeof(PassRow) +
                              copies.size() * sizeof(Copy) + steps.size() * sizeof(Step) + terms.size() * sizeof(Term));
}

// As one thread executes them: threads that share filters out each make their own tables and their own shared row.
Operations Packing::operations(const Algorithm& algorithm) const {
  const int64_t outputs = job.P * job.Q;
  Operations found;
  found.entry_adds = outputs * (static_cast<int64_t>(entries.size()) - repeated_entries);
  found.multiplies = outputs * static_cast<int64_t>(terms.size());
  for (int64_t k = 0; k < job.K; k++)
    found.combine_adds += outputs * std::max(first_term[k + 1] - first_term[k] - 1, 0);
  int64_t all_steps = 0;
  for (int32_t p = 0; p < job.passes; p++) all_steps += passes[p].steps;
  algorithm.count(all_steps, &found);
  return found;
}

Packing pack(const Algorithm& algorithm, const Job& job) { return Packer(algorithm, job).run(); }

}  // namespace sbkit
