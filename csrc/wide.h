// Convolutions of layers that are kept in full precision, as steps of a chain: weights of 16 bits.
//
// x holds unsigned integers to most_x, or floats, which an image's largest |x| turns into integers to most_x:
//
//   y[n,k,p,q] = clamp(round(scale[k] * s[n] * sum + bias[k]), 0, 2^bits - 1)
//
// in float32, from left to right, with s = 1 for integers and max|x[n]| / most_x for floats. The sums are exact in 32 bits.
#pragma once

#include <memory>
#include <vector>

#include "integer.h"
#include "step.h"

namespace sbkit {

struct WideRequest {
  ConvShape shape{};
  std::vector<int16_t> weights;  // [K][C][R][S]
  bool floats = false;
  int most_x = 255;
  const IntegerKernel* kernel = nullptr;
  int threads = 1;
  Rounding rounding;  // without a residual
};

// Throws std::invalid_argument where 32 bits might not hold a sum. Its step throws it for an x that is not finite.
std::shared_ptr<Step> make_wide(const WideRequest& request);

}  // namespace sbkit
