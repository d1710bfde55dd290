// The dense convolution in its plainest form: the oracle of the tests and of the benchmark's check.
#pragma once

#include "conv.h"

namespace sbkit {

// weights [K][C][R][S] float, x [N][C][H][W] -> y [N][K][P][Q]. Sums in double precision, so it is exact for small
// integers.
void dense_conv2d(const ConvShape& shape, const float* weights, const float* bias, bool relu, const float* x,
                  const float* residual, float* y, int threads);

// The float weights that stand for the codes, [K][C][R][S].
std::vector<float> dense_weights(const ConvShape& shape, const Weights& weights);

}  // namespace sbkit
