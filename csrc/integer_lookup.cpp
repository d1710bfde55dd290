// `lookup`, offline: the masks of a group, and the codes of the filters.
#include <algorithm>
#include <map>
#include <numeric>

#include "integer_chains.h"
#include "integer_kernels.h"
#include "integer_masks.h"

namespace sbkit {

namespace {

constexpr int kFilters = 32, kGroups = 4, kMasks = 16;

// The masks that occur, the empty one first; nothing if they are more than 16 or one may exceed 255.
std::vector<uint32_t> masks_of(const FilterMasks& masks, int most) {
  std::map<uint32_t, int> occurring{{0, 0}};
  for (uint32_t mask : masks.all()) {
    if (__builtin_popcount(mask) * most > 255) return {};
    occurring[mask] = 0;
    if (occurring.size() > kMasks) return {};
  }
  std::vector<uint32_t> found;
  for (const auto& each : occurring) found.push_back(each.first);
  return found;
}

struct Mask {
  uint32_t channels;
  bool minus;
};

class IntegerLookup : public IntegerLayer {
 public:
  IntegerLookup(const IntegerRequest& request, const FilterMasks& masks, std::vector<uint32_t> occurring)
      : request_(request), masks_(masks), occurring_(std::move(occurring)) {
    for (size_t i = 0; i < occurring_.size(); i++) code_of_[occurring_[i]] = static_cast<uint8_t>(i);
    lay_out();
    for (int64_t k = 0; k < request.shape.K; k += kFilters) {
      if (body_->form == LookupForm::kQuads) list_quads(narrow(k));
      if (body_->form == LookupForm::kChains) list_chains(narrow(k));
    }
    set_pointers();
    describe();
  }

  void run(const uint8_t* x, const uint8_t* residual, void* y, int stages) override {
    std::lock_guard<std::mutex> lock(mutex_);
    job_.stages = stages;
    body_->run(job_, x, residual, y);
  }

 private:
  void lay_out();
  int64_t table_of(int tap, int group) const {
    return tap / request_.shape.S * job_.row_bytes + tap % request_.shape.S * job_.position_bytes + group * kMasks;
  }
  Mask mask_of(int filter, int group, int tap, int second) const;
  void list_quads(int first_filter);
  void list_chains(int first_filter);
  void set_pointers();
  void describe();
  double cycles() const;
  bool few(int first_filter) const { return job_.K - first_filter <= kFilters / 2; }

