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
  fill_lists(weights, options.skip_zeros);

  const int64_t outputs = shape.P() * shape.Q();
  operations_.entry_adds = outputs * static_cast<int64_t>(entries_.size());
  operations_.multiplies = outputs * static_cast<int64_t>(terms_.size());
  for (int64_t k = 0; k < K; k++) operations_.combine_adds += outputs * std::max(first_term_[k + 1] - first_term_[k] - 1, 0);
  if (options.table) {
    const int64_t touched = ((shape.P() - 1) * shape.stride + shape.R) * ((shape.Q() - 1) * shape.stride + shape.S);
    for (int64_t c = 0; c < shape.C; c += job_.group) {
      const int64_t size = std::min<int64_t>(job_.group, shape.C - c);
      operations_.table_adds += touched * ((int64_t{1} << size) - size - 1);
    }
  }
}

// Searches grids, tiles, G and groups per pass for the least estimated cycles. The constants were fitted on one core with AVX-512; what
// matters is their order of magnitude: a load and add from the first-level cache against a store and against a miss.
void Plan::choose_geometry(const PlanOptions& options) {
  constexpr double kAdd = 0.55, kEntry = 0.8, kRow = 6, kStore = 1.1, kMiss = 1.2;
  const int lanes = kernel_.lanes;
  const double l1 = l1_bytes(), vector_bytes = 4.0 * lanes, taps = double(shape_.R * shape_.S), rows = double(rows_.size());
  const int64_t P = shape_.P(), Q = shape_.Q(), stride = shape_.stride;
  double best = std::numeric_limits<double>::infinity();
  for (int n = 1; n <= lanes && (n == 1 || n < 2 * shape_.N); n *= 2) {
    for (int h = 1; h <= lanes / n; h *= 2) {
      const int w = lanes / n / h;
      const int64_t block_h = ceil_div(P, h), block_w = ceil_div(Q, w);
      for (int tile_h = 1; tile_h <= std::min<int64_t>(kMaxPositions, block_h); tile_h++) {
        for (int tile_w = 1; tile_w <= std::min<int64_t>(kMaxPositions / tile_h, block_w); tile_w++) {
          const int64_t strips = ceil_div(block_h, tile_h), tiles = ceil_div(block_w, tile_w);
          const int64_t table_h = (tile_h - 1) * stride + shape_.R, table_w = (tile_w - 1) * stride + shape_.S;
          const double J = tile_h * tile_w, count = double(ceil_div(shape_.N, n)) * ceil_div(strips, options.threads) * tiles;
          for (int g = options.table ? 1 : 0; g <= (options.table ? kMaxGroup : 0); g++) {
            if (options.table && options.group != 0 && g != options.group) continue;
            if (options.table && g > shape_.C && g > 1 && options.group == 0) break;
            const int64_t group_channels = std::max(g, 1), groups = ceil_div(shape_.C, group_channels);
            const int64_t group_slots = options.table ? int64_t{1} << g : 1;
            for (int64_t per_pass = 1; per_pass <= (options.table ? 4 : 128); per_pass *= 2) {
              if (per_pass > 1 && per_pass >= 2 * groups) break;
              const int64_t slots = per_pass * group_slots;
              if (table_h * table_w * slots > kMaxSlots) break;
              const double passes = double(ceil_div(groups, per_pass));
              const double used = options.table && !options.skip_zeros ? 1 : 1 - std::pow(1 - row_density_, double(group_channels));
              const double table_bytes = table_h * table_w * slots * vector_bytes, row_bytes = rows * J * vector_bytes;
              const double in_l1 = std::min(1.0, 0.8 * l1 / table_bytes);
              const double entries = rows * groups * taps * used;
              const double adds = entries * (kEntry + J * (in_l1 * kAdd + (1 - in_l1) * (kAdd + kMiss)));
              const double fill = double(table_h * table_w * groups * group_slots) * kStore;
              const double spill = table_bytes + row_bytes > l1 ? 2 * kMiss : 0;
              const double accumulate = passes * rows * (kRow + J * (1.5 + spill));
              const double cost = count * (adds + fill + accumulate);
              if (cost < best) {
                best = cost;
                job_.grid = {n, h, w};
                job_.tile_h = tile_h, job_.tile_w = tile_w;
                job_.block_h = static_cast<int32_t>(block_h), job_.block_w = static_cast<int32_t>(block_w);
                job_.strips = static_cast<int32_t>(strips), job_.tiles = static_cast<int32_t>(tiles);
                job_.table_h = static_cast<int32_t>(table_h), job_.table_w = static_cast<int32_t>(table_w);
                job_.group = g, job_.slots = static_cast<int32_t>(slots);
                channels_per_pass_ = per_pass * group_channels;
              }
            }
          }
        }
      }
    }
  }
  if (std::isinf(best)) {
    throw std::invalid_argument("a " + std::to_string(shape_.R) + "x" + std::to_string(shape_.S) + " window with group " +
                                std::to_string(options.group) + " needs more than 65536 table entries per tile; use a smaller group");
  }

  Job& job = job_;
  job.N = shape_.N, job.C = shape_.C, job.H = shape_.H, job.W = shape_.W, job.K = shape_.K, job.P = P, job.Q = Q;
  job.R = static_cast<int32_t>(shape_.R), job.S = static_cast<int32_t>(shape_.S);
  job.stride = static_cast<int32_t>(stride), job.padding = static_cast<int32_t>(shape_.padding);
  const int64_t packed_h = (int64_t{job.strips} * job.tile_h - 1) * stride + shape_.R;
  const int64_t packed_w = (int64_t{job.tiles} * job.tile_w - 1) * stride + shape_.S;
  job.packed_h = static_cast<int32_t>(packed_h), job.packed_w = static_cast<int32_t>(packed_w);
  job.plane_h = (job.grid.h - 1) * job.block_h * stride + packed_h;
  job.plane_w = (job.grid.w - 1) * job.block_w * stride + ceil_div(packed_w, lanes) * lanes + lanes;
  job.rows = static_cast<int32_t>(rows_.size());
  job.threads = options.threads;
  // Strides in whole vectors of the widest kind, so that every thread's part is aligned.
  auto stride_of = [](std::initializer_list<int64_t> sizes) { return ceil_div(checked_product(sizes), 16) * 16; };
  job.plane_stride = stride_of({job.grid.n, job.plane_h, job.plane_w});
  job.table_stride = stride_of({job.table_h, job.table_w, job.slots, lanes});
  job.accumulators_stride = stride_of({job.tiles, job.rows, job.tile_h, job.tile_w, lanes});
  packed_ = AlignedBuffer(checked_product({shape_.C, packed_h, packed_w, lanes}));
  plane_ = AlignedBuffer(checked_product({job.plane_stride, options.threads}));
  table_ = AlignedBuffer(checked_product({job.table_stride, options.threads}));
  accumulators_ = AlignedBuffer(checked_product({job.accumulators_stride, options.threads}));
  job.packed = packed_.get(), job.plane = plane_.get(), job.table = table_.get(), job.accumulators = accumulators_.get();
}

