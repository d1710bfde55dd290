#include "reference.h"

namespace sbkit {

Dense::Dense(const Request& request)
    : shape_(request.shape), bias_(request.bias), relu_(request.relu), threads_(request.threads) {
  const Weights& weights = request.weights;
  weights_.resize(weights.codes.size());
  for (int64_t i = 0; i < static_cast<int64_t>(weights_.size()); i++) {
    const int64_t k = i / (shape_.C * shape_.R * shape_.S), c = i / (shape_.R * shape_.S) % shape_.C;
    const float alpha = weights.codes[i] > 0 ? weights.scale[k] : weights.negative_scale[k];
    weights_[i] = weights.codes[i] * alpha * weights.channel_sign[c];
  }
  facts_.weight_bytes = static_cast<int64_t>(weights_.size() * sizeof(float));
  facts_.operations.entry_adds = facts_.operations.multiplies =
      shape_.P() * shape_.Q() * static_cast<int64_t>(weights_.size());
}

void Dense::run(const float* x, const float* residual, float* y) {
  const ConvShape& s = shape_;
  const int64_t P = s.P(), Q = s.Q();
#pragma omp parallel for num_threads(threads_)
  for (int64_t nk = 0; nk < s.N * s.K; nk++) {
    const int64_t n = nk / s.K, k = nk % s.K;
    for (int64_t p = 0; p < P; p++) {
      for (int64_t q = 0; q < Q; q++) {
        double sum = 0;
        for (int64_t c = 0; c < s.C; c++) {
          for (int64_t r = 0; r < s.R; r++) {
            for (int64_t t = 0; t < s.S; t++) {
              const int64_t h = p * s.stride + r - s.padding, w = q * s.stride + t - s.padding;
              if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
              sum += double(weights_[((k * s.C + c) * s.R + r) * s.S + t]) * x[((n * s.C + c) * s.H + h) * s.W + w];
            }
          }
        }
        const int64_t at = (nk * P + p) * Q + q;
        sum += bias_[k];
        if (residual) sum += residual[at];
        y[at] = relu_ && sum < 0 ? 0 : float(sum);
      }
    }
  }
}

}  // namespace sbkit
