// `lookup` with AVX-512: VBMI looks up 64 bytes in a table of 64, VNNI adds four of them to each 32-bit sum.
#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

namespace sbkit {

namespace {

constexpr int kMostSums = 14;  // of a tile, in registers: of 16 filters each

#include "integer_lookup-inl.h"

template <int kChannels>
void FillRow(const LookupJob& job, const uint8_t* last, uint8_t* table) {
  const int count = kChannels ? kChannels : job.most_channels;
  __m512i select[16];
  __mmask64 some[16];
  for (int i = 0; i < count; i++) {
    select[i] = _mm512_loadu_si512(job.select + 64 * i);
    some[i] = _mm512_cmpneq_epi8_mask(select[i], _mm512_set1_epi8(-1));
  }
  for (int64_t w = 0; w < job.padded_w; w++, table += job.position_bytes) {
    if (!IsRead(job, w)) continue;
    for (int64_t quad = 0; quad < job.quads; quad++) {
      const __m512i x = _mm512_loadu_si512(last + w * job.pixel_bytes + quad * 4 * job.group);
      __m512i sum = _mm512_setzero_si512();
      for (int i = 0; i < count; i++) sum = _mm512_add_epi8(sum, _mm512_maskz_permutexvar_epi8(some[i], select[i], x));
      _mm512_storeu_si512(table + 64 * quad, sum);
    }
  }
}

void SumChannels(const LookupJob& job, const uint8_t* last, int32_t* totals) {
  for (int64_t w = 0; w < job.padded_w; w++, last += job.pixel_bytes) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t c = 0; c < job.C; c += 64) {
      const __mmask64 some = job.C - c >= 64 ? ~__mmask64{0} : (__mmask64{1} << (job.C - c)) - 1;
      sum = _mm512_dpbusd_epi32(sum, _mm512_maskz_loadu_epi8(some, last + c), _mm512_set1_epi8(1));
    }
    totals[w] = _mm512_reduce_add_epi32(sum);
  }
}

// Sums of 16 or 32 filters, kHalves, at kPositions neighbouring output positions.
template <int kHalves, bool kSigns, int kPositions>
inline void Tile(const LookupJob& job, const LookupBlock& block, const uint8_t* table, int32_t* sums) {
  const int64_t step = job.stride * job.position_bytes;
  __m512i sum[kPositions][kHalves];
#pragma GCC unroll 14
  for (int p = 0; p < kPositions; p++) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; h++) sum[p][h] = _mm512_setzero_si512();
  }
  const LookupItem *item = job.items + block.first_item, *const end = item + block.items;
  const uint8_t* code = job.codes + block.first_item * int64_t{128};
  const int8_t* sign = job.signs + (kSigns ? block.first_item * int64_t{128} : 0);
  for (; item < end; item++, code += 128, sign += kSigns ? 128 : 0) {
    const uint8_t* at = table + item->table;
    __m512i codes[kHalves], signs[kHalves];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; h++) {
      codes[h] = _mm512_loadu_si512(code + 64 * h);
      signs[h] = kSigns ? _mm512_loadu_si512(sign + 64 * h) : _mm512_set1_epi8(1);
    }
#pragma GCC unroll 14
    for (int p = 0; p < kPositions; p++) {
      const __m512i entries = _mm512_loadu_si512(at + p * step);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; h++)
        sum[p][h] = _mm512_dpbusd_epi32(sum[p][h], _mm512_permutexvar_epi8(codes[h], entries), signs[h]);
    }
  }
#pragma GCC unroll 14
  for (int p = 0; p < kPositions; p++) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; h++) _mm512_storeu_si512(sums + p * 32 + 16 * h, sum[p][h]);
  }
}

