#include "pack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace sbkit {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

double l1_bytes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  if (bytes > 0) return double(bytes);
#endif
  return 32768;
}

constexpr int64_t kMaxSlots = 65536;  // entries are 16 bits

}  // namespace

Plan::Plan(const ConvShape& shape, const Weights& weights, const Kernel& kernel, const PlanOptions& options)
    : shape_(shape), kernel_(kernel), channel_sign_(weights.channel_sign) {
  const int64_t K = shape.K, per_filter = shape.C * shape.R * shape.S;
  checked_product({shape.N, shape.C, shape.H + 2 * shape.padding, shape.W + 2 * shape.padding});
  checked_product({shape.N, K, shape.P(), shape.Q()});
  int64_t selected = 0;
  first_term_.push_back(0);
  for (int64_t k = 0; k < K; k++) {
    const int8_t* codes = weights.codes.data() + k * per_filter;
    auto add_row = [&](int8_t code, float coefficient) {
      const int64_t count = std::count(codes, codes + per_filter, code);
      if (count == 0) return;
      selected += count;
      terms_.push_back({static_cast<int32_t>(rows_.size()), coefficient});
      rows_.push_back({k, code});
    };
    if (options.rewritten) {
      add_row(1, 2 * weights.scale[k]);
      terms_.push_back({-1, -weights.scale[k]});  // the shared row, numbered below
    } else {
      add_row(1, weights.scale[k]);
      add_row(-1, -weights.negative_scale[k]);
      if (!options.table && !options.skip_zeros) add_row(0, 0);
    }
    first_term_.push_back(static_cast<int32_t>(terms_.size()));
  }
  if (options.rewritten) {
    for (Term& term : terms_) {
      if (term.row < 0) term.row = static_cast<int32_t>(rows_.size());
    }
    rows_.push_back({-1, 0});
    selected += per_filter;
  }
  row_density_ = rows_.empty() ? 0 : double(selected) / (double(rows_.size()) * per_filter);
  choose_geometry(options);
  allocate(options.threads);
  fill_lists(weights, options.skip_zeros);

  const int64_t outputs = shape.P() * shape.Q();
  operations_.entry_adds = outputs * static_cast<int64_t>(entries_.size());
  operations_.multiplies = outputs * static_cast<int64_t>(terms_.size());
  for (int64_t k = 0; k < K; k++)
    operations_.combine_adds += outputs * std::max(first_term_[k + 1] - first_term_[k] - 1, 0);
  if (options.table) {
    const int64_t touched = ((shape.P() - 1) * shape.stride + shape.R) * ((shape.Q() - 1) * shape.stride + shape.S);
    for (int64_t c = 0; c < shape.C; c += job_.group) {
      const int64_t size = std::min<int64_t>(job_.group, shape.C - c);
      operations_.table_adds += touched * ((int64_t{1} << size) - size - 1);
    }
  }
}

// Tries grids, tiles, G and groups per pass, and keeps the one of the least estimated cycles.
void Plan::choose_geometry(const PlanOptions& options) {
  const int lanes = kernel_.lanes;
  const int first_group = !options.table ? 0 : options.group ? options.group : 1;
  const int last_group = !options.table ? 0 : options.group ? options.group : std::min<int>(kMaxGroup, shape_.C);
  const int most_groups = options.table ? 4 : 128;  // of a pass; without tables a group is one channel
  Geometry best{};
  double least = std::numeric_limits<double>::infinity();
  Geometry g{};
  for (g.grid.n = 1; g.grid.n <= lanes && g.grid.n < 2 * shape_.N; g.grid.n *= 2) {
    for (g.grid.h = 1; g.grid.h <= lanes / g.grid.n; g.grid.h *= 2) {
      g.grid.w = lanes / g.grid.n / g.grid.h;
      for (g.tile_h = 1; g.tile_h <= kMaxTileRows; g.tile_h++) {
        for (g.tile_w = 1; g.tile_w <= kMaxPositions / g.tile_h; g.tile_w++) {
          for (g.group = first_group; g.group <= last_group; g.group++) {
            for (g.groups_per_pass = 1; g.groups_per_pass <= most_groups; g.groups_per_pass *= 2) {
              lay_out(g);
              const double cost = cycles(options);
              if (cost < least) least = cost, best = g;
            }
          }
        }
      }
    }
  }
  if (std::isinf(least)) {
    throw std::invalid_argument("a " + std::to_string(shape_.R) + "x" + std::to_string(shape_.S) +
                                " window with group " + std::to_string(options.group) +
                                " needs more than 65536 slots per tile; use a smaller group");
  }
  lay_out(best);
}

