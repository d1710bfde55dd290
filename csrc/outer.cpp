#include "outer.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "integer_kernels.h"
#include "panel_layout.h"

namespace sbkit {

namespace {

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
    taps_ = lay_out_panels(request_.shape, request_.threads, 4, &job_);
    list_weights();
    // Rows are read by sixteens.
    const int64_t bytes = checked_product({job_.N, job_.C, job_.padded_h, job_.pitch}) + 16;
    padded_ = zeros(bytes);
    std::memset(padded_.get(), request_.zero, static_cast<size_t>(bytes));
    panels_ = zeros(4 * checked_product({job_.panel_stride, job_.threads}));
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
  void list_weights();

  OuterRequest request_;
  OuterJob job_{};
  std::vector<int64_t> taps_;
  std::vector<int8_t> weights_;
  std::vector<int32_t> start_;
  AlignedBuffer padded_, panels_;
  std::mutex mutex_;
};

void Outer::list_weights() {
  const ConvShape& s = request_.shape;
  const int64_t filters = ceil_div(s.K, kOuterFilters) * kOuterFilters;
  weights_.assign(static_cast<size_t>(checked_product({filters, 4, job_.entries})), 0);
  start_.assign(static_cast<size_t>(filters), 0);
  for (int64_t k = 0; k < s.K; k++) {
    for (int64_t i = 0; i < job_.taps; i++) {
      const int8_t weight = request_.weights[k * job_.taps + i];
      weights_[((k / kOuterFilters * job_.entries + i / 4) * kOuterFilters + k % kOuterFilters) * 4 + i % 4] = weight;
      start_[k] -= request_.zero * weight;
    }
  }
  request_.weights = {};
}

}  // namespace

std::shared_ptr<Step> make_outer(const OuterRequest& request) { return std::make_shared<Outer>(request); }

}  // namespace sbkit
