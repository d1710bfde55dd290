#include "full.h"

#include "integer_kernels.h"
#include "panel_layout.h"

namespace sbkit {

namespace {

class Full : public Step {
 public:
  explicit Full(const FullRequest& request) : request_(request) {
    taps_ = lay_out_panels(request_.shape, request_.threads, 1, &job_);
    job_.floats = request_.floats;
    list_weights();
    // Rows are copied by eights.
    padded_ = zeros(4 * (checked_product({job_.N, job_.C, job_.padded_h, job_.pitch}) + 8));
    panels_ = zeros(4 * checked_product({job_.panel_stride, job_.threads}));
    job_.padded = padded_.get(), job_.panel = panels_.get();
    job_.tap = taps_.data(), job_.weights = weights_.data(), job_.bias = request_.bias.data();
    job_.most = static_cast<float>((1 << request_.bits) - 1);
  }

  StepShapes shapes() const override {
    const ConvShape& s = request_.shape;
    return {{s.N, s.C, s.H, s.W}, {s.N, s.K, s.P(), s.Q()}, request_.floats, false};
  }

  void run_step(const void* x, const uint8_t*, void* y) override {
    std::lock_guard<std::mutex> lock(mutex_);
    request_.kernel->run_full(job_, x, static_cast<uint8_t*>(y));
  }

 private:
  void list_weights();

  FullRequest request_;
  FullJob job_{};
  std::vector<int64_t> taps_;
  std::vector<float> weights_;
  AlignedBuffer padded_, panels_;
  std::mutex mutex_;
};

void Full::list_weights() {
  const ConvShape& s = request_.shape;
  weights_.assign(static_cast<size_t>(checked_product({ceil_div(s.K, kFullFilters) * kFullFilters, job_.taps})), 0.0f);
  for (int64_t k = 0; k < s.K; k++) {
    for (int64_t i = 0; i < job_.taps; i++)
      weights_[(k / kFullFilters * job_.taps + i) * kFullFilters + k % kFullFilters] = request_.weights[k * job_.taps + i];
  }
  request_.weights = {};
}

}  // namespace

std::shared_ptr<Step> make_full(const FullRequest& request) { return std::make_shared<Full>(request); }

}  // namespace sbkit
