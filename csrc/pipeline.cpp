#include "pipeline.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sbkit {

namespace {

int64_t size_of(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (int64_t each : shape) size = checked_product({size, each});
  return size;
}

std::string text(const std::vector<int64_t>& shape) {
  std::string listed;
  for (int64_t each : shape) listed += (listed.empty() ? "(" : ", ") + std::to_string(each);
  return listed + ")";
}

}  // namespace

Pipeline::Pipeline(int inputs, std::vector<Link> links, std::vector<int> outputs)
    : inputs_(inputs), shapes_(inputs), floats_(inputs), links_(std::move(links)), outputs_(std::move(outputs)) {
  for (size_t i = 0; i < links_.size(); i++) check(links_[i], narrow(static_cast<int64_t>(i)));
  for (int i = 0; i < inputs; i++) {
    if (shapes_[i].empty()) throw std::invalid_argument("input " + std::to_string(i) + " is of no link; allowed: of one");
  }
  for (int output : outputs_) {
    if (output < inputs || output >= narrow(static_cast<int64_t>(shapes_.size())))
      throw std::invalid_argument("output " + std::to_string(output) + "; allowed: results of links");
    if (std::count(outputs_.begin(), outputs_.end(), output) > 1)
      throw std::invalid_argument("output " + std::to_string(output) + " occurs twice; allowed: each result once");
  }
  share_buffers();
}

void Pipeline::check(const Link& link, int number) {
  if (!link.step) throw std::invalid_argument("link " + std::to_string(number) + " has no step; allowed: one");
  if (link.residual < -1)
    throw std::invalid_argument("residual " + std::to_string(link.residual) + " of link " + std::to_string(number) +
                                "; allowed: -1 (none), or a tensor before the link's own");
  const StepShapes step = link.step->shapes();
  auto take = [&](int tensor, const std::vector<int64_t>& shape, bool floats) {
    const std::string where = "tensor " + std::to_string(tensor) + " of link " + std::to_string(number);
    if (tensor < 0 || tensor >= narrow(static_cast<int64_t>(shapes_.size())))
      throw std::invalid_argument(where + "; allowed: one before the link's own");
    if (shapes_[tensor].empty()) {
      shapes_[tensor] = shape, floats_[tensor] = floats;
      return;
    }
    const bool found = floats_[tensor];
    if (shapes_[tensor] != shape || found != floats)
      throw std::invalid_argument(where + " has " + (found ? "floats" : "bytes") + " of shape " + text(shapes_[tensor]) +
                                  "; allowed: " + (floats ? "floats " : "bytes ") + text(shape));
  };
  take(link.x, step.x, step.floats);
  if (link.residual >= 0) {
    if (!step.residual) throw std::invalid_argument("link " + std::to_string(number) + " has a residual; allowed: none");
    take(link.residual, step.y, step.floats_out);
  }
  size_of(step.x), size_of(step.y);
  shapes_.push_back(step.y), floats_.push_back(step.floats_out);
}

// A tensor has a buffer from its step to the last one that reads it; then another tensor may have it.
void Pipeline::share_buffers() {
  const int count = narrow(static_cast<int64_t>(shapes_.size()));
  buffer_of_.assign(count, -1);
  std::vector<int> last(count, -1);
  for (int i = 0; i < count - inputs(); i++) {
    last[links_[i].x] = i;
    if (links_[i].residual >= 0) last[links_[i].residual] = i;
  }
  std::vector<int64_t> bytes;  // of each buffer
  std::vector<int> free;
  for (int i = 0; i < count - inputs(); i++) {
    const int tensor = inputs() + i;
    if (std::find(outputs_.begin(), outputs_.end(), tensor) == outputs_.end()) {
      if (free.empty()) free.push_back(narrow(static_cast<int64_t>(bytes.size()))), bytes.push_back(0);
      buffer_of_[tensor] = free.back(), free.pop_back();
      int64_t& size = bytes[buffer_of_[tensor]];
      size = std::max(size, size_of(shapes_[tensor]) * (floats_[tensor] ? int64_t{sizeof(float)} : 1));
    }
    for (int read = 0; read <= tensor; read++) {
      const bool done = last[read] == i || (read == tensor && last[read] < 0);
      if (done && buffer_of_[read] >= 0) free.push_back(buffer_of_[read]);
    }
  }
  for (int64_t size : bytes) buffers_.push_back(zeros(size));
}

void Pipeline::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto at = [&](int tensor) -> void* {
    if (buffer_of_[tensor] >= 0) return buffers_[buffer_of_[tensor]].get();
    return outputs[std::find(outputs_.begin(), outputs_.end(), tensor) - outputs_.begin()];
  };
  auto from = [&](int tensor) -> const void* { return tensor < inputs_ ? inputs[tensor] : at(tensor); };
  for (size_t i = 0; i < links_.size(); i++) {
    const Link& link = links_[i];
    const void* residual = link.residual < 0 ? nullptr : from(link.residual);
    link.step->run_step(from(link.x), static_cast<const uint8_t*>(residual), at(inputs_ + narrow(i)));
  }
}

}  // namespace sbkit
