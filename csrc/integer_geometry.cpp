#include "integer_geometry.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels.h"

namespace sbkit {

int64_t padded_rows(const ConvShape& shape) { return shape.H + 2 * shape.padding; }

int64_t phase_columns(const ConvShape& shape) { return ceil_div(shape.W + 2 * shape.padding, shape.stride); }

const FilterMasks& MaskTables::masks(int group) {
  const auto found = masks_.find(group);
  return found != masks_.end() ? found->second : masks_.emplace(group, FilterMasks(request_, group)).first->second;
}

const MaskTable& MaskTables::table(int group, int lane_bits) {
  const std::pair<int, int> key(group, lane_bits);
  const auto found = tables_.find(key);
  if (found != tables_.end()) return found->second;
  const int capacity = lane_bits == 8 ? chain_capacity(request_) : 32;
  return tables_.emplace(key, MaskTable(masks(group), capacity)).first->second;
}

IntegerTaps lay_out_taps(const IntegerRequest& request, const IntegerGeometry& geometry, int64_t pitch,
                         int64_t phase_columns) {
  const ConvShape& shape = request.shape;
  const int64_t stride = shape.stride;
  const int vector = request.kernel->vector_bytes, lane = geometry.lane_bits / 8;
  IntegerTaps taps;
  taps.pair.resize(shape.S), taps.offset.resize(shape.S), taps.line.resize(shape.R);
  // A copy serves taps that are 0 to 8 - positions columns to its right. Copies that serve several come first in a
  // pair, since a vector at a small offset from it stays within the pair.
  struct Served {
    int64_t first, last;  // taps, `stride` apart
  };
  std::vector<Served> several, one;
  for (int64_t phase = 0; phase < std::min(stride, shape.S); phase++) {
    for (int64_t tap = phase; tap < shape.S; tap += (8 - geometry.positions + 1) * stride) {
      int64_t last = tap;
      while (last + stride < shape.S && last - tap < (8 - geometry.positions) * stride) last += stride;
      (last > tap ? several : one).push_back({tap, last});
    }
  }
  std::vector<Served> order;
  for (size_t i = 0, j = 0; i < several.size() || j < one.size();) {
    order.push_back(i < several.size() ? several[i++] : one[j++]);
    order.push_back(j < one.size() ? one[j++] : Served{-1, -1});
  }
  for (size_t i = 0; i < order.size(); i++) {
    const auto [first, last] = order[i];
    taps.copies.push_back({first < 0 ? -1 : first % stride * phase_columns + first / stride});
    for (int64_t tap = first; tap >= 0 && tap <= last; tap += stride) {
      taps.pair[tap] = static_cast<int>(i / 2);
      taps.offset[tap] = static_cast<int>(i % 2) * vector + narrow((tap - first) / stride) * lane;
    }
  }
  for (int64_t phase = 0; phase < std::min(stride, shape.R); phase++) {
    const int64_t below = ceil_div(shape.R - phase, stride);  // taps of this remainder
    for (int64_t i = 0; i < below; i++) taps.line[phase + i * stride] = narrow(taps.lines.size() + i);
    for (int64_t i = 0; i < below + geometry.rows - 1; i++)
      taps.lines.push_back({(phase + i * stride) * pitch, narrow(std::max<int64_t>(1, i - below + 2))});
  }
  return taps;
}

IntegerTiles lay_out_tiles(const IntegerRequest& request, const IntegerGeometry& geometry) {
  const ConvShape& shape = request.shape;
  const int64_t P = shape.P(), Q = shape.Q(), stride = shape.stride;
  const int64_t blocks = ceil_div(P, geometry.rows), segments = ceil_div(Q, geometry.positions);
  const int64_t pitch = phase_columns(shape) * stride;
  IntegerTiles tiles;
  for (int64_t n = 0; n < shape.N; n++) {
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t p = P * b / blocks, rows = P * (b + 1) / blocks - p;  // as equal as may be
      for (int64_t s = 0; s < segments; s++) {
        // The last segment overlaps the one before, so that nearly all units store all their positions.
        const int64_t q = std::max<int64_t>(0, std::min(s * geometry.positions, Q - geometry.positions));
        IntegerUnit unit;
        unit.from = (n * shape.C * padded_rows(shape) + p * stride) * pitch + q;
        unit.to = n * shape.K * P * Q + p * Q + q;
        unit.rows = narrow(rows), unit.columns = narrow(std::min<int64_t>(geometry.positions, Q - q));
        tiles.units.push_back(unit);
      }
    }
  }
  std::stable_sort(tiles.units.begin(), tiles.units.end(),
                   [](const IntegerUnit& a, const IntegerUnit& b) { return a.rows > b.rows; });
  const size_t per_tile = request.kernel->vector_bytes / geometry.lane_bits;
  while (tiles.units.size() % per_tile) {
    tiles.units.push_back(tiles.units.back());
    tiles.units.back().rows = 0;
  }
  for (size_t i = 0; i < tiles.units.size(); i += per_tile) tiles.rows.push_back(tiles.units[i].rows);
  return tiles;
}

