#include "peaks.h"

#include <algorithm>
#include <chrono>

#include "conv.h"

namespace sbkit {

namespace {

double peak(PeakLoop loop) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kTimes = 100, kRuns = 1000;  // 25,600 operations take about 5 microseconds
  if (!loop) return 0;
  const AlignedBuffer buffer = zeros(kPeakOperations * kMostVectorBytes);
  const AlignedBuffer result = zeros(kPeakOperations * kMostVectorBytes);
  const uint8_t* from = reinterpret_cast<const uint8_t*>(buffer.get());
  uint8_t* to = reinterpret_cast<uint8_t*>(result.get());
  double least = 1;
  for (int64_t i = 0; i < kRuns; i++) {
    const Clock::time_point started = Clock::now();
    loop(from, kTimes, to);
    least = std::min(least, std::chrono::duration<double>(Clock::now() - started).count());
  }
  return kTimes * kPeakOperations / least;
}

}  // namespace

Peaks measure_peaks(const IntegerKernel& kernel) {
  return {peak(kernel.additions), peak(kernel.bytes), peak(kernel.words), peak(kernel.lookup()->lookups)};
}

}  // namespace sbkit