bool Plan::selects(const Weights& weights, const Row& row, int64_t c, int64_t tap) const {
  return row.filter < 0 || weights.codes[(row.filter * shape_.C + c) * shape_.R * shape_.S + tap] == row.code;
}

void Plan::fill_lists(const Weights& weights, bool skip_zeros) {
  const Job& job = job_;
  const int64_t row_count = static_cast<int64_t>(rows_.size());
  std::vector<std::vector<uint16_t>> lists(rows_.size());
  std::vector<int32_t> order(rows_.size());
  for (int64_t first = 0; first < shape_.C; first += channels_per_pass_) {
    const int64_t channels = std::min(channels_per_pass_, shape_.C - first);
    for (int64_t i = 0; i < row_count; i++) {
      lists[i].clear();
      for (int64_t r = 0; r < shape_.R; r++) {
        for (int64_t s = 0; s < shape_.S; s++) {
          const int64_t position = (r * job.table_w + s) * job.slots, tap = r * shape_.S + s;
          if (job.group == 0) {
            for (int64_t c = 0; c < channels; c++) {
              if (selects(weights, rows_[i], first + c, tap)) lists[i].push_back(static_cast<uint16_t>(position + c));
            }
            continue;
          }
          for (int64_t c = 0; c < channels; c += job.group) {
            int64_t subset = 0;
            for (int64_t bit = 0; bit < std::min<int64_t>(job.group, channels - c); bit++) {
              subset |= int64_t{selects(weights, rows_[i], first + c + bit, tap)} << bit;
            }
            const int64_t table = c / job.group << job.group;
            if (subset != 0 || !skip_zeros) lists[i].push_back(static_cast<uint16_t>(position + table + subset));
          }
        }
      }
    }
    // Rows of equally many entries one after the other: the inner loop's length is then predictable. The first pass visits every row,
    // because it is the one that sets the accumulators.
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return lists[a].size() < lists[b].size(); });
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
  return static_cast<int64_t>(entries_.size() * sizeof(uint16_t) + pass_rows_.size() * sizeof(PassRow) + terms_.size() * sizeof(Term));
}

std::string Plan::geometry() const {
  auto text = [](int64_t value) { return std::to_string(value); };
  const Job& j = job_;
  return "grid " + text(j.grid.n) + "x" + text(j.grid.h) + "x" + text(j.grid.w) + ", tile " + text(j.tile_h) + "x" + text(j.tile_w) +
         ", " + text(channels_per_pass_) + " channels a pass";
}

void Plan::run(const float* x, float* y) {
  std::lock_guard<std::mutex> lock(mutex_);
  kernel_.run(job_, x, y);
}

}  // namespace sbkit
