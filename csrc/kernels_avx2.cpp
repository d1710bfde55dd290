#include <immintrin.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace sbkit {
namespace avx2 {

struct Vector {
  using V = __m256;
  static constexpr int kLanes = 8, kMaxPositions = 12;
  static V Zero() { return _mm256_setzero_ps(); }
  static V Set(float a) { return _mm256_set1_ps(a); }
  static V Load(const float* p) { return _mm256_loadu_ps(p); }
  static V LoadFirst(const float* p, int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
  }
  static void Store(float* p, V a) { _mm256_storeu_ps(p, a); }
  static void StoreFirst(float* p, V a, int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane), a);
  }
  static V Add(V a, V b) { return _mm256_add_ps(a, b); }
  static V Subtract(V a, V b) { return _mm256_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V Max(V a, V b) { return _mm256_max_ps(a, b); }  // b if either is NaN
  static void Transpose(V* v) {
    V t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; j++) {
        const __m256d a = _mm256_castps_pd(t[i + j]), b = _mm256_castps_pd(t[i + 2 + j]);
        u[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
        u[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
      }
    }
    for (int i = 0; i < 4; i++) {
      v[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
      v[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
  }
};

#include "kernels-inl.h"

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace avx2

const Kernel kAvx2 = {"avx2", avx2::L, avx2::Vector::kMaxPositions, avx2::supported, avx2::Run};

}  // namespace sbkit