// Fills the job's sizes for one geometry.
void Plan::lay_out(const Geometry& g) {
  const int64_t stride = shape_.stride;
  Job& job = job_;
  auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  job.N = shape_.N, job.C = shape_.C, job.H = shape_.H, job.W = shape_.W, job.K = shape_.K;
  job.P = shape_.P(), job.Q = shape_.Q();
  job.stride = narrow(stride), job.padding = narrow(shape_.padding);
  job.grid = g.grid, job.tile_h = g.tile_h, job.tile_w = g.tile_w;
  job.block_h = narrow(ceil_div(job.P, g.grid.h)), job.block_w = narrow(ceil_div(job.Q, g.grid.w));
  job.strips = narrow(ceil_div(job.block_h, g.tile_h)), job.tiles = narrow(ceil_div(job.block_w, g.tile_w));
  job.packed_h = narrow((int64_t{job.strips} * g.tile_h - 1) * stride + shape_.R);
  job.packed_w = narrow((int64_t{job.tiles} * g.tile_w - 1) * stride + shape_.S);
  job.table_h = narrow((g.tile_h - 1) * stride + shape_.R), job.table_w = narrow((g.tile_w - 1) * stride + shape_.S);
  job.packed_columns = narrow(ceil_div(job.packed_w, stride) * stride);
  job.columns = g.group ? narrow(ceil_div(job.table_w, stride) * stride) : job.packed_columns;
  job.group = g.group;
  job.slots = g.groups_per_pass << g.group;
  job.pass_channels = g.groups_per_pass * std::max(g.group, 1);
  job.rows = narrow(static_cast<int64_t>(rows_.size()));
  job.plane_h = (g.grid.h - 1) * job.block_h * stride + job.packed_h;
  job.plane_w = (g.grid.w - 1) * job.block_w * stride + ceil_div(job.packed_w, kernel_.lanes) * kernel_.lanes;
}

// Estimated cycles of the job as laid out; infinite where it cannot be. The constants were fitted on one core with
// AVX-512; what matters is their order of magnitude: a load and add from the first-level cache against a store and
// against a miss.
double Plan::cycles(const PlanOptions& options) const {
  constexpr double kAdd = 0.55, kEntry = 0.8, kRow = 3, kAccumulator = 1.5, kStore = 1.5, kMiss = 1.2, kTranspose = 6;
  const Job& job = job_;
  const double infinite = std::numeric_limits<double>::infinity();
  if (int64_t{job.table_h} * job.columns * job.slots > kMaxSlots) return infinite;
  if (job.tile_h > job.block_h || job.tile_w > job.block_w) return infinite;
  if (job.pass_channels >= 2 * shape_.C && job.slots > 1 << job.group) return infinite;  // a pass half empty
  const double lanes = kernel_.lanes, l1 = l1_bytes(), rows = job.rows;
  const double passes = double(ceil_div(shape_.C, job.pass_channels));
  const double positions = job.tile_h * job.tile_w, inputs = double(job.table_h) * job.table_w;
  const double tile_bytes = inputs * job.slots * lanes * sizeof(float);
  const double in_l1 = std::min(1.0, 0.8 * l1 / tile_bytes);
  const double row_bytes = rows * positions * lanes * sizeof(float);
  const bool spilled = tile_bytes + row_bytes > 0.8 * l1;

  const int channels = std::max(job.group, 1);
  const double used = job.group && !options.skip_zeros ? 1 : 1 - std::pow(1 - row_density_, channels);
  const double entries = rows * double(ceil_div(shape_.C, channels)) * double(shape_.R * shape_.S) * used;
  const double add = entries * (kEntry + positions * (kAdd + (1 - in_l1) * kMiss));
  const double fill = job.group ? passes * inputs * job.slots * kStore : 0;
  const double accumulate = passes * rows * (kRow + positions * (kAccumulator + (spilled ? 2 * kMiss : 0)));
  const double transposes = double(shape_.C) * job.packed_h * double(ceil_div(job.packed_w, kernel_.lanes)) +
                            double(shape_.K) * job.block_h * double(ceil_div(job.block_w, kernel_.lanes));
  return double(ceil_div(shape_.N, job.grid.n)) *
         (double(ceil_div(job.strips, options.threads)) * job.tiles * (add + fill + accumulate) +
          transposes * kTranspose * lanes / options.threads);
}

