#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace sbkit {
namespace scalar {

struct Vector {
  using V = float;
  static constexpr int kLanes = 1;
  static V Zero() { return 0; }
  static V Set(float a) { return a; }
  static V Load(const float* p) { return *p; }
  static void Store(float* p, V a) { *p = a; }
  static void StoreFirst(float* p, V a, int count) {
    if (count > 0) *p = a;
  }
  static V Add(V a, V b) { return a + b; }
  static V Mul(V a, V b) { return a * b; }
  static void Transpose(V*) {}
};

#include "kernels-inl.h"

}  // namespace scalar

void run_scalar(const Job& job, const float* x, float* y) { scalar::Run(job, x, y); }

}  // namespace sbkit
