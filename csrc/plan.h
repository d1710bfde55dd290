// A packed layer, ready to run: chooses a geometry and packs the codes for it.
#pragma once

#include <memory>
#include <mutex>

#include "algorithm.h"
#include "geometry.h"
#include "lists.h"

namespace sbkit {

class Plan : public Layer {
 public:
  // Throws std::invalid_argument for a layer that is too large for the lists.
  Plan(const Request& request, std::unique_ptr<Algorithm> (*make)(const Request&));
  // Calls on one plan take turns, because it owns the buffers.
  void run(const float* x, const float* residual, float* y) override;

 private:
  void tune(const Algorithm& algorithm, const std::vector<Candidate>& found);
  void keep_fastest(std::vector<Packing> candidates);

  const Kernel& kernel_;
  Packing packing_;
  std::mutex mutex_;
};

}  // namespace sbkit
