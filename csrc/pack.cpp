#include "pack.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace sbkit {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

constexpr int64_t kCachedValues = 2048;  // of a graph: 128 KiB of 64-byte vectors, beyond which sums are slow to fetch
constexpr int64_t kMaxSlots = 65535;     // entries and their counts are 16 bits

constexpr int kPowerOfThree[kMaxCodebookGroup + 1] = {
    1,     3,      9,      27,      81,      243,      729,     2187, 6561, 19683,
    59049, 177147, 531441, 1594323, 4782969, 14348907, 43046721};

int digit(int pattern, int channel) { return pattern / kPowerOfThree[channel] % 3; }

// The pattern of all opposite codes.
int opposite(int pattern, int channels) {
  int result = 0;
  for (int c = 0; c < channels; c++) result += (3 - digit(pattern, c)) % 3 * kPowerOfThree[c];
  return result;
}

}  // namespace

TableProgram::TableProgram(int channels, const std::vector<int>& patterns, bool zero_slot) {
  if (zero_slot) slot_of_[0] = 2 * slots_++;
  for (int c = 0; c < channels; c++) {
    slot_of_[kPowerOfThree[c]] = 2 * slots_;
    slot_of_[2 * kPowerOfThree[c]] = 2 * slots_ + 1;
    channel_slots_.push_back(slots_++);
  }
  for (const int pattern : patterns) {
    if (pattern != 0) require(pattern, 0, channels);
  }
  // Sums of equal depth do not wait for each other, and additions next to additions keep the loop's branch predictable.
  std::vector<int> depth(static_cast<size_t>(slots_), 0);
  for (const Step& step : steps_) depth[step.to] = std::max(depth[step.a], depth[step.b]) + 1;
  std::stable_sort(steps_.begin(), steps_.end(), [&](const Step& a, const Step& b) {
    return std::pair(depth[a.to], a.subtract) < std::pair(depth[b.to], b.subtract);
  });
}

// 2 * slot + negated of a pattern that touches only channels first .. first + size - 1; makes it if it is new.
int TableProgram::require(int pattern, int first, int size) {
  const auto known = slot_of_.find(pattern);
  if (known != slot_of_.end()) return known->second;
  const int half = (size + 1) / 2, split = kPowerOfThree[first + half];
  const int lower = pattern % split, upper = pattern - lower;
  int found;
  if (lower == 0) {
    found = require(upper, first + half, size - half);
  } else if (upper == 0) {
    found = require(lower, first, half);
  } else {
    const int a = require(lower, first, half), b = require(upper, first + half, size - half);
    found = 2 * slots_ + (a & 1);
    auto field = [](int value) { return static_cast<uint16_t>(value); };
    steps_.push_back({field(slots_++), field(a / 2), field(b / 2), field((a ^ b) & 1)});
  }
  slot_of_[pattern] = found;
  slot_of_[opposite(pattern, static_cast<int>(channel_slots_.size()))] = found ^ 1;
  return found;
}

int TableProgram::slot(int pattern, bool* negated) const {
  const int found = slot_of_.at(pattern);
  *negated = found & 1;
  return found / 2;
}

Plan::Plan(const ConvShape& shape, const Weights& weights, const Kernel& kernel, const PlanOptions& options)
    : shape_(shape), weights_(weights), kernel_(kernel), options_(options) {
  if (shape.stride > kMaxSlots) {
    throw std::invalid_argument("stride = " + std::to_string(shape.stride) + "; allowed: 1 to " +
                                std::to_string(kMaxSlots));
  }
  checked_product({shape.N, shape.C, shape.H + 2 * shape.padding, shape.W + 2 * shape.padding});
  checked_product({shape.N, shape.K, shape.P(), shape.Q()});
  options_.bias.resize(static_cast<size_t>(shape.K), 0);
  make_rows();
  if (options_.algorithm == Algorithm::kDataflow) plan_graphs();
  choose_geometry();
  count_operations();
  weights_.codes = {}, programs_.clear(), values_.clear();
}

