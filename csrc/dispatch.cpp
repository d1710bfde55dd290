// Chooses at run time, by asking the CPU, through one table.
#include "integer_kernels.h"
#include "kernels.h"

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace sbkit {

const Kernel* const kKernels[] = {
    &kScalar,
#if defined(SBKIT_X86)
    &kAvx2,
    &kAvx512,
#elif defined(SBKIT_AARCH64)
    &kNeon,
#endif
};
const int kKernelCount = sizeof(kKernels) / sizeof(kKernels[0]);

const IntegerKernel* const kIntegerKernels[] = {
    &kIntegerScalar,
#if defined(SBKIT_X86)
    &kIntegerAvx2,
    &kIntegerAvx512,
#elif defined(SBKIT_AARCH64)
    &kIntegerNeon,
#endif
};
const int kIntegerKernelCount = sizeof(kIntegerKernels) / sizeof(kIntegerKernels[0]);

int64_t l1_bytes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return 32768;
}

}  // namespace sbkit
