#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+v"(value)

namespace sbkit {
namespace integer_avx512 {

struct Bytes {
  static constexpr int kVector = 64, kMostRowsBytes = 8, kMostRowsWords = 8;

  static __m128i Two(const uint8_t* a, const uint8_t* b) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a));
    return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(b)));
  }
  static __m256i Four(const uint8_t* from, const int64_t* unit) {
    return _mm256_set_m128i(Two(from + unit[2], from + unit[3]), Two(from + unit[0], from + unit[1]));
  }
  static void Gather(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    const __m512i low = _mm512_castsi256_si512(Four(from, unit));
    _mm512_storeu_si512(to, _mm512_inserti64x4(low, Four(from, unit + 4), 1));
  }
  static void GatherWide(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    _mm512_storeu_si512(to, _mm512_cvtepu8_epi16(Four(from, unit)));
  }
};

#include "integer_table-inl.h"

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace integer_avx512

const IntegerKernel kIntegerAvx512 = {"avx512",
                                      integer_avx512::Bytes::kVector,
                                      integer_avx512::Bytes::kMostRowsBytes,
                                      integer_avx512::Bytes::kMostRowsWords,
                                      0.6,
                                      0.5,
                                      integer_avx512::supported,
                                      integer_avx512::RunTable};

}  // namespace sbkit