void Plan::make_rows() {
  const int64_t per_filter = shape_.C * shape_.R * shape_.S;
  auto add_row = [&](int64_t filter, int8_t add, int8_t subtract, float coefficient) {
    rows_.push_back({filter, add, subtract});
    coefficients_.push_back(coefficient);
  };
  first_row_.push_back(0);
  for (int64_t k = 0; k < shape_.K; k++) {
    const int8_t* codes = weights_.codes.data() + k * per_filter;
    const float scale = weights_.scale[k], negative_scale = weights_.negative_scale[k];
    const bool plus = std::find(codes, codes + per_filter, 1) != codes + per_filter;
    const bool minus = std::find(codes, codes + per_filter, -1) != codes + per_filter;
    const bool zero = std::find(codes, codes + per_filter, 0) != codes + per_filter;
    mixed_ |= plus && minus, zeros_ |= zero;
    if (options_.encoding == Encoding::kRewritten) {
      if (plus) add_row(k, 1, kNone, 2 * scale);
    } else if (plus && minus && scale == negative_scale) {
      add_row(k, 1, -1, scale);
    } else {
      if (plus) add_row(k, 1, kNone, scale);
      if (minus) add_row(k, -1, kNone, -negative_scale);
    }
    if (zero && !options_.skip_zeros && options_.algorithm != Algorithm::kTable) add_row(k, 0, kNone, 0);
    first_row_.push_back(narrow(static_cast<int64_t>(rows_.size())));
  }
  if (options_.encoding == Encoding::kRewritten) rows_.push_back({-1, kNone, kNone});
}

// What a row adds and what it subtracts of a group of channels, at one tap: two patterns of digits 0 and 1.
std::pair<int, int> Plan::added_and_subtracted(const Row& row, int64_t first_channel, int channels,
                                               int64_t tap) const {
  int added = 0, subtracted = 0;
  for (int c = 0; c < channels; c++) {
    const int8_t value = row.filter < 0 ? row.add : code(row, first_channel + c, tap);
    if (value == row.add) added += kPowerOfThree[c];
    if (value == row.subtract && row.filter >= 0) subtracted += kPowerOfThree[c];
  }
  return {added, subtracted};
}

// The patterns that a table of `channels` channels holds where groups are of `group`; nothing if there are too many.
std::optional<std::vector<int>> Plan::patterns(int group, int channels) const {
  std::vector<int> wanted;
  if (options_.encoding != Encoding::kCodebook) {  // all of an alphabet: {0,1}, {-1,+1} or {-1,0,+1}
    const bool both_signs = options_.encoding == Encoding::kSigned && mixed_;
    const int least = both_signs && !zeros_ ? 1 : 0, most = both_signs ? 2 : 1;
    for (int pattern = 1; pattern < kPowerOfThree[channels]; pattern++) {
      bool in_alphabet = true;
      for (int c = 0; c < channels && in_alphabet; c++)
        in_alphabet = digit(pattern, c) >= least && digit(pattern, c) <= most;
      if (in_alphabet) wanted.push_back(pattern);
    }
    return wanted;
  }
  std::vector<bool> seen(static_cast<size_t>(kPowerOfThree[channels]));
  const int64_t tail = shape_.C - shape_.C % group;  // the last channels, if they are fewer
  for (int64_t c = channels == group ? 0 : tail; c + channels <= shape_.C; c += group) {
    for (const Row& row : rows_) {
      for (int64_t tap = 0; tap < shape_.R * shape_.S; tap++) {
        const auto [added, subtracted] = added_and_subtracted(row, c, channels, tap);
        const int pattern = std::min(added + 2 * subtracted, subtracted + 2 * added);  // it or its opposite
        if (seen[pattern]) continue;
        seen[pattern] = true;
        wanted.push_back(pattern);
        if (wanted.size() > kMaxPatterns) return std::nullopt;
      }
    }
  }
  return wanted;
}

const TableProgram& Plan::program(int group, int channels) {
  auto found = programs_.find({group, channels});
  if (found == programs_.end()) {
    const auto wanted = patterns(group, channels);
    TableProgram made;  // without slots: none can be made
    if (wanted) made = TableProgram(channels, *wanted, !options_.skip_zeros);
    found = programs_.emplace(std::pair(group, channels), std::move(made)).first;
  }
  return found->second;
}

// What a tile computes: for each row the inputs it adds, then those it subtracts.
Sets Plan::sets_of(int64_t first_channel, int64_t channels) const {
  const int64_t taps = shape_.R * shape_.S;
  Sets sets;
  for (const Row& row : rows_) {
    for (const int8_t wanted : {row.add, row.subtract}) {
      if (wanted == kNone && row.filter >= 0) continue;
      std::vector<int32_t> set;
      for (int64_t c = 0; c < channels; c++) {
        for (int64_t tap = 0; tap < taps; tap++) {
          if (row.filter < 0 || code(row, first_channel + c, tap) == wanted) set.push_back(narrow(c * taps + tap));
        }
      }
      sets.push_back(std::move(set));
      if (row.filter < 0) break;
    }
  }
  return sets;
}

