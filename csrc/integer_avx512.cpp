#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+v"(value)

namespace sbkit {
namespace integer_avx512 {

#include "integer_x86.h"

struct Bytes {
  static constexpr int kVector = 64, kMostRowsBytes = 8, kMostRowsWords = 8;
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
  // The 16-bit sums of a vector's units, from 64-bit lanes and bytes, or from words.
  static void SumsOfBytes(const uint8_t* sums, Int8* units) {
    const __m512i low = _mm512_loadu_si512(sums + kVector);
    const __m512i high = _mm512_srli_epi64(_mm512_sub_epi64(_mm512_loadu_si512(sums), low), 8);
    const __m512i even = _mm512_unpacklo_epi8(low, high), odd = _mm512_unpackhi_epi8(low, high);
    units[0] = WidenWords(_mm512_castsi512_si128(even)), units[1] = WidenWords(_mm512_castsi512_si128(odd));
    units[2] = WidenWords(_mm512_extracti32x4_epi32(even, 1)), units[3] = WidenWords(_mm512_extracti32x4_epi32(odd, 1));
    units[4] = WidenWords(_mm512_extracti32x4_epi32(even, 2)), units[5] = WidenWords(_mm512_extracti32x4_epi32(odd, 2));
    units[6] = WidenWords(_mm512_extracti32x4_epi32(even, 3)), units[7] = WidenWords(_mm512_extracti32x4_epi32(odd, 3));
  }
  static void SumsOfWords(const uint8_t* sums, Int8* units) {
    for (int i = 0; i < 4; i++) units[i] = WidenWords(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sums) + i));
  }
  static void Regrid(const uint8_t* x, const RegridRule& rule, uint8_t* y) {
    const __m512i zero = _mm512_setzero_si512(), values = _mm512_loadu_si512(x);
    const auto regrid = [&](__m512i words) {  // with each value in the upper byte
      words = _mm512_mulhi_epu16(words, _mm512_set1_epi16(static_cast<int16_t>(rule.multiplier)));
      words = _mm512_add_epi16(words, _mm512_set1_epi16(static_cast<int16_t>(rule.bias)));
      words = _mm512_srl_epi16(words, _mm_cvtsi32_si128(rule.shift));
      return _mm512_min_epu16(words, _mm512_set1_epi16(rule.most));
    };
    const __m512i low = regrid(_mm512_unpacklo_epi8(zero, values)), high = regrid(_mm512_unpackhi_epi8(zero, values));
    _mm512_storeu_si512(y, _mm512_packus_epi16(low, high));
  }
};

#include "integer_rows-inl.h"
#include "integer_table-inl.h"
#include "integer_peaks-inl.h"

struct Floats {
  static constexpr int kLanes = 16, kVectors = 6, kSlack = 0;
  using Vector = __m512;
  static Vector Broadcast(float value) { return _mm512_set1_ps(value); }
  static void MultiplyAdd(Vector* sum, const float* x, Vector w) { *sum = _mm512_fmadd_ps(_mm512_loadu_ps(x), w, *sum); }
  // clamp(round(value), 0, most) of each, as bytes.
  template <int kCount>
  static void Round(const Vector (&values)[kCount], float most, uint8_t* y) {
    SBKIT_UNROLL for (int i = 0; i < kCount; i++) {
      const Vector value = _mm512_min_ps(_mm512_max_ps(values[i], _mm512_setzero_ps()), Broadcast(most));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y) + i, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value)));
    }
  }
};

#include "panels-inl.h"
#include "integer_full-inl.h"

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// AVX-512 without VBMI and VNNI has AVX2.
const LookupBody* lookup() {
  const bool best = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
  return best ? &kLookupAvx512 : &kLookupAvx2;
}

// That file wants F, BW and VL, which `supported` asks for, and VNNI.
OuterBody outer() {
  return __builtin_cpu_supports("avx512vnni") ? RunOuterAvx512 : RunOuterAvx2;
}

}  // namespace integer_avx512

const IntegerKernel kIntegerAvx512 = {"avx512",
                                      integer_avx512::Bytes::kVector,
                                      integer_avx512::Bytes::kMostRowsBytes,
                                      integer_avx512::Bytes::kMostRowsWords,
                                      0.6,
                                      0.5,
                                      integer_avx512::supported,
                                      integer_avx512::RunTable,
                                      integer_avx512::lookup,
                                      integer_avx512::RunFull,
                                      integer_avx512::outer,
                                      integer_avx512::Quantize,
                                      integer_avx512::Regrid,
                                      integer_avx512::Linear,
                                      integer_avx512::Additions,
                                      integer_avx512::LoadedAdditions<integer_avx512::U8>,
                                      integer_avx512::LoadedAdditions<integer_avx512::U16>};

}  // namespace sbkit
