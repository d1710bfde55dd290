#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace sbkit {
namespace scalar {

struct Vector {
  using V = float;
  static constexpr int kLanes = 1, kMaxPositions = 8;
  static V Zero() { return 0; }
  static V Set(float a) { return a; }
  static V Load(const float* p) { return *p; }
  static V LoadFirst(const float* p, int count) { return count > 0 ? *p : 0; }
  static void Store(float* p, V a) { *p = a; }
  static void StoreFirst(float* p, V a, int count) {
    if (count > 0) *p = a;
  }
  static V Add(V a, V b) { return a + b; }
  static V Subtract(V a, V b) { return a - b; }
  static V Mul(V a, V b) { return a * b; }
  static V Max(V a, V b) { return a > b ? a : b; }  // b if either is NaN
  static void Transpose(V*) {}
};

#include "kernels-inl.h"

bool supported() { return true; }

}  // namespace scalar

const Kernel kScalar = {"scalar", scalar::L, scalar::Vector::kMaxPositions, scalar::supported, scalar::Run};

}  // namespace sbkit
