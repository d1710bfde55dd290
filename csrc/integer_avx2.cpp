#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+x"(value)

namespace sbkit {
namespace integer_avx2 {

struct Bytes {
  static constexpr int kVector = 32, kMostRowsBytes = 7, kMostRowsWords = 8;

  static __m128i Two(const uint8_t* a, const uint8_t* b) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a));
    return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(b)));
  }
  static void Gather(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    const __m128i low = Two(from + unit[0], from + unit[1]), high = Two(from + unit[2], from + unit[3]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_set_m128i(high, low));
  }
  static void GatherWide(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    const __m256i words = _mm256_cvtepu8_epi16(Two(from + unit[0], from + unit[1]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
  }
};

#include "integer_table-inl.h"

bool supported() { return __builtin_cpu_supports("avx2"); }

}  // namespace integer_avx2

const IntegerKernel kIntegerAvx2 = {"avx2",
                                    integer_avx2::Bytes::kVector,
                                    integer_avx2::Bytes::kMostRowsBytes,
                                    integer_avx2::Bytes::kMostRowsWords,
                                    0.5,
                                    0.33,
                                    integer_avx2::supported,
                                    integer_avx2::RunTable};

}  // namespace sbkit
