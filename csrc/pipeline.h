// Steps of a network that run one after the other without leaving C++, on buffers that the pipeline owns.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "conv.h"
#include "step.h"

namespace sbkit {

struct IntegerKernel;
struct RegridRule;

// Tensors have numbers: first the pipeline's inputs, then one for each step's result.
struct Link {
  std::shared_ptr<Step> step;
  int x, residual = -1;  // tensors; -1: none
};

class Pipeline {
 public:
  // Throws std::invalid_argument naming the link whose tensors are not what its step takes.
  Pipeline(int inputs, std::vector<Link> links, std::vector<int> outputs);

  int inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  const std::vector<int64_t>& shape(int tensor) const { return shapes_[tensor]; }
  bool floats(int tensor) const { return floats_[tensor]; }  // else bytes

  // Calls take turns, because the pipeline owns the buffers.
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs);

 private:
  void check(const Link& link, int number);
  void share_buffers();

  int inputs_;
  std::vector<std::vector<int64_t>> shapes_;  // of all tensors
  std::vector<bool> floats_;
  std::vector<Link> links_;
  std::vector<int> outputs_;
  std::vector<int> buffer_of_;  // by tensor; -1: the caller's
  std::vector<AlignedBuffer> buffers_;
  std::mutex mutex_;
};

// A rule that gives all 256 entries, where one is found: nearly always for clamp(round(factor * x), 0, most), but not where
// many halves are rounded to even.
std::optional<RegridRule> regrid_rule(const std::vector<uint8_t>& table);

// y[i] = table[x[i]].
std::shared_ptr<Step> make_regrid(std::vector<int64_t> shape, std::vector<uint8_t> table,
                                  const IntegerKernel* kernel);

// Bytes of floats: clamp(round(x / step), -zero, 2^bits - 1 - zero) + zero.
std::shared_ptr<Step> make_quantize(std::vector<int64_t> shape, float step, int zero, int bits,
                                    const IntegerKernel* kernel);

// The mean over rows and columns and a linear layer: y[n][k] = bias[k] + sum over c of weight[k][c] * (sum of x[n][c]), in
// float32.
std::shared_ptr<Step> make_head(std::vector<int64_t> shape, int64_t classes, const float* weight, const float* bias,
                                const IntegerKernel* kernel);

// The largest value under each window; values beside the image count as 0.
struct Pool {
  int64_t rows, columns, row_stride, column_stride, row_padding, column_padding;
};
std::shared_ptr<Step> make_max_pool(std::vector<int64_t> shape, const Pool& pool);

}  // namespace sbkit
