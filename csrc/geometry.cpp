#include "geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "limits.h"

namespace sbkit {

namespace {

// Estimated cycles of a job as laid out; infinite where it cannot be. Loads are what is scarce: two a cycle, an entry
// taking one for each position and a quarter for its index. The constants were fitted on one core with AVX-512.
double cycles(const Algorithm& algorithm, const Job& job) {
  constexpr double kLoad = 0.5, kRow = 4, kStore = 0.25, kFill = 1.3, kTransposed = 10;
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const Request& request = algorithm.request;
  const ConvShape& shape = request.shape;
  const bool in_place = job.fill_h == 0;
  const int64_t window_rows = in_place ? (job.tile_h - 1) * job.stride + shape.R : job.fill_h;
  if (job.slots == 0 || window_rows * job.columns * job.slots > kMostSlots) return kInfinite;
  if (job.tile_h > job.block_h || job.tile_w > job.block_w) return kInfinite;
  const bool one_group = job.pass_channels <= std::max(job.group, 1);
  if (!one_group && job.pass_channels >= 2 * shape.C) return kInfinite;  // a pass that is half empty
  const double lanes = request.kernel->lanes, l1 = double(l1_bytes()), positions = job.tile_h * job.tile_w;
  const double rows = double(algorithm.rows.all.size()) / job.blocks, passes = job.passes;
  const double entries = double(algorithm.entries(job.group)) / job.blocks;  // of a tile and block
  const double filled = double(algorithm.steps(job)) * job.fill_h * job.columns;
  const double tile_bytes = double(window_rows) * job.slots * lanes * sizeof(float) *
                            (in_place ? (job.tile_w - 1) * job.stride + shape.S : job.columns);
  // Measured: loads slow down by a fifth at 4/3 of the first-level cache, by half at 8/3, and to half speed beyond.
  const double miss = 1 + std::min(1.1, std::max(0.0, 0.3 * (tile_bytes / l1 - 0.85)));
  const double accumulators = rows * positions * lanes * sizeof(float) + tile_bytes > l1 ? 2 : 1;
  const double add = entries * kLoad * (positions * miss + 0.5);
  const double accumulate = passes * rows * (kRow + positions * (kLoad + kStore) * accumulators);
  const double fill = filled * kFill * miss;
  const double transposed = double(shape.C) * job.packed_h * double(ceil_div(job.packed_w, request.kernel->lanes)) +
                            double(shape.K) * job.block_h * double(ceil_div(job.block_w, request.kernel->lanes));
  return double(ceil_div(shape.N, job.grid.n)) *
         (double(ceil_div(int64_t{job.strips} * job.blocks, job.threads)) * job.tiles * (add + accumulate + fill) +
          transposed * kTransposed * lanes / job.threads);
}

std::vector<Grid> grids(int32_t lanes, int64_t images) {
  std::vector<Grid> found;
  for (int32_t n = 1; n <= lanes && n < 2 * images; n *= 2) {
    for (int32_t h = 1; h <= lanes / n; h *= 2) found.push_back({n, h, lanes / n / h});
  }
  return found;
}

}  // namespace

Job lay_out(const Algorithm& algorithm, const Geometry& g) {
  const ConvShape& shape = algorithm.request.shape;
  const int64_t stride = shape.stride, lanes = algorithm.request.kernel->lanes;
  Job job{};
  job.N = shape.N, job.C = shape.C, job.H = shape.H, job.W = shape.W, job.K = shape.K;
  job.P = shape.P(), job.Q = shape.Q();
  job.stride = narrow(stride), job.padding = narrow(shape.padding);
  job.grid = g.grid, job.tile_h = g.tile_h, job.tile_w = g.tile_w;
  job.block_h = narrow(ceil_div(job.P, g.grid.h)), job.block_w = narrow(ceil_div(job.Q, g.grid.w));
  job.strips = narrow(ceil_div(job.block_h, g.tile_h)), job.tiles = narrow(ceil_div(job.block_w, g.tile_w));
  job.packed_h = narrow((int64_t{job.strips} * g.tile_h - 1) * stride + shape.R);
  job.packed_w = narrow((int64_t{job.tiles} * g.tile_w - 1) * stride + shape.S);
  job.packed_columns = narrow(ceil_div(job.packed_w, stride) * stride);
  job.plane_h = (g.grid.h - 1) * job.block_h * stride + job.packed_h;
  job.plane_w = (g.grid.w - 1) * job.block_w * stride + ceil_div(job.packed_w, lanes) * lanes;
  job.group = g.group;
  job.pass_channels = g.groups_per_pass * std::max(g.group, 1);
  job.passes = narrow(ceil_div(shape.C, job.pass_channels));
  job.blocks = g.filter_blocks;
  job.threads = algorithm.request.threads;
  algorithm.lay_out_slots(&job);
  return job;
}

std::vector<Candidate> possible_geometries(const Algorithm& algorithm) {
  const Request& request = algorithm.request;
  const int most_blocks = narrow(std::min<int64_t>(algorithm.most_filter_blocks, request.shape.K));
  std::vector<Candidate> found;
  Geometry g;
  auto try_channels = [&] {
    for (g.group = algorithm.first_group; g.group <= algorithm.last_group; g.group++) {
      for (g.groups_per_pass = 1; g.groups_per_pass <= algorithm.most_groups_per_pass; g.groups_per_pass *= 2) {
        for (g.filter_blocks = 1; g.filter_blocks <= most_blocks; g.filter_blocks++) {
          if (request.threads % g.filter_blocks) continue;
          const double estimate = cycles(algorithm, lay_out(algorithm, g));
          if (std::isfinite(estimate)) found.push_back({estimate, g});
        }
      }
    }
  };
  for (const Grid& grid : grids(request.kernel->lanes, request.shape.N)) {
    g.grid = grid;
    for (g.tile_h = 1; g.tile_h <= 4; g.tile_h *= 2) {
      for (g.tile_w = 1; g.tile_w <= std::min(8, request.kernel->max_positions / g.tile_h); g.tile_w++) try_channels();
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cycles < b.cycles; });
  return found;
}

std::string describe(const Job& job) {
  auto text = [](int64_t value) { return std::to_string(value); };
  return "grid " + text(job.grid.n) + "x" + text(job.grid.h) + "x" + text(job.grid.w) + ", tile " + text(job.tile_h) +
         "x" + text(job.tile_w) + ", " + text(job.pass_channels) + " channels a pass" +
         (job.blocks > 1 ? ", " + text(job.blocks) + " filter blocks" : "");
}

}  // namespace sbkit
