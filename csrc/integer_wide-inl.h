// The body of `wide`, included by each ISA file inside its own namespace after integer_table-inl.h and its `struct Pairs`,
// which has a vector of 32-bit sums and how pairs of 16-bit values are multiplied. See integer_kernels.h for the method.

constexpr int kLanes = Pairs::kLanes;  // output positions of a vector
constexpr int kEights = kLanes / 8;    // Int8s that hold a vector

// The largest |x|, as the bits of a float; those of infinity or more where a value is not finite.
inline uint32_t LargestBits(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++) {
    const uint32_t bits = Get<uint32_t>(x + i) & 0x7fffffffu;
    largest = largest > bits ? largest : bits;
  }
  return largest;
}

inline int16_t Widened(uint8_t value, float) { return value; }

inline int16_t Widened(float value, float factor) {
  const float shifted = value * factor + 12582912.0f;  // 1.5 * 2^23: no bit below one is left, so this rounds half to even
  return static_cast<int16_t>(static_cast<int32_t>(shifted - 12582912.0f));
}

// Values in 16 bits, the columns that windows read sorted by their remainder modulo the stride, which the compiler knows
// or is 0.
template <int kStride, class T>
inline void WidenRow(const WideJob& job, const T* from, float factor, int16_t* row) {
  const int64_t stride = kStride ? kStride : job.stride, phases = Min(stride, job.window_w);
  for (int64_t phase = 0; phase < phases; phase++) {
    const int64_t first = (phase + (stride - 1) * job.padding) % stride, count = (job.W - first + stride - 1) / stride;
    int16_t* to = row + phase * job.phase_columns + (first + job.padding) / stride;
    for (int64_t i = 0; i < count; i++) to[i] = Widened(from[first + i * stride], factor);
  }
}

template <class T>
void WidenPlane(const WideJob& job, const T* x, int64_t plane) {
  const float scale = job.floats ? job.image_scale[plane / job.C] : 0, factor = scale > 0 ? 1 / scale : 0;
  for (int64_t h = 0; h < job.H; h++) {
    if ((h + job.padding) % job.stride >= job.window_h) continue;
    const T* from = x + (plane * job.H + h) * job.W;
    int16_t* row = job.padded + (plane * job.padded_h + h + job.padding) * job.pitch;
    if (job.stride == 1) {
      WidenRow<1>(job, from, factor, row);
    } else if (job.stride == 2) {
      WidenRow<2>(job, from, factor, row);
    } else {
      WidenRow<0>(job, from, factor, row);
    }
  }
}

// Two rows of `count` values as pairs. It writes up to 8 pairs past the end.
inline void Interleave(const int16_t* a, const int16_t* b, int64_t count, int16_t* to) {
  for (int64_t i = 0; i < count; i += 8) {
    InterleaveEight(a + i, b + i, to + 2 * i);
  }
}

// The panel of output rows first_row to last_row of image n.
inline void LayOutPanel(const WideJob& job, int64_t n, int64_t first_row, int64_t last_row, int16_t* panel) {
  const int16_t* image = job.padded + n * job.C * job.padded_h * job.pitch;
  for (int pair = 0; pair < job.pairs; pair++) {
    const int64_t a = job.tap[2 * pair], b = job.tap[2 * pair + 1];
    int16_t* to = panel + pair * job.panel_positions * 2;
    for (int64_t p = first_row; p < last_row; p++, to += 2 * job.Q) {
      const int16_t* row = image + p * job.stride * job.pitch;
      Interleave(row + a, b < 0 ? row + a : row + b, job.Q, to);  // the weight of no tap is 0
    }
  }
}

// What multiplying and finishing needs of a panel.
struct WideTile {
  const int16_t *weights, *panel;
  int64_t filter, filters, position, positions;  // the first of the tile, and how many are stored
  float image_scale;
  uint8_t* y;  // of filter 0 and the panel's first position
};