void Plan::plan_graphs() {
  const bool planned = !options_.graphs.empty();
  if (!planned && options_.group == 0) {
    options_.group = choose_tile(
        shape_, [this](int64_t first, int64_t channels) { return sets_of(first, channels); }, kCachedValues);
  }
  options_.group = narrow(std::min<int64_t>(options_.group, shape_.C));
  const int64_t tiles = ceil_div(shape_.C, options_.group);
  if (planned && static_cast<int64_t>(options_.graphs.size()) != tiles) {
    throw std::invalid_argument(std::to_string(options_.graphs.size()) + " data-flow graphs; allowed for " +
                                std::to_string(options_.group) + " of " + std::to_string(shape_.C) +
                                " channels a tile: " + std::to_string(tiles));
  }
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t first = i * options_.group, channels = std::min<int64_t>(options_.group, shape_.C - first);
    const Sets sets = sets_of(first, channels);
    const int32_t inputs = narrow(channels * shape_.R * shape_.S);
    if (planned) {
      check_graph(options_.graphs[i], sets);
    } else {
      options_.graphs.push_back(merge_pairs(inputs, sets));
    }
    const Graph& graph = options_.graphs[i];
    if (graph.inputs != inputs) throw std::invalid_argument("a data-flow graph is of another tile");
    int64_t entries = 0;
    for (const auto& sum : graph.sums) entries += static_cast<int64_t>(sum.size());
    values_.push_back({static_cast<int64_t>(graph.nodes.size()), entries});
  }
}

// Entries of all rows, for each group size: what the cost model needs to know of the codes.
void Plan::count_entries(int first_group, int last_group) {
  const int64_t taps = shape_.R * shape_.S;
  entry_count_.assign(static_cast<size_t>(last_group) + 1, 0);
  for (int group = first_group; group <= last_group; group++) {
    if (group > 0 && program(group, group).slots() == 0) continue;
    const int step = std::max(group, 1);
    int64_t count = 0;
    for (const Row& row : rows_) {
      for (int64_t c = 0; c < shape_.C; c += step) {
        for (int64_t tap = 0; tap < taps; tap++) {
          bool adds = row.filter < 0, subtracts = false;
          for (int64_t i = c; i < std::min<int64_t>(c + step, shape_.C) && row.filter >= 0; i++) {
            const int8_t value = code(row, i, tap);
            adds |= value == row.add, subtracts |= value == row.subtract;
          }
          if (whole_patterns()) {
            count += adds || subtracts || !options_.skip_zeros;
          } else if (!options_.skip_zeros && group > 0) {
            count += 1 + (row.subtract != kNone);
          } else {
            count += adds + subtracts;
          }
        }
      }
    }
    entry_count_[group] = count;
  }
}

