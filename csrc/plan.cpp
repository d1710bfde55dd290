#include "plan.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>

#include "limits.h"

namespace sbkit {

namespace {

[[noreturn]] void refuse_window(const Algorithm& algorithm) {
  const ConvShape& shape = algorithm.request.shape;
  throw std::invalid_argument(
      "a " + std::to_string(shape.R) + "x" + std::to_string(shape.S) + " window with group " +
      std::to_string(algorithm.first_group) + " and stride " + std::to_string(shape.stride) + " needs more than " +
      std::to_string(kMostSlots) + " slots per tile or more than " + std::to_string(kMostPatterns) +
      " patterns in a codebook; use a smaller group, window or stride");
}

}  // namespace

Plan::Plan(const Request& request, std::unique_ptr<Algorithm> (*make)(const Request&)) : kernel_(*request.kernel) {
  const ConvShape& shape = request.shape;
  if (shape.stride > kMostSlots) {
    throw std::invalid_argument("stride = " + std::to_string(shape.stride) + "; allowed: 1 to " +
                                std::to_string(kMostSlots));
  }
  checked_product({shape.N, shape.C, shape.H + 2 * shape.padding, shape.W + 2 * shape.padding});
  checked_product({shape.N, shape.K, shape.P(), shape.Q()});
  const std::unique_ptr<Algorithm> algorithm = make(request);
  const std::vector<Candidate> found = possible_geometries(*algorithm);
  if (found.empty()) refuse_window(*algorithm);
  facts_.cost = found.front().cycles;
  packing_ = pack(*algorithm, lay_out(*algorithm, found.front().geometry));
  if (request.tune) tune(*algorithm, found);
  facts_.group = packing_.job.group;
  facts_.weight_bytes = packing_.weight_bytes();
  facts_.geometry = describe(packing_.job);
  facts_.operations = packing_.operations(*algorithm);
}

// Packs the cost model's best choices, few of one group unless the caller chose the group, and keeps the fastest.
void Plan::tune(const Algorithm& algorithm, const std::vector<Candidate>& found) {
  constexpr size_t kTried = 8;
  constexpr int kTriedOfGroup = 3;
  const bool one_group = algorithm.first_group == algorithm.last_group && algorithm.first_group > 0;
  std::vector<Packing> candidates;
  candidates.push_back(std::move(packing_));
  std::map<int, int> tried{{found.front().geometry.group, 1}};
  for (size_t i = 1; i < found.size() && found[i].cycles < 1.5 * facts_.cost && candidates.size() < kTried; i++) {
    const Geometry& geometry = found[i].geometry;
    if (++tried[geometry.group] > kTriedOfGroup && !one_group) continue;
    candidates.push_back(pack(algorithm, lay_out(algorithm, geometry)));
  }
  keep_fastest(std::move(candidates));
}

// Keeps the candidate whose best run was the fastest. They run in turn, so that a change of the machine's speed meets
// all of them. The activations do not matter, as long as none is denormal.
void Plan::keep_fastest(std::vector<Packing> candidates) {
  const Job& job = candidates.front().job;
  const std::vector<float> x(static_cast<size_t>(job.N * job.C * job.H * job.W), 1);
  std::vector<float> y(static_cast<size_t>(job.N * job.K * job.P * job.Q));
  std::vector<double> least(candidates.size(), std::numeric_limits<double>::infinity());
  double total = 0;
  for (int round = 0; round < 20 && (round < 4 || total < 0.1); round++) {
    for (size_t i = 0; i < candidates.size(); i++) {
      const auto started = std::chrono::steady_clock::now();
      kernel_.run(candidates[i].job, x.data(), nullptr, y.data());
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      least[i] = std::min(least[i], seconds), total += seconds;
    }
  }
  const auto best = std::min_element(least.begin(), least.end());
  facts_.cost = *best;
  packing_ = std::move(candidates[static_cast<size_t>(best - least.begin())]);
}

void Plan::run(const float* x, const float* residual, float* y) {
  std::lock_guard<std::mutex> lock(mutex_);
  kernel_.run(packing_.job, x, residual, y);
}

}  // namespace sbkit