// kWideFilters filters at kVectors vectors of positions.
template <int kVectors>
void MultiplyTile(const WideJob& job, const WideTile& tile) {
  typename Pairs::Sum sum[kWideFilters][kVectors];
  SBKIT_UNROLL for (int f = 0; f < kWideFilters; f++) {
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) sum[f][v] = typename Pairs::Sum{};
  }
  const int16_t *x = tile.panel + 2 * tile.position, *weight = tile.weights;
  for (int pair = 0; pair < job.pairs; pair++, x += 2 * job.panel_positions, weight += 2 * kWideFilters) {
    SBKIT_UNROLL for (int f = 0; f < kWideFilters; f++) {
      const typename Pairs::Pair w = Pairs::Broadcast(weight + 2 * f);
      SBKIT_UNROLL for (int v = 0; v < kVectors; v++) Pairs::MultiplyAdd(&sum[f][v], x + 2 * kLanes * v, w);
    }
  }
  const Float8 most = job.most - Float8{};
  SBKIT_UNROLL for (int f = 0; f < kWideFilters; f++) {  // sums that are indexed by variables would live in memory
    if (f >= tile.filters) break;
    const int64_t k = tile.filter + f;
    const Float8 scale = (job.floats ? job.scale[k] * tile.image_scale : job.scale[k]) - Float8{};
    const Float8 bias = job.bias[k] - Float8{};
    Int8 values[kVectors * kEights + 1];
    values[kVectors * kEights] = Int8{};
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) Put(values + v * kEights, sum[f][v]);
    uint64_t bytes[kVectors * kEights + 1];
    SBKIT_UNROLL for (int i = 0; i < kVectors * kEights; i++)
      values[i] = Rounded(__builtin_convertvector(values[i], Float8) * scale + bias, most);
    Narrow(values, (kVectors * kEights + 1) / 2 * 2, bytes);
    uint8_t* y = tile.y + k * job.P * job.Q + tile.position;
    if (tile.positions >= kVectors * kLanes) {
      __builtin_memcpy(y, bytes, kVectors * kLanes);
    } else {
      __builtin_memcpy(y, bytes, static_cast<uint64_t>(tile.positions));
    }
  }
}

template <int kVectors>
void MultiplyTiles(const WideJob& job, WideTile tile, int64_t vectors) {
  if (vectors == kVectors) return MultiplyTile<kVectors>(job, tile);
  if constexpr (kVectors > 1) MultiplyTiles<kVectors - 1>(job, tile, vectors);
}

inline void MultiplyPanel(const WideJob& job, int64_t n, int64_t first_row, int64_t last_row, const int16_t* panel,
                          uint8_t* y) {
  const int64_t positions = (last_row - first_row) * job.Q;
  WideTile tile{};
  tile.panel = panel, tile.image_scale = job.floats ? job.image_scale[n] : 1;
  tile.y = y + n * job.K * job.P * job.Q + first_row * job.Q;
  for (int64_t at = 0; at < positions; at += Pairs::kVectors * kLanes) {
    tile.position = at, tile.positions = positions - at;
    const int64_t vectors = Min(Pairs::kVectors, (tile.positions + kLanes - 1) / kLanes);
    for (int64_t k = 0; k < job.K; k += kWideFilters) {
      tile.filter = k, tile.filters = job.K - k, tile.weights = job.weights + k * job.pairs * 2;
      MultiplyTiles<Pairs::kVectors>(job, tile, vectors);
    }
  }
}

void RunWide(const WideJob& job, const void* x, uint8_t* y) {
  const int64_t size = job.C * job.H * job.W, panels = (job.P + job.rows_of_panel - 1) / job.rows_of_panel;
#pragma omp parallel num_threads(job.threads)
  {
#pragma omp for
    for (int64_t n = 0; n < (job.floats ? job.N : 0); n++) {
      const uint32_t bits = LargestBits(static_cast<const float*>(x) + n * size, size);
      const float largest = Get<float>(&bits);
      // What is not finite is for the caller to refuse; values below 1e-30 count as 0.
      job.image_scale[n] = bits >= 0x7f800000u ? largest : largest < 1e-30f ? 0 : largest / job.most_x;
    }
#pragma omp for
    for (int64_t plane = 0; plane < job.N * job.C; plane++) {
      if (job.floats && !(job.image_scale[plane / job.C] < 3.4e38f)) continue;
      if (job.floats) WidenPlane(job, static_cast<const float*>(x), plane);
      if (!job.floats) WidenPlane(job, static_cast<const uint8_t*>(x), plane);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < job.N * panels; i++) {
      const int64_t first = i % panels * job.rows_of_panel, last = Min(first + job.rows_of_panel, job.P);
      int16_t* panel = job.panel + ThreadNumber() * job.panel_stride;
      LayOutPanel(job, i / panels, first, last, panel);
      MultiplyPanel(job, i / panels, first, last, panel, y);
    }
  }
}

void Regrid(const uint8_t* x, int64_t count, float factor, float most, uint8_t* y) {
  const Float8 factors = factor - Float8{}, mosts = most - Float8{};
  for (int64_t i = 0; i < count; i += 16) {
    uint64_t bytes[2] = {};
    const int64_t left = Min(16, count - i);
    left == 16 ? __builtin_memcpy(bytes, x + i, 16) : __builtin_memcpy(bytes, x + i, static_cast<uint64_t>(left));
    Int8 values[2];
    SBKIT_UNROLL for (int j = 0; j < 2; j++)
      values[j] = Rounded(__builtin_convertvector(WidenBytes(bytes[j]), Float8) * factors, mosts);
    Narrow(values, 2, bytes);
    left == 16 ? __builtin_memcpy(y + i, bytes, 16) : __builtin_memcpy(y + i, bytes, static_cast<uint64_t>(left));
  }
}
