// The body of `table` for integers, included by each ISA file inside its own namespace after integer_rows-inl.h, its ways
// to widen and narrow, and its `struct Bytes`, which has the vector's size, how vectors are gathered, and how a RegridRule
// is applied to one. See integer_kernels.h for the method. Vectors are the compiler's own (GCC, Clang), so that the ISA
// files need next to no intrinsics. Nothing from the standard library is used here: a function compiled with one file's
// flags must not be shared with another's.

constexpr int kBytes = Bytes::kVector;  // of a vector
using U8 = uint8_t __attribute__((vector_size(kBytes)));
using U16 = uint16_t __attribute__((vector_size(kBytes)));
using U64 = uint64_t __attribute__((vector_size(kBytes)));
using Float8 = float __attribute__((vector_size(32)));

template <int kLaneBits>
constexpr int kUnits = kBytes / kLaneBits;  // of a vector, of 8 lanes each

// x [N][C][H][W], channel `plane` of all -> the padded copy.
inline void PadPlane(const IntegerJob& job, const uint8_t* x, int64_t plane) {
  int64_t phase = job.padding % job.stride;  // of row h in the padded copy, modulo the stride
  for (int64_t h = 0; h < job.H; h++, phase = NextPhase(job, phase)) {
    if (phase >= job.phases) continue;  // no window has it
    const uint8_t* from = x + (plane * job.H + h) * job.W;
    uint8_t* row = job.padded + (plane * job.padded_h + h + job.padding) * job.pitch;
    if (job.stride > 1) {
      SplitRow(job, job.stride, from, row);
    } else if (job.W >= 16) {
      CopyRow<Word8>(row + job.padding, from, job.W);
    } else if (job.W >= 4) {
      CopyRow<uint32_t>(row + job.padding, from, job.W);
    } else {
      CopyRow<uint8_t>(row + job.padding, from, job.W);
    }
  }
}

// The first line or column of every unit of a tile as a vector: one vector of the table.
template <int kLaneBits>
inline void GatherUnits(const uint8_t* from, const int64_t* unit, uint8_t* to) {
  if (kLaneBits == 8) {
    Bytes::Gather(from, unit, to);
  } else {
    Bytes::GatherWide(from, unit, to);
  }
}

// The tables of a pass, for the rows of one tile.
template <int kLaneBits>
void Fill(const IntegerJob& job, const IntegerPass& pass, const IntegerUnit* units, int rows, uint8_t* table) {
  constexpr int64_t kLine = 2 * kBytes;
  int64_t unit[kUnits<kLaneBits>];
  for (int i = 0; i < kUnits<kLaneBits>; i++) unit[i] = units[i].from;
  const int64_t used = job.phases == 1 ? job.lines - (job.rows_of_tile - rows) : job.lines;  // lines that the tile needs
  for (int g = 0; g < pass.groups; g++, table += job.group_bytes) {
    const int64_t first = static_cast<int64_t>(pass.first_group + g) * job.group;
    for (int64_t c = first; c < Min(first + job.group, job.C); c++) {
      if (job.channel_slot[c - first] < 0) continue;
      const uint8_t* plane = job.padded + c * job.padded_h * job.pitch;
      uint8_t* slot = table + job.channel_slot[c - first];
      for (int pair = 0; pair < job.pairs; pair++) {
        for (int line = 0; line < job.lines; line++, slot += kLine) {
          if (rows < job.line[line].least_rows) continue;
          const uint8_t* row = plane + job.line[line].from;
          const int64_t left = job.copy[2 * pair].from, right = job.copy[2 * pair + 1].from;
          if (left >= 0) GatherUnits<kLaneBits>(row + left, unit, slot);
          if (right >= 0) GatherUnits<kLaneBits>(row + right, unit, slot + kBytes);
        }
      }
    }
    for (const IntegerStep *step = job.step, *end = step + job.steps; step < end; step++) {
      for (int pair = 0; pair < job.pairs; pair++) {
        const int64_t shift = pair * job.lines * kLine;
        const uint8_t *a = table + step->a + shift, *b = table + step->b + shift;
        uint8_t* to = table + step->to + shift;
        for (int64_t i = 0; i < used * kLine; i += kLine) {
          SBKIT_UNROLL for (int64_t j = i; j < i + kLine; j += kBytes) {
            if (kLaneBits == 8) Put(to + j, Get<U8>(a + j) + Get<U8>(b + j));
            if (kLaneBits == 16) Put(to + j, Get<U16>(a + j) + Get<U16>(b + j));
          }
        }
      }
    }
  }
}

// Sums are not reordered across it, which would cost registers.
template <class T>
inline void Keep(T& value) {
  asm volatile("" : SBKIT_VECTOR_REGISTER(value));
}

