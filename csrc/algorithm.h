// What a packed algorithm decides: which slots a pass has, the program that fills them (kernels.h), and which slots a
// row adds. Grids, tiles and lists are the same for all (geometry.h, lists.h).
//
// A new algorithm is one file, algorithm_<name>.cpp, and one row of the table in algorithms.cpp.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "layer.h"
#include "rows.h"

namespace sbkit {

struct Entries {
  std::vector<uint16_t> adds, subtracts;
};

class Algorithm {
 public:
  Algorithm(const Request& request, bool zeros_have_rows) : request(request), rows(request, zeros_have_rows) {}
  virtual ~Algorithm() = default;

  const Request& request;
  const Rows rows;

  // What the geometry may choose from.
  int first_group = 0, last_group = 0;  // channels of a group; 0: every channel stands for itself
  int most_groups_per_pass = 1;
  int most_filter_blocks = 1;
  bool own_programs = false;  // whether each pass has a program of its own; else those of equally many channels share

  // Sets slots, columns, fill_h, fill_step, copy_w and below of a job that has all its other sizes. Leaves slots at 0
  // if the group is too large to make.
  virtual void lay_out_slots(Job* job) const = 0;
  // For the cost model: the entries of all rows and passes, and the steps of all passes at one fill position.
  virtual int64_t entries(int group) const = 0;
  virtual int64_t steps(const Job& job) const = 0;
  // Appends the copies and steps of a pass.
  virtual void write_program(const Job& job, const Pass& pass, std::vector<Copy>* copies,
                             std::vector<Step>* steps) const = 0;
  // Appends the entries of rows.all[row] in a pass.
  virtual void list(const Job& job, const Pass& pass, int32_t row, Entries* entries) const = 0;
  // Adds what the steps of all passes cost at batch 1.
  virtual void count(int64_t steps, Operations* operations) const = 0;

 protected:
  // Where input column s lies among `columns` that are sorted by their remainder modulo the stride.
  static int64_t column(const Job& job, int64_t s, int64_t columns) {
    return s % job.stride * (columns / job.stride) + s / job.stride;
  }
  // The entry of slot 0 under tap (r, s), where fill rows are input rows; each further slot is job.columns on.
  static int64_t first_entry(const Job& job, int64_t r, int64_t s) {
    return r * job.slots * job.columns + column(job, s, job.columns);
  }
};

std::unique_ptr<Algorithm> make_sparse(const Request& request);
std::unique_ptr<Algorithm> make_table(const Request& request);
std::unique_ptr<Algorithm> make_dataflow(const Request& request);

struct AlgorithmRow {
  std::string name;
  std::vector<std::pair<Encoding, int>> most_channels;  // of a group, by the encodings that the algorithm has
  std::unique_ptr<Layer> (*prepare)(const Request& request);
};

extern const std::vector<AlgorithmRow> kAlgorithms;

}  // namespace sbkit
