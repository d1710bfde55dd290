// Outer layers with AVX-512 and VNNI, whose instruction multiplies four bytes with four weights and adds all products.
#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "outer_kernels.h"

namespace sbkit {

namespace {

#include "integer_rows-inl.h"
#include "panels-inl.h"

struct Lanes {
  static constexpr int kLanes = 16, kVectors = 6;
  using Sums = __m512i;
  static Sums Broadcast(int32_t value) { return _mm512_set1_epi32(value); }
  static Sums AddProducts(Sums sum, Sums bytes, Sums weights) { return _mm512_dpbusd_epi32(sum, bytes, weights); }
  template <int kCount>
  static void Round(const Sums (&sums)[kCount], float scale, float bias, float most, uint8_t* y) {
    SBKIT_UNROLL for (int i = 0; i < kCount; i++) {
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), _mm512_set1_ps(scale));
      value = _mm512_max_ps(_mm512_add_ps(value, _mm512_set1_ps(bias)), _mm512_setzero_ps());
      const __m512i whole = _mm512_cvtps_epi32(_mm512_min_ps(value, _mm512_set1_ps(most)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y) + i, _mm512_cvtepi32_epi8(whole));
    }
  }
};

#include "outer-inl.h"

}  // namespace

void RunOuterAvx512(const OuterJob& job, const uint8_t* x, uint8_t* y) { RunOuter(job, x, y); }

}  // namespace sbkit
