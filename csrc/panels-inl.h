// The body of products on panels (panels.h), included by each ISA file inside its own namespace after integer_rows-inl.h. What
// differs is a type `Products`:
//
//   kFilters, kVectors, kLanes          filters of a tile; its most vectors; positions of one
//   LayOut(job, n, first, last, panel)  makes the panel of output rows first to last - 1 of image n
//   Multiply<kCount>(job, tile, panel)  rounds and stores the sums of a tile of kCount vectors

// x [N][C][H][W], channel `plane` of all -> the padded copy, without the rows and columns that no window reads.
template <class From, class To>
void CopyPlane(const PanelJob& job, const From* x, int64_t plane, To* padded) {
  int64_t phase = job.padding % job.stride;  // of row h in the padded copy, modulo the stride
  for (int64_t h = 0; h < job.H; h++, phase = NextPhase(job, phase)) {
    if (phase >= job.window_h) continue;
    To* row = padded + (plane * job.padded_h + h + job.padding) * job.pitch;
    SplitRow(job, Min(job.stride, job.window_w), x + (plane * job.H + h) * job.W, row);
  }
}

// What multiplying and finishing needs of a panel.
struct PanelTile {
  int64_t filter, filters, position, positions;  // the first of the tile, and how many are stored
  uint8_t* y;                                    // of filter 0 and the panel's first position
};

template <class Products, int kVectors, class Job, class Panel>
void MultiplyTile(const Job& job, const PanelTile& tile, const Panel* panel, int64_t vectors) {
  if (vectors == kVectors) return Products::template Multiply<kVectors>(job, tile, panel);
  if constexpr (kVectors > 1) MultiplyTile<Products, kVectors - 1>(job, tile, panel, vectors);
}

// Tiles divide a panel into nearly equal parts: one of few vectors waits for each sum.
template <class Products, class Job, class Panel>
void MultiplyPanel(const Job& job, int64_t n, int64_t first_row, int64_t last_row, const Panel* panel, uint8_t* y) {
  constexpr int64_t kLanes = Products::kLanes, kVectors = Products::kVectors;
  const int64_t positions = (last_row - first_row) * job.Q, vectors = (positions + kLanes - 1) / kLanes;
  const int64_t tiles = (vectors + kVectors - 1) / kVectors, most = (vectors + tiles - 1) / tiles;
  PanelTile tile{};
  tile.y = y + n * job.K * job.P * job.Q + first_row * job.Q;
  for (int64_t at = 0; at < vectors; at += most) {
    tile.position = at * kLanes, tile.positions = positions - tile.position;
    for (int64_t k = 0; k < job.K; k += Products::kFilters) {
      tile.filter = k, tile.filters = job.K - k;
      MultiplyTile<Products, kVectors>(job, tile, panel, Min(most, vectors - at));
    }
  }
}

// pad(plane) makes the padded copy of one channel of all.
template <class Products, class Job, class Pad>
void RunPanels(const Job& job, const Pad& pad, uint8_t* y) {
  const int64_t panels = (job.P + job.rows_of_panel - 1) / job.rows_of_panel;
#pragma omp parallel num_threads(job.threads)
  {
#pragma omp for
    for (int64_t plane = 0; plane < job.N * job.C; plane++) pad(plane);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < job.N * panels; i++) {
      const int64_t first = i % panels * job.rows_of_panel, last = Min(first + job.rows_of_panel, job.P);
      auto* panel = job.panel + ThreadNumber() * job.panel_stride * (4 / sizeof(*job.panel));
      Products::LayOut(job, i / panels, first, last, panel);
      MultiplyPanel<Products>(job, i / panels, first, last, panel, y);
    }
  }
}
