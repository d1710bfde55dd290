#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+x"(value)

namespace sbkit {
namespace integer_avx2 {

#include "integer_x86.h"

struct Bytes {
  static constexpr int kVector = 32, kMostRowsBytes = 7, kMostRowsWords = 8;
  static void Gather(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    const __m128i low = Two(from + unit[0], from + unit[1]), high = Two(from + unit[2], from + unit[3]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_set_m128i(high, low));
  }
  static void GatherWide(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    const __m256i words = _mm256_cvtepu8_epi16(Two(from + unit[0], from + unit[1]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
  }
  // The 16-bit sums of a vector's units, from 64-bit lanes and bytes, or from words.
  static void SumsOfBytes(const uint8_t* sums, Int8* units) {
    const __m256i wide = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums));
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + kVector));
    const __m256i high = _mm256_srli_epi64(_mm256_sub_epi64(wide, low), 8);
    const __m256i even = _mm256_unpacklo_epi8(low, high), odd = _mm256_unpackhi_epi8(low, high);
    units[0] = WidenWords(_mm256_castsi256_si128(even)), units[1] = WidenWords(_mm256_castsi256_si128(odd));
    units[2] = WidenWords(_mm256_extracti128_si256(even, 1)), units[3] = WidenWords(_mm256_extracti128_si256(odd, 1));
  }
  static void SumsOfWords(const uint8_t* sums, Int8* units) {
    for (int i = 0; i < 2; i++) units[i] = WidenWords(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sums) + i));
  }
  static void Regrid(const uint8_t* x, const RegridRule& rule, uint8_t* y) {
    const __m256i zero = _mm256_setzero_si256(), values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const auto regrid = [&](__m256i words) {  // with each value in the upper byte
      words = _mm256_mulhi_epu16(words, _mm256_set1_epi16(static_cast<int16_t>(rule.multiplier)));
      words = _mm256_add_epi16(words, _mm256_set1_epi16(static_cast<int16_t>(rule.bias)));
      words = _mm256_srl_epi16(words, _mm_cvtsi32_si128(rule.shift));
      return _mm256_min_epu16(words, _mm256_set1_epi16(rule.most));
    };
    const __m256i low = regrid(_mm256_unpacklo_epi8(zero, values)), high = regrid(_mm256_unpackhi_epi8(zero, values));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm256_packus_epi16(low, high));
  }
};

#include "integer_rows-inl.h"
#include "integer_table-inl.h"
#include "integer_peaks-inl.h"

struct Floats {
  static constexpr int kLanes = 8, kVectors = 3, kSlack = 24;
  using Vector = __m256;
  static Vector Broadcast(float value) { return _mm256_set1_ps(value); }
  static void MultiplyAdd(Vector* sum, const float* x, Vector w) { *sum = _mm256_fmadd_ps(_mm256_loadu_ps(x), w, *sum); }
  // clamp(round(value), 0, most) of each, as bytes: of four vectors at once.
  template <int kCount>
  static void Round(const Vector (&values)[kCount], float most, uint8_t* y) {
    __m256i whole[4];
    SBKIT_UNROLL for (int i = 0; i < 4; i++) {
      const Vector value = _mm256_max_ps(values[i < kCount ? i : 0], _mm256_setzero_ps());
      whole[i] = _mm256_cvtps_epi32(_mm256_min_ps(value, Broadcast(most)));
    }
    const __m256i words = _mm256_packs_epi32(whole[0], whole[1]), others = _mm256_packs_epi32(whole[2], whole[3]);
    const __m256i fours = _mm256_packus_epi16(words, others);  // of the lower half of each vector, then of the upper
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm256_permutevar8x32_epi32(fours, order));
  }
};

#include "panels-inl.h"
#include "integer_full-inl.h"

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

const LookupBody* lookup() { return &kLookupAvx2; }

OuterBody outer() { return RunOuterAvx2; }

}  // namespace integer_avx2

const IntegerKernel kIntegerAvx2 = {"avx2",
                                    integer_avx2::Bytes::kVector,
                                    integer_avx2::Bytes::kMostRowsBytes,
                                    integer_avx2::Bytes::kMostRowsWords,
                                    0.42,
                                    0.33,
                                    integer_avx2::supported,
                                    integer_avx2::RunTable,
                                    integer_avx2::lookup,
                                    integer_avx2::RunFull,
                                    integer_avx2::outer,
                                    integer_avx2::Quantize,
                                    integer_avx2::Regrid,
                                    integer_avx2::Linear,
                                    integer_avx2::Additions,
                                    integer_avx2::LoadedAdditions<integer_avx2::U8>,
                                    integer_avx2::LoadedAdditions<integer_avx2::U16>};

}  // namespace sbkit
