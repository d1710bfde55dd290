// The kernel's one body, included by each ISA file inside its own namespace after its `struct Vector`. See kernels.h for the method.
// Nothing from the standard library is used here: a function compiled with one file's flags must not be shared with another's.

using V = Vector::V;
constexpr int L = Vector::kLanes;

struct Lanes {
  int64_t image[L], row[L], column[L];  // of lane l in the grid
};

inline Lanes LanesOf(const Grid& grid) {
  Lanes lanes;
  for (int l = 0; l < L; l++) {
    lanes.column[l] = l % grid.w;
    lanes.row[l] = l / grid.w % grid.h;
    lanes.image[l] = l / grid.w / grid.h;
  }
  return lanes;
}

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Channel c of images n0.. -> packed[c], lanes as image blocks, multiplied by the channel's sign.
inline void PackChannel(const Job& job, const Lanes& lanes, const float* x, int64_t n0, int64_t c, float* plane) {
  const int64_t rows = Min(job.H, job.plane_h - job.padding), columns = Min(job.W, job.plane_w - job.padding);
  const float sign = job.channel_sign[c];
  for (int64_t n = 0; n < job.grid.n; n++) {
    for (int64_t h = 0; h < rows; h++) {
      float* to = plane + (n * job.plane_h + h + job.padding) * job.plane_w + job.padding;
      const float* from = x + (((n0 + n) * job.C + c) * job.H + h) * job.W;
      if (n0 + n < job.N) {
        for (int64_t w = 0; w < columns; w++) to[w] = sign * from[w];
      } else {
        for (int64_t w = 0; w < columns; w++) to[w] = 0;
      }
    }
  }
  int64_t offset[L];
  for (int l = 0; l < L; l++) {
    offset[l] = (lanes.image[l] * job.plane_h + lanes.row[l] * job.block_h * job.stride) * job.plane_w +
                lanes.column[l] * job.block_w * job.stride;
  }
  const bool contiguous = job.grid.w == L && job.block_w * job.stride == 1;  // lane l is simply column l
  float* to = job.packed + c * job.packed_h * job.packed_w * L;
  for (int64_t i = 0; i < job.packed_h; i++) {
    const float* from = plane + i * job.plane_w;
    for (int64_t j = 0; j < job.packed_w; j += contiguous ? 1 : L) {
      V v[L];
      if (contiguous) {
        Vector::Store(to, Vector::Load(from + j));
        to += L;
        continue;
      }
      for (int l = 0; l < L; l++) v[l] = Vector::Load(from + offset[l] + j);
      Vector::Transpose(v);
      const int64_t count = Min(L, job.packed_w - j);
      for (int64_t m = 0; m < count; m++, to += L) Vector::Store(to, v[m]);
    }
  }
}

// The slots of every input position of a tile.
inline void FillSlots(const Job& job, const Pass& pass, int64_t strip, int64_t tile, float* table) {
  const int64_t plane = static_cast<int64_t>(job.packed_h) * job.packed_w * L;
  for (int64_t i = 0; i < job.table_h; i++) {
    for (int64_t j = 0; j < job.table_w; j++) {
      const int64_t position = (strip * job.tile_h * job.stride + i) * job.packed_w + tile * job.tile_w * job.stride + j;
      const float* x = job.packed + pass.first_channel * plane + position * L;
      float* to = table + (i * job.table_w + j) * job.slots * L;
      if (job.group == 0) {
        for (int c = 0; c < pass.channels; c++, x += plane, to += L) Vector::Store(to, Vector::Load(x));
        continue;
      }
      for (int first = 0; first < pass.channels; first += job.group, to += L << job.group) {
        const int size = static_cast<int>(Min(job.group, pass.channels - first));
        Vector::Store(to, Vector::Zero());
        for (int bit = 0; bit < size; bit++, x += plane) {
          const V v = Vector::Load(x);
          float* upper = to + (L << bit);
          Vector::Store(upper, v);
          for (int subset = 1; subset < 1 << bit; subset++) {
            Vector::Store(upper + subset * L, Vector::Add(Vector::Load(to + subset * L), v));
          }
        }
      }
    }
  }
}

// Adds the listed slots to the accumulators of one tile. `offset` places output position j within the tile's slots.
template <int J>
void Accumulate(const Job& job, const Pass& pass, const float* table, const int64_t* offset, float* accumulators) {
  const float* base[J];
  for (int j = 0; j < J; j++) base[j] = table + offset[j];
  const uint16_t* entry = job.entries + pass.first_entry;
  const PassRow* row = job.pass_rows + pass.first_row;
  const bool first = pass.first_channel == 0;
  for (int32_t i = 0; i < pass.rows; i++, row++) {
    float* a = accumulators + static_cast<int64_t>(row->row) * J * L;
    V sum[J];
    for (int j = 0; j < J; j++) sum[j] = first ? Vector::Zero() : Vector::Load(a + j * L);
    for (const uint16_t* end = entry + row->count; entry < end; entry++) {
      const int64_t slot = static_cast<int64_t>(*entry) * L;
      for (int j = 0; j < J; j++) sum[j] = Vector::Add(sum[j], Vector::Load(base[j] + slot));
    }
    for (int j = 0; j < J; j++) Vector::Store(a + j * L, sum[j]);
  }
}

