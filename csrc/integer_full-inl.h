// The body of layers in full precision, and of other steps of activations, included by each ISA file inside its own
// namespace after integer_table-inl.h and its `struct Floats`, a vector of floats and how some of them are rounded to
// bytes. See integer_kernels.h for the method.

constexpr int kLanes = Floats::kLanes;  // output positions of a vector
constexpr int kSlack = Floats::kSlack;  // bytes that Floats::Round may write beyond a vector's

// x [N][C][H][W], channel `plane` of all -> the padded copy, without the rows and columns that no window reads.
template <class T>
void FloatPlane(const FullJob& job, const T* x, int64_t plane) {
  int64_t phase = job.padding % job.stride;  // of row h in the padded copy, modulo the stride
  for (int64_t h = 0; h < job.H; h++, phase = NextPhase(job, phase)) {
    if (phase >= job.window_h) continue;
    float* row = job.padded + (plane * job.padded_h + h + job.padding) * job.pitch;
    SplitRow(job, Min(job.stride, job.window_w), x + (plane * job.H + h) * job.W, row);
  }
}

// The panel of output rows first_row to last_row of image n. Rows of it are copied by eights, which run past the ends.
inline void LayOutPanel(const FullJob& job, int64_t n, int64_t first_row, int64_t last_row, float* panel) {
  const float* image = job.padded + n * job.C * job.padded_h * job.pitch;
  for (int tap = 0; tap < job.taps; tap++) {
    const float* from = image + first_row * job.stride * job.pitch + job.tap[tap];
    float* to = panel + tap * job.panel_positions;
    for (int64_t p = first_row; p < last_row; p++, to += job.Q, from += job.stride * job.pitch)
      for (int64_t q = 0; q < job.Q; q += 8) Put(to + q, Get<Float8>(from + q));
  }
}

// What multiplying and finishing needs of a panel.
struct FullTile {
  const float *weights, *panel;
  int64_t filter, filters, position, positions;  // the first of the tile, and how many are stored
  uint8_t* y;                                    // of filter 0 and the panel's first position
};

// kFullFilters filters at kVectors vectors of positions.
template <int kVectors>
void MultiplyTile(const FullJob& job, const FullTile& tile) {
  typename Floats::Vector sum[kFullFilters][kVectors];
  SBKIT_UNROLL for (int f = 0; f < kFullFilters; f++) {
    const float bias = f < tile.filters ? job.bias[tile.filter + f] : 0;
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) sum[f][v] = Floats::Broadcast(bias);
  }
  const float *x = tile.panel + tile.position, *weight = tile.weights;
  for (int tap = 0; tap < job.taps; tap++, x += job.panel_positions, weight += kFullFilters) {
    SBKIT_UNROLL for (int f = 0; f < kFullFilters; f++) {
      const typename Floats::Vector w = Floats::Broadcast(weight[f]);
      SBKIT_UNROLL for (int v = 0; v < kVectors; v++) Floats::MultiplyAdd(&sum[f][v], x + kLanes * v, w);
    }
  }
  SBKIT_UNROLL for (int f = 0; f < kFullFilters; f++) {  // sums that are indexed by variables would live in memory
    if (f >= tile.filters) break;
    uint8_t bytes[kVectors * kLanes + kSlack];
    Floats::Round(sum[f], job.most, bytes);
    uint8_t* y = tile.y + (tile.filter + f) * job.P * job.Q + tile.position;
    if (tile.positions >= kVectors * kLanes) {
      __builtin_memcpy(y, bytes, kVectors * kLanes);
    } else {
      __builtin_memcpy(y, bytes, static_cast<uint64_t>(tile.positions));
    }
  }
}

template <int kVectors>
void MultiplyTiles(const FullJob& job, const FullTile& tile, int64_t vectors) {
  if (vectors == kVectors) return MultiplyTile<kVectors>(job, tile);
  if constexpr (kVectors > 1) MultiplyTiles<kVectors - 1>(job, tile, vectors);
}

// Tiles divide a panel into nearly equal parts: one of few vectors waits for each sum.
inline void MultiplyPanel(const FullJob& job, int64_t n, int64_t first_row, int64_t last_row, const float* panel,
                          uint8_t* y) {
  const int64_t positions = (last_row - first_row) * job.Q, vectors = (positions + kLanes - 1) / kLanes;
  const int64_t tiles = (vectors + Floats::kVectors - 1) / Floats::kVectors, most = (vectors + tiles - 1) / tiles;
  FullTile tile{};
  tile.panel = panel, tile.y = y + n * job.K * job.P * job.Q + first_row * job.Q;
  for (int64_t at = 0; at < vectors; at += most) {
    tile.position = at * kLanes, tile.positions = positions - tile.position;
    for (int64_t k = 0; k < job.K; k += kFullFilters) {
      tile.filter = k, tile.filters = job.K - k, tile.weights = job.weights + k * job.taps;
      MultiplyTiles<Floats::kVectors>(job, tile, Min(most, vectors - at));
    }
  }
}

void RunFull(const FullJob& job, const void* x, uint8_t* y) {
  const int64_t panels = (job.P + job.rows_of_panel - 1) / job.rows_of_panel;
#pragma omp parallel num_threads(job.threads)
  {
#pragma omp for
    for (int64_t plane = 0; plane < job.N * job.C; plane++) {
      if (job.floats) FloatPlane(job, static_cast<const float*>(x), plane);
      if (!job.floats) FloatPlane(job, static_cast<const uint8_t*>(x), plane);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < job.N * panels; i++) {
      const int64_t first = i % panels * job.rows_of_panel, last = Min(first + job.rows_of_panel, job.P);
      float* panel = job.panel + ThreadNumber() * job.panel_stride;
      LayOutPanel(job, i / panels, first, last, panel);
      MultiplyPanel(job, i / panels, first, last, panel, y);
    }
  }
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

// Floats that hold whole numbers are added exactly, so that a vector may be rounded before `zero` is added and narrowed after.
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
