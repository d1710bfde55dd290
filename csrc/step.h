// What the steps of a pipeline (pipeline.h) have in common.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sbkit {

struct StepShapes {
  std::vector<int64_t> x, y;
  bool floats = false;    // x is float32, else uint8_t
  bool residual = false;  // whether a second tensor of y's shape may be given
  bool floats_out = false;  // y is float32, else uint8_t
};

class Step {
 public:
  virtual ~Step() = default;
  virtual StepShapes shapes() const = 0;
  virtual void run_step(const void* x, const uint8_t* residual, void* y) = 0;
};

}  // namespace sbkit
