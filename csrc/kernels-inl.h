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

// sum[j] = a[j] + b[j], or a[j] - b[j], for kWidth vectors.
template <int kWidth, bool kSubtract>
inline void SumSlots(float* sum, const float* a, const float* b) {
  for (int j = 0; j < kWidth; j++) {
    const V x = Vector::Load(a + j * L), y = Vector::Load(b + j * L);
    Vector::Store(sum + j * L, kSubtract ? Vector::Subtract(x, y) : Vector::Add(x, y));
  }
}

// The pass's sums, for kWidth columns of a fill row.
template <int kWidth>
inline void FillRow(const Step* step, const Step* end, float* slots) {
  for (; step < end; step++) {
    uint64_t fields;  // in one load
    __builtin_memcpy(&fields, step, sizeof fields);
    float* sum = slots + static_cast<int64_t>(fields & 0xffff) * L;
    const float* a = slots + static_cast<int64_t>(fields >> 16 & 0xffff) * L;
    const float* b = slots + static_cast<int64_t>(fields >> 32 & 0xffff) * L;
    if (fields >> 48) {
      SumSlots<kWidth, true>(sum, a, b);
    } else {
      SumSlots<kWidth, false>(sum, a, b);
    }
  }
}

// Runs the pass's program for every position of a tile, from its packed activations.
inline void FillSlots(const Job& job, const Pass& pass, const float* x, float* slots) {
  const int64_t from_row = int64_t{job.fill_step} * job.pass_channels * job.packed_columns * L;
  const int64_t to_row = int64_t{job.slots} * job.columns * L, width = job.copy_w;
  const Copy *first_copy = job.copies + pass.first_copy, *end_copy = first_copy + pass.copies;
  const Step *step = job.steps + pass.first_step, *end = step + pass.steps;
  for (int64_t i = 0; i < job.fill_h; i++) {
    const float* from = x + i * from_row;
    float* to = slots + i * to_row;
    for (const Copy* copy = first_copy; copy < end_copy; copy++) {
      const float* source = from + static_cast<int64_t>(copy->from) * L;
      float* target = to + static_cast<int64_t>(copy->to) * L;
      for (int64_t j = 0; j < width; j++) Vector::Store(target + j * L, Vector::Load(source + j * L));
    }
    int64_t left = job.columns;
    for (; left >= 8; left -= 8, to += 8 * L) FillRow<8>(step, end, to);
    switch (left) {
      case 1:
        FillRow<1>(step, end, to);
        break;
      case 2:
        FillRow<2>(step, end, to);
        break;
      case 3:
        FillRow<3>(step, end, to);
        break;
      case 4:
        FillRow<4>(step, end, to);
        break;
      case 5:
        FillRow<5>(step, end, to);
        break;
      case 6:
        FillRow<6>(step, end, to);
        break;
      case 7:
        FillRow<7>(step, end, to);
        break;
    }
  }
}

// Adds one slot to the accumulators of a tile, or subtracts it. Neighbouring positions read neighbouring vectors.
template <int TH, int TW, bool kSubtract>
inline void AddSlot(V (&sum)[TH][TW], const float* const (&row)[TH], uint64_t entry) {
  const int64_t offset = static_cast<int64_t>(entry) * L;
  for (int h = 0; h < TH; h++) {
    for (int w = 0; w < TW; w++) {
      const V slot = Vector::Load(row[h] + offset + w * L);
      sum[h][w] = kSubtract ? Vector::Subtract(sum[h][w], slot) : Vector::Add(sum[h][w], slot);
    }
  }
}

// Adds a list of slots. Loads are the scarce resource, so four entries come with one.
template <int TH, int TW, bool kSubtract>
inline const uint16_t* AddSlots(V (&sum)[TH][TW], const float* const (&row)[TH], const uint16_t* entry, int count) {
  uint64_t four;
  for (; count >= 4; count -= 4, entry += 4) {
    __builtin_memcpy(&four, entry, sizeof four);
    AddSlot<TH, TW, kSubtract>(sum, row, four & 0xffff);
    AddSlot<TH, TW, kSubtract>(sum, row, four >> 16 & 0xffff);
    AddSlot<TH, TW, kSubtract>(sum, row, four >> 32 & 0xffff);
    AddSlot<TH, TW, kSubtract>(sum, row, four >> 48);
  }
  for (int i = 0; i < count; i++) AddSlot<TH, TW, kSubtract>(sum, row, entry[i]);
  return entry + count;
}

// Adds the listed slots to the accumulators of a tile of TH x TW output positions.
template <int TH, int TW>
void Accumulate(const Job& job, const Pass& pass, const float* slots, float* accumulators) {
  constexpr int kSize = TH * TW * L;
  const float* row[TH];
  for (int h = 0; h < TH; h++) row[h] = slots + static_cast<int64_t>(job.below) * h * L;
  const uint16_t* entry = job.entries + pass.first_entry;
  const PassRow* listed = job.pass_rows + pass.first_row;
  const bool first = pass.first_channel == 0;
  for (const PassRow* end = listed + pass.rows; listed < end; listed++) {
    float* a = accumulators + static_cast<int64_t>(listed->row) * kSize;
    V sum[TH][TW];
    for (int h = 0; h < TH; h++) {
      for (int w = 0; w < TW; w++) sum[h][w] = first ? Vector::Zero() : Vector::Load(a + (h * TW + w) * L);
    }
    entry = AddSlots<TH, TW, false>(sum, row, entry, listed->adds);
    if (listed->subtracts) entry = AddSlots<TH, TW, true>(sum, row, entry, listed->subtracts);
    for (int h = 0; h < TH; h++) {
      for (int w = 0; w < TW; w++) Vector::Store(a + (h * TW + w) * L, sum[h][w]);
    }
  }
}

