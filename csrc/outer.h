// Convolutions of bytes with weights of 7 bits, as the first layer and the shortcuts of a network of integers have them:
//
//   y[n,k,p,q] = clamp(round(scale[k] * sum + bias[k]), 0, 2^bits - 1),   sum = sum of weight * (x - zero) under the window
//
// with exact sums, rounded as in integer.h; what lies beside the image is `zero`. Weights of -63 to 63 are for AVX2, whose
// instruction adds two products with bytes in 16 bits: 2 * 63 * 255 < 2^15.
#pragma once

#include <memory>
#include <vector>

#include "integer.h"
#include "step.h"

namespace sbkit {

constexpr int kMostOuter = 63;

struct OuterRequest {
  ConvShape shape{};
  std::vector<int8_t> weights;  // [K][C][R][S]
  Rounding rounding;            // without a residual
  int zero = 0;                 // 0 to 255
  const IntegerKernel* kernel = nullptr;
  int threads = 1;
};

// Throws std::invalid_argument for weights beyond 7 bits, and where 32 bits might not hold a sum.
std::shared_ptr<Step> make_outer(const OuterRequest& request);

}  // namespace sbkit
