// The body of outer layers for x86, included by its ISA files inside their own namespaces after panels-inl.h and their
// `struct Lanes`: how many sums a vector has, how entries are multiplied, and how sums are rounded to bytes. See
// outer_kernels.h for the method.

// Sixteen bytes each of four rows -> the four bytes of each position side by side.
inline void InterleaveSixteen(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d, uint8_t* to) {
  const auto load = [](const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
  const __m128i low = _mm_unpacklo_epi8(load(a), load(b)), others_low = _mm_unpacklo_epi8(load(c), load(d));
  const __m128i high = _mm_unpackhi_epi8(load(a), load(b)), others_high = _mm_unpackhi_epi8(load(c), load(d));
  __m128i* entries = reinterpret_cast<__m128i*>(to);
  _mm_storeu_si128(entries, _mm_unpacklo_epi16(low, others_low));
  _mm_storeu_si128(entries + 1, _mm_unpackhi_epi16(low, others_low));
  _mm_storeu_si128(entries + 2, _mm_unpacklo_epi16(high, others_high));
  _mm_storeu_si128(entries + 3, _mm_unpackhi_epi16(high, others_high));
}

struct ByteProducts {
  static constexpr int kFilters = kOuterFilters, kVectors = Lanes::kVectors, kLanes = Lanes::kLanes;
  using Sums = typename Lanes::Sums;

  // Rows of it are made by sixteens, which run past the ends.
  static void LayOut(const OuterJob& job, int64_t n, int64_t first_row, int64_t last_row, uint8_t* panel) {
    const uint8_t* image = job.padded + n * job.C * job.padded_h * job.pitch + first_row * job.stride * job.pitch;
    for (int entry = 0; entry < job.entries; entry++) {
      const int64_t* tap = job.tap + 4 * entry;
      uint8_t* to = panel + 4 * entry * job.panel_positions;
      for (int64_t row = 0; row < last_row - first_row; row++, to += 4 * job.Q) {
        const uint8_t* from = image + row * job.stride * job.pitch;
        for (int64_t q = 0; q < job.Q; q += 16)
          InterleaveSixteen(from + tap[0] + q, from + tap[1] + q, from + tap[2] + q, from + tap[3] + q, to + 4 * q);
      }
    }
  }

  template <int kCount>
  static void Multiply(const OuterJob& job, const PanelTile& tile, const uint8_t* panel) {
    Sums sum[kFilters][kCount];
    SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {
      SBKIT_UNROLL for (int v = 0; v < kCount; v++) sum[f][v] = Lanes::Broadcast(job.start[tile.filter + f]);
    }
    const uint8_t* x = panel + 4 * tile.position;
    const int8_t* weight = job.weights + tile.filter * job.entries * 4;
    for (int entry = 0; entry < job.entries; entry++, x += 4 * job.panel_positions, weight += 4 * kFilters) {
      Sums bytes[kCount];
      SBKIT_UNROLL for (int v = 0; v < kCount; v++) bytes[v] = Get<Sums>(x + 4 * kLanes * v);
      SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {
        const Sums w = Lanes::Broadcast(Get<int32_t>(weight + 4 * f));
        SBKIT_UNROLL for (int v = 0; v < kCount; v++) sum[f][v] = Lanes::AddProducts(sum[f][v], bytes[v], w);
      }
    }
    SBKIT_UNROLL for (int f = 0; f < kFilters; f++) {  // sums that are indexed by variables would live in memory
      if (f >= tile.filters) break;
      const int64_t k = tile.filter + f;
      uint8_t* y = tile.y + k * job.P * job.Q + tile.position;
      if (tile.positions >= kCount * kLanes) {
        Lanes::Round(sum[f], job.scale[k], job.bias[k], job.most, y);
      } else {
        uint8_t bytes[kCount * kLanes];
        Lanes::Round(sum[f], job.scale[k], job.bias[k], job.most, bytes);
        __builtin_memcpy(y, bytes, static_cast<uint64_t>(tile.positions));
      }
    }
  }
};

inline void RunOuter(const OuterJob& job, const uint8_t* x, uint8_t* y) {
  RunPanels<ByteProducts>(job, [&](int64_t plane) { CopyPlane(job, x, plane, job.padded); }, y);
}
