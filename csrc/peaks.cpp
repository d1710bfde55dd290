#include "peaks.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "conv.h"

namespace sbkit {

namespace {

// The best rate of several short runs: another program can only slow one down.
template <class Work>
double best_rate(Work work) {
  double best = 0;
  for (int i = 0; i < 12; i++) {
    const auto started = std::chrono::steady_clock::now();
    const int64_t done = work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    best = std::max(best, double(done) / seconds.count());
  }
  return best;
}

double load_add_rate(const Kernel& kernel, int64_t bytes) {
  constexpr int64_t kNeighbours = 8;  // slots an index stands for, see Kernel::load_adds
  const int64_t slots = bytes / (kernel.lanes * int64_t{sizeof(float)});
  AlignedBuffer table(slots * kernel.lanes);
  std::fill_n(table.get(), slots * kernel.lanes, 0.0f);
  std::mt19937 random(0);
  std::vector<uint16_t> indices(4096);
  for (uint16_t& index : indices) {
    const int64_t places = std::min<int64_t>(slots / kNeighbours, 65536 / kNeighbours);
    index = static_cast<uint16_t>(random() % static_cast<uint32_t>(places) * kNeighbours);
  }
  return best_rate(
      [&] { return kernel.load_adds(table.get(), indices.data(), static_cast<int64_t>(indices.size()), 1 << 19); });
}

}  // namespace

Peaks measure_peaks(const Kernel& kernel) {
  Peaks peaks{};
  peaks.multiply_adds = best_rate([&] { return kernel.multiply_adds(1 << 20); });
  peaks.l1_adds = load_add_rate(kernel, l1_bytes() / 2);
  peaks.l2_adds = load_add_rate(kernel, 512 * 1024);
  return peaks;
}

}  // namespace sbkit
