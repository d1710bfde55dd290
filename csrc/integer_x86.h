// What AVX2 and AVX-512 have in common; included by their files inside their own namespaces.

using Int8 = int32_t __attribute__((vector_size(32)));  // eight sums: a unit's

// Eight bytes from each of two addresses.
inline __m128i Two(const uint8_t* a, const uint8_t* b) {
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a));
  return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(b)));
}

inline Int8 WidenBytes(uint64_t bytes) {
  return reinterpret_cast<Int8>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes))));
}

inline Int8 WidenWords(__m128i words) { return reinterpret_cast<Int8>(_mm256_cvtepu16_epi32(words)); }

// Values from 0 to 255 of each unit, as bytes; `count` is even.
inline void Narrow(const Int8* values, int count, uint64_t* bytes) {
  for (int i = 0; i < count; i += 2) {
    const __m256i a = reinterpret_cast<__m256i>(values[i]), b = reinterpret_cast<__m256i>(values[i + 1]);
    const __m256i words = _mm256_packus_epi32(a, b), all = _mm256_packus_epi16(words, words);  // a, b, a, b | a, b, ...
    const __m128i both = _mm256_castsi256_si128(
        _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5)));
    bytes[i] = static_cast<uint64_t>(_mm_cvtsi128_si64(both));
    bytes[i + 1] = static_cast<uint64_t>(_mm_extract_epi64(both, 1));
  }
}
