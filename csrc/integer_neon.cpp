#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+w"(value)

namespace sbkit {
namespace integer_neon {

// The compiler makes NEON of its own vectors of 16 bytes.
struct Bytes {
  static constexpr int kVector = 16, kMostRowsBytes = 8, kMostRowsWords = 8;
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

}  // namespace integer_neon

const IntegerKernel kIntegerNeon = {"neon",
                                      integer_neon::Bytes::kVector,
                                      integer_neon::Bytes::kMostRowsBytes,
                                      integer_neon::Bytes::kMostRowsWords,
                                      0.5,
                                      0.33,
                                      integer_neon::supported,
                                      integer_neon::RunTable};

}  // namespace sbkit
