#include <arm_neon.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace sbkit {
namespace neon {

struct Vector {
  using V = float32x4_t;
  static constexpr int kLanes = 4, kMaxPositions = 16;
  static V Zero() { return vdupq_n_f32(0); }
  static V Set(float a) { return vdupq_n_f32(a); }
  static V Load(const float* p) { return vld1q_f32(p); }
  static V LoadFirst(const float* p, int count) {
    float lanes[4] = {0, 0, 0, 0};
    for (int i = 0; i < count && i < 4; i++) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static void Store(float* p, V a) { vst1q_f32(p, a); }
  static void StoreFirst(float* p, V a, int count) {
    float lanes[4];
    vst1q_f32(lanes, a);
    for (int i = 0; i < count && i < 4; i++) p[i] = lanes[i];
  }
  static V Add(V a, V b) { return vaddq_f32(a, b); }
  static V Subtract(V a, V b) { return vsubq_f32(a, b); }
  static V Mul(V a, V b) { return vmulq_f32(a, b); }
  static V Max(V a, V b) { return vmaxq_f32(a, b); }  // NaN if either is
  static void Transpose(V* v) {
    const float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
  }
};

#include "kernels-inl.h"

bool supported() { return true; }

}  // namespace neon

const Kernel kNeon = {"neon", neon::L, neon::Vector::kMaxPositions, neon::supported, neon::Run};

}  // namespace sbkit
