// The kernel's one body, included by each ISA file inside its own namespace after its `struct Vector`. See kernels.h
// for the method. Nothing from the standard library is used here: a function compiled with one file's flags must not be
// shared with another's.

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

// Where input column j lies among a slot's columns: sorted by j modulo the stride, so that one tap's columns are
// neighbours.
inline int64_t Column(const Job& job, int64_t j, int64_t columns) {
  return job.stride == 1 ? j : j % job.stride * (columns / job.stride) + j / job.stride;
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
  const int64_t pass = c / job.pass_channels;
  for (int64_t i = 0; i < job.packed_h; i++) {
    const float* from = plane + i * job.plane_w;
    float* to =
        job.packed + ((pass * job.packed_h + i) * job.pass_channels + c % job.pass_channels) * job.packed_columns * L;
    if (contiguous) {
      for (int64_t j = 0; j < job.packed_w; j++) Vector::Store(to + j * L, Vector::Load(from + j));
      continue;
    }
    for (int64_t j = 0; j < job.packed_w; j += L) {
      V v[L];
      for (int l = 0; l < L; l++) v[l] = Vector::Load(from + offset[l] + j);
      Vector::Transpose(v);
      const int64_t count = Min(L, job.packed_w - j);
      for (int64_t m = 0; m < count; m++) Vector::Store(to + Column(job, j + m, job.packed_columns) * L, v[m]);
    }
  }
}

// Stores base, base + sums... `step` floats apart; returns the place after the last.
template <class... Sums>
float* StoreSums(float* to, int64_t step, V base, Sums... sums) {
  Vector::Store(to, base);
  ((to += step, Vector::Store(to, Vector::Add(base, sums))), ...);
  return to + step;
}

// The 2^size sums of the subsets of `size` channels, x_step floats apart, table_step floats apart; subset 0 holds
// zeros. Each channel doubles the table: the sums without it, plus it. From three channels on, the first three's sums
// stay in registers, where the plain doubling would wait for its own stores.
inline void FillTable(const float* x, int64_t x_step, int size, float* table, int64_t table_step) {
  int bit = 0;
  Vector::Store(table, Vector::Zero());
  if (size >= 3) {
    const V s1 = Vector::Load(x), s2 = Vector::Load(x + x_step), s4 = Vector::Load(x + 2 * x_step);
    const V s3 = Vector::Add(s1, s2), s5 = Vector::Add(s1, s4), s6 = Vector::Add(s2, s4), s7 = Vector::Add(s3, s4);
    float* to = StoreSums(table, table_step, Vector::Zero(), s1, s2, s3, s4, s5, s6, s7);
    for (bit = 3; bit < size; bit++) {
      const V v = Vector::Load(x + bit * x_step);
      for (int upper = 0; upper < 1 << (bit - 3); upper++) {
        const V sum = upper == 0 ? v : Vector::Add(Vector::Load(table + upper * 8 * table_step), v);
        to = StoreSums(to, table_step, sum, s1, s2, s3, s4, s5, s6, s7);
      }
    }
  }
  for (; bit < size; bit++) {
    const V v = Vector::Load(x + bit * x_step);
    float* to = table + (table_step << bit);
    Vector::Store(to, v);
    for (int subset = 1; subset < 1 << bit; subset++) {
      Vector::Store(to + subset * table_step, Vector::Add(Vector::Load(table + subset * table_step), v));
    }
  }
}

// The tables of every input position of a tile, from its packed activations.
inline void FillTables(const Job& job, int32_t channels, const float* x, float* table) {
  const int64_t x_step = job.packed_columns * L, table_step = job.columns * L;
  for (int64_t i = 0; i < job.table_h; i++) {
    for (int64_t j = 0; j < job.table_w; j++) {
      const float* from = x + i * job.pass_channels * x_step + Column(job, j, job.packed_columns) * L;
      float* to = table + i * job.slots * table_step + Column(job, j, job.columns) * L;
      for (int32_t first = 0; first < channels; first += job.group) {
        FillTable(from, x_step, static_cast<int>(Min(job.group, channels - first)), to, table_step);
        from += job.group * x_step;
        to += table_step << job.group;
      }
    }
  }
}

