#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+m"(value)

namespace sbkit {
namespace integer_scalar {

// Vectors of 16 bytes, made of whatever instructions the compiler's target has at least.
struct Bytes {
  static constexpr int kVector = 16, kMostRowsBytes = 4, kMostRowsWords = 6;
  static void Gather(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    __builtin_memcpy(to, from + unit[0], 8);
    __builtin_memcpy(to + 8, from + unit[1], 8);
  }
  static void GatherWide(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    for (int i = 0; i < 8; i++) {
      const uint16_t word = from[unit[0] + i];
      __builtin_memcpy(to + 2 * i, &word, 2);
    }
  }
};

#include "integer_table-inl.h"

bool supported() { return true; }

}  // namespace integer_scalar

const IntegerKernel kIntegerScalar = {"scalar",
                                      integer_scalar::Bytes::kVector,
                                      integer_scalar::Bytes::kMostRowsBytes,
                                      integer_scalar::Bytes::kMostRowsWords,
                                      0.5,
                                      0.33,
                                      integer_scalar::supported,
                                      integer_scalar::RunTable};

}  // namespace sbkit
