// The dense convolution in its plainest form: the oracle of the tests and of the benchmark's check.
#pragma once

#include <vector>

#include "layer.h"

namespace sbkit {

class Dense : public Layer {
 public:
  explicit Dense(const Request& request);
  // Sums in double precision, so it is exact for small integers.
  void run(const float* x, const float* residual, float* y) override;

 private:
  ConvShape shape_;
  std::vector<float> weights_;  // [K][C][R][S], the float weights that stand for the codes
  std::vector<float> bias_;
  bool relu_;
  int threads_;
};

}  // namespace sbkit
