// Outer layers with AVX2: one instruction adds products of bytes and weights by twos in 16 bits, which 7 bits of the weights
// keep from overflowing, another those by twos in 32 bits.
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
  static constexpr int kLanes = 8, kVectors = 2;
  using Sums = __m256i;
  static Sums Broadcast(int32_t value) { return _mm256_set1_epi32(value); }
  static Sums AddProducts(Sums sum, Sums bytes, Sums weights) {
    const __m256i twos = _mm256_maddubs_epi16(bytes, weights);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)));
  }
  template <int kCount>
  static void Round(const Sums (&sums)[kCount], float scale, float bias, float most, uint8_t* y) {
    SBKIT_UNROLL for (int i = 0; i < kCount; i++) {
      __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i]), _mm256_set1_ps(scale));
      value = _mm256_max_ps(_mm256_add_ps(value, _mm256_set1_ps(bias)), _mm256_setzero_ps());
      const __m256i whole = _mm256_cvtps_epi32(_mm256_min_ps(value, _mm256_set1_ps(most)));
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(y + 8 * i), _mm_packus_epi16(words, words));
    }
  }
};

#include "outer-inl.h"

}  // namespace

void RunOuterAvx2(const OuterJob& job, const uint8_t* x, uint8_t* y) { RunOuter(job, x, y); }

}  // namespace sbkit
