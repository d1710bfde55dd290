// The values every kernel works on. Letters: input N, C, H, W; K filters; window R, S; output P, Q.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

namespace sbkit {

struct ConvShape {
  int64_t N, C, H, W, K, R, S, stride, padding;
  int64_t P() const { return (H + 2 * padding - R) / stride + 1; }
  int64_t Q() const { return (W + 2 * padding - S) / stride + 1; }
};

// What training hands over. The weight in use is alpha(k, code) * channel_sign[c] * codes[k, c, r, s], alpha being
// scale[k] where the code is +1 and negative_scale[k] where it is -1.
struct Weights {
  std::vector<int8_t> codes;          // [K][C][R][S], -1, 0 or +1
  std::vector<float> scale;           // [K]
  std::vector<float> negative_scale;  // [K]
  std::vector<float> channel_sign;    // [C], -1 or +1
};

// Operations of a layer at batch 1. Per output position: one add for each entry of each row's list (its first entry is
// added to zero), rows(k) multiplies and rows(k) - 1 adds to combine the rows of filter k (see rows.h for what a row
// is), and with `dataflow` one add for each node of the graphs. With `table`, the adds of a table's program
// (patterns.h) for each group of channels, once per input position that a window touches, which are
// ((P-1)*stride+R) * ((Q-1)*stride+S), padding included. With `dense`, K*C*R*S adds and as many multiplies per output
// position.
struct Operations {
  int64_t table_adds = 0, node_adds = 0, entry_adds = 0, combine_adds = 0, multiplies = 0;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

// Product of sizes that must fit in memory; throws std::invalid_argument beyond 2^40.
inline int64_t checked_product(std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (int64_t size : sizes) {
    if (size < 0 || (size > 0 && product > (int64_t{1} << 40) / size))
      throw std::invalid_argument("sizes exceed 2^40 elements");
    product *= size;
  }
  return product;
}

// Uninitialised floats on a 64-byte boundary, as the widest vectors want them.
struct AlignedBuffer {
  explicit AlignedBuffer(int64_t count = 0) : data(nullptr, &std::free) {
    size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    if (bytes == 0) return;
    data.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!data) throw std::bad_alloc();
  }
  float* get() const { return data.get(); }
  std::unique_ptr<float, decltype(&std::free)> data;
};

// A buffer of so many bytes, all 0.
inline AlignedBuffer zeros(int64_t bytes) {
  const int64_t floats = ceil_div(bytes, sizeof(float));
  AlignedBuffer buffer(floats);
  std::fill_n(buffer.get(), floats, 0.0f);
  return buffer;
}

}  // namespace sbkit