// Adds `count` times four entries to the sums, or subtracts them: wide, in lanes of 64 or 16 bits, and low, in bytes.
template <int kLaneBits, int kRows, int kChain, bool kSubtract>
inline void AddChains(U64 (&wide)[kRows], U8 (&low)[kRows], const uint8_t* table, const uint16_t*& entry, int count) {
  for (const uint16_t* const end = entry + 4 * count; entry < end; entry += 4) {
    const uint64_t four = Get<uint64_t>(entry);  // in one load: loads are scarce
    const uint8_t* at[4] = {table + (four & 0xffff), table + (four >> 16 & 0xffff), table + (four >> 32 & 0xffff),
                            table + (four >> 48)};
    SBKIT_UNROLL for (int c = 0; c < 4; c += kChain) {
      SBKIT_UNROLL for (int v = 0; v < kRows; v++) {
        U8 sum = Get<U8>(at[c] + 2 * kBytes * v);
        if (kChain == 1 && kLaneBits == 8) Keep(sum);  // one load for both additions
        SBKIT_UNROLL for (int i = 1; i < kChain; i++) sum += Get<U8>(at[c + i] + 2 * kBytes * v);
        if (kLaneBits == 16) {
          wide[v] = reinterpret_cast<U64>(kSubtract ? reinterpret_cast<U16>(wide[v]) - reinterpret_cast<U16>(sum)
                                                    : reinterpret_cast<U16>(wide[v]) + reinterpret_cast<U16>(sum));
        } else {
          wide[v] = kSubtract ? wide[v] - reinterpret_cast<U64>(sum) : wide[v] + reinterpret_cast<U64>(sum);
          low[v] = kSubtract ? low[v] - sum : low[v] + sum;
          Keep(low[v]);
        }
        Keep(wide[v]);
      }
    }
  }
}

// The entries of a pass for all filters of its block.
template <int kLaneBits, int kRows, int kChain>
void Accumulate(const IntegerJob& job, const IntegerBlock& block, const IntegerPass& pass, const uint8_t* table,
                uint8_t* sums) {
  constexpr int kVectors = kLaneBits == 8 ? 2 : 1;
  const uint16_t* entry = job.entries + pass.first_entry;
  const IntegerRow* row = job.rows + pass.first_row;
  for (const IntegerRow* const end = row + block.filters + job.shared; row < end; row++) {
    uint8_t* sum = sums + static_cast<int64_t>(row->filter) * job.rows_of_tile * kVectors * kBytes;
    U64 wide[kRows];
    U8 low[kRows];
    if (pass.begin) {
      const uint64_t start = row->start * (kLaneBits == 8 ? 0x0101010101010101u : 0x0001000100010001u);
      SBKIT_UNROLL for (int v = 0; v < kRows; v++) {
        wide[v] = start - U64{};
        low[v] = static_cast<uint8_t>(row->start) - U8{};
      }
    } else {
      SBKIT_UNROLL for (int v = 0; v < kRows; v++) {
        wide[v] = Get<U64>(sum + v * kVectors * kBytes);
        low[v] = kLaneBits == 8 ? Get<U8>(sum + (v * kVectors + 1) * kBytes) : U8{};
      }
    }
    AddChains<kLaneBits, kRows, kChain, false>(wide, low, table, entry, row->adds);
    if (row->subtracts) AddChains<kLaneBits, kRows, kChain, true>(wide, low, table, entry, row->subtracts);
    SBKIT_UNROLL for (int v = 0; v < kRows; v++) {
      Put(sum + v * kVectors * kBytes, wide[v]);
      if (kLaneBits == 8) Put(sum + (v * kVectors + 1) * kBytes, low[v]);
    }
  }
}

// Up to eight bytes, in registers: a load of bytes just stored apart would wait for them.
inline uint64_t LoadFirst(const uint8_t* from, int count) {
  if (count == 8) return Get<uint64_t>(from);
  if (count == 7) return Get<uint32_t>(from) | static_cast<uint64_t>(Get<uint32_t>(from + 3)) >> 8 << 32;
  uint64_t bytes = 0;
  for (int i = 0; i < count; i++) bytes |= static_cast<uint64_t>(from[i]) << 8 * i;
  return bytes;
}

inline void StoreFirst(uint8_t* to, uint64_t bytes, int count) {
  if (count == 8) {
    Put(to, bytes);
  } else if (count == 7) {
    Put(to, static_cast<uint32_t>(bytes));
    Put(to + 3, static_cast<uint32_t>(bytes >> 24));
  } else {
    for (int i = 0; i < count; i++) to[i] = static_cast<uint8_t>(bytes >> 8 * i);
  }
}

