// `lookup`, offline: the masks of a group, and the codes of the filters.
#include <algorithm>
#include <map>
#include <numeric>

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

class IntegerLookup : public IntegerLayer {
 public:
  IntegerLookup(const IntegerRequest& request, const FilterMasks& masks, std::vector<uint32_t> occurring)
      : request_(request), masks_(masks), occurring_(std::move(occurring)) {
    for (size_t i = 0; i < occurring_.size(); i++) code_of_[occurring_[i]] = static_cast<uint8_t>(i);
    lay_out();
    for (int64_t k = 0; k < request.shape.K; k += kFilters) list_block(narrow(k));
    set_pointers();
    describe();
  }

  void run(const uint8_t* x, const uint8_t* residual, void* y) override {
    std::lock_guard<std::mutex> lock(mutex_);
    (request_.kernel->has_lookup() ? request_.kernel->run_lookup : RunLookupPlain)(job_, x, residual, y);
  }

 private:
  void lay_out();
  void list_block(int first_filter);
  void set_pointers();
  void describe();
  double cycles() const;

  const IntegerRequest request_;
  const FilterMasks masks_;
  const std::vector<uint32_t> occurring_;
  std::map<uint32_t, uint8_t> code_of_;
  LookupJob job_{};
  std::vector<uint8_t> select_, codes_;
  std::vector<int8_t> signs_;
  std::vector<int32_t> sign_;
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
  job.row_bytes = job.padded_w * job.quads * 64;
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
  sign_.assign(ceil_div(s.K, kFilters) * kFilters, 1);
  const int64_t per_filter = s.C * s.R * s.S;
  for (int64_t k = 0; k < s.K && !job.shared; k++) {
    const auto first = request_.codes.begin() + k * per_filter, last = first + per_filter;
    const bool plus = std::find(first, last, 1) != last, minus = std::find(first, last, -1) != last;
    job.has_signs |= plus && minus;
    if (minus && !plus) sign_[k] = -1;
  }
  if (job.has_signs) std::fill(sign_.begin(), sign_.end(), 1);
}

// A tap and quad is an item of its block if some filter has a mask there; two if one has masks of both signs.
void IntegerLookup::list_block(int first_filter) {
  const ConvShape& s = request_.shape;
  blocks_.push_back({first_filter, narrow(items_.size()), 0});
  const int filters = std::min(kFilters, narrow(s.K) - first_filter);
  for (int tap = 0; tap < masks_.taps; tap++) {
    const int64_t at = tap / s.S * job_.row_bytes + tap % s.S * job_.quads * 64;
    for (int quad = 0; quad < job_.quads; quad++) {
      for (int second : {0, 1}) {
        uint8_t code[kFilters][kGroups];
        int8_t sign[kFilters][kGroups];
        bool any = false;
        for (int f = 0; f < kFilters; f++) {
          for (int g = 0; g < kGroups; g++) {
            uint32_t mask[2] = {0, 0};
            for (int i : {0, 1}) {
              if (f < filters && quad * kGroups + g < masks_.groups)
                mask[i] = masks_.at(first_filter + f + job_.shared, quad * kGroups + g, tap, i);
            }
            const bool minus = second || !mask[0];  // the second item has what the first has no room for
            const uint32_t chosen = second ? (mask[0] ? mask[1] : 0) : mask[0] ? mask[0] : mask[1];
            code[f][g] = static_cast<uint8_t>(g * kMasks + code_of_.at(chosen));
            sign[f][g] = minus && job_.has_signs ? -1 : 1;
            any |= chosen != 0;
          }
        }
        if (!any) continue;
        items_.push_back({at + quad * 64});
        codes_.insert(codes_.end(), &code[0][0], &code[0][0] + kFilters * kGroups);
        if (job_.has_signs) signs_.insert(signs_.end(), &sign[0][0], &sign[0][0] + kFilters * kGroups);
        blocks_.back().items++;
      }
    }
  }
}

void IntegerLookup::set_pointers() {
  LookupJob& job = job_;
  auto buffer = [&](int64_t bytes, int64_t* stride) {
    *stride = ceil_div(bytes + 64, 64) * 64;
    AlignedBuffer made(checked_product({*stride, job.threads}) / 4);
    std::fill_n(reinterpret_cast<uint8_t*>(made.get()), *stride * job.threads, uint8_t{0});
    return made;
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
  const Rounding& rounding = request_.rounding;
  scale_ = rounding.scale, bias_ = rounding.bias;
  job.scale = scale_.empty() ? nullptr : scale_.data(), job.bias = bias_.data();
  job.residual_scale = rounding.residual_scale, job.most = static_cast<float>((1 << rounding.bits) - 1);
}

// Estimated cycles. The constants are fitted by hand to the least times of the four layers of ResNet-18 in 4 bits, with
// 16 masks of 4 and of 8 channels, with and without signs, on a Sapphire Rapids, taken to run at 3 GHz: the estimates are
// 0.9 to 1.1 of nearly all. Plain C++ took 50 to 800 times as long.
double IntegerLookup::cycles() const {
  constexpr double kLookup = 1.35, kSignedLookup = 1.5, kTable = 7, kOutput = 0.8, kPlain = 100;
  const LookupJob& job = job_;
  const ConvShape& s = request_.shape;
  const double outputs = double(job.N * job.P * job.Q), made = double(job.N * (s.H + 2 * s.padding) * job.padded_w);
  const double lookups = outputs * 2 * double(items_.size());  // of 64 masks each
  const double fast = lookups * (job.has_signs ? kSignedLookup : kLookup) + made * job.quads * kTable +
                      outputs * double(job.K) * kOutput;
  const bool plain = request_.kernel->run_lookup == RunLookupPlain || !request_.kernel->has_lookup();
  return (plain ? fast * kPlain : fast) / request_.threads;
}

void IntegerLookup::describe() {
  const LookupJob& job = job_;
  facts_.group = job.group, facts_.lane_bits = 32;
  facts_.cost = cycles();
  facts_.weight_bytes = static_cast<int64_t>(codes_.size() + signs_.size() + items_.size() * sizeof(LookupItem));
  facts_.geometry = "filters as lanes, " + std::to_string(occurring_.size()) + " masks of " +
                    std::to_string(job.group) + " channels, " + std::to_string(job.rows_of_chunk) + " rows a chunk";
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
