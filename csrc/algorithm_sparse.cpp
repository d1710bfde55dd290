// `sparse` adds the activations of the codes of a row. Its slots are the packed activations themselves, in place.
#include "algorithm.h"

namespace sbkit {

namespace {

class Sparse : public Algorithm {
 public:
  explicit Sparse(const Request& request) : Algorithm(request, !request.skip_zeros) {
    most_groups_per_pass = 128;
    most_filter_blocks = request.threads;
    for (const Row& row : rows.all) {
      for (int64_t c = 0; c < request.shape.C; c++) {
        for (int64_t tap = 0; tap < request.shape.R * request.shape.S; tap++) {
          entries_ += (rows.code(row, c, tap) & (row.add | row.subtract)) != 0;
        }
      }
    }
  }

  void lay_out_slots(Job* job) const override {
    job->slots = job->pass_channels;
    job->columns = job->packed_columns;
    job->fill_h = job->fill_step = job->copy_w = 0;
    job->below = job->stride * job->slots * job->columns;
  }

  int64_t entries(int) const override { return entries_; }
  int64_t steps(const Job&) const override { return 0; }
  void write_program(const Job&, const Pass&, std::vector<Copy>*, std::vector<Step>*) const override {}

  void list(const Job& job, const Pass& pass, int32_t index, Entries* entries) const override {
    const Row& row = rows.all[index];
    for (int64_t r = 0; r < request.shape.R; r++) {
      for (int64_t s = 0; s < request.shape.S; s++) {
        int64_t entry = first_entry(job, r, s);
        for (int64_t c = 0; c < pass.channels; c++, entry += job.columns) {
          const CodeSet code = rows.code(row, pass.first_channel + c, r * request.shape.S + s);
          if (code & row.add) entries->adds.push_back(static_cast<uint16_t>(entry));
          if (code & row.subtract) entries->subtracts.push_back(static_cast<uint16_t>(entry));
        }
      }
    }
  }

  void count(int64_t, Operations*) const override {}

 private:
  int64_t entries_ = 0;
};

}  // namespace

std::unique_ptr<Algorithm> make_sparse(const Request& request) { return std::make_unique<Sparse>(request); }

}  // namespace sbkit