// Adds the listed slots to the accumulators of a tile of TH x TW output positions. Neighbouring positions read
// neighbouring vectors.
template <int TH, int TW>
void Accumulate(const Job& job, const Pass& pass, const float* slots, float* accumulators) {
  constexpr int kSize = TH * TW * L;
  const int64_t below = static_cast<int64_t>(job.stride) * job.slots * job.columns * L;
  const uint16_t* entry = job.entries + pass.first_entry;
  const PassRow* row = job.pass_rows + pass.first_row;
  const bool first = pass.first_channel == 0;
  for (int32_t i = 0; i < pass.rows; i++, row++) {
    float* a = accumulators + static_cast<int64_t>(row->row) * kSize;
    V sum[TH][TW];
    for (int h = 0; h < TH; h++) {
      for (int w = 0; w < TW; w++) sum[h][w] = first ? Vector::Zero() : Vector::Load(a + (h * TW + w) * L);
    }
    for (const uint16_t* end = entry + row->count; entry < end; entry++) {
      const float* slot = slots + static_cast<int64_t>(*entry) * L;
      for (int h = 0; h < TH; h++, slot += below) {
        for (int w = 0; w < TW; w++) sum[h][w] = Vector::Add(sum[h][w], Vector::Load(slot + w * L));
      }
    }
    for (int h = 0; h < TH; h++) {
      for (int w = 0; w < TW; w++) Vector::Store(a + (h * TW + w) * L, sum[h][w]);
    }
  }
}

// The tile shapes in use: as many accumulators as leave registers free on every ISA.
inline void AccumulateTile(const Job& job, const Pass& pass, const float* slots, float* accumulators) {
  if (job.tile_h == 1) {
    switch (job.tile_w) {
      case 1:
        return Accumulate<1, 1>(job, pass, slots, accumulators);
      case 2:
        return Accumulate<1, 2>(job, pass, slots, accumulators);
      case 3:
        return Accumulate<1, 3>(job, pass, slots, accumulators);
      case 4:
        return Accumulate<1, 4>(job, pass, slots, accumulators);
      case 5:
        return Accumulate<1, 5>(job, pass, slots, accumulators);
      case 6:
        return Accumulate<1, 6>(job, pass, slots, accumulators);
      case 7:
        return Accumulate<1, 7>(job, pass, slots, accumulators);
      case 8:
        return Accumulate<1, 8>(job, pass, slots, accumulators);
    }
  } else {
    switch (job.tile_w) {
      case 1:
        return Accumulate<2, 1>(job, pass, slots, accumulators);
      case 2:
        return Accumulate<2, 2>(job, pass, slots, accumulators);
      case 3:
        return Accumulate<2, 3>(job, pass, slots, accumulators);
      case 4:
        return Accumulate<2, 4>(job, pass, slots, accumulators);
    }
  }
}

// Output rows of a strip: combines accumulators into outputs and turns lanes back into rows of y.
inline void UnpackStrip(const Job& job, const Lanes& lanes, int64_t n0, int64_t strip, const float* accumulators,
                        float* y) {
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
          for (int64_t m = 0; m < width; m++)
            v[m] = Vector::Add(v[m], Vector::Mul(coefficient, Vector::Load(row + from[m])));
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

void Run(const Job& job, const float* input, float* y) {
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
      for (int64_t c = 0; c < job.C; c++) PackChannel(job, lanes, input, n0, c, plane);
#pragma omp for schedule(static)
      for (int64_t strip = 0; strip < job.strips; strip++) {
        for (int64_t tile = 0; tile < job.tiles; tile++) {
          for (int32_t p = 0; p < job.passes; p++) {
            const int64_t row = p * int64_t{job.packed_h} + strip * job.tile_h * job.stride;
            const float* x = job.packed + (row * job.pass_channels * job.packed_columns + tile * job.tile_w) * L;
            if (job.group > 0) FillTables(job, job.pass[p].channels, x, table);
            AccumulateTile(job, job.pass[p], job.group > 0 ? table : x, accumulators + tile * per_tile);
          }
        }
        UnpackStrip(job, lanes, n0, strip, accumulators, y);
      }
    }
  }
}
