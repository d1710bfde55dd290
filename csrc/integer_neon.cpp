#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+w"(value)

namespace sbkit {
namespace integer_neon {

#include "integer_portable.h"
#include "integer_rows-inl.h"
#include "integer_table-inl.h"
#include "integer_peaks-inl.h"
#include "panels-inl.h"
#include "integer_full-inl.h"

bool supported() { return true; }

const LookupBody* lookup() { return &kLookupPlain; }

OuterBody outer() { return RunOuterPlain; }

}  // namespace integer_neon

const IntegerKernel kIntegerNeon = {"neon",
                                      integer_neon::Bytes::kVector,
                                      integer_neon::Bytes::kMostRowsBytes,
                                      integer_neon::Bytes::kMostRowsWords,
                                      0.5,
                                      0.33,
                                      integer_neon::supported,
                                      integer_neon::RunTable,
                                      integer_neon::lookup,
                                    integer_neon::RunFull,
                                    integer_neon::outer,
                                    integer_neon::Quantize,
                                    integer_neon::Regrid,
                                    integer_neon::Linear,
                                    integer_neon::Additions,
                                    integer_neon::LoadedAdditions<integer_neon::U8>,
                                    integer_neon::LoadedAdditions<integer_neon::U16>};

}  // namespace sbkit