namespace {

// Estimated cycles of the padded copy. Strides that take values apart cost more.
double padding_cycles(const IntegerRequest& request) {
  const ConvShape& s = request.shape;
  const double rows = double(s.N * s.C * s.H) * double(std::min(s.R, s.stride)) / double(s.stride);
  return rows * (s.stride == 1 ? 8 + double(s.W) / 16 : s.stride == 2 ? 25 + double(s.W) / 4 : 25 + 2 * double(s.W));
}

// Estimated cycles; infinite where tables are too large. The constants are guesses, for choices among geometries: on
// cores with AVX-512 the estimate is 0.6 to 0.96 of what was measured.
double cycles(const IntegerRequest& request, const MaskTable& table, int filters, int groups, int64_t line_count,
              int64_t copies, int pairs, const IntegerTiles& tiles, IntegerGeometry* g) {
  constexpr double kRow = 9, kStore = 1, kEntry = 0.35, kStep = 1.2, kFlush = 7;
  const IntegerKernel& kernel = *request.kernel;
  const double vector = kernel.vector_bytes, units = vector / g->lane_bits, vectors = g->lane_bits == 8 ? 2 : 1;
  const double group_bytes = double(table.slots()) * line_count * pairs * 2 * vector;
  if (group_bytes > 65536) return std::numeric_limits<double>::infinity();
  const double l1 = double(l1_bytes());
  const int64_t most = std::max<int64_t>(1, 65535 / request.most() / g->group);  // one tap of a pass fits 16 bits
  const int64_t fitting = std::max<int64_t>(1, static_cast<int64_t>(std::min(0.7 * l1, 65536.0) / group_bytes));
  const int64_t passes = ceil_div(groups, std::min({fitting, most, int64_t{groups}}));
  g->groups_per_pass = narrow(ceil_div(groups, passes));
  double chains = double(table.entries());
  if (g->lane_bits == 8)
    chains = std::max(chains / g->chain, double(table.nonzeros()) / (0.97 * chain_capacity(request)));
  const double loads = chains * g->chain;
  const double adds = g->lane_bits == 8 ? chains * (g->chain + 1) : loads;
  const double miss = group_bytes > 0.75 * l1 ? 1.5 : 1;
  double fill = 0, add = 0;
  for (int32_t rows : tiles.rows) {
    add += rows * std::max(loads * kernel.load * miss, adds * kernel.add) + loads * kEntry +
           double(passes) * filters * (kRow + rows * vectors * (kernel.load + kStore)) +
           filters * rows * units * kFlush;
    const double lines = double(line_count) - (g->rows - rows);
    fill += double(groups) * lines * (g->group * double(copies) * (1 + 0.8 * units) + table.steps().size() * kStep * 2 * pairs);
  }
  double least = std::numeric_limits<double>::infinity();
  const int threads = request.threads;
  for (int blocks : {1, std::min(threads, narrow(request.shape.K))}) {
    const double work = double(tiles.rows.size()) * blocks;
    const double time = std::ceil(work / threads) / work * (fill * blocks + add) + padding_cycles(request) / threads;
    if (time < least) least = time, g->blocks = blocks;
  }
  return least;
}

}  // namespace

std::optional<IntegerChoice> choose_geometry(const IntegerRequest& request, MaskTables* tables) {
  const ConvShape& shape = request.shape;
  std::set<int> groups;
  for (int64_t group : {1, 2, 3, 4, 5, 6, 8, 16}) groups.insert(narrow(std::min(group, shape.C)));
  if (request.group) groups = {request.group};
  std::optional<IntegerChoice> best;
  for (int lane_bits : {8, 16}) {
    if (request.lane_bits ? request.lane_bits != lane_bits : lane_bits == 8 && request.activation_bits == 8) continue;
    const int most_rows = lane_bits == 8 ? request.kernel->most_rows_bytes : request.kernel->most_rows_words;
    for (int positions : {8, 7, 6}) {
      if (lane_bits == 8 && positions != 7) continue;
      for (int rows = 1; rows <= std::min<int64_t>(most_rows, shape.P()); rows++) {
        IntegerGeometry g;
        g.lane_bits = lane_bits, g.positions = positions, g.rows = rows;
        const IntegerTaps taps = lay_out_taps(request, g, 0, 0);
        const IntegerTiles tiles = lay_out_tiles(request, g);
        const int64_t copies = std::count_if(taps.copies.begin(), taps.copies.end(),
                                             [](const IntegerCopy& copy) { return copy.from >= 0; });
        for (int group : groups) {
          const MaskTable& table = tables->table(group, lane_bits);
          for (int chain : {1, 2, 4}) {
            if (chain > 1 && (lane_bits == 16 || chain > chain_capacity(request))) continue;
            g.group = group, g.chain = chain;
            const FilterMasks& masks = tables->masks(group);
            const double estimate = cycles(request, table, masks.filters, masks.groups, narrow(taps.lines.size()),
                                           copies, taps.pairs(), tiles, &g);
            if (std::isfinite(estimate) && (!best || estimate < best->cycles)) best = IntegerChoice{g, estimate};
          }
        }
      }
    }
  }
  return best;
}

}  // namespace sbkit