inline void AccumulateTile(const Job& job, const Pass& pass, const float* table, float* accumulators) {
  int64_t offset[kMaxPositions];
  for (int h = 0, j = 0; h < job.tile_h; h++) {
    for (int w = 0; w < job.tile_w; w++, j++) offset[j] = (h * job.table_w + w) * static_cast<int64_t>(job.stride) * job.slots * L;
  }
  switch (job.tile_h * job.tile_w) {
    case 1: return Accumulate<1>(job, pass, table, offset, accumulators);
    case 2: return Accumulate<2>(job, pass, table, offset, accumulators);
    case 3: return Accumulate<3>(job, pass, table, offset, accumulators);
    case 4: return Accumulate<4>(job, pass, table, offset, accumulators);
    case 5: return Accumulate<5>(job, pass, table, offset, accumulators);
    case 6: return Accumulate<6>(job, pass, table, offset, accumulators);
    case 7: return Accumulate<7>(job, pass, table, offset, accumulators);
    case 8: return Accumulate<8>(job, pass, table, offset, accumulators);
  }
}

// Output rows of a strip: combines accumulators into outputs and turns lanes back into rows of y.
inline void UnpackStrip(const Job& job, const Lanes& lanes, int64_t n0, int64_t strip, const float* accumulators, float* y) {
  const int64_t positions = static_cast<int64_t>(job.tile_h) * job.tile_w;
  for (int64_t h = 0; h < job.tile_h && strip * job.tile_h + h < job.block_h; h++) {
    for (int64_t w = 0; w < job.block_w; w += L) {
      int64_t to[L], from[L];
      int count[L];
      const int64_t width = Min(L, job.block_w - w);
      for (int l = 0; l < L; l++) {
        const int64_t n = n0 + lanes.image[l], p = lanes.row[l] * job.block_h + strip * job.tile_h + h,
                      q = lanes.column[l] * job.block_w + w;
        const bool stored = n < job.N && p < job.P && q < job.Q;
        count[l] = stored ? static_cast<int>(Min(width, job.Q - q)) : 0;
        to[l] = stored ? (n * job.K * job.P + p) * job.Q + q : 0;
      }
      for (int64_t m = 0; m < width; m++) {
        const int64_t tile = (w + m) / job.tile_w, column = (w + m) % job.tile_w;
        from[m] = (tile * job.rows * positions + h * job.tile_w + column) * L;
      }
      for (int64_t k = 0; k < job.K; k++) {
        V v[L];
        for (int64_t m = 0; m < L; m++) v[m] = Vector::Zero();
        for (int32_t t = job.first_term[k]; t < job.first_term[k + 1]; t++) {
          const V coefficient = Vector::Set(job.terms[t].coefficient);
          const float* row = accumulators + job.terms[t].row * positions * L;
          for (int64_t m = 0; m < width; m++) v[m] = Vector::Add(v[m], Vector::Mul(coefficient, Vector::Load(row + from[m])));
        }
        Vector::Transpose(v);
        float* plane = y + k * job.P * job.Q;
        for (int l = 0; l < L; l++) Vector::StoreFirst(plane + to[l], v[l], count[l]);
      }
    }
  }
}

inline int ThreadNumber() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

void Run(const Job& job, const float* x, float* y) {
  const Lanes lanes = LanesOf(job.grid);
#pragma omp parallel num_threads(job.threads)
  {
    const int64_t thread = ThreadNumber();
    float* plane = job.plane + thread * job.plane_stride;
    float* table = job.table + thread * job.table_stride;
    float* accumulators = job.accumulators + thread * job.accumulators_stride;
    const int64_t per_tile = static_cast<int64_t>(job.rows) * job.tile_h * job.tile_w * L;
    for (int64_t i = 0; i < job.plane_stride; i++) plane[i] = 0;
    for (int64_t n0 = 0; n0 < job.N; n0 += job.grid.n) {
#pragma omp for schedule(static)
      for (int64_t c = 0; c < job.C; c++) PackChannel(job, lanes, x, n0, c, plane);
#pragma omp for schedule(static)
      for (int64_t strip = 0; strip < job.strips; strip++) {
        for (int64_t tile = 0; tile < job.tiles; tile++) {
          for (int32_t p = 0; p < job.passes; p++) {
            FillSlots(job, job.pass[p], strip, tile, table);
            AccumulateTile(job, job.pass[p], table, accumulators + tile * per_tile);
          }
        }
        UnpackStrip(job, lanes, n0, strip, accumulators, y);
      }
    }
  }
}
