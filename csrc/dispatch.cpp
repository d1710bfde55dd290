// Chooses at run time, by asking the CPU, through one table.
#include "kernels.h"

namespace sbkit {

namespace {
bool always() { return true; }
#if defined(SBKIT_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2"); }
bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
#endif
}  // namespace

const Kernel kKernels[] = {
    {"scalar", 1, always, run_scalar},
#if defined(SBKIT_X86)
    {"avx2", 8, has_avx2, run_avx2},
    {"avx512", 16, has_avx512, run_avx512},
#elif defined(SBKIT_AARCH64)
    {"neon", 4, always, run_neon},
#endif
};
const int kKernelCount = sizeof(kKernels) / sizeof(kKernels[0]);

}  // namespace sbkit
