#include "reference.h"

namespace sbkit {

void dense_conv2d(const ConvShape& s, const float* weights, const float* bias, bool relu, const float* x,
                  const float* residual, float* y, int threads) {
  const int64_t P = s.P(), Q = s.Q();
  (void)threads;
#pragma omp parallel for num_threads(threads)
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
              sum += double(weights[((k * s.C + c) * s.R + r) * s.S + t]) * x[((n * s.C + c) * s.H + h) * s.W + w];
            }
          }
        }
        const int64_t at = (nk * P + p) * Q + q;
        sum += bias[k];
        if (residual) sum += residual[at];
        y[at] = relu && sum < 0 ? 0 : float(sum);
      }
    }
  }
}

std::vector<float> dense_weights(const ConvShape& s, const Weights& weights) {
  std::vector<float> dense(weights.codes.size());
  for (int64_t i = 0; i < static_cast<int64_t>(dense.size()); i++) {
    const int64_t k = i / (s.C * s.R * s.S), c = i / (s.R * s.S) % s.C;
    const float alpha = weights.codes[i] > 0 ? weights.scale[k] : weights.negative_scale[k];
    dense[i] = weights.codes[i] * alpha * weights.channel_sign[c];
  }
  return dense;
}

}  // namespace sbkit
