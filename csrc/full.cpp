#include "full.h"

#include <algorithm>

#include "integer_geometry.h"
#include "integer_kernels.h"

namespace sbkit {

namespace {

constexpr int64_t kPanelBytes = 32 << 10;  // of the first-level cache

class Full : public Step {
 public:
  explicit Full(const FullRequest& request) : request_(request) {
    lay_out();
    list_weights();
    // Rows are copied by eights.
    padded_ = zeros(4 * (checked_product({job_.N, job_.C, job_.padded_h, job_.pitch}) + 8));
    job_.panel_stride = ceil_div(job_.taps * job_.panel_positions + 8, 16) * 16;
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
  void lay_out();
  void list_weights();

  FullRequest request_;
  FullJob job_{};
  std::vector<int64_t> taps_;
  std::vector<float> weights_;
  AlignedBuffer padded_, panels_;
  std::mutex mutex_;
};

void Full::lay_out() {
  const ConvShape& s = request_.shape;
  FullJob& job = job_;
  job.N = s.N, job.C = s.C, job.H = s.H, job.W = s.W, job.K = s.K, job.P = s.P(), job.Q = s.Q();
  job.stride = narrow(s.stride), job.padding = narrow(s.padding), job.threads = request_.threads;
  job.window_h = narrow(s.R), job.window_w = narrow(s.S), job.floats = request_.floats;
  job.padded_h = padded_rows(s), job.phase_columns = phase_columns(s), job.pitch = job.phase_columns * s.stride;
  for (int64_t c = 0; c < s.C; c++) {
    for (int64_t r = 0; r < s.R; r++) {
      for (int64_t t = 0; t < s.S; t++)
        taps_.push_back((c * job.padded_h + r) * job.pitch + t % s.stride * job.phase_columns + t / s.stride);
    }
  }
  job.taps = narrow(static_cast<int64_t>(taps_.size()));
  const int64_t fitting = kPanelBytes / (int64_t{4} * job.taps * job.Q), shared = ceil_div(job.P, int64_t{job.threads});
  job.rows_of_panel = narrow(std::max<int64_t>(1, std::min({fitting, shared, job.P})));
  job.panel_positions = ceil_div(job.rows_of_panel * job.Q, 16) * 16;
}

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
