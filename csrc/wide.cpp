#include "wide.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "integer_geometry.h"
#include "integer_kernels.h"

namespace sbkit {

namespace {

constexpr int64_t kPanelBytes = 32 << 10;  // of the first-level cache

class Wide : public Step {
 public:
  explicit Wide(const WideRequest& request) : request_(request) {
    check_sums();
    lay_out();
    list_weights();
    set_pointers();
  }

  StepShapes shapes() const override {
    const ConvShape& s = request_.shape;
    return {{s.N, s.C, s.H, s.W}, {s.N, s.K, s.P(), s.Q()}, request_.floats, false};
  }

  void run_step(const void* x, const uint8_t*, uint8_t* y) override {
    std::lock_guard<std::mutex> lock(mutex_);
    request_.kernel->run_wide(job_, x, y);
    for (float scale : image_scale_)
      if (!std::isfinite(scale)) throw std::invalid_argument("x holds values that are not finite; allowed: finite ones");
  }

 private:
  void check_sums() const;
  void lay_out();
  void list_weights();
  void set_pointers();

  const WideRequest request_;
  WideJob job_{};
  std::vector<int64_t> taps_;
  std::vector<int16_t> weights_;
  std::vector<float> image_scale_;
  AlignedBuffer padded_, panels_;
  std::mutex mutex_;
};

void Wide::check_sums() const {
  const ConvShape& s = request_.shape;
  const int64_t window = s.C * s.R * s.S;
  for (int64_t k = 0; k < s.K; k++) {
    int64_t sum = 0;
    for (int64_t i = 0; i < window; i++) sum += std::abs(int64_t{request_.weights[k * window + i]});
    if (sum * request_.most_x > 0x7fffffff)
      throw std::invalid_argument("filter " + std::to_string(k) + " has sums to " + std::to_string(sum * request_.most_x) +
                                  "; allowed: below 2^31");
  }
}

void Wide::lay_out() {
  const ConvShape& s = request_.shape;
  WideJob& job = job_;
  job.N = s.N, job.C = s.C, job.H = s.H, job.W = s.W, job.K = s.K, job.P = s.P(), job.Q = s.Q();
  job.stride = narrow(s.stride), job.padding = narrow(s.padding), job.threads = request_.threads;
  job.window_h = narrow(s.R), job.window_w = narrow(s.S);
  job.floats = request_.floats, job.most_x = static_cast<float>(request_.most_x);
  job.padded_h = padded_rows(s), job.phase_columns = phase_columns(s), job.pitch = job.phase_columns * s.stride;
  for (int64_t c = 0; c < s.C; c++) {
    for (int64_t r = 0; r < s.R; r++) {
      for (int64_t t = 0; t < s.S; t++)
        taps_.push_back((c * job.padded_h + r) * job.pitch + t % s.stride * job.phase_columns + t / s.stride);
    }
  }
  if (taps_.size() % 2) taps_.push_back(-1);
  job.pairs = narrow(static_cast<int64_t>(taps_.size()) / 2);
  const int64_t fitting = kPanelBytes / (job.pairs * 4 * job.Q), shared = ceil_div(job.P, int64_t{job.threads});
  job.rows_of_panel = narrow(std::max<int64_t>(1, std::min({fitting, shared, job.P})));
  job.panel_positions = ceil_div(job.rows_of_panel * job.Q, 16) * 16;
}

void Wide::list_weights() {
  const ConvShape& s = request_.shape;
  const int64_t window = s.C * s.R * s.S;
  weights_.assign(static_cast<size_t>(checked_product({ceil_div(s.K, kWideFilters) * kWideFilters, job_.pairs, 2})), 0);
  for (int64_t k = 0; k < s.K; k++) {
    for (int64_t i = 0; i < window; i++) {
      const int64_t block = k / kWideFilters * job_.pairs + i / 2;
      weights_[(block * kWideFilters + k % kWideFilters) * 2 + i % 2] = request_.weights[k * window + i];
    }
  }
}

AlignedBuffer zeros(int64_t values) {
  AlignedBuffer buffer(ceil_div(values, 2));
  std::fill_n(buffer.get(), ceil_div(values, 2), 0.0f);
  return buffer;
}

void Wide::set_pointers() {
  const ConvShape& s = request_.shape;
  // Rows are read and pairs written by eights.
  padded_ = zeros(checked_product({s.N, s.C, job_.padded_h, job_.pitch}) + 8);
  job_.panel_stride = ceil_div(int64_t{job_.pairs} * job_.panel_positions * 2 + 16, 32) * 32;
  panels_ = zeros(checked_product({job_.panel_stride, job_.threads}));
  image_scale_.assign(request_.floats ? static_cast<size_t>(s.N) : 0, 0.0f);
  job_.padded = reinterpret_cast<int16_t*>(padded_.get()), job_.panel = reinterpret_cast<int16_t*>(panels_.get());
  job_.image_scale = image_scale_.data(), job_.tap = taps_.data(), job_.weights = weights_.data();
  const Rounding& rounding = request_.rounding;
  job_.scale = rounding.scale.data(), job_.bias = rounding.bias.data();
  job_.most = static_cast<float>((1 << rounding.bits) - 1);
}

}  // namespace

std::shared_ptr<Step> make_wide(const WideRequest& request) { return std::make_shared<Wide>(request); }

}  // namespace sbkit
