// `lookup` with AVX2: 32 look-ups in tables of 16 bytes an instruction, added as bytes in chains.
#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

namespace sbkit {

namespace {

#include "integer_lookup-inl.h"

constexpr int kPositions = 4;  // of a tile: with two sums and a chain each, what registers hold

inline __m256i Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline __m128i Load16(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline void Store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

// Sums are not reordered across it, which would cost registers.
inline void Keep(__m256i& value) { asm volatile("" : "+x"(value)); }

// A look-up takes the lowest four bits of an index, or 0 where its highest bit is set: the 16 channels at a group's
// multiple of 16 need no other indices than all channels of its quad.
template <int kChannels>
void FillRow(const LookupJob& job, const uint8_t* last, uint8_t* table) {
  const int count = kChannels ? kChannels : job.most_channels;
  for (int64_t w = 0; w < job.padded_w; w++, last += job.pixel_bytes) {
    if (!IsRead(job, w)) {
      table += job.quads * 64;
      continue;
    }
    const uint8_t* at = last;
    for (int64_t quad = 0; quad < job.quads; quad++, at += 4 * job.group) {
      for (int64_t half = 0; half < 2; half++, table += 32) {
        const uint8_t* from = at + 2 * half * job.group / 16 * 16;
        const __m128i first = Load16(from), second = job.group == 16 ? Load16(from + 16) : first;
        const __m256i x = _mm256_set_m128i(second, first);
        __m256i sum = _mm256_shuffle_epi8(x, Load(job.select + 32 * half));
        for (int i = 1; i < count; i++)
          sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(x, Load(job.select + 64 * i + 32 * half)));
        Store(table, sum);
      }
    }
  }
}

void SumChannels(const LookupJob& job, const uint8_t* last, int32_t* totals) {
  for (int64_t w = 0; w < job.padded_w; w++, last += job.pixel_bytes) {
    __m128i sum = _mm_setzero_si128();
    for (int64_t c = 0; c < job.C; c += 16)  // zeros follow the last channel
      sum = _mm_add_epi32(sum, _mm_sad_epu8(Load16(last + c), _mm_setzero_si128()));
    totals[w] = _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 2);
  }
}

// 16-bit sums of 32 lanes, even and odd, added to 32-bit sums of the filters, which the packer has put in such lanes
// that the results are in order.
template <bool kHalves>
inline void Widen(__m256i even, __m256i odd, bool first, int32_t* sums) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
  const __m256i wide[4] = {_mm256_unpacklo_epi16(low, zero), _mm256_unpackhi_epi16(low, zero),
                           _mm256_unpacklo_epi16(high, zero), _mm256_unpackhi_epi16(high, zero)};
  for (int i = 0; i < 4; i++) {
    if (kHalves) {
      __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(wide[i]), _mm256_extracti128_si256(wide[i], 1));
      __m128i* to = reinterpret_cast<__m128i*>(sums) + i;
      _mm_storeu_si128(to, first ? sum : _mm_add_epi32(sum, _mm_loadu_si128(to)));
    } else {
      Store(sums + 8 * i, first ? wide[i] : _mm256_add_epi32(wide[i], Load(sums + 8 * i)));
    }
  }
}

