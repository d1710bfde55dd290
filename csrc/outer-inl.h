// The body of outer layers, included by each ISA file inside its own namespace after integer_rows-inl.h and its
// `struct Lanes`: how many sums a vector has, how quads are made and multiplied, and how sums are rounded to bytes. See
// outer_kernels.h for the method.

// x [N][C][H][W], channel `plane` of all -> the padded copy, without the rows and columns that no window reads.
inline void PadPlane(const OuterJob& job, const uint8_t* x, int64_t plane) {
  int64_t phase = job.padding % job.stride;  // of row h in the padded copy, modulo the stride
  for (int64_t h = 0; h < job.H; h++, phase = NextPhase(job, phase)) {
    if (phase >= job.window_h) continue;
    uint8_t* row = job.padded + (plane * job.padded_h + h + job.padding) * job.pitch;
    SplitRow(job, Min(job.stride, job.window_w), x + (plane * job.H + h) * job.W, row);
  }
}

// The panel of output rows first_row to last_row of image n. Rows of it are made by sixteens, which run past the ends.
inline void LayOutPanel(const OuterJob& job, int64_t n, int64_t first_row, int64_t last_row, uint8_t* panel) {
  const uint8_t* image = job.padded + n * job.C * job.padded_h * job.pitch + first_row * job.stride * job.pitch;
  for (int quad = 0; quad < job.quads; quad++) {
    const int64_t* tap = job.tap + 4 * quad;
    uint8_t* to = panel + 4 * quad * job.panel_positions;
    for (int64_t row = 0; row < last_row - first_row; row++, to += 4 * job.Q) {
      const uint8_t* from = image + row * job.stride * job.pitch;
      for (int64_t q = 0; q < job.Q; q += 16)
        Lanes::Interleave(from + tap[0] + q, from + tap[1] + q, from + tap[2] + q, from + tap[3] + q, to + 4 * q);
    }
  }
}

// What multiplying and finishing needs of a panel.
struct OuterTile {
  const uint8_t* panel;
  int64_t filter, filters, position, positions;  // the first of the tile, and how many are stored
  uint8_t* y;                                    // of filter 0 and the panel's first position
};

// kOuterFilters filters at kVectors vectors of positions.
template <int kVectors>
void MultiplyTile(const OuterJob& job, const OuterTile& tile) {
  typename Lanes::Sums sum[kOuterFilters][kVectors];
  SBKIT_UNROLL for (int f = 0; f < kOuterFilters; f++) {
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) sum[f][v] = Lanes::Broadcast(job.start[tile.filter + f]);
  }
  const uint8_t* x = tile.panel + 4 * tile.position;
  const int8_t* weight = job.weights + tile.filter * job.quads * 4;
  for (int quad = 0; quad < job.quads; quad++, x += 4 * job.panel_positions, weight += 4 * kOuterFilters) {
    typename Lanes::Sums bytes[kVectors];
    SBKIT_UNROLL for (int v = 0; v < kVectors; v++) bytes[v] = Get<typename Lanes::Sums>(x + 4 * Lanes::kLanes * v);
    SBKIT_UNROLL for (int f = 0; f < kOuterFilters; f++) {
      const typename Lanes::Sums w = Lanes::Broadcast(Get<int32_t>(weight + 4 * f));
      SBKIT_UNROLL for (int v = 0; v < kVectors; v++) sum[f][v] = Lanes::AddProducts(sum[f][v], bytes[v], w);
    }
  }
  SBKIT_UNROLL for (int f = 0; f < kOuterFilters; f++) {  // sums that are indexed by variables would live in memory
    if (f >= tile.filters) break;
    const int64_t k = tile.filter + f;
    uint8_t* y = tile.y + k * job.P * job.Q + tile.position;
    if (tile.positions >= kVectors * Lanes::kLanes) {
      Lanes::Round(sum[f], job.scale[k], job.bias[k], job.most, y);
    } else {
      uint8_t bytes[kVectors * Lanes::kLanes];
      Lanes::Round(sum[f], job.scale[k], job.bias[k], job.most, bytes);
      __builtin_memcpy(y, bytes, static_cast<uint64_t>(tile.positions));
    }
  }
}

template <int kVectors>
void MultiplyTiles(const OuterJob& job, const OuterTile& tile, int64_t vectors) {
  if (vectors == kVectors) return MultiplyTile<kVectors>(job, tile);
  if constexpr (kVectors > 1) MultiplyTiles<kVectors - 1>(job, tile, vectors);
}

// Tiles divide a panel into nearly equal parts: one of few vectors waits for each sum.
inline void MultiplyPanel(const OuterJob& job, int64_t n, int64_t first_row, int64_t last_row, const uint8_t* panel,
                          uint8_t* y) {
  const int64_t positions = (last_row - first_row) * job.Q, vectors = (positions + Lanes::kLanes - 1) / Lanes::kLanes;
  const int64_t tiles = (vectors + Lanes::kVectors - 1) / Lanes::kVectors, most = (vectors + tiles - 1) / tiles;
  OuterTile tile{};
  tile.panel = panel, tile.y = y + n * job.K * job.P * job.Q + first_row * job.Q;
  for (int64_t at = 0; at < vectors; at += most) {
    tile.position = at * Lanes::kLanes, tile.positions = positions - tile.position;
    for (int64_t k = 0; k < job.K; k += kOuterFilters) {
      tile.filter = k, tile.filters = job.K - k;
      MultiplyTiles<Lanes::kVectors>(job, tile, Min(most, vectors - at));
    }
  }
}

inline int64_t ThreadNumber() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

inline void RunOuter(const OuterJob& job, const uint8_t* x, uint8_t* y) {
  const int64_t panels = (job.P + job.rows_of_panel - 1) / job.rows_of_panel;
#pragma omp parallel num_threads(job.threads)
  {
#pragma omp for
    for (int64_t plane = 0; plane < job.N * job.C; plane++) PadPlane(job, x, plane);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < job.N * panels; i++) {
      const int64_t first = i % panels * job.rows_of_panel, last = Min(first + job.rows_of_panel, job.P);
      uint8_t* panel = job.panel + ThreadNumber() * job.panel_stride;
      LayOutPanel(job, i / panels, first, last, panel);
      MultiplyPanel(job, i / panels, first, last, panel, y);
    }
  }
}