// Look-ups in tables that are loaded, each four added to a sum, as in `Tile` of 32 filters: a table is loaded for two of them.
void Lookups(const uint8_t* buffer, int64_t times, uint8_t* result) {
  constexpr int kSums = 16;
  const __m512i code0 = _mm512_loadu_si512(buffer), code1 = _mm512_loadu_si512(buffer + 64);
  const __m512i sign = _mm512_set1_epi8(1);
  __m512i sum[kSums] = {};
  for (int64_t i = 0; i < times; i++) {
#pragma GCC unroll 1
    for (int j = 0; j < kPeakOperations; j += kSums) {
#pragma GCC unroll 16
      for (int v = 0; v < kSums; v += 2) {
        const __m512i entries = _mm512_loadu_si512(buffer + 64 * (j + v));
        sum[v] = _mm512_dpbusd_epi32(sum[v], _mm512_permutexvar_epi8(code0, entries), sign);
        sum[v + 1] = _mm512_dpbusd_epi32(sum[v + 1], _mm512_permutexvar_epi8(code1, entries), sign);
      }
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < kSums; v++) _mm512_storeu_si512(result + 64 * v, sum[v]);
}

using TileFunction = void (*)(const LookupJob&, const LookupBlock&, const uint8_t*, int32_t*);

template <int kHalves, bool kSigns, int kPositions = kMostSums / kHalves>
TileFunction TileOf(int positions) {
  if (positions == kPositions) return Tile<kHalves, kSigns, kPositions>;
  if constexpr (kPositions > 1) return TileOf<kHalves, kSigns, kPositions - 1>(positions);
  return nullptr;
}

// 16 rows of 16 values, rows 32 values apart, to columns.
inline void Transpose16(const int32_t* from, __m512i* v) {
  __m512i t[16], u[16];
  for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(from + 32 * i);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {  // u[i + m] holds column 4*b + m of rows i..i+3 in its 128-bit block b
    for (int j = 0; j < 2; j++) {
      u[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
      u[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
  }
  for (int m = 0; m < 4; m++) {
    const __m512i a = _mm512_shuffle_i32x4(u[m], u[4 + m], 0x88), b = _mm512_shuffle_i32x4(u[m], u[4 + m], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(u[8 + m], u[12 + m], 0x88), d = _mm512_shuffle_i32x4(u[8 + m], u[12 + m], 0xdd);
    v[m] = _mm512_shuffle_i32x4(a, c, 0x88), v[m + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[m + 8] = _mm512_shuffle_i32x4(a, c, 0xdd), v[m + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// Residuals of 16 filters at 16 positions, position after position; of fewer, with zeros.
inline void LoadResiduals(const LookupJob& job, const uint8_t* residual, int64_t filters, int64_t positions, uint8_t* to) {
  const int64_t plane = job.P * job.Q;
  if (positions == 16) return Transpose16(residual, plane, filters, to, 16, 16);
  alignas(16) uint8_t some[16][16] = {};
  for (int64_t f = 0; f < filters; f++) __builtin_memcpy(some[f], residual + f * plane, static_cast<size_t>(positions));
  Transpose16(some[0], 16, 16, to, 16, 16);
}

// Integers from 0 to 255 or negative, of 16 filters at each of 16 positions, to bytes, of which negative ones become 0: a
// filter's 16 positions are in a quarter of a vector, filter f's in quarter f / 4 of vector f % 4.
inline void Narrow16(const __m512i* values, __m512i* bytes) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m512i four[4];  // in each quarter, four filters at four positions
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512i* v = values + 4 * i;
    const __m512i all = _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
    four[i] = _mm512_shuffle_epi8(all, order);
  }
  const __m512i low0 = _mm512_unpacklo_epi32(four[0], four[1]), high0 = _mm512_unpackhi_epi32(four[0], four[1]);
  const __m512i low1 = _mm512_unpacklo_epi32(four[2], four[3]), high1 = _mm512_unpackhi_epi32(four[2], four[3]);
  bytes[0] = _mm512_unpacklo_epi64(low0, low1), bytes[1] = _mm512_unpackhi_epi64(low0, low1);
  bytes[2] = _mm512_unpacklo_epi64(high0, high1), bytes[3] = _mm512_unpackhi_epi64(high0, high1);
}

// 16 filters' sums at some positions -> y, rounded as `rounded` of integer_reference.cpp does: the same operations in the
// same order, but that a filter's sign is applied to its scale, which is exact, and that values below 0 and NaN, which
// become negative integers, are left to `Narrow16`. y and the residual are those of the first filter and position.
void StoreRounded(const LookupJob& job, int64_t k, int64_t filters, int64_t count, const int32_t* sums,
                  const int32_t* totals, const uint8_t* residual, uint8_t* y) {
  const __mmask16 known = static_cast<__mmask16>((1 << filters) - 1);
  const __m512 sign = _mm512_cvtepi32_ps(_mm512_loadu_si512(job.sign + k));
  const __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(known, job.scale + k), sign);
  const __m512 bias = _mm512_maskz_loadu_ps(known, job.bias + k);
  const __m512 most = _mm512_set1_ps(job.most), residual_scale = _mm512_set1_ps(job.residual_scale);
  const int64_t plane = job.P * job.Q;
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t positions = Min(16, count - i);
    alignas(16) uint8_t added[16][16];
    if (residual) LoadResiduals(job, residual + i, filters, positions, added[0]);
    __m512i values[16], bytes[4];
#pragma GCC unroll 16
    for (int p = 0; p < 16; p++) {
      __m512i sum = _mm512_loadu_si512(sums + (i + p) * 32);
      if (job.shared) sum = _mm512_sub_epi32(_mm512_add_epi32(sum, sum), _mm512_set1_epi32(totals[i + p]));
      __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), bias);
      if (residual) {
        const __m512i more = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(added[p])));
        value = _mm512_add_ps(value, _mm512_mul_ps(_mm512_cvtepi32_ps(more), residual_scale));
      }
      values[p] = _mm512_cvtps_epi32(_mm512_min_ps(most, value));  // the second where one is NaN
    }
    Narrow16(values, bytes);
    const __mmask16 some = static_cast<__mmask16>((1 << positions) - 1);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      const __m128i quarter[4] = {_mm512_castsi512_si128(bytes[v]), _mm512_extracti32x4_epi32(bytes[v], 1),
                                  _mm512_extracti32x4_epi32(bytes[v], 2), _mm512_extracti32x4_epi32(bytes[v], 3)};
#pragma GCC unroll 4
      for (int f = v; f < 16; f += 4) {
        if (f >= filters) continue;
        uint8_t* at = y + f * plane + i;
        if (positions == 16) {  // masked stores are slow
          _mm_storeu_si128(reinterpret_cast<__m128i*>(at), quarter[f / 4]);
        } else {
          _mm_mask_storeu_epi8(at, some, quarter[f / 4]);
        }
      }
    }
  }
}