inline void StoreFirst(int32_t* to, Int8 sums, int count) {
  if (count == 8) {
    Put(to, sums);
  } else if (count == 7) {
    __builtin_memcpy(to, &sums, 7 * sizeof(int32_t));
  } else {
    for (int i = 0; i < count; i++) to[i] = sums[i];
  }
}

// What finishing needs of a tile, in registers or on the stack: stores to y cannot change it.
template <int kLaneBits>
struct Finish {
  int64_t to[kUnits<kLaneBits>];  // of a unit's first row, filter 0
  int rows[kUnits<kLaneBits>], columns[kUnits<kLaneBits>];
  int64_t filter_step, row_step;
  Float8 scale, bias, residual_scale, most;  // the first two of a filter
  const uint8_t* residual;
};

// `rounded` of integer_reference.cpp for eight sums: the same operations in the same order. What it returns holds the
// integer in its lowest bits.
inline Int8 Rounded(Float8 value, Float8 most) {
  const Float8 zero{};
  value = value > zero ? value : zero;
  value = value < most ? value : most;
  const Float8 shift = 12582912.0f - zero;  // 1.5 * 2^23: no bit below one is left, so this rounds half to even
  return reinterpret_cast<Int8>(value + shift) - reinterpret_cast<Int8>(shift);
}

// Sums of a filter and row of the tile -> y. kWhole: all units store 7 positions of every row.
template <int kLaneBits, bool kWhole>
inline void StoreRow(const Finish<kLaneBits>& finish, int64_t filter, int row, Int8* sums, int32_t* y) {
  for (int u = 0; u < kUnits<kLaneBits>; u++) {
    if (!kWhole && row >= finish.rows[u]) continue;
    const int64_t to = finish.to[u] + filter * finish.filter_step + row * finish.row_step;
    StoreFirst(y + to, sums[u], kWhole ? 7 : finish.columns[u]);
  }
}

template <int kLaneBits, bool kWhole>
inline void StoreRow(const Finish<kLaneBits>& finish, int64_t filter, int row, Int8* sums, uint8_t* y) {
  const int64_t first = filter * finish.filter_step + row * finish.row_step;
  SBKIT_UNROLL for (int u = 0; u < kUnits<kLaneBits>; u++) {
    Float8 value = __builtin_convertvector(sums[u], Float8) * finish.scale + finish.bias;
    if (finish.residual && (kWhole || row < finish.rows[u])) {
      const uint64_t bytes = LoadFirst(finish.residual + finish.to[u] + first, kWhole ? 7 : finish.columns[u]);
      value = value + __builtin_convertvector(WidenBytes(bytes), Float8) * finish.residual_scale;
    }
    sums[u] = Rounded(value, finish.most);
  }
  uint64_t bytes[kUnits<kLaneBits>];
  Narrow(sums, kUnits<kLaneBits>, bytes);
  SBKIT_UNROLL for (int u = 0; u < kUnits<kLaneBits>; u++) {
    if (!kWhole && row >= finish.rows[u]) continue;
    StoreFirst(y + finish.to[u] + first, bytes[u], kWhole ? 7 : finish.columns[u]);
  }
}

// The 16-bit sums since the last flush, to 32 bits; after the last pass, finished and stored.
template <int kLaneBits, bool kWhole, class T>
void Flush(const IntegerJob& job, const IntegerBlock& block, const IntegerPass& pass, Finish<kLaneBits> finish, int rows,
           bool first, bool last, const uint8_t* sums, uint8_t* wide, T* y) {
  constexpr int kVectors = kLaneBits == 8 ? 2 : 1;
  constexpr int64_t kTotals = kUnits<kLaneBits> * sizeof(Int8);
  const int64_t rows_of_tile = job.rows_of_tile, filters = block.filters + job.shared;
  const IntegerRow* row = job.rows + pass.first_row;
  for (const IntegerRow* const end = row + filters; row < end; row++) {
    // The shared sum comes first, for it is part of all others.
    const int64_t filter = row->filter, k = block.first_filter + filter - job.shared;
    const bool store = last && !(job.shared && filter == 0);
    const Int8 start = static_cast<int32_t>(row->start) - Int8{};
    if (store && job.scale) finish.scale = job.scale[k] - Float8{}, finish.bias = job.bias[k] - Float8{};
    const uint8_t* sum = sums + filter * rows_of_tile * kVectors * kBytes;
    uint8_t* total = wide + filter * rows_of_tile * kTotals;
    for (int v = 0; v < rows; v++, sum += kVectors * kBytes, total += kTotals) {
      Int8 values[kUnits<kLaneBits>];
      if (kLaneBits == 8) Bytes::SumsOfBytes(sum, values);
      if (kLaneBits == 16) Bytes::SumsOfWords(sum, values);
      SBKIT_UNROLL for (int u = 0; u < kUnits<kLaneBits>; u++) {
        values[u] -= start;
        if (!first) values[u] += Get<Int8>(total + u * sizeof(Int8));
        if (!store) Put(total + u * sizeof(Int8), values[u]);
        if (store && job.shared) values[u] = values[u] * 2 - Get<Int8>(wide + v * kTotals + u * sizeof(Int8));
      }
      if (store) StoreRow<kLaneBits, kWhole>(finish, k, v, values, y);
    }
  }
}

