#if defined(_OPENMP)
#include <omp.h>
#endif

#include "integer_kernels.h"

#define SBKIT_VECTOR_REGISTER(value) "+m"(value)

namespace sbkit {
namespace integer_scalar {

#include "integer_portable.h"
#include "integer_rows-inl.h"
#include "integer_table-inl.h"
#include "integer_peaks-inl.h"
#include "panels-inl.h"
#include "integer_full-inl.h"

bool supported() { return true; }

const LookupBody* lookup() { return &kLookupPlain; }

OuterBody outer() { return RunOuterPlain; }

}  // namespace integer_scalar

const IntegerKernel kIntegerScalar = {"scalar",
                                      integer_scalar::Bytes::kVector,
                                      integer_scalar::Bytes::kMostRowsBytes,
                                      integer_scalar::Bytes::kMostRowsWords,
                                      0.5,
                                      0.33,
                                      integer_scalar::supported,
                                      integer_scalar::RunTable,
                                      integer_scalar::lookup,
                                      integer_scalar::RunFull,
                                      integer_scalar::outer,
                                      integer_scalar::Quantize,
                                      integer_scalar::Regrid,
                                      integer_scalar::Linear,
                                      integer_scalar::Additions,
                                      integer_scalar::LoadedAdditions<integer_scalar::U8>,
                                      integer_scalar::LoadedAdditions<integer_scalar::U16>};

}  // namespace sbkit