// The same, not rounded.
void StoreSums(const LookupJob& job, int64_t k, int64_t filters, int64_t count, const int32_t* sums,
               const int32_t* totals, int32_t* y) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1 << (count - i)) - 1);
    __m512i v[16];
    Transpose16(sums + i * 32, v);
    const __m512i total = job.shared ? _mm512_loadu_si512(totals + i) : __m512i{};
    for (int64_t f = 0; f < filters; f++) {
      if (job.shared) v[f] = _mm512_sub_epi32(_mm512_add_epi32(v[f], v[f]), total);
      const __m512i sign = _mm512_set1_epi32((1 - job.sign[k + f]) / 2);  // 0 or 1: -x is ~x + 1
      const __m512i sum = _mm512_add_epi32(_mm512_xor_si512(v[f], _mm512_sub_epi32(__m512i{}, sign)), sign);
      _mm512_mask_storeu_epi32(y + f * job.P * job.Q + i, some, sum);
    }
  }
}

void FinishRows(const LookupJob& job, const LookupBlock& block, int64_t n, int64_t first, int64_t count,
                const int32_t* sums, const int32_t* totals, const uint8_t* residual, void* y) {
  for (int64_t half = 0; half < Min(32, job.K - block.first_filter); half += 16) {
    const int64_t k = block.first_filter + half, filters = Min(16, job.K - k);
    const int64_t to = (n * job.K + k) * job.P * job.Q + first;
    if (job.scale) {
      StoreRounded(job, k, filters, count, sums + half, totals, residual ? residual + to : nullptr,
                   static_cast<uint8_t*>(y) + to);
    } else {
      StoreSums(job, k, filters, count, sums + half, totals, static_cast<int32_t*>(y) + to);
    }
  }
}

void SumRows(const LookupJob& job, const LookupBlock* block, const uint8_t* table, int64_t rows, int32_t* sums) {
  const int halves = block->few ? 1 : 2;
  const int64_t most = kMostSums / halves, tiles = (job.Q + most - 1) / most;  // of a row
  const int positions = static_cast<int>((job.Q + tiles - 1) / tiles);
  const auto tile_of = job.has_signs ? (halves == 2 ? TileOf<2, true> : TileOf<1, true>)
                                     : (halves == 2 ? TileOf<2, false> : TileOf<1, false>);
  const TileFunction tile = tile_of(positions);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t q = 0; q < job.Q; q += positions) {  // the last tile overlaps the one before
      const int64_t at = Min(q, job.Q - positions);
      const uint8_t* from = table + i * job.stride * job.row_bytes + at * job.stride * job.position_bytes;
      tile(job, *block, from, sums + (i * job.Q + at) * 32);
    }
  }
}

}  // namespace

const LookupBody kLookupAvx512 = {LookupForm::kQuads, false, Lookups, RunLookup};

}  // namespace sbkit