// The sums of a block's filters at four positions, each with its window's table.
template <int kChain, bool kSigns, bool kHalves>
void Tile(const LookupJob& job, const LookupBlock& block, const uint8_t* const* table, bool first, int32_t* sums) {
  const LookupItem *item = job.items + block.first_item, *const end = item + block.items;
  const uint8_t* code = job.codes + block.first_item * int64_t{32};
  const int8_t* sign = job.signs + (kSigns ? block.first_item * int64_t{32} : 0);
  const uint8_t *const table0 = table[0], *const table1 = table[1], *const table2 = table[2], *const table3 = table[3];
  __m256i total[kPositions], odd[kPositions], chain[kPositions];
#pragma GCC unroll 4
  for (int p = 0; p < kPositions; p++) {
    total[p] = odd[p] = _mm256_setzero_si256();
    Keep(total[p]), Keep(odd[p]);
  }
#pragma GCC unroll 1
  while (item < end) {
#pragma GCC unroll 8
    for (int i = 0; i < kChain; i++, item++, code += 32, sign += kSigns ? 32 : 0) {
      const __m256i codes = Load(code), signs = kSigns ? Load(sign) : codes;
      const uint8_t* const at[kPositions] = {table0 + item->table, table1 + item->table, table2 + item->table,
                                             table3 + item->table};
#pragma GCC unroll 4
      for (int p = 0; p < kPositions; p++) {
        const __m256i entries = kHalves ? Load(at[p]) : _mm256_broadcastsi128_si256(Load16(at[p]));
        __m256i value = _mm256_shuffle_epi8(entries, codes);
        if (kSigns) value = _mm256_xor_si256(value, signs);
        chain[p] = i ? _mm256_add_epi8(chain[p], value) : value;
        Keep(chain[p]);
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; p++) {
      total[p] = _mm256_add_epi16(total[p], chain[p]);
      odd[p] = _mm256_add_epi16(odd[p], _mm256_srli_epi16(chain[p], 8));
      Keep(total[p]), Keep(odd[p]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPositions; p++)
    Widen<kHalves>(_mm256_sub_epi16(total[p], _mm256_slli_epi16(odd[p], 8)), odd[p], first, sums + 32 * p);
}

// Look-ups in tables that are loaded, as they are in `Tile`, each added to a sum.
void Lookups(const uint8_t* buffer, int64_t times, uint8_t* result) {
  constexpr int kSums = 8;
  const __m256i codes = Load(buffer);
  __m256i sum[kSums] = {};
  for (int64_t i = 0; i < times; i++) {
#pragma GCC unroll 1
    for (int j = 0; j < kPeakOperations; j += kSums) {
#pragma GCC unroll 8
      for (int v = 0; v < kSums; v++) {
        const __m256i entries = _mm256_broadcastsi128_si256(Load16(buffer + 32 * (j + v)));
        sum[v] = _mm256_add_epi8(sum[v], _mm256_shuffle_epi8(entries, codes));
        Keep(sum[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kSums; v++) Store(result + 32 * v, sum[v]);
}

using TileFunction = void (*)(const LookupJob&, const LookupBlock&, const uint8_t* const*, bool, int32_t*);

template <bool kSigns, bool kHalves>
TileFunction TileOf(int chain) {
  switch (chain) {
    case 1: return Tile<1, kSigns, kHalves>;
    case 2: return Tile<2, kSigns, kHalves>;
    case 3: return Tile<3, kSigns, kHalves>;
    case 4: return Tile<4, kSigns, kHalves>;
    case 6: return Tile<6, kSigns, kHalves>;
    default: return Tile<8, kSigns, kHalves>;
  }
}

void SumRows(const LookupJob& job, const LookupBlock* block, const uint8_t* table, int64_t rows, int32_t* sums) {
  const int64_t count = rows * job.Q, row_step = job.stride * job.row_bytes, step = job.stride * job.position_bytes;
  for (int part = 0; part < block->parts; part++) {
    const LookupBlock& here = block[part];
    const auto tile_of = job.has_signs ? (here.few ? TileOf<true, true> : TileOf<true, false>)
                                       : (here.few ? TileOf<false, true> : TileOf<false, false>);
    const TileFunction tile = tile_of(here.chain);
    int64_t row = 0, column = 0;
    for (int64_t i = 0; i < count; i += kPositions) {
      const uint8_t* at[kPositions];
      for (int64_t p = 0; p < kPositions; p++) {
        at[p] = table + row * row_step + column * step;
        if (i + p + 1 >= count) continue;  // the last position again: nobody reads what this adds
        if (++column == job.Q) column = 0, row++;
      }
      tile(job, here, at, part == 0, sums + 32 * i);
    }
  }
}

// 8 rows of 8 values, rows 32 values apart, to columns.
inline void Transpose8(const int32_t* from, __m256i* v) {
  __m256i t[8], u[8];
  for (int i = 0; i < 8; i++) v[i] = Load(from + 32 * i);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {  // u[i + m] holds column m of rows i..i+3, and column 4 + m
    for (int j = 0; j < 2; j++) {
      u[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + 2 + j]);
      u[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
  }
  for (int m = 0; m < 4; m++) {
    v[m] = _mm256_permute2x128_si256(u[m], u[4 + m], 0x20);
    v[m + 4] = _mm256_permute2x128_si256(u[m], u[4 + m], 0x31);
  }
}

// `rounded` of integer_reference.cpp for 8 sums of a filter: the same operations in the same order, but that the
// filter's sign is applied to the scale, which is exact, and that values below 0 and NaN, which are negative here, are
// left to `Narrow4`, which clamps them at 0.
inline __m256i Rounded(const LookupJob& job, int64_t k, __m256i sum, __m256i residual) {
  const float scale = job.scale[k] * static_cast<float>(job.sign[k]);
  __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale));
  value = _mm256_add_ps(value, _mm256_set1_ps(job.bias[k]));
  value = _mm256_add_ps(value, _mm256_mul_ps(_mm256_cvtepi32_ps(residual), _mm256_set1_ps(job.residual_scale)));
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(job.most), value));  // the second where one is NaN
}

// Values of four filters to 8 bytes each.
inline void Narrow4(const __m256i* values, __m128i* bytes) {
  const __m256i first = _mm256_packus_epi32(values[0], values[1]), second = _mm256_packus_epi32(values[2], values[3]);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order);
  bytes[0] = _mm256_castsi256_si128(all), bytes[1] = _mm256_extracti128_si256(all, 1);
}

// Sums of eight filters from k on at `some` positions, at most 8, each filter's in a vector -> y, in int32.
void StoreSums(const LookupJob& job, int64_t k, int64_t filters, int64_t some, const __m256i* v, int32_t* y) {
  for (int64_t f = 0; f < filters; f++, y += job.P * job.Q) {
    alignas(32) int32_t all[8];
    Store(all, _mm256_mullo_epi32(v[f], _mm256_set1_epi32(job.sign[k + f])));
    for (int64_t i = 0; i < some; i++) y[i] = all[i];
  }
}

// The same, rounded; y and the residual are those of the first filter. kWhole: eight filters at eight positions.
template <bool kWhole>
void StoreRounded(const LookupJob& job, int64_t k, int64_t filters, int64_t some, __m256i* v, const uint8_t* residual,
                  uint8_t* y) {
  const int64_t plane = job.P * job.Q, count = kWhole ? 8 : filters;
#pragma GCC unroll 8
  for (int64_t f = 0; f < count; f++) {
    __m128i added = _mm_setzero_si128();
    if (residual && kWhole) added = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual + f * plane));
    if (residual && !kWhole) __builtin_memcpy(&added, residual + f * plane, static_cast<size_t>(some));
    v[f] = Rounded(job, k + f, v[f], _mm256_cvtepu8_epi32(added));
  }
#pragma GCC unroll 2
  for (int64_t f = 0; f < count; f += 4) {
    alignas(16) __m128i bytes[2];
    Narrow4(v + f, bytes);
    if (!kWhole) {
      for (int64_t i = f; i < Min(f + 4, filters); i++)
        __builtin_memcpy(y + i * plane, reinterpret_cast<uint8_t*>(bytes) + 8 * (i - f), static_cast<size_t>(some));
      continue;
    }
    for (int i = 0; i < 2; i++) {
      uint8_t* at = y + (f + 2 * i) * plane;
      const int64_t both[2] = {_mm_cvtsi128_si64(bytes[i]), _mm_extract_epi64(bytes[i], 1)};
      __builtin_memcpy(at, &both[0], 8);
      __builtin_memcpy(at + plane, &both[1], 8);
    }
  }
}

void FinishRows(const LookupJob& job, const LookupBlock& block, int64_t n, int64_t first, int64_t count,
                const int32_t* sums, const int32_t* totals, const uint8_t* residual, void* y) {
  const int64_t filters = Min(32, job.K - block.first_filter);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i total = job.shared ? Load(totals + i) : _mm256_setzero_si256();
    for (int64_t f = 0; f < filters; f += 8) {
      const int64_t k = block.first_filter + f;
      __m256i v[8];
      Transpose8(sums + i * 32 + f, v);
      for (int64_t j = 0; j < 8; j++) {
        if (job.has_signs) v[j] = _mm256_sub_epi32(v[j], _mm256_set1_epi32(job.excess[k + j]));
        if (job.shared) v[j] = _mm256_sub_epi32(_mm256_add_epi32(v[j], v[j]), total);
      }
      const int64_t to = (n * job.K + k) * job.P * job.Q + first + i, some = Min(8, count - i);
      const uint8_t* added = residual ? residual + to : nullptr;
      if (!job.scale) {
        StoreSums(job, k, Min(8, filters - f), some, v, static_cast<int32_t*>(y) + to);
      } else if (some == 8 && filters - f >= 8) {
        StoreRounded<true>(job, k, 8, 8, v, added, static_cast<uint8_t*>(y) + to);
      } else {
        StoreRounded<false>(job, k, Min(8, filters - f), some, v, added, static_cast<uint8_t*>(y) + to);
      }
    }
  }
}

}  // namespace

const LookupBody kLookupAvx2 = {LookupForm::kChains, false, Lookups, RunLookup};

}  // namespace sbkit
