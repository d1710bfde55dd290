// What AVX2 and AVX-512 have in common for outer layers; included by their files inside their own namespaces.

// Sixteen bytes each of four rows -> the four bytes of each position side by side.
inline void InterleaveSixteen(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d, uint8_t* to) {
  const auto load = [](const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
  const __m128i low = _mm_unpacklo_epi8(load(a), load(b)), others_low = _mm_unpacklo_epi8(load(c), load(d));
  const __m128i high = _mm_unpackhi_epi8(load(a), load(b)), others_high = _mm_unpackhi_epi8(load(c), load(d));
  __m128i* entries = reinterpret_cast<__m128i*>(to);
  _mm_storeu_si128(entries, _mm_unpacklo_epi16(low, others_low));
  _mm_storeu_si128(entries + 1, _mm_unpackhi_epi16(low, others_low));
  _mm_storeu_si128(entries + 2, _mm_unpacklo_epi16(high, others_high));
  _mm_storeu_si128(entries + 3, _mm_unpackhi_epi16(high, others_high));
}
