// Outer layers in plain C++: the sums of a filter's output row, tap by tap.
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer.h"
#include "outer_kernels.h"

namespace sbkit {

namespace {

#include "integer_rows-inl.h"
#include "panels-inl.h"

constexpr int64_t kPositions = 64;  // of which the sums are taken at once

int weight_of(const OuterJob& job, int64_t k, int64_t tap) {
  return job.weights[((k / kOuterFilters * job.entries + tap / 4) * kOuterFilters + k % kOuterFilters) * 4 + tap % 4];
}

}  // namespace

void RunOuterPlain(const OuterJob& job, const uint8_t* x, uint8_t* y) {
  for (int64_t plane = 0; plane < job.N * job.C; plane++) CopyPlane(job, x, plane, job.padded);
#pragma omp parallel for num_threads(job.threads)
  for (int64_t i = 0; i < job.N * job.K * job.P; i++) {
    const int64_t n = i / job.P / job.K, k = i / job.P % job.K, p = i % job.P;
    const uint8_t* row = job.padded + (n * job.C * job.padded_h + p * job.stride) * job.pitch;
    for (int64_t first = 0; first < job.Q; first += kPositions) {
      const int64_t count = Min(kPositions, job.Q - first);
      int32_t sums[kPositions];
      for (int64_t q = 0; q < count; q++) sums[q] = job.start[k];
      for (int64_t tap = 0; tap < job.taps; tap++) {
        const int weight = weight_of(job, k, tap);
        const uint8_t* bytes = row + job.tap[tap] + first;
        for (int64_t q = 0; q < count; q++) sums[q] += weight * bytes[q];
      }
      for (int64_t q = 0; q < count; q++) y[i * job.Q + first + q] = rounded(job.scale[k], job.bias[k], job.bits, sums[q]);
    }
  }
}

}  // namespace sbkit
