// Convolutions of layers that are kept in full precision, as steps of a pipeline: floats between integers.
//
//   y[n,k,p,q] = clamp(round(bias[k] + sum of weight * x under the window), 0, 2^bits - 1)
//
// in float32, x being unsigned integers or floats. The sum runs over channels, rows and columns in their order, with fused
// multiply-adds where the ISA has them.
#pragma once

#include <memory>
#include <vector>

#include "integer.h"
#include "step.h"

namespace sbkit {

struct FullRequest {
  ConvShape shape{};
  std::vector<float> weights;  // [K][C][R][S]
  std::vector<float> bias;     // [K]
  int bits = 8;                // of y
  bool floats = false;         // x is float32, else uint8_t
  const IntegerKernel* kernel = nullptr;
  int threads = 1;
};

std::shared_ptr<Step> make_full(const FullRequest& request);

}  // namespace sbkit
