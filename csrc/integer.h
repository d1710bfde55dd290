// Convolutions of unsigned a-bit activations, a = 2 to 8, with codes -1, 0 and +1: sums that are exact in 32 bits. What
// is asked for, an `IntegerRequest`, and what comes back, an `IntegerLayer`.
//
// A layer returns its raw sums, or it rounds them to the unsigned integers that the next layer reads:
//
//   y[n,k,p,q] = clamp(round(scale[k] * sum + bias[k] + residual_scale * residual[n,k,p,q]), 0, 2^bits - 1)
//
// in float32, from left to right, rounding half to even. A ReLU is the clamp at 0.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "conv.h"

namespace sbkit {

struct IntegerKernel;

struct Rounding {
  std::vector<float> scale, bias;  // [K]; empty: raw sums
  float residual_scale = 0;
  int bits = 8;
};

struct IntegerRequest {
  ConvShape shape{};
  std::vector<int8_t> codes;  // [K][C][R][S], the channels' signs multiplied in
  int activation_bits = 8;    // activations are at most 2^activation_bits - 1
  const IntegerKernel* kernel = nullptr;
  int lane_bits = 0;  // of `table`: 8, 16, or 0 for the cheaper
  int group = 0;      // channels of a table; 0: the cheapest
  bool rewritten = false;  // sums of +1 doubled, minus one sum of all activations that every filter shares
  int threads = 1;
  Rounding rounding;
  int most() const { return (1 << activation_bits) - 1; }
};

// What summing executes for one batch, counted from the plan's lists.
struct SumWork {
  int64_t entries = 0;       // vectors that are loaded from a table and added, or look-ups
  int64_t instructions = 0;  // vector instructions that these take, and those that widen chains; no loads, no moves
};

struct IntegerFacts {
  int group = 0, lane_bits = 0;
  double cost = 0;           // estimated cycles
  int64_t weight_bytes = 0;  // what the online side reads instead of the weights
  std::string geometry;
  Operations operations;
  SumWork sum_work;  // zeros: not counted, as of `dense`
};

class IntegerLayer {
 public:
  virtual ~IntegerLayer() = default;
  // x [N][C][H][W] -> y [N][K][P][Q], int32_t, or uint8_t with a rounding; residual is null or uint8_t of y's shape.
  // Calls on one layer take turns, because it owns the buffers. `stages` are those of Stage to execute, to time them: y is
  // right with all of them alone. `dense` has none and always runs whole.
  virtual void run(const uint8_t* x, const uint8_t* residual, void* y, int stages) = 0;
  const IntegerFacts& facts() const { return facts_; }

 protected:
  IntegerFacts facts_;
  std::mutex mutex_;
};

// Throws std::invalid_argument where 32 bits might not hold a sum.
void check_sums_fit(const IntegerRequest& request);

std::unique_ptr<IntegerLayer> make_integer_dense(const IntegerRequest& request);
std::unique_ptr<IntegerLayer> make_integer_table(const IntegerRequest& request);
std::unique_ptr<IntegerLayer> make_integer_lookup(const IntegerRequest& request);

// The rounding of one sum in its plainest form, which every kernel equals bit for bit.
uint8_t rounded(const Rounding& rounding, int64_t filter, int32_t sum, const uint8_t* residual);

}  // namespace sbkit
