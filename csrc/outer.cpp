#include "outer.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "integer_geometry.h"
#include "integer_kernels.h"

namespace sbkit {

namespace {

constexpr int64_t kPanelBytes = 32 << 10;  // of the first-level cache

void check(const OuterRequest& request) {
  for (int8_t weight : request.weights) {
    if (std::abs(weight) > kMostOuter)
      throw std::invalid_argument("a weight of " + std::to_string(weight) + "; allowed: -63 to 63");
  }
  const ConvShape& s = request.shape;
  const int64_t most = ((int64_t{1} << 31) - 1) / (2 * 255 * kMostOuter);  // halved: a sum's beginning may be as large
  if (checked_product({s.C, s.R, s.S}) > most)
    throw std::invalid_argument("C * R * S = " + std::to_string(s.C * s.R * s.S) + " of weights of 7 bits; allowed: at most " +
                                std::to_string(most));
}

class Outer : public Step {
 public:
  explicit Outer(const OuterRequest& request) : request_(request) {
    check(request_);
    lay_out();
    list_weights();
    // Rows are read by sixteens.
    const int64_t bytes = checked_product({job_.N, job_.C, job_.padded_h, job_.pitch}) + 16;
    padded_ = zeros(bytes);
    std::memset(padded_.get(), request_.zero, static_cast<size_t>(bytes));
    job_.panel_stride = ceil_div(4 * (job_.quads * job_.panel_positions + 16), 64) * 64;
    panels_ = zeros(checked_product({job_.panel_stride, job_.threads}));
    job_.padded = reinterpret_cast<uint8_t*>(padded_.get()), job_.panel = reinterpret_cast<uint8_t*>(panels_.get());
    job_.tap = taps_.data(), job_.weights = weights_.data(), job_.start = start_.data();
    job_.scale = request_.rounding.scale.data(), job_.bias = request_.rounding.bias.data();
    job_.most = static_cast<float>((1 << request_.rounding.bits) - 1);
  }

  StepShapes shapes() const override {
    const ConvShape& s = request_.shape;
    return {{s.N, s.C, s.H, s.W}, {s.N, s.K, s.P(), s.Q()}};
  }

  void run_step(const void* x, const uint8_t*, void* y) override {
    std::lock_guard<std::mutex> lock(mutex_);
    request_.kernel->outer()(job_, static_cast<const uint8_t*>(x), static_cast<uint8_t*>(y));
  }

 private:
  void lay_out();
  void list_weights();

  OuterRequest request_;
  OuterJob job_{};
  std::vector<int64_t> taps_;
  std::vector<int8_t> weights_;
  std::vector<int32_t> start_;
  AlignedBuffer padded_, panels_;
  std::mutex mutex_;
};

void Outer::lay_out() {
  const ConvShape& s = request_.shape;
  OuterJob& job = job_;
  job.N = s.N, job.C = s.C, job.H = s.H, job.W = s.W, job.K = s.K, job.P = s.P(), job.Q = s.Q();
  job.stride = narrow(s.stride), job.padding = narrow(s.padding), job.threads = request_.threads;
  job.window_h = narrow(s.R), job.window_w = narrow(s.S);
  job.padded_h = padded_rows(s), job.phase_columns = phase_columns(s), job.pitch = job.phase_columns * s.stride;
  for (int64_t c = 0; c < s.C; c++) {
    for (int64_t r = 0; r < s.R; r++) {
      for (int64_t t = 0; t < s.S; t++)
        taps_.push_back((c * job.padded_h + r) * job.pitch + t % s.stride * job.phase_columns + t / s.stride);
    }
  }
  job.taps = narrow(static_cast<int64_t>(taps_.size())), job.quads = narrow(ceil_div(job.taps, 4));
  taps_.resize(static_cast<size_t>(4) * job.quads, taps_[0]);  // of weight 0
  const int64_t fitting = kPanelBytes / (int64_t{4} * job.quads * job.Q), shared = ceil_div(job.P, int64_t{job.threads});
  job.rows_of_panel = narrow(std::max<int64_t>(1, std::min({fitting, shared, job.P})));
  job.panel_positions = ceil_div(job.rows_of_panel * job.Q, 16) * 16;
}

void Outer::list_weights() {
  const ConvShape& s = request_.shape;
  const int64_t filters = ceil_div(s.K, kOuterFilters) * kOuterFilters;
  weights_.assign(static_cast<size_t>(checked_product({filters, 4, job_.quads})), 0);
  start_.assign(static_cast<size_t>(filters), 0);
  for (int64_t k = 0; k < s.K; k++) {
    for (int64_t i = 0; i < job_.taps; i++) {
      const int8_t weight = request_.weights[k * job_.taps + i];
      weights_[((k / kOuterFilters * job_.quads + i / 4) * kOuterFilters + k % kOuterFilters) * 4 + i % 4] = weight;
      start_[k] -= request_.zero * weight;
    }
  }
  request_.weights = {};
}

}  // namespace

std::shared_ptr<Step> make_outer(const OuterRequest& request) { return std::make_shared<Outer>(request); }

}  // namespace sbkit
