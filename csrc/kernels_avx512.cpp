#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace sbkit {
namespace avx512 {

struct Vector {
  using V = __m512;
  static constexpr int kLanes = 16, kMaxPositions = 16;
  static V Zero() { return _mm512_setzero_ps(); }
  static V Set(float a) { return _mm512_set1_ps(a); }
  static V Load(const float* p) { return _mm512_loadu_ps(p); }
  static V LoadFirst(const float* p, int count) {
    const int mask = count <= 0 ? 0 : count >= 16 ? 0xffff : (1 << count) - 1;
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p);
  }
  static void Store(float* p, V a) { _mm512_storeu_ps(p, a); }
  static void StoreFirst(float* p, V a, int count) {
    const int mask = count <= 0 ? 0 : count >= 16 ? 0xffff : (1 << count) - 1;
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), a);
  }
  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Subtract(V a, V b) { return _mm512_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Max(V a, V b) { return _mm512_max_ps(a, b); }  // b if either is NaN
  static void Transpose(V* v) {
    V t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // u[i + m] holds column 4*b + m of rows i..i+3 in its 128-bit block b
      for (int j = 0; j < 2; j++) {
        const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + 2 + j]);
        u[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        u[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
      }
    }
    for (int m = 0; m < 4; m++) {
      const V a = _mm512_shuffle_f32x4(u[m], u[4 + m], 0x88), b = _mm512_shuffle_f32x4(u[m], u[4 + m], 0xdd);
      const V c = _mm512_shuffle_f32x4(u[8 + m], u[12 + m], 0x88), d = _mm512_shuffle_f32x4(u[8 + m], u[12 + m], 0xdd);
      v[m] = _mm512_shuffle_f32x4(a, c, 0x88);
      v[m + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
      v[m + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
      v[m + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
  }
};

#include "kernels-inl.h"

bool supported() { return __builtin_cpu_supports("avx512f"); }

}  // namespace avx512

const Kernel kAvx512 = {"avx512", avx512::L, avx512::Vector::kMaxPositions, avx512::supported, avx512::Run};

}  // namespace sbkit
