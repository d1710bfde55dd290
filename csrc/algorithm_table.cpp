// `table` makes, per input position and group of channels, the sums of the patterns of codes that a row can have there
// (patterns.h). A row then adds or subtracts one slot for each group and tap.
#include <algorithm>
#include <map>

#include "algorithm.h"
#include "patterns.h"

namespace sbkit {

namespace {

class Table : public Algorithm {
 public:
  explicit Table(const Request& request)
      : Algorithm(request, false),
        codebook_(request.encoding == Encoding::kCodebook),
        whole_patterns_(codebook_ || request.encoding == Encoding::kSigned),
        both_signs_(request.encoding == Encoding::kSigned && rows.mixed) {
    most_groups_per_pass = 4;
    most_filter_blocks = request.threads;
    const int most = codebook_                   ? kMostCodebookChannels
                     : both_signs_ && rows.zeros ? kMostTernaryChannels
                                                 : kMostSubsetChannels;
    first_group = request.group ? request.group : 1;
    last_group = request.group ? request.group : narrow(std::min<int64_t>(most, request.shape.C));
    for (int group = first_group; group <= last_group; group++) {
      add_program(group, group);
      if (request.shape.C % group) add_program(group, narrow(request.shape.C % group));
      entries_[group] = program(group, group).slots() ? count_entries(group) : 0;
    }
  }

  void lay_out_slots(Job* job) const override {
    const int64_t stride = job->stride;
    const int32_t slots = program(job->group, job->group).slots(), tail = narrow(request.shape.C % job->group);
    const int32_t tail_slots = tail ? program(job->group, tail).slots() : slots;
    const int32_t groups = job->pass_channels / job->group;
    job->slots = std::min(slots, tail_slots) == 0 ? 0 : groups * std::max(slots, tail_slots);
    job->columns = narrow(ceil_div((job->tile_w - 1) * stride + request.shape.S, stride) * stride);
    job->fill_h = narrow((job->tile_h - 1) * stride + request.shape.R), job->fill_step = 1;
    job->copy_w = job->columns / job->stride;
    job->below = narrow(stride * job->slots * job->columns);
  }

  int64_t entries(int group) const override { return entries_.at(group); }
  int64_t steps(const Job& job) const override { return int64_t{job.passes} * job.slots; }

  void write_program(const Job& job, const Pass& pass, std::vector<Copy>* copies,
                     std::vector<Step>* steps) const override {
    const int32_t columns = job.columns, packed = job.packed_columns, stride = job.stride;
    int32_t first_slot = 0;
    for (int32_t c = 0; c < pass.channels; c += job.group) {
      const TableProgram& made = program(job.group, std::min(job.group, pass.channels - c));
      for (int32_t i = 0; i < static_cast<int32_t>(made.channel_slots().size()); i++) {
        for (int32_t m = 0; m < stride; m++) {  // columns of remainder m
          copies->push_back({(first_slot + made.channel_slots()[i]) * columns + m * (columns / stride),
                             (c + i) * packed + m * (packed / stride)});
        }
      }
      auto at = [&](int32_t slot) { return static_cast<uint16_t>((first_slot + slot) * columns); };
      for (const Step& step : made.steps()) steps->push_back({at(step.to), at(step.a), at(step.b), step.subtract});
      first_slot += made.slots();
    }
  }

  void list(const Job& job, const Pass& pass, int32_t index, Entries* entries) const override {
    const Row& row = rows.all[index];
    for (int64_t r = 0; r < request.shape.R; r++) {
      for (int64_t s = 0; s < request.shape.S; s++) {
        int64_t first = first_entry(job, r, s);
        for (int32_t c = 0; c < pass.channels; c += job.group) {
          const int32_t size = std::min(job.group, pass.channels - c);
          const TableProgram& made = program(job.group, size);
          auto look_up = [&](int pattern, bool subtract) {
            if (pattern == 0 && request.skip_zeros) return;
            const auto [slot, negated] = made.slot(pattern);
            auto& to = subtract != negated ? entries->subtracts : entries->adds;
            to.push_back(static_cast<uint16_t>(first + slot * job.columns));
          };
          const int64_t tap = r * request.shape.S + s;
          const RowPatterns patterns = row_patterns(rows, row, pass.first_channel + c, size, tap);
          if (whole_patterns_) {
            look_up(patterns.whole(), false);
          } else {
            if (row.add) look_up(patterns.added, false);
            if (row.subtract) look_up(patterns.subtracted, true);
          }
          first += int64_t{made.slots()} * job.columns;
        }
      }
    }
  }

  void count(int64_t steps, Operations* operations) const override {
    const ConvShape& shape = request.shape;
    operations->table_adds =
        steps * ((shape.P() - 1) * shape.stride + shape.R) * ((shape.Q() - 1) * shape.stride + shape.S);
  }

 private:
  const TableProgram& program(int group, int channels) const { return programs_.at({group, channels}); }

  void add_program(int group, int channels) {
    std::optional<std::vector<int>> wanted;
    if (codebook_) {
      wanted = occurring_patterns(request.shape, rows, group, channels);
    } else {  // all of an alphabet: {0,1}, {-1,+1} or {-1,0,+1}
      wanted = all_patterns(channels, both_signs_ && !rows.zeros ? 1 : 0, both_signs_ ? 2 : 1);
    }
    programs_[{group, channels}] = wanted ? TableProgram(channels, *wanted, !request.skip_zeros) : TableProgram();
  }

  int64_t count_entries(int group) const {
    int64_t count = 0;
    for (const Row& row : rows.all) {
      for (int64_t c = 0; c < request.shape.C; c += group) {
        const int64_t end = std::min<int64_t>(c + group, request.shape.C);
        for (int64_t tap = 0; tap < request.shape.R * request.shape.S; tap++) {
          CodeSet found = request.skip_zeros ? kNone : row.add | row.subtract;
          for (int64_t i = c; i < end; i++) found |= rows.code(row, i, tap);
          const bool adds = found & row.add, subtracts = found & row.subtract;
          count += whole_patterns_ ? adds || subtracts : adds + subtracts;
        }
      }
    }
    return count;
  }

  const bool codebook_, whole_patterns_, both_signs_;
  std::map<std::pair<int, int>, TableProgram> programs_;  // by channels of a group and of this one, fewer if the last
  std::map<int, int64_t> entries_;                        // by channels of a group
};

}  // namespace

std::unique_ptr<Algorithm> make_table(const Request& request) { return std::make_unique<Table>(request); }

}  // namespace sbkit
