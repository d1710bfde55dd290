// Steps of a network that run one after the other without leaving C++, on buffers that the chain owns.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "conv.h"
#include "step.h"

namespace sbkit {

struct IntegerKernel;

// Tensors have numbers: first the chain's inputs, then one for each step's result.
struct Link {
  std::shared_ptr<Step> step;
  int x, residual = -1;  // tensors; -1: none
};

class Chain {
 public:
  // Throws std::invalid_argument naming the link whose tensors are not what its step takes.
  Chain(int inputs, std::vector<Link> links, std::vector<int> outputs);

  const StepShapes& input(int tensor) const { return inputs_[tensor]; }  // its x
  int inputs() const { return narrow(static_cast<int64_t>(inputs_.size())); }
  const std::vector<int>& outputs() const { return outputs_; }
  const std::vector<int64_t>& shape(int tensor) const { return shapes_[tensor]; }

  // Calls take turns, because the chain owns the buffers.
  void run(const std::vector<const void*>& inputs, const std::vector<uint8_t*>& outputs);

 private:
  void check(const Link& link, int number);
  void share_buffers();

  std::vector<StepShapes> inputs_;
  std::vector<std::vector<int64_t>> shapes_;  // of all tensors
  std::vector<Link> links_;
  std::vector<int> outputs_;
  std::vector<int> buffer_of_;  // by tensor; -1: the caller's
  std::vector<AlignedBuffer> buffers_;
  std::mutex mutex_;
};

// y[i] = table[x[i]].
std::shared_ptr<Step> make_regrid(std::vector<int64_t> shape, std::vector<uint8_t> table,
                                  const IntegerKernel* kernel);

// The largest value under each window; values beside the image count as 0.
struct Pool {
  int64_t rows, columns, row_stride, column_stride, row_padding, column_padding;
};
std::shared_ptr<Step> make_max_pool(std::vector<int64_t> shape, const Pool& pool);

}  // namespace sbkit