template <int TH>
inline void AccumulateTile(const Job& job, const Pass& pass, const float* slots, float* accumulators) {
  switch (job.tile_w) {
    case 1:
      return Accumulate<TH, 1>(job, pass, slots, accumulators);
    case 2:
      return Accumulate<TH, 2>(job, pass, slots, accumulators);
    case 3:
      return Accumulate<TH, 3>(job, pass, slots, accumulators);
    case 4:
      return Accumulate<TH, 4>(job, pass, slots, accumulators);
  }
  if constexpr (TH <= 2) {
    switch (job.tile_w) {
      case 5:
        return Accumulate<TH, 5>(job, pass, slots, accumulators);
      case 6:
        return Accumulate<TH, 6>(job, pass, slots, accumulators);
      case 7:
        return Accumulate<TH, 7>(job, pass, slots, accumulators);
      case 8:
        return Accumulate<TH, 8>(job, pass, slots, accumulators);
    }
  }
}

inline void AccumulateTile(const Job& job, const Pass& pass, const float* slots, float* accumulators) {
  switch (job.tile_h) {
    case 1:
      return AccumulateTile<1>(job, pass, slots, accumulators);
    case 2:
      return AccumulateTile<2>(job, pass, slots, accumulators);
    case 4:
      return AccumulateTile<4>(job, pass, slots, accumulators);
  }
}

// Output rows of a strip: combines the accumulators of a block's filters into outputs and turns lanes back into rows
// of y.
inline void UnpackStrip(const Job& job, const Block& block, const Lanes& lanes, int64_t n0, int64_t strip,
                        const float* accumulators, const float* residual, float* y) {
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
        from[m] = (tile * job.most_rows * positions + h * job.tile_w + column) * L;
      }
      for (int64_t k = block.first_filter; k < block.first_filter + block.filters; k++) {
        const V bias = Vector::Set(job.bias[k]);
        V v[L];
        for (int64_t m = 0; m < L; m++) v[m] = bias;
        for (int32_t t = job.first_term[k]; t < job.first_term[k + 1]; t++) {
          const V coefficient = Vector::Set(job.terms[t].coefficient);
          const float* row = accumulators + job.terms[t].row * positions * L;
          for (int64_t m = 0; m < width; m++)
            v[m] = Vector::Add(v[m], Vector::Mul(coefficient, Vector::Load(row + from[m])));
        }
        Vector::Transpose(v);
        const int64_t plane = k * job.P * job.Q;
        for (int l = 0; l < L; l++) {
          if (count[l] == 0) continue;
          if (residual) v[l] = Vector::Add(v[l], Vector::LoadFirst(residual + plane + to[l], count[l]));
          if (job.relu) v[l] = Vector::Max(Vector::Zero(), v[l]);
          Vector::StoreFirst(y + plane + to[l], v[l], count[l]);
        }
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

void Run(const Job& job, const float* input, const float* residual, float* y) {
  const Lanes lanes = LanesOf(job.grid);
#pragma omp parallel num_threads(job.threads)
  {
    const int64_t thread = ThreadNumber();
    float* plane = job.plane + thread * job.plane_stride;
    float* table = job.table + thread * job.table_stride;
    float* accumulators = job.accumulators + thread * job.accumulators_stride;
    const int64_t per_tile = static_cast<int64_t>(job.most_rows) * job.tile_h * job.tile_w * L;
    const bool in_place = job.fill_h == 0;
    for (int64_t n0 = 0; n0 < job.N; n0 += job.grid.n) {
#pragma omp for schedule(dynamic, 8)
      for (int64_t c = 0; c < job.C; c++) PackChannel(job, lanes, input, n0, c, plane);
// Dynamic: a core that something else slows down leaves strips to the others.
#pragma omp for schedule(dynamic)
      for (int64_t unit = 0; unit < static_cast<int64_t>(job.blocks) * job.strips; unit++) {
        const Block& block = job.block[unit / job.strips];
        const int64_t strip = unit % job.strips;
        for (int64_t tile = 0; tile < job.tiles; tile++) {
          for (int32_t p = 0; p < job.passes; p++) {
            const Pass& pass = job.pass[block.first_pass + p];
            const int64_t row = p * int64_t{job.packed_h} + strip * job.tile_h * job.stride;
            const float* x = job.packed + (row * job.pass_channels * job.packed_columns + tile * job.tile_w) * L;
            if (!in_place) FillSlots(job, pass, x, table);
            AccumulateTile(job, pass, in_place ? x : table, accumulators + tile * per_tile);
          }
        }
        UnpackStrip(job, block, lanes, n0, strip, accumulators, residual, y);
      }
    }
  }
}