// Grids, tiles, groups, groups per pass and filter blocks, with the estimated cycles of each, the least first.
std::vector<std::pair<double, Plan::Geometry>> Plan::geometries() {
  const bool table = options_.algorithm == Algorithm::kTable, dataflow = options_.algorithm == Algorithm::kDataflow;
  const int lanes = kernel_.lanes;
  int first_group = 0, last_group = 0;
  if (table) {
    const bool ternary = options_.encoding == Encoding::kSigned && mixed_ && zeros_;
    const int most = options_.encoding == Encoding::kCodebook ? kMaxCodebookGroup
                     : ternary                                 ? kMaxTernaryGroup
                                                               : kMaxGroup;
    first_group = options_.group ? options_.group : 1;
    last_group = options_.group ? options_.group : narrow(std::min<int64_t>(most, shape_.C));
  }
  if (dataflow) {
    first_group = last_group = options_.group;
  } else {
    count_entries(first_group, last_group);
  }
  const int most_groups = table ? 4 : dataflow ? 1 : 128;  // of a pass; without tables a group is one channel
  std::vector<std::pair<double, Geometry>> found;
  Geometry g;
  for (g.grid.n = 1; g.grid.n <= lanes && g.grid.n < 2 * shape_.N; g.grid.n *= 2) {
    for (g.grid.h = 1; g.grid.h <= lanes / g.grid.n; g.grid.h *= 2) {
      g.grid.w = lanes / g.grid.n / g.grid.h;
      for (g.tile_h = 1; g.tile_h <= 4; g.tile_h *= 2) {
        for (g.tile_w = 1; g.tile_w <= std::min(8, kernel_.max_positions / g.tile_h); g.tile_w++) {
          for (g.group = first_group; g.group <= last_group; g.group++) {
            for (g.groups_per_pass = 1; g.groups_per_pass <= most_groups; g.groups_per_pass *= 2) {
              for (g.blocks = 1; g.blocks <= (dataflow ? 1 : std::min<int64_t>(options_.threads, shape_.K));
                   g.blocks++) {
                if (options_.threads % g.blocks) continue;
                lay_out(g);
                const double cost = cycles(g);
                if (std::isfinite(cost)) found.push_back({cost, g});
              }
            }
          }
        }
      }
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return found;
}

void Plan::choose_geometry() {
  constexpr size_t kTried = 8;
  constexpr int kTriedOfGroup = 3;
  const auto found = geometries();
  if (found.empty()) {
    throw std::invalid_argument("a " + std::to_string(shape_.R) + "x" + std::to_string(shape_.S) +
                                " window with group " + std::to_string(options_.group) + " and stride " +
                                std::to_string(shape_.stride) +
                                " needs more than 65535 slots per tile or more than " + std::to_string(kMaxPatterns) +
                                " patterns in a codebook; use a smaller group, window or stride");
  }
  if (!options_.choices.empty()) {
    const auto same = std::find_if(found.begin(), found.end(),
                                   [&](const auto& each) { return each.second.choices() == options_.choices; });
    if (same == found.end()) throw std::invalid_argument("the plan's choices are none that this layer allows");
    cost_ = same->first;
    return build(same->second);
  }
  cost_ = found.front().first;
  build(found.front().second);
  if (!options_.tune) return;
  std::vector<Packing> candidates(1);
  std::swap(candidates[0], packing_);
  std::map<int, int> tried{{found.front().second.group, 1}};
  for (size_t i = 1; i < found.size() && found[i].first < 1.5 * cost_ && candidates.size() < kTried; i++) {
    const Geometry& geometry = found[i].second;
    if (++tried[geometry.group] > kTriedOfGroup && options_.group == 0) continue;
    build(geometry);
    candidates.emplace_back();
    std::swap(candidates.back(), packing_);
  }
  packing_ = fastest(std::move(candidates));
}

// The candidate whose best run was the fastest. They run in turn, so that a change of the machine's speed meets all of
// them. The activations do not matter, as long as none is denormal.
Plan::Packing Plan::fastest(std::vector<Packing> candidates) {
  const std::vector<float> x(static_cast<size_t>(shape_.N * shape_.C * shape_.H * shape_.W), 1);
  std::vector<float> y(static_cast<size_t>(shape_.N * shape_.K * shape_.P() * shape_.Q()));
  std::vector<double> least(candidates.size(), std::numeric_limits<double>::infinity());
  double total = 0;
  for (int round = 0; round < 20 && (round < 4 || total < 0.1); round++) {
    for (size_t i = 0; i < candidates.size(); i++) {
      const auto started = std::chrono::steady_clock::now();
      kernel_.run(candidates[i].job, x.data(), nullptr, y.data());
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      least[i] = std::min(least[i], seconds), total += seconds;
    }
  }
  const auto best = std::min_element(least.begin(), least.end());
  cost_ = *best;
  return std::move(candidates[static_cast<size_t>(best - least.begin())]);
}

void Plan::build(const Geometry& geometry) {
  lay_out(geometry);
  fill_lists();
  allocate();
}

// Fills the job's sizes for one geometry.
void Plan::lay_out(const Geometry& g) {
  const int64_t stride = shape_.stride;
  const bool table = options_.algorithm == Algorithm::kTable, dataflow = options_.algorithm == Algorithm::kDataflow;
  Job& job = packing_.job;
  job.N = shape_.N, job.C = shape_.C, job.H = shape_.H, job.W = shape_.W, job.K = shape_.K;
  job.P = shape_.P(), job.Q = shape_.Q();
  job.stride = narrow(stride), job.padding = narrow(shape_.padding);
  job.grid = g.grid, job.tile_h = g.tile_h, job.tile_w = g.tile_w;
  job.block_h = narrow(ceil_div(job.P, g.grid.h)), job.block_w = narrow(ceil_div(job.Q, g.grid.w));
  job.strips = narrow(ceil_div(job.block_h, g.tile_h)), job.tiles = narrow(ceil_div(job.block_w, g.tile_w));
  job.packed_h = narrow((int64_t{job.strips} * g.tile_h - 1) * stride + shape_.R);
  job.packed_w = narrow((int64_t{job.tiles} * g.tile_w - 1) * stride + shape_.S);
  job.packed_columns = narrow(ceil_div(job.packed_w, stride) * stride);
  job.group = g.group;
  job.pass_channels = g.groups_per_pass * std::max(g.group, 1);
  job.passes = narrow(ceil_div(shape_.C, job.pass_channels));
  job.blocks = g.blocks;
  const int64_t table_w = (g.tile_w - 1) * stride + shape_.S;  // input columns of a tile
  if (table) {
    const int slots = program(g.group, g.group).slots(), tail = narrow(shape_.C % g.group);
    const int tail_slots = tail ? program(g.group, tail).slots() : slots;
    job.slots = std::min(slots, tail_slots) == 0 ? 0 : g.groups_per_pass * std::max(slots, tail_slots);
    job.columns = narrow(ceil_div(table_w, stride) * stride);
    job.fill_h = narrow((g.tile_h - 1) * stride + shape_.R), job.fill_step = 1;
    job.copy_w = job.columns / job.stride;
    job.below = narrow(stride * job.slots * job.columns);
  } else if (dataflow) {
    int64_t most = 0;
    for (const Graph& graph : options_.graphs)
      most = std::max(most, graph.inputs + static_cast<int64_t>(graph.nodes.size()));
    job.slots = narrow(most);
    job.columns = job.copy_w = g.tile_w;
    job.fill_h = g.tile_h, job.fill_step = job.stride;
    job.below = job.slots * job.columns;
  } else {
    job.slots = job.pass_channels;
    job.columns = job.packed_columns;
    job.fill_h = job.fill_step = job.copy_w = 0;
    job.below = narrow(stride * job.slots * job.columns);
  }
  job.plane_h = (g.grid.h - 1) * job.block_h * stride + job.packed_h;
  job.plane_w = (g.grid.w - 1) * job.block_w * stride + ceil_div(job.packed_w, kernel_.lanes) * kernel_.lanes;
}

// Estimated cycles of the job as laid out; infinite where it cannot be. Loads are what is scarce: two a cycle, an entry
// taking one for each position and a quarter for its index. The constants were fitted on one core with AVX-512.
double Plan::cycles(const Geometry& g) const {
  constexpr double kLoad = 0.5, kRow = 4, kStore = 0.25, kFill = 1.3, kTransposed = 10;
  const Job& job = packing_.job;
  const double infinite = std::numeric_limits<double>::infinity();
  const bool table = options_.algorithm == Algorithm::kTable, dataflow = options_.algorithm == Algorithm::kDataflow;
  const int64_t window_rows = table || dataflow ? job.fill_h : (job.tile_h - 1) * job.stride + shape_.R;
  if (job.slots == 0 || window_rows * job.columns * job.slots > kMaxSlots) return infinite;
  if (job.tile_h > job.block_h || job.tile_w > job.block_w) return infinite;
  if (g.groups_per_pass > 1 && job.pass_channels >= 2 * shape_.C) return infinite;  // a pass half empty
  const double lanes = kernel_.lanes, l1 = double(l1_bytes()), positions = job.tile_h * job.tile_w;
  const double rows = double(rows_.size()) / job.blocks, passes = job.passes;
  double entries = 0, steps = 0;  // of a tile and block
  if (dataflow) {
    for (const auto& counts : values_) entries += double(counts[1]), steps += double(counts[0]);
  } else {
    entries = double(entry_count_[g.group]) / job.blocks;
    steps = table ? passes * job.slots : 0;
  }
  const double filled = steps * job.fill_h * job.columns;
  const double tile_bytes = double(window_rows) * job.slots * lanes * sizeof(float) *
                            (table || dataflow ? job.columns : (job.tile_w - 1) * job.stride + shape_.S);
  // Measured: loads slow down by a fifth at 4/3 of the first-level cache, by half at 8/3, and to half speed beyond.
  const double miss = 1 + std::min(1.1, std::max(0.0, 0.3 * (tile_bytes / l1 - 0.85)));
  const double accumulators = rows * positions * lanes * sizeof(float) + tile_bytes > l1 ? 2 : 1;
  const double add = entries * kLoad * (positions * miss + 0.5);
  const double accumulate = passes * rows * (kRow + positions * (kLoad + kStore) * accumulators);
  const double fill = filled * kFill * miss;
  const double transposed = double(shape_.C) * job.packed_h * double(ceil_div(job.packed_w, kernel_.lanes)) +
                            double(shape_.K) * job.block_h * double(ceil_div(job.block_w, kernel_.lanes));
  return double(ceil_div(shape_.N, job.grid.n)) *
         (double(ceil_div(int64_t{job.strips} * job.blocks, options_.threads)) * job.tiles * (add + accumulate + fill) +
          transposed * kTransposed * lanes / options_.threads);
}

void Plan::allocate() {
  Job& job = packing_.job;
  const int64_t lanes = kernel_.lanes, channels = int64_t{job.passes} * job.pass_channels, threads = options_.threads;
  // In whole vectors of the widest kind, so that every thread's part is aligned.
  auto aligned = [](std::initializer_list<int64_t> sizes) { return ceil_div(checked_product(sizes), 16) * 16; };
  job.threads = options_.threads;
  job.plane_stride = aligned({job.grid.n, job.plane_h, job.plane_w});
  job.table_stride = aligned({job.fill_h, job.columns, job.slots, lanes});
  job.accumulators_stride = aligned({job.tiles, job.most_rows, job.tile_h, job.tile_w, lanes});
  packing_.packed = AlignedBuffer(checked_product({channels, job.packed_h, job.packed_columns, lanes}));
  packing_.plane = AlignedBuffer(checked_product({job.plane_stride, threads}));
  packing_.table = AlignedBuffer(checked_product({job.table_stride, threads}));
  packing_.accumulators = AlignedBuffer(checked_product({job.accumulators_stride, threads}));
  job.packed = packing_.packed.get(), job.plane = packing_.plane.get(), job.table = packing_.table.get();
  job.accumulators = packing_.accumulators.get();
  std::fill_n(job.plane, job.plane_stride * threads, 0.0f);  // the padding; the image is written over
  std::fill_n(job.table, job.table_stride * threads, 0.0f);  // the slots of zeros
}

// The pass's copies and sums.
void Plan::fill_program(Pass* pass) {
  const Job& job = packing_.job;
  const int32_t columns = job.columns, packed = job.packed_columns, stride = job.stride;
  auto at = [&](int32_t slot) { return static_cast<uint16_t>(slot * columns); };
  pass->first_copy = narrow(static_cast<int64_t>(packing_.copies.size()));
  pass->first_step = narrow(static_cast<int64_t>(packing_.steps.size()));
  if (options_.algorithm == Algorithm::kTable) {
    int32_t first_slot = 0;
    for (int32_t c = 0; c < pass->channels; c += job.group) {
      const TableProgram& made = program(job.group, std::min(job.group, pass->channels - c));
      for (size_t i = 0; i < made.channel_slots().size(); i++) {
        for (int32_t m = 0; m < stride; m++) {  // columns of remainder m
          packing_.copies.push_back({(first_slot + made.channel_slots()[i]) * columns + m * (columns / stride),
                                     (c + narrow(static_cast<int64_t>(i))) * packed + m * (packed / stride)});
        }
      }
      for (const Step& step : made.steps()) {
        packing_.steps.push_back(
            {at(first_slot + step.to), at(first_slot + step.a), at(first_slot + step.b), step.subtract});
      }
      first_slot += made.slots();
    }
  } else if (options_.algorithm == Algorithm::kDataflow) {
    const Graph& graph = options_.graphs[pass->first_channel / job.pass_channels];
    int32_t slot = 0;
    for (int32_t c = 0; c < pass->channels; c++) {
      for (int64_t r = 0; r < shape_.R; r++) {
        for (int64_t s = 0; s < shape_.S; s++) {
          const int64_t column = s % stride * (packed / stride) + s / stride;
          packing_.copies.push_back({slot++ * columns, narrow((r * job.pass_channels + c) * packed + column)});
        }
      }
    }
    for (const auto& node : graph.nodes) packing_.steps.push_back({at(slot++), at(node[0]), at(node[1]), 0});
  }
  pass->copies = narrow(static_cast<int64_t>(packing_.copies.size())) - pass->first_copy;
  pass->steps = narrow(static_cast<int64_t>(packing_.steps.size())) - pass->first_step;
}

// A row's entries of one pass, of sparse or table.
void Plan::list_entries(const Row& row, const Pass& pass, std::vector<uint16_t>* adds,
                        std::vector<uint16_t>* subtracts) {
  const Job& job = packing_.job;
  for (int64_t r = 0; r < shape_.R; r++) {
    for (int64_t s = 0; s < shape_.S; s++) {
      const int64_t column = s % job.stride * (job.columns / job.stride) + s / job.stride, tap = r * shape_.S + s;
      auto list = [&](int64_t slot, bool subtract) {
        const auto entry = static_cast<uint16_t>((r * job.slots + slot) * job.columns + column);
        (subtract ? subtracts : adds)->push_back(entry);
      };
      if (job.group == 0) {
        for (int64_t c = 0; c < pass.channels; c++) {
          const int8_t value = row.filter < 0 ? row.add : code(row, pass.first_channel + c, tap);
          if (value == row.add) list(c, false);
          if (value == row.subtract && row.filter >= 0) list(c, true);
        }
        continue;
      }
      int64_t first_slot = 0;
      for (int64_t c = 0; c < pass.channels; c += job.group) {
        const int size = narrow(std::min<int64_t>(job.group, pass.channels - c));
        const TableProgram& made = program(job.group, size);
        const auto [added, subtracted] = added_and_subtracted(row, pass.first_channel + c, size, tap);
        auto look_up = [&](int pattern, bool subtract) {
          if (pattern == 0 && options_.skip_zeros) return;
          bool negated;
          const int slot = made.slot(pattern, &negated);
          list(first_slot + slot, subtract != negated);
        };
        if (whole_patterns()) {
          look_up(added + 2 * subtracted, false);
        } else {
          if (row.add != kNone || row.filter < 0) look_up(added, false);
          if (row.subtract != kNone) look_up(subtracted, true);
        }
        first_slot += made.slots();
      }
    }
  }
}

void Plan::fill_lists() {
  Packing fresh;
  fresh.job = packing_.job;
  packing_ = std::move(fresh);
  packing_.first_term.push_back(0);
  Job& job = packing_.job;
  const bool rewritten = options_.encoding == Encoding::kRewritten;
  const int64_t K = shape_.K;
  job.most_rows = 0;
  for (int32_t b = 0; b < job.blocks; b++) {
    const int64_t first_filter = K * b / job.blocks, end_filter = K * (b + 1) / job.blocks;
    packing_.blocks.push_back({narrow(first_filter), narrow(end_filter - first_filter), b * job.passes});
    const int32_t first_row = first_row_[first_filter], own_rows = first_row_[end_filter] - first_row;
    std::vector<const Row*> rows;
    for (int32_t i = 0; i < own_rows; i++) rows.push_back(&rows_[first_row + i]);
    if (rewritten) rows.push_back(&rows_.back());
    job.most_rows = std::max(job.most_rows, narrow(static_cast<int64_t>(rows.size())));
    for (int64_t k = first_filter; k < end_filter; k++) {
      for (int32_t i = first_row_[k]; i < first_row_[k + 1]; i++)
        packing_.terms.push_back({i - first_row, coefficients_[i]});
      if (rewritten) packing_.terms.push_back({own_rows, -weights_.scale[k]});
      packing_.first_term.push_back(narrow(static_cast<int64_t>(packing_.terms.size())));
    }
    std::vector<std::vector<uint16_t>> adds(rows.size()), subtracts(rows.size());
    std::vector<int32_t> order(rows.size());
    for (int32_t p = 0; p < job.passes; p++) {
      Pass pass{};
      pass.first_channel = p * job.pass_channels;
      pass.channels = narrow(std::min<int64_t>(job.pass_channels, shape_.C - pass.first_channel));
      const bool table = options_.algorithm == Algorithm::kTable;
      if (b > 0 || (table && p > 0 && pass.channels == packing_.passes.back().channels)) {  // a program made before
        const Pass& before = b > 0 ? packing_.passes[p] : packing_.passes.back();
        pass.first_copy = before.first_copy, pass.copies = before.copies;
        pass.first_step = before.first_step, pass.steps = before.steps;
      } else {
        fill_program(&pass);
      }
      size_t set = 0;
      for (size_t i = 0; i < rows.size(); i++) {
        adds[i].clear(), subtracts[i].clear();
        if (options_.algorithm != Algorithm::kDataflow) {
          list_entries(*rows[i], pass, &adds[i], &subtracts[i]);
          continue;
        }
        const Graph& graph = options_.graphs[static_cast<size_t>(p)];
        for (auto* list : {&adds[i], &subtracts[i]}) {
          if (list == &subtracts[i] && rows[i]->subtract == kNone) continue;
          for (const int32_t value : graph.sums[set]) list->push_back(static_cast<uint16_t>(value * job.columns));
          set++;
        }
      }
      // Rows of equally many entries one after the other: the inner loops' lengths are then predictable. The first
      // pass visits every row, because it is the one that sets the accumulators.
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) {
        return std::pair(adds[i].size(), subtracts[i].size()) < std::pair(adds[j].size(), subtracts[j].size());
      });
      pass.first_row = narrow(static_cast<int64_t>(packing_.pass_rows.size()));
      pass.first_entry = static_cast<int64_t>(packing_.entries.size());
      for (const int32_t i : order) {
        if (adds[i].empty() && subtracts[i].empty() && p > 0) continue;
        packing_.entries.insert(packing_.entries.end(), adds[i].begin(), adds[i].end());
        packing_.entries.insert(packing_.entries.end(), subtracts[i].begin(), subtracts[i].end());
        packing_.pass_rows.push_back(
            {i, static_cast<uint16_t>(adds[i].size()), static_cast<uint16_t>(subtracts[i].size())});
        pass.rows++;
        if (b > 0 && i == own_rows) packing_.repeated_entries += static_cast<int64_t>(adds[i].size());
      }
      packing_.passes.push_back(pass);
    }
  }
  job.block = packing_.blocks.data(), job.pass = packing_.passes.data(), job.copies = packing_.copies.data(),
  job.steps = packing_.steps.data();
  job.pass_rows = packing_.pass_rows.data(), job.entries = packing_.entries.data();
  job.terms = packing_.terms.data(), job.first_term = packing_.first_term.data();
  job.channel_sign = weights_.channel_sign.data(), job.bias = options_.bias.data(), job.relu = options_.relu;
}

