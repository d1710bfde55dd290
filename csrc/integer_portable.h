// What the ISA files without intrinsics have in common: vectors of 16 bytes, made of what the compiler's target has at
// least. Included inside their own namespaces.

using Int8 = int32_t __attribute__((vector_size(32)));  // eight sums: a unit's

struct Bytes {
  static constexpr int kVector = 16, kMostRowsBytes = 4, kMostRowsWords = 6;
  static void Gather(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    __builtin_memcpy(to, from + unit[0], 8);
    __builtin_memcpy(to + 8, from + unit[1], 8);
  }
  static void GatherWide(const uint8_t* from, const int64_t* unit, uint8_t* to) {
    for (int i = 0; i < 8; i++) {
      const uint16_t word = from[unit[0] + i];
      __builtin_memcpy(to + 2 * i, &word, 2);
    }
  }
  // The 16-bit sums of a vector's units, from 64-bit lanes and bytes, or from words.
  static void SumsOfBytes(const uint8_t* sums, Int8* units) {
    for (int unit = 0; unit < 2; unit++) {
      uint64_t wide, low;
      __builtin_memcpy(&wide, sums + 8 * unit, 8);
      __builtin_memcpy(&low, sums + kVector + 8 * unit, 8);
      const uint64_t high = (wide - low) >> 8;
      for (int i = 0; i < 8; i++)
        units[unit][i] = static_cast<int32_t>((low >> 8 * i & 255) | (high >> 8 * i & 255) << 8);
    }
  }
  static void SumsOfWords(const uint8_t* sums, Int8* units) {
    for (int i = 0; i < 8; i++) {
      uint16_t word;
      __builtin_memcpy(&word, sums + 2 * i, 2);
      units[0][i] = word;
    }
  }
  static void Regrid(const uint8_t* x, const RegridRule& rule, uint8_t* y) {
    for (int i = 0; i < kVector; i++) {
      const int32_t value = ((x[i] * rule.multiplier >> 8) + rule.bias) >> rule.shift;
      y[i] = static_cast<uint8_t>(value < rule.most ? value : rule.most);
    }
  }
};

inline Int8 WidenBytes(uint64_t bytes) {
  Int8 values;
  for (int i = 0; i < 8; i++) values[i] = static_cast<int32_t>(bytes >> 8 * i & 255);
  return values;
}

// Values from 0 to 255 of each unit, as bytes.
inline void Narrow(const Int8* values, int count, uint64_t* bytes) {
  for (int unit = 0; unit < count; unit++) {
    bytes[unit] = 0;
    for (int i = 0; i < 8; i++) bytes[unit] |= static_cast<uint64_t>(values[unit][i] & 255) << 8 * i;
  }
}

struct Floats {
  static constexpr int kLanes = 8, kVectors = 1, kSlack = 0;
  using Vector = float __attribute__((vector_size(32)));
  static Vector Broadcast(float value) { return value - Vector{}; }
  static void MultiplyAdd(Vector* sum, const float* x, Vector w) {
    Vector values;
    __builtin_memcpy(&values, x, sizeof values);
    *sum += values * w;
  }
  // clamp(round(value), 0, most) of each, as bytes, by the operations of `Rounded`.
  template <int kCount>
  static void Round(const Vector (&values)[kCount], float most, uint8_t* y) {
    const Vector zero{};
    for (int v = 0; v < kCount; v++) {
      Vector value = values[v] > zero ? values[v] : zero;
      value = (value < Broadcast(most) ? value : Broadcast(most)) + 12582912.0f;
      for (int i = 0; i < 8; i++) __builtin_memcpy(y + 8 * v + i, reinterpret_cast<uint8_t*>(&value) + 4 * i, 1);
    }
  }
};
