// Outer layers in plain C++: the sums of a filter's output row, by two taps, whose products 16 bits hold.
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

namespace sbkit {

namespace {

#include "integer_portable.h"
#include "integer_rows-inl.h"
#include "panels-inl.h"

using Byte8 = uint8_t __attribute__((vector_size(8)));
using Short8 = int16_t __attribute__((vector_size(16)));

constexpr int64_t kPositions = 64;  // of which the sums are taken at once, by eights, which may run past a row's end

int16_t weight_of(const OuterJob& job, int64_t k, int64_t tap) {
  return job.weights[((k / kOuterFilters * job.entries + tap / 4) * kOuterFilters + k % kOuterFilters) * 4 + tap % 4];
}

// The sums of filter k at `count` positions of an output row, whose first window begins at `from`.
void sum_row(const OuterJob& job, int64_t k, const uint8_t* from, int64_t count, Int8* sums) {
  for (int64_t q = 0; q < count; q += 8) sums[q / 8] = job.start[k] - Int8{};
  for (int64_t tap = 0; tap < job.taps; tap += 2) {  // an odd one has the next one's weight of 0
    const int16_t weight = weight_of(job, k, tap), other = weight_of(job, k, tap + 1);
    const uint8_t *bytes = from + job.tap[tap], *others = from + job.tap[tap + 1];
    for (int64_t q = 0; q < count; q += 8) {
      const Short8 products = __builtin_convertvector(Get<Byte8>(bytes + q), Short8) * weight;
      const Short8 both = products + __builtin_convertvector(Get<Byte8>(others + q), Short8) * other;
      sums[q / 8] += __builtin_convertvector(both, Int8);
    }
  }
}

}  // namespace

void RunOuterPlain(const OuterJob& job, const uint8_t* x, uint8_t* y) {
#pragma omp parallel for num_threads(job.threads)
  for (int64_t plane = 0; plane < job.N * job.C; plane++) CopyPlane(job, x, plane, job.padded);
#pragma omp parallel for num_threads(job.threads)
  for (int64_t i = 0; i < job.N * job.K * job.P; i++) {
    const int64_t n = i / job.P / job.K, k = i / job.P % job.K, p = i % job.P;
    const uint8_t* row = job.padded + (n * job.C * job.padded_h + p * job.stride) * job.pitch;
    for (int64_t first = 0; first < job.Q; first += kPositions) {
      const int64_t count = Min(kPositions, job.Q - first);
      Int8 sums[kPositions / 8];
      sum_row(job, k, row + first, count, sums);
      for (int64_t q = 0; q < count; q += 8) {
        uint8_t bytes[8];
        const Floats::Vector value[] = {__builtin_convertvector(sums[q / 8], Floats::Vector) * job.scale[k] + job.bias[k]};
        Floats::Round(value, job.most, bytes);
        __builtin_memcpy(y + i * job.Q + first + q, bytes, static_cast<uint64_t>(Min(8, count - q)));
      }
    }
  }
}

}  // namespace sbkit