// Of one thread: threads that share filters out each make their own tables and their own shared row.
void Plan::count_operations() {
  const int64_t outputs = shape_.P() * shape_.Q();
  operations_.entry_adds = outputs * (static_cast<int64_t>(packing_.entries.size()) - packing_.repeated_entries);
  operations_.multiplies = outputs * static_cast<int64_t>(packing_.terms.size());
  for (int64_t k = 0; k < shape_.K; k++)
    operations_.combine_adds += outputs * std::max(packing_.first_term[k + 1] - packing_.first_term[k] - 1, 0);
  const int64_t touched = ((shape_.P() - 1) * shape_.stride + shape_.R) * ((shape_.Q() - 1) * shape_.stride + shape_.S);
  for (int32_t p = 0; p < packing_.job.passes; p++) {
    if (options_.algorithm == Algorithm::kTable) operations_.table_adds += touched * packing_.passes[p].steps;
    if (options_.algorithm == Algorithm::kDataflow) operations_.node_adds += outputs * packing_.passes[p].steps;
  }
}

int64_t Plan::weight_bytes() const {
  return static_cast<int64_t>(packing_.entries.size() * sizeof(uint16_t) + packing_.pass_rows.size() * sizeof(PassRow) +
                              packing_.copies.size() * sizeof(Copy) + packing_.steps.size() * sizeof(Step) +
                              packing_.terms.size() * sizeof(Term));
}

std::string Plan::geometry() const {
  auto text = [](int64_t value) { return std::to_string(value); };
  const Job& j = packing_.job;
  return "grid " + text(j.grid.n) + "x" + text(j.grid.h) + "x" + text(j.grid.w) + ", tile " + text(j.tile_h) + "x" +
         text(j.tile_w) + ", " + text(j.pass_channels) + " channels a pass" +
         (j.blocks > 1 ? ", " + text(j.blocks) + " filter blocks" : "");
}

std::vector<int32_t> Plan::choices() const {
  const Job& j = packing_.job;
  return Geometry{j.grid, j.tile_h, j.tile_w, j.group, j.pass_channels / std::max(j.group, 1), j.blocks}.choices();
}

void Plan::run(const float* x, const float* residual, float* y) {
  std::lock_guard<std::mutex> lock(mutex_);
  kernel_.run(packing_.job, x, residual, y);
}

}  // namespace sbkit