  const IntegerRequest request_;
  const LookupBody* const body_ = request_.kernel->lookup();
  const FilterMasks masks_;
  const std::vector<uint32_t> occurring_;
  std::map<uint32_t, uint8_t> code_of_;
  int positions_of_quad_ = 1;  // whose groups a quad has
  LookupJob job_{};
  std::vector<uint8_t> select_, codes_;
  std::vector<int8_t> signs_;
  std::vector<int32_t> sign_, excess_;  // [K rounded up to 32]
  std::vector<LookupBlock> blocks_;
  std::vector<LookupItem> items_;
  std::vector<float> scale_, bias_;  // padded to whole blocks
  AlignedBuffer last_, tables_, sums_, totals_;
};

void IntegerLookup::lay_out() {
  const ConvShape& s = request_.shape;
  LookupJob& job = job_;
  job.N = s.N, job.C = s.C, job.H = s.H, job.W = s.W, job.K = s.K, job.P = s.P(), job.Q = s.Q();
  job.stride = narrow(s.stride), job.padding = narrow(s.padding), job.window_h = narrow(s.R), job.window_w = narrow(s.S);
  job.threads = request_.threads, job.shared = request_.rewritten;
  job.group = masks_.group, job.quads = narrow(ceil_div(masks_.groups, kGroups));
  for (uint32_t mask : occurring_) job.most_channels = std::max(job.most_channels, __builtin_popcount(mask));
  job.padded_w = s.W + 2 * s.padding;
  job.pixel_bytes = ceil_div(std::max<int64_t>(s.C, int64_t{job.quads} * kGroups * job.group), 16) * 16;
  const bool neighbours = body_->form == LookupForm::kQuads && s.stride == 1 && masks_.groups <= kGroups / 2;
  if (neighbours) positions_of_quad_ = kGroups / masks_.groups;
  job.position_bytes = (neighbours ? masks_.groups : job.quads * kGroups) * kMasks;
  job.row_bytes = job.padded_w * job.position_bytes;
  // Tables that the second-level cache holds, and rows for all threads.
  const int64_t fitting = (int64_t{1} << 19) / job.row_bytes - s.R;
  const int64_t shared = ceil_div(job.P, int64_t{job.threads});
  job.rows_of_chunk = narrow(std::max<int64_t>(1, std::min({fitting / s.stride, shared, job.P})));
  // 16 positions are finished together, so a multiple of 16 wastes none.
  const int64_t whole = 16 / std::gcd(job.Q, int64_t{16});
  job.rows_at_once = narrow(std::min<int64_t>(job.rows_of_chunk, whole * ceil_div(64, whole * job.Q)));
  job.chunk_rows = (job.rows_of_chunk - 1) * s.stride + s.R;
  select_.assign(static_cast<size_t>(std::max(1, job.most_channels)) * 64, 255);
  for (int g = 0; g < kGroups; g++) {
    for (size_t m = 0; m < occurring_.size(); m++) {
      int i = 0;
      for (uint32_t rest = occurring_[m]; rest; rest &= rest - 1, i++)
        select_[i * 64 + g * kMasks + m] = static_cast<uint8_t>(g * job.group + __builtin_ctz(rest));
    }
  }
  // Whether every filter has codes of one sign, so that it may be applied at the end.
  sign_.assign(ceil_div(s.K, kFilters) * kFilters, 1), excess_.assign(sign_.size(), 0);
  const int64_t per_filter = s.C * s.R * s.S;
  for (int64_t k = 0; k < s.K && !job.shared; k++) {
    const auto first = request_.codes.begin() + k * per_filter, last = first + per_filter;
    const bool plus = std::find(first, last, 1) != last, minus = std::find(first, last, -1) != last;
    job.has_signs |= plus && minus;
    if (minus && !plus) sign_[k] = -1;
  }
  if (job.has_signs) std::fill(sign_.begin(), sign_.end(), 1);
}

// What a filter adds or subtracts of a tap and group. Where it does both, the second is what it subtracts.
Mask IntegerLookup::mask_of(int filter, int group, int tap, int second) const {
  if (filter >= job_.K || group >= masks_.groups) return {0, false};
  const uint32_t add = masks_.at(filter + job_.shared, group, tap, 0);
  const uint32_t subtract = masks_.at(filter + job_.shared, group, tap, 1);
  if (second) return {add ? subtract : 0, true};
  return add ? Mask{add, false} : Mask{subtract, subtract != 0};
}

// A tap, or as many as a quad has positions, and quad is an item of its block if some filter has a mask there; two if one
// has masks of both signs.
void IntegerLookup::list_quads(int first_filter) {
  blocks_.push_back({first_filter, narrow(items_.size()), 0, 1, 1, few(first_filter)});
  const int columns = job_.window_w, groups = kGroups / positions_of_quad_;  // of a position
  for (int tap = 0; tap < masks_.taps; tap += std::min(positions_of_quad_, columns - tap % columns)) {
    for (int quad = 0; quad < job_.quads; quad++) {
      for (int second : {0, 1}) {
        uint8_t code[kFilters][kGroups];
        int8_t sign[kFilters][kGroups];
        bool any = false;
        for (int f = 0; f < kFilters; f++) {
          for (int g = 0; g < kGroups; g++) {
            const int next = g / groups;  // position
            Mask mask{0, false};
            if (tap % columns + next < columns)
              mask = mask_of(first_filter + f, quad * kGroups + g % groups, tap + next, second);
            code[f][g] = static_cast<uint8_t>(g * kMasks + code_of_.at(mask.channels));
            sign[f][g] = mask.minus && job_.has_signs ? -1 : 1;
            any |= mask.channels != 0;
          }
        }
        if (!any) continue;
        items_.push_back({table_of(tap, quad * kGroups)});
        codes_.insert(codes_.end(), &code[0][0], &code[0][0] + kFilters * kGroups);
        if (job_.has_signs) signs_.insert(signs_.end(), &sign[0][0], &sign[0][0] + kFilters * kGroups);
        blocks_.back().items++;
      }
    }
  }
}

// A tap and group is an item, or two groups for few filters.
void IntegerLookup::list_chains(int first_filter) {
  const bool halves = few(first_filter);
  int most_value = 1;
  while (most_value < job_.most_channels * request_.most()) most_value = 2 * most_value + 1;
  std::vector<ChainItem> listed;
  for (int tap = 0; tap < masks_.taps; tap++) {
    for (int group = 0; group < masks_.groups; group += 1 + halves) {
      for (int second : {0, 1}) {
        ChainItem item;
        item.table = table_of(tap, group);
        bool any = false;
        for (int lane = 0; lane < kChainLanes; lane++) {
          // In this order, widening leaves the filters in theirs: lanes 0 to 3 and 16 to 19 are the first eight.
          const int f = halves ? lane % 16 : lane % 16 / 4 * 8 + lane / 16 * 4 + lane % 4;
          const Mask mask = mask_of(first_filter + f, group + (halves ? lane / 16 : 0), tap, second);
          if (!mask.channels) continue;
          const bool subtract = mask.minus && job_.has_signs;
          item.code[lane] = code_of_.at(mask.channels);
          item.sign[lane] = static_cast<uint8_t>(subtract ? most_value : 0);
          const int sum = __builtin_popcount(mask.channels) * request_.most();
          item.most[lane] = static_cast<uint8_t>(subtract ? most_value : sum);
          if (subtract) excess_[first_filter + f] += most_value;
          any = true;
        }
        if (any) listed.push_back(item);
      }
    }
  }
  const Chained chains = chained(listed, job_.has_signs);
  const std::vector<int> parts = parts_of(chains);
  for (size_t i = 0; i < parts.size(); i++) {
    const int last = i + 1 < parts.size() ? parts[i + 1] : narrow(chains.items.size());
    blocks_.push_back({first_filter, narrow(items_.size()) + parts[i], last - parts[i], narrow(parts.size()),
                       chains.length, halves});
  }
  for (const ChainItem& item : chains.items) {
    items_.push_back({item.table});
    codes_.insert(codes_.end(), item.code.begin(), item.code.end());
    if (job_.has_signs) signs_.insert(signs_.end(), item.sign.begin(), item.sign.end());
  }
}

void IntegerLookup::set_pointers() {
  LookupJob& job = job_;
  auto buffer = [&](int64_t bytes, int64_t* stride) {
    *stride = ceil_div(bytes + 64, 64) * 64;
    return zeros(checked_product({*stride, job.threads}));
  };
  last_ = buffer(job.padded_w * job.pixel_bytes, &job.last_stride);
  tables_ = buffer(job.chunk_rows * job.row_bytes, &job.table_stride);
  sums_ = buffer(ceil_div(job.rows_at_once * job.Q, 16) * 16 * kFilters * 4, &job.sums_stride);
  const int64_t totals = job.shared ? job.chunk_rows * job.padded_w + job.rows_of_chunk * job.Q + 16 : 0;
  totals_ = buffer(totals * 4, &job.totals_stride), job.totals = reinterpret_cast<int32_t*>(totals_.get());
  job.last = reinterpret_cast<uint8_t*>(last_.get()), job.table = reinterpret_cast<uint8_t*>(tables_.get());
  job.sums = reinterpret_cast<int32_t*>(sums_.get());
  job.select = select_.data(), job.block = blocks_.data(), job.blocks = narrow(blocks_.size());
  job.items = items_.data(), job.codes = codes_.data(), job.signs = signs_.data(), job.sign = sign_.data();
  job.excess = excess_.data();
  const Rounding& rounding = request_.rounding;
  scale_ = rounding.scale, bias_ = rounding.bias;
  job.scale = scale_.empty() ? nullptr : scale_.data(), job.bias = bias_.data();
  job.residual_scale = rounding.residual_scale, job.most = static_cast<float>((1 << rounding.bits) - 1);
}

// Estimated cycles. The constants are fitted by hand to the least times of the four layers of ResNet-18 in 4 bits, with
// 16 masks of 4 and of 8 channels, with and without signs, and those of chains to ResNet-20 and 6 bits as well, on a
// Sapphire Rapids, taken to run at 3 GHz: the estimates are 0.9 to 1.1 of nearly all, with chains 0.8 to 1.1. Plain C++
// took 50 to 800 times as long. Layers of 16 filters and fewer, or of one or two groups, were not among them.
double IntegerLookup::cycles() const {
  constexpr double kLookup = 1.35, kSignedLookup = 1.5, kInstruction = 0.44, kPlain = 100;
  const LookupJob& job = job_;
  const ConvShape& s = request_.shape;
  const bool quads = body_->form == LookupForm::kQuads;
  const double table = quads ? 7 : 12, output = quads ? 0.3 : 1.5;
  double lookups = 0;  // of one output position
  for (const LookupBlock& block : blocks_) {
    lookups += quads ? (block.few ? 1 : 2) * block.items * (job.has_signs ? kSignedLookup : kLookup)
                     : block.items / block.chain * chain_instructions(block.chain, job.has_signs) * kInstruction;
  }
  const double made = double(job.N * (s.H + 2 * s.padding) * job.padded_w) * double(std::min(s.R, s.stride)) *
                      double(std::min(s.S, s.stride)) / double(s.stride * s.stride);
  const double positions = double(job.N * job.P * job.Q);
  double fast = positions * (lookups + double(job.K) * output) + made * job.quads * table;
  if (job.shared && !quads) fast += positions * double(s.R * s.S) + made * (8 + double(s.C) / 16);
  return (body_->slow ? fast * kPlain : fast) / request_.threads;
}

void IntegerLookup::describe() {
  const LookupJob& job = job_;
  facts_.group = job.group, facts_.lane_bits = 32;
  facts_.cost = cycles();
  facts_.weight_bytes = static_cast<int64_t>(codes_.size() + signs_.size() + items_.size() * sizeof(LookupItem));
  facts_.geometry = "filters as lanes, " + std::to_string(occurring_.size()) + " masks of " +
                    std::to_string(job.group) + " channels, " + std::to_string(job.rows_of_chunk) + " rows a chunk";
  int chain = 1, parts = 1;
  for (const LookupBlock& block : blocks_) chain = std::max(chain, block.chain), parts = std::max(parts, block.parts);
  if (body_->form == LookupForm::kChains)
    facts_.geometry += ", chains of " + std::to_string(chain) + " in parts: " + std::to_string(parts);
  for (const LookupBlock& block : blocks_) {
    const int64_t positions = job.N * job.P * job.Q, chains = block.items / block.chain;
    const bool quads = body_->form == LookupForm::kQuads;
    const int vectors = quads && !block.few ? 2 : 1;
    facts_.sum_work.entries += positions * block.items * vectors;
    facts_.sum_work.instructions += positions * (quads ? 2 * vectors * block.items
                                                       : chains * chain_instructions(block.chain, job.has_signs));
  }
  int64_t table_adds = 0, entries = 0;
  for (uint32_t mask : occurring_) table_adds += std::max(0, __builtin_popcount(mask) - 1);
  for (uint32_t mask : masks_.all()) entries += mask != 0;
  facts_.operations.combine_adds = job.shared ? job.K * job.P * job.Q : 0;
  const ConvShape& s = request_.shape;
  facts_.operations.table_adds =
      table_adds * masks_.groups * ((job.P - 1) * s.stride + s.R) * ((job.Q - 1) * s.stride + s.S);
  facts_.operations.entry_adds = entries * job.P * job.Q;
}

}  // namespace

std::unique_ptr<IntegerLayer> make_integer_lookup(const IntegerRequest& request) {
  check_sums_fit(request);
  for (int group : {16, 8, 4, 3, 2, 1}) {  // the largest group whose masks fit
    if (request.group ? request.group != group : group > 4 && group > request.shape.C) continue;
    const FilterMasks masks(request, group);
    std::vector<uint32_t> occurring = masks_of(masks, request.most());
    if (!occurring.empty()) return std::make_unique<IntegerLookup>(request, masks, std::move(occurring));
  }
  throw std::invalid_argument("group = " + std::to_string(request.group) + " with algorithm 'lookup' and " +
                              std::to_string(request.activation_bits) +
                              "-bit activations has more than 16 masks, or one whose sum exceeds 255; allowed: 0 "
                              "(automatic), or one of 1, 2, 3, 4, 8, 16 that fits");
}

}  // namespace sbkit
