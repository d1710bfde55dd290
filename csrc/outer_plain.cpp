// Outer layers in plain C++: the sums of a filter's output row, tap by tap.
#include <vector>

#include "integer.h"
#include "outer_kernels.h"

namespace sbkit {

namespace {

#include "integer_rows-inl.h"

int weight_of(const OuterJob& job, int64_t k, int64_t tap) {
  return job.weights[((k / kOuterFilters * job.quads + tap / 4) * kOuterFilters + k % kOuterFilters) * 4 + tap % 4];
}

}  // namespace

void RunOuterPlain(const OuterJob& job, const uint8_t* x, uint8_t* y) {
  for (int64_t plane = 0; plane < job.N * job.C; plane++) {
    for (int64_t h = 0; h < job.H; h++) {
      uint8_t* row = job.padded + (plane * job.padded_h + h + job.padding) * job.pitch;
      SplitRow(job, job.stride, x + (plane * job.H + h) * job.W, row);
    }
  }
  const Rounding rounding{{job.scale, job.scale + job.K}, {job.bias, job.bias + job.K}, 0,
                          32 - __builtin_clz(static_cast<unsigned>(job.most))};
#pragma omp parallel for num_threads(job.threads)
  for (int64_t i = 0; i < job.N * job.K * job.P; i++) {
    const int64_t n = i / job.P / job.K, k = i / job.P % job.K, p = i % job.P;
    const uint8_t* from = job.padded + (n * job.C * job.padded_h + p * job.stride) * job.pitch;
    std::vector<int32_t> sums(static_cast<size_t>(job.Q), job.start[k]);
    for (int64_t tap = 0; tap < job.taps; tap++) {
      const int weight = weight_of(job, k, tap);
      const uint8_t* bytes = from + job.tap[tap];
      for (int64_t q = 0; q < job.Q; q++) sums[q] += weight * bytes[q];
    }
    for (int64_t q = 0; q < job.Q; q++) y[i * job.Q + q] = rounded(rounding, k, sums[q], nullptr);
  }
}

}  // namespace sbkit