// Prepares for a tile's units, and whether all of them store 7 positions of every row.
template <int kLaneBits>
bool MakeFinish(const IntegerJob& job, const IntegerUnit* units, int rows, const uint8_t* residual,
                Finish<kLaneBits>* finish) {
  bool whole = true;
  for (int u = 0; u < kUnits<kLaneBits>; u++) {
    finish->to[u] = units[u].to, finish->rows[u] = units[u].rows, finish->columns[u] = units[u].columns;
    whole &= units[u].rows == rows && units[u].columns == 7;
  }
  finish->filter_step = job.P * job.Q, finish->row_step = job.Q;
  finish->scale = finish->bias = Float8{};
  finish->residual_scale = job.residual_scale - Float8{}, finish->most = job.most - Float8{};
  finish->residual = residual;
  return whole;
}

using AccumulateFunction = void (*)(const IntegerJob&, const IntegerBlock&, const IntegerPass&, const uint8_t*,
                                    uint8_t*);

template <int kLaneBits, int kChain, int kRows>
AccumulateFunction AccumulateRows(int rows) {
  if (rows == kRows) return Accumulate<kLaneBits, kRows, kChain>;
  if constexpr (kRows > 1) return AccumulateRows<kLaneBits, kChain, kRows - 1>(rows);
  return nullptr;
}

template <int kLaneBits>
AccumulateFunction ChooseAccumulate(int chain, int rows) {
  if constexpr (kLaneBits == 16) return AccumulateRows<16, 1, Bytes::kMostRowsWords>(rows);
  return chain == 1   ? AccumulateRows<8, 1, Bytes::kMostRowsBytes>(rows)
         : chain == 2 ? AccumulateRows<8, 2, Bytes::kMostRowsBytes>(rows)
                      : AccumulateRows<8, 4, Bytes::kMostRowsBytes>(rows);
}

template <int kLaneBits, class T>
void RunTile(const IntegerJob& job, const IntegerBlock& block, int64_t tile, int64_t thread, const uint8_t* residual,
             T* y) {
  const IntegerUnit* units = job.unit + tile * kUnits<kLaneBits>;
  const int rows = job.rows_in_tile[tile];
  const AccumulateFunction accumulate = ChooseAccumulate<kLaneBits>(job.chain, rows);
  Finish<kLaneBits> finish;
  const bool whole = MakeFinish<kLaneBits>(job, units, rows, residual, &finish);
  const auto flush = whole ? Flush<kLaneBits, true, T> : Flush<kLaneBits, false, T>;
  uint8_t* table = job.table + thread * job.table_stride;
  uint8_t* sums = job.sums + thread * job.sums_stride;
  uint8_t* wide = job.wide + thread * job.wide_stride;
  bool first = true;
  for (int p = 0; p < job.passes; p++) {
    const IntegerPass& pass = job.pass[block.first_pass + p];
    if (pass.fill) Fill<kLaneBits>(job, pass, units, rows, table);
    if (job.stages & kSums) accumulate(job, block, pass, table, sums);
    if (!pass.flush || !(job.stages & kFinish)) continue;
    flush(job, block, pass, finish, rows, first, p == job.passes - 1, sums, wide, y);
    first = false;
  }
}

template <int kLaneBits>
void RunTile(const IntegerJob& job, int64_t i, const uint8_t* residual, void* y) {
  const IntegerBlock& block = job.block[i / job.tiles];
  if (job.scale) {
    RunTile<kLaneBits>(job, block, i % job.tiles, ThreadNumber(), residual, static_cast<uint8_t*>(y));
  } else {
    RunTile<kLaneBits>(job, block, i % job.tiles, ThreadNumber(), nullptr, static_cast<int32_t*>(y));
  }
}

void RunTable(const IntegerJob& job, const uint8_t* x, const uint8_t* residual, void* y) {
#pragma omp parallel num_threads(job.threads)
  {
#pragma omp for
    for (int64_t plane = 0; plane < job.N * job.C; plane++) PadPlane(job, x, plane);
// Dynamic: a core that something else slows down leaves tiles to the others.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < static_cast<int64_t>(job.blocks) * job.tiles; i++) {
      if (job.lane_bits == 8) {
        RunTile<8>(job, i, residual, y);
      } else {
        RunTile<16>(job, i, residual, y);
      }
    }
  }
}
