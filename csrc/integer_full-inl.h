// The body of layers in full precision, and of other steps of activations, included by each ISA file inside its own namespace
// after integer_table-inl.h, panels-inl.h and its `struct Floats`, a vector of floats and how some of them are rounded to bytes.
// See integer_kernels.h for the method.

constexpr int kLanes = Floats::kLanes;  // output positions of a vector
constexpr int kSlack = Floats::kSlack;  // bytes that Floats::Round may write beyond a vector's

struct FloatProducts {
  static constexpr int kFilters = kFullFilters, kVectors = Floats::kVectors, kLanes = Floats::kLanes;

  // Rows of it are copied by eights, which run past the ends.
  static void LayOut(const FullJob& job, int64_t n, int64_t first_row, int64_t last_row, float* panel) {
    const float* image = job.padded + n * job.C * job.padded_h * job.pitch;
    for (int tap = 0; tap < job.taps; tap++) {
      const float* from = image + first_row * job.stride * job.pitch + job.tap[tap];
      float* to = panel + tap * job.panel_positions;
      for (int64_t p = first_row; p < last_row; p++, to += job.Q, from += job.stride * job.pitch)
        for (int64_t q = 0; q < job.Q; q += 8) Put(to + q, Get<Float8>(from + q));
    }
  }

  template <int kCount>
  static void Multiply(const FullJob& job, const PanelTile& tile, const float* panel) {
    typename Floats::Vector sum[kFilters][kCount];
    SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {
      const float bias = f < tile.filters ? job.bias[tile.filter + f] : 0;
      SBKIT_UNROLL for (int v = 0; v < kCount; v++) sum[f][v] = Floats::Broadcast(bias);
    }
    const float *x = panel + tile.position, *weight = job.weights + tile.filter * job.taps;
    for (int tap = 0; tap < job.taps; tap++, x += job.panel_positions, weight += kFilters) {
      SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {
        const typename Floats::Vector w = Floats::Broadcast(weight[f]);
        SBKIT_UNROLL for (int v = 0; v < kCount; v++) Floats::MultiplyAdd(&sum[f][v], x + kLanes * v, w);
      }
    }
    SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {  // sums that are indexed by variables would live in memory
      if (f >= tile.filters) break;
      uint8_t bytes[kCount * kLanes + kSlack];
      Floats::Round(sum[f], job.most, bytes);
      uint8_t* y = tile.y + (tile.filter + f) * job.P * job.Q + tile.position;
      if (tile.positions >= kCount * kLanes) {
        __builtin_memcpy(y, bytes, kCount * kLanes);
      } else {
        __builtin_memcpy(y, bytes, static_cast<uint64_t>(tile.positions));
      }
    }
  }
};

void RunFull(const FullJob& job, const void* x, uint8_t* y) {
  const auto pad = [&](int64_t plane) {
    if (job.floats) CopyPlane(job, static_cast<const float*>(x), plane, job.padded);
    if (!job.floats) CopyPlane(job, static_cast<const uint8_t*>(x), plane, job.padded);
  };
  RunPanels<FloatProducts>(job, pad, y);
}

void Regrid(const uint8_t* x, int64_t count, const RegridRule& rule, uint8_t* y) {
  int64_t i = 0;
  for (; i + kBytes <= count; i += kBytes) Bytes::Regrid(x + i, rule, y + i);
  if (i == count) return;
  uint8_t from[kBytes] = {}, to[kBytes];
  __builtin_memcpy(from, x + i, static_cast<uint64_t>(count - i));
  Bytes::Regrid(from, rule, to);
  __builtin_memcpy(y + i, to, static_cast<uint64_t>(count - i));
}

// Half to even before `zero` is added, as in torch; `Round` then only narrows.
void Quantize(const float* x, int64_t count, const QuantizeGrid& grid, uint8_t* y) {
  using Vector = typename Floats::Vector;
  const Vector step = Floats::Broadcast(grid.step), low = Floats::Broadcast(grid.low);
  const Vector high = Floats::Broadcast(grid.high), zero = Floats::Broadcast(grid.zero);
  const Vector shift = Floats::Broadcast(12582912.0f);  // as in `Rounded`
  for (int64_t i = 0; i < count; i += kLanes) {
    float from[kLanes] = {};
    const bool whole = i + kLanes <= count;
    if (!whole) __builtin_memcpy(from, x + i, static_cast<uint64_t>(4 * (count - i)));
    Vector value[1] = {Get<Vector>(whole ? x + i : from) / step};
    value[0] = value[0] > low ? value[0] : low;
    value[0] = value[0] < high ? value[0] : high;
    value[0] = value[0] + shift - shift + zero;
    uint8_t bytes[kLanes + kSlack];
    Floats::Round(value, 255.0f, bytes);
    __builtin_memcpy(y + i, bytes, whole ? kLanes : static_cast<uint64_t>(count - i));
  }
}

void Linear(const float* x, int64_t C, const float* weight, const float* bias, int64_t K, float* y) {
  constexpr int64_t kVectors = 4, kStep = kVectors * kLanes;
  int64_t k = 0;
  for (; k + kStep <= K; k += kStep) {
    typename Floats::Vector sum[kVectors];
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) sum[v] = Get<typename Floats::Vector>(bias + k + v * kLanes);
    const float* row = weight + k;
    for (int64_t c = 0; c < C; c++, row += K) {
      const typename Floats::Vector value = Floats::Broadcast(x[c]);
      SBKIT_UNROLL for (int v = 0; v < kVectors; v++) Floats::MultiplyAdd(&sum[v], row + v * kLanes, value);
    }
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) Put(y + k + v * kLanes, sum[v]);
  }
  for (int64_t i = k; i < K; i++) y[i] = bias[i];
  for (int64_t c = 0; c < C; c++) {
    for (int64_t i = k; i < K; i++) y[i] += weight[c * K + i] * x[c];
  }
}
