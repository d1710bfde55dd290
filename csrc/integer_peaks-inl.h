// What bounds summing: loops that do nothing but add vectors, included by each ISA file behind integer_table-inl.h. The
// loops of look-ups stand beside `lookup`, in integer_lookup_avx2.cpp and integer_lookup_avx512.cpp. Each has so many
// sums that an addition seldom waits for another.

constexpr int kPeakSums = 8;

// Vectors of lanes of type T, each loaded and added.
template <class T>
void LoadedAdditions(const uint8_t* buffer, int64_t times, uint8_t* result) {
  T sum[kPeakSums] = {};
  for (int64_t i = 0; i < times; i++) {
    _Pragma("GCC unroll 1") for (int j = 0; j < kPeakOperations; j += kPeakSums) {
      SBKIT_UNROLL for (int v = 0; v < kPeakSums; v++) sum[v] += Get<T>(buffer + (j + v) * kBytes);
      asm volatile("" : : : "memory");  // the vectors are loaded anew
    }
  }
  SBKIT_UNROLL for (int v = 0; v < kPeakSums; v++) Put(result + v * kBytes, sum[v]);
}

// Vectors in registers: each sum is added to the one before it.
inline void Additions(const uint8_t* buffer, int64_t times, uint8_t* result) {
  U8 sum[kPeakSums];
  SBKIT_UNROLL for (int v = 0; v < kPeakSums; v++) sum[v] = Get<U8>(buffer + v * kBytes);
  for (int64_t i = 0; i < times; i++) {
    _Pragma("GCC unroll 1") for (int j = 0; j < kPeakOperations; j += kPeakSums) {
      SBKIT_UNROLL for (int v = 0; v < kPeakSums; v++) sum[v] += sum[(v + 1) % kPeakSums];
    }
  }
  SBKIT_UNROLL for (int v = 0; v < kPeakSums; v++) Put(result + v * kBytes, sum[v]);
}
