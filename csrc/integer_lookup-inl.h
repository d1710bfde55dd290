// What the bodies of `lookup` with vectors have in common, included by each ISA file inside its own namespace. Nothing
// from the standard library is used here, as in integer_table-inl.h.

// The ISA file's part.
// The tables of a padded row from its activations in channels last. kChannels: most of a mask; 0: any.
template <int kChannels>
void FillRow(const LookupJob& job, const uint8_t* last, uint8_t* table);
// The sums of a padded row's channels, from its activations in channels last.
void SumChannels(const LookupJob& job, const uint8_t* last, int32_t* totals);
// The sums of a block's filters at the positions of some output rows, from the tables of their first window.
void SumRows(const LookupJob& job, const LookupBlock* block, const uint8_t* table, int64_t rows, int32_t* sums);
// The sums of `count` positions, in output order and `first` in their plane -> y.
void FinishRows(const LookupJob& job, const LookupBlock& block, int64_t n, int64_t first, int64_t count,
                const int32_t* sums, const int32_t* totals, const uint8_t* residual, void* y);

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Up to 16 channels of 16 positions, channel after channel, to position after position: zeros in place of further channels.
inline void Transpose16(const uint8_t* from, int64_t from_step, int64_t channels, uint8_t* to, int64_t to_step,
                        int64_t positions) {
  __m128i a[16] = {}, b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++)
    if (i < channels) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_step));
  for (int stage = 0; stage < 4; stage++) {  // interleaves row i with row i + 8: four times is a transposition
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = b[i];
  }
  for (int64_t i = 0; i < positions; i++) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_step), a[i]);
}

// Whether a window has this column of a padded row.
inline bool IsRead(const LookupJob& job, int64_t column) {
  return job.window_w >= job.stride || column % job.stride < job.window_w;
}

// One input row to channels last; `last` has zeros where the row has nothing. Loads of 16 bytes may run into the rows
// behind, but not beyond `end`, the end of x.
inline void TransposeRow(const LookupJob& job, const uint8_t* row, const uint8_t* end, uint8_t* last) {
  const int64_t plane = job.H * job.W;
  for (int64_t c = 0; c < job.C; c += 16) {
    for (int64_t w = 0; w < job.W; w += 16) {
      const int64_t channels = Min(16, job.C - c), positions = Min(16, job.W - w);
      const uint8_t* from = row + c * plane + w;
      uint8_t* to = last + (w + job.padding) * job.pixel_bytes + c;
      if (end - (from + (channels - 1) * plane) >= 16) {
        Transpose16(from, plane, channels, to, job.pixel_bytes, positions);
        continue;
      }
      alignas(16) uint8_t block[16][16] = {};
      for (int64_t i = 0; i < channels; i++)
        __builtin_memcpy(block[i], from + i * plane, static_cast<size_t>(positions));
      Transpose16(block[0], 16, 16, to, job.pixel_bytes, positions);
    }
  }
}

// The sums under the windows of a chunk's output positions, from those of its input positions.
inline void SumWindows(const LookupJob& job, int64_t rows, const int32_t* pixels, int32_t* totals) {
  for (int64_t p = 0; p < rows; p++, totals += job.Q) {
    for (int64_t q = 0; q < job.Q; q++) totals[q] = 0;
    for (int64_t r = 0; r < job.window_h; r++) {
      for (int64_t s = 0; s < job.window_w; s++) {
        const int32_t* from = pixels + (p * job.stride + r) * job.padded_w + s;
        for (int64_t q = 0; q < job.Q; q++) totals[q] += from[q * job.stride];
      }
    }
  }
}

// The tables of a chunk's input rows, and with `shared` the sums of their channels.
inline void FillChunk(const LookupJob& job, const uint8_t* x, int64_t n, int64_t first, int64_t count, uint8_t* last,
                      uint8_t* table, int32_t* pixels) {
  const uint8_t* end = x + job.N * job.C * job.H * job.W;
  for (int64_t i = 0; i < count; i++, table += job.row_bytes, pixels += job.padded_w) {
    if (i % job.stride >= job.window_h) continue;  // no window has this row
    const int64_t h = first + i - job.padding;
    if (h < 0 || h >= job.H) {
      __builtin_memset(table, 0, static_cast<size_t>(job.row_bytes));
      for (int64_t w = 0; job.shared && w < job.padded_w; w++) pixels[w] = 0;
      continue;
    }
    TransposeRow(job, x + (n * job.C * job.H + h) * job.W, end, last);
    if (job.shared) SumChannels(job, last, pixels);
    switch (job.most_channels) {
      case 1: FillRow<1>(job, last, table); break;
      case 2: FillRow<2>(job, last, table); break;
      case 4: FillRow<4>(job, last, table); break;
      default: FillRow<0>(job, last, table);
    }
  }
}

inline void RunChunk(const LookupJob& job, int64_t n, int64_t p0, int64_t thread, const uint8_t* x,
                     const uint8_t* residual, void* y) {
  uint8_t* table = job.table + thread * job.table_stride;
  int32_t* sums = job.sums + thread * job.sums_stride / 4;
  int32_t* pixels = job.totals + thread * job.totals_stride / 4;
  int32_t* totals = pixels + (job.shared ? job.chunk_rows * job.padded_w : 0);
  const int64_t rows = Min(job.rows_of_chunk, job.P - p0);
  FillChunk(job, x, n, p0 * job.stride, (rows - 1) * job.stride + job.window_h, job.last + thread * job.last_stride,
            table, pixels);
  if (job.shared) SumWindows(job, rows, pixels, totals);
  for (int b = 0; b < job.blocks; b += job.block[b].parts) {
    for (int64_t p = 0; p < rows; p += job.rows_at_once) {
      const int64_t count = Min(job.rows_at_once, rows - p);
      if (job.stages & kSums) SumRows(job, job.block + b, table + p * job.stride * job.row_bytes, count, sums);
      if (!(job.stages & kFinish)) continue;
      FinishRows(job, job.block[b], n, (p0 + p) * job.Q, count * job.Q, sums, totals + p * job.Q, residual, y);
    }
  }
}

inline void RunLookup(const LookupJob& job, const uint8_t* x, const uint8_t* residual, void* y) {
  const int64_t chunks = (job.P + job.rows_of_chunk - 1) / job.rows_of_chunk;
#pragma omp parallel for num_threads(job.threads) schedule(dynamic)
  for (int64_t i = 0; i < job.N * chunks; i++) {
#if defined(_OPENMP)
    const int64_t thread = omp_get_thread_num();
#else
    const int64_t thread = 0;
#endif
    RunChunk(job, i / chunks, i % chunks * job.rows_of_chunk, thread, x, residual, y);
  }
}
