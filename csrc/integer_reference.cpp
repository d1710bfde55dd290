// The integer convolution in its plainest form: the oracle of the tests and of the benchmark's check.
#include <cmath>
#include <limits>

#include "integer.h"

namespace sbkit {

namespace {

class IntegerDense : public IntegerLayer {
 public:
  explicit IntegerDense(const IntegerRequest& request) : request_(request) {
    const ConvShape& s = request.shape;
    check_sums_fit(request);
    facts_.weight_bytes = static_cast<int64_t>(request.codes.size());
    facts_.operations.entry_adds = facts_.operations.multiplies =
        s.P() * s.Q() * static_cast<int64_t>(request.codes.size());
    facts_.geometry = "plain loops";
    facts_.lane_bits = 32;
  }

  void run(const uint8_t* x, const uint8_t* residual, void* y, int) override {
    const ConvShape& s = request_.shape;
    const int64_t P = s.P(), Q = s.Q();
    const bool rounds = !request_.rounding.scale.empty();
#pragma omp parallel for num_threads(request_.threads)
    for (int64_t nk = 0; nk < s.N * s.K; nk++) {
      for (int64_t pq = 0; pq < P * Q; pq++) {
        const int64_t n = nk / s.K, k = nk % s.K, at = nk * P * Q + pq;
        const int32_t sum = sum_at(x + n * s.C * s.H * s.W, k, pq / Q, pq % Q);
        if (rounds) {
          static_cast<uint8_t*>(y)[at] = rounded(request_.rounding, k, sum, residual ? residual + at : nullptr);
        } else {
          static_cast<int32_t*>(y)[at] = sum;
        }
      }
    }
  }

 private:
  int32_t sum_at(const uint8_t* image, int64_t k, int64_t p, int64_t q) const {
    const ConvShape& s = request_.shape;
    int32_t sum = 0;
    for (int64_t c = 0; c < s.C; c++) {
      for (int64_t r = 0; r < s.R; r++) {
        for (int64_t t = 0; t < s.S; t++) {
          const int64_t h = p * s.stride + r - s.padding, w = q * s.stride + t - s.padding;
          if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
          sum += request_.codes[((k * s.C + c) * s.R + r) * s.S + t] * image[(c * s.H + h) * s.W + w];
        }
      }
    }
    return sum;
  }

  const IntegerRequest request_;
};

}  // namespace

void check_sums_fit(const IntegerRequest& request) {
  const ConvShape& s = request.shape;
  const int64_t most = (std::numeric_limits<int32_t>::max() / 2) / request.most();  // halved: doubled when rewritten
  if (checked_product({s.C, s.R, s.S}) > most)
    throw std::invalid_argument("C * R * S = " + std::to_string(s.C * s.R * s.S) + " with " +
                                std::to_string(request.activation_bits) + "-bit activations; allowed: at most " +
                                std::to_string(most));
}

uint8_t rounded(const Rounding& rounding, int64_t filter, int32_t sum, const uint8_t* residual) {
  float value = static_cast<float>(sum) * rounding.scale[filter] + rounding.bias[filter];
  if (residual) value = value + static_cast<float>(*residual) * rounding.residual_scale;
  const float most = static_cast<float>((1 << rounding.bits) - 1);
  value = value > 0 ? value : 0;  // NaN becomes 0
  return static_cast<uint8_t>(std::nearbyint(value < most ? value : most));
}

std::unique_ptr<IntegerLayer> make_integer_dense(const IntegerRequest& request) {
  return std::make_unique<IntegerDense>(request);
}

}  // namespace sbkit