void Plan::allocate(int threads) {
  Job& job = job_;
  const int64_t lanes = kernel_.lanes, channels = ceil_div(shape_.C, job.pass_channels) * job.pass_channels;
  // In whole vectors of the widest kind, so that every thread's part is aligned.
  auto aligned = [](std::initializer_list<int64_t> sizes) { return ceil_div(checked_product(sizes), 16) * 16; };
  job.threads = threads;
  job.plane_stride = aligned({job.grid.n, job.plane_h, job.plane_w});
  job.table_stride = job.group ? aligned({job.table_h, job.columns, job.slots, lanes}) : 0;
  job.accumulators_stride = aligned({job.tiles, job.rows, job.tile_h, job.tile_w, lanes});
  packed_ = AlignedBuffer(checked_product({channels, job.packed_h, job.packed_columns, lanes}));
  plane_ = AlignedBuffer(checked_product({job.plane_stride, threads}));
  table_ = AlignedBuffer(checked_product({job.table_stride, threads}));
  accumulators_ = AlignedBuffer(checked_product({job.accumulators_stride, threads}));
  job.packed = packed_.get(), job.plane = plane_.get(), job.table = table_.get();
  job.accumulators = accumulators_.get();
}

bool Plan::selects(const Weights& weights, const Row& row, int64_t c, int64_t tap) const {
  return row.filter < 0 || weights.codes[(row.filter * shape_.C + c) * shape_.R * shape_.S + tap] == row.code;
}

void Plan::fill_lists(const Weights& weights, bool skip_zeros) {
  const Job& job = job_;
  const int64_t row_count = static_cast<int64_t>(rows_.size());
  std::vector<std::vector<uint16_t>> lists(rows_.size());
  std::vector<int32_t> order(rows_.size());
  for (int64_t first = 0; first < shape_.C; first += job_.pass_channels) {
    const int64_t channels = std::min<int64_t>(job.pass_channels, shape_.C - first);
    for (int64_t i = 0; i < row_count; i++) {
      lists[i].clear();
      for (int64_t r = 0; r < shape_.R; r++) {
        for (int64_t s = 0; s < shape_.S; s++) {
          const int64_t column = s % job.stride * (job.columns / job.stride) + s / job.stride, tap = r * shape_.S + s;
          auto add = [&](int64_t slot) {
            lists[i].push_back(static_cast<uint16_t>((r * job.slots + slot) * job.columns + column));
          };
          if (job.group == 0) {
            for (int64_t c = 0; c < channels; c++) {
              if (selects(weights, rows_[i], first + c, tap)) add(c);
            }
            continue;
          }
          for (int64_t c = 0; c < channels; c += job.group) {
            int64_t subset = 0;
            for (int64_t bit = 0; bit < std::min<int64_t>(job.group, channels - c); bit++) {
              subset |= int64_t{selects(weights, rows_[i], first + c + bit, tap)} << bit;
            }
            const int64_t table = c / job.group << job.group;
            if (subset != 0 || !skip_zeros) add(table + subset);
          }
        }
      }
    }
    // Rows of equally many entries one after the other: the inner loop's length is then predictable. The first pass
    // visits every row, because it is the one that sets the accumulators.
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return lists[a].size() < lists[b].size(); });
    Pass pass{static_cast<int32_t>(first), static_cast<int32_t>(channels), static_cast<int32_t>(pass_rows_.size()), 0,
              static_cast<int64_t>(entries_.size())};
    for (int32_t i : order) {
      if (lists[i].empty() && first > 0) continue;
      pass_rows_.push_back({i, static_cast<int32_t>(lists[i].size())});
      entries_.insert(entries_.end(), lists[i].begin(), lists[i].end());
      pass.rows++;
    }
    passes_.push_back(pass);
  }
  job_.passes = static_cast<int32_t>(passes_.size());
  job_.pass = passes_.data(), job_.pass_rows = pass_rows_.data(), job_.entries = entries_.data();
  job_.terms = terms_.data(), job_.first_term = first_term_.data(), job_.channel_sign = channel_sign_.data();
}

int64_t Plan::weight_bytes() const {
  return static_cast<int64_t>(entries_.size() * sizeof(uint16_t) + pass_rows_.size() * sizeof(PassRow) +
                              terms_.size() * sizeof(Term));
}

std::string Plan::geometry() const {
  auto text = [](int64_t value) { return std::to_string(value); };
  const Job& j = job_;
  return "grid " + text(j.grid.n) + "x" + text(j.grid.h) + "x" + text(j.grid.w) + ", tile " + text(j.tile_h) + "x" +
         text(j.tile_w) + ", " + text(job_.pass_channels) + " channels a pass";
}

void Plan::run(const float* x, float* y) {
  std::lock_guard<std::mutex> lock(mutex_);
  kernel_.run(job_, x, y);
}

}  // namespace sbkit
