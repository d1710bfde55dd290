// What is asked for, a `Request`, and what comes back, a `Layer` that is ready to run.
#pragma once

#include <string>
#include <vector>

#include "conv.h"
#include "kernels.h"

namespace sbkit {

enum class Encoding { kTwoGroup, kRewritten, kSigned, kCodebook };  // rows.h says what each means

struct Request {
  ConvShape shape{};
  Weights weights;
  const Kernel* kernel = nullptr;
  Encoding encoding = Encoding::kTwoGroup;
  bool skip_zeros = true;
  int group = 0;  // channels of a table or of a graph; 0: chosen by the plan
  int threads = 1;
  bool tune = false;        // time the cost model's best choices and keep the fastest
  std::vector<float> bias;  // [K]
  bool relu = false;
};

struct Facts {
  int group = 0;             // channels that share a table or a graph; 0: none do
  double cost = 0;           // estimated cycles or, tuned, seconds: to compare layers prepared alike
  int64_t weight_bytes = 0;  // what the online side reads: entries, row headers, programs, terms
  std::string geometry;      // "grid 1x4x4, tile 2x2, 8 channels a pass"
  Operations operations;
};

class Layer {
 public:
  virtual ~Layer() = default;
  // x [N][C][H][W] -> y [N][K][P][Q]; residual is null or of y's shape
  virtual void run(const float* x, const float* residual, float* y) = 0;
  const Facts& facts() const { return facts_; }

 protected:
  Facts facts_;
};

}  // namespace sbkit
