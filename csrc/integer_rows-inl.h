// Rows of activations on their way to padded copies, and what else kernels of integers share, included by each ISA file inside
// its own namespace, after <omp.h> where there is OpenMP. Nothing from the standard library is used here, as in
// integer_table-inl.h.

#define SBKIT_UNROLL _Pragma("GCC unroll 16")

using Word8 = uint16_t __attribute__((vector_size(16)));

template <class T>
inline T Get(const void* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void Put(void* to, const T& value) {
  __builtin_memcpy(to, &value, sizeof value);
}

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Moves values of type T; the last overlaps the one before.
template <class T>
inline void CopyRow(uint8_t* to, const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; i += sizeof(T)) {
    const int64_t at = Min(i, count - static_cast<int64_t>(sizeof(T)));
    Put(to + at, Get<T>(from + at));
  }
}

template <class T>
struct EightOf {
  typedef T Type __attribute__((vector_size(8 * sizeof(T))));
};

// The first bytes of at least eight pairs, eight at a time; the last eight overlap those before.
template <class To>
inline void FirstOfPairs(const uint8_t* from, int64_t pairs, To* to) {
  for (int64_t i = 0; i < pairs; i += 8) {
    const int64_t at = Min(i, pairs - 8);
    Put(to + at, __builtin_convertvector(Get<Word8>(from + 2 * at) & 255, typename EightOf<To>::Type));
  }
}

// A row as values of type To, its columns sorted by their remainder modulo the stride, which the compiler knows or is 0.
template <int kStride, class Job, class From, class To>
inline void SortColumns(const Job& job, int64_t phases, const From* from, To* row) {
  const int64_t stride = kStride ? kStride : job.stride;
  for (int64_t phase = 0; phase < phases; phase++) {
    const int64_t first = (phase + (stride - 1) * job.padding) % stride;  // column of the image
    const int64_t count = (job.W - first + stride - 1) / stride;
    To* to = row + phase * job.phase_columns + (first + job.padding) / stride;
    int64_t i = 0;
    if constexpr (kStride == 2 && sizeof(From) == 1) {
      const int64_t pairs = (job.W - first) / 2;
      if (pairs >= 8) FirstOfPairs(from + first, pairs, to), i = pairs;
    }
    for (; i < count; i++) to[i] = static_cast<To>(from[first + i * stride]);
  }
}

// The same for any stride. Only the columns of the first `phases` remainders are written.
template <class Job, class From, class To>
inline void SplitRow(const Job& job, int64_t phases, const From* from, To* row) {
  if (job.stride == 1) {
    SortColumns<1>(job, phases, from, row);
  } else if (job.stride == 2) {
    SortColumns<2>(job, phases, from, row);
  } else {
    SortColumns<0>(job, phases, from, row);
  }
}

// What follows the remainder of a row modulo the stride.
template <class Job>
inline int64_t NextPhase(const Job& job, int64_t phase) {
  return phase + 1 < job.stride ? phase + 1 : 0;
}

inline int64_t ThreadNumber() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}
