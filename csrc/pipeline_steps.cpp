// The steps of a pipeline that compute next to nothing: activations of another step size, pooling, and the last layer.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "pipeline.h"
#include "integer_kernels.h"

namespace sbkit {

namespace {

#include "integer_rows-inl.h"

int64_t product(const std::vector<int64_t>& shape) { return checked_product({shape[0], shape[1], shape[2], shape[3]}); }

}  // namespace

// Near the factor of the table, as the upper 16 bits of a product leave out its lowest.
std::optional<RegridRule> regrid_rule(const std::vector<uint8_t>& table) {
  const int32_t most = table[255];
  if (*std::max_element(table.begin(), table.end()) > most) return std::nullopt;
  double least = 0, largest = 1e9;  // factors that give all entries lie between
  for (int x = 1; x < 256; x++) {
    if (table[x] > 0) least = std::max(least, (table[x] - 0.5) / x);
    if (table[x] < most) largest = std::min(largest, (table[x] + 0.5) / x);
  }
  const double factor = (least + std::min(largest, least + 1)) / 2;
  int32_t shift = 8;
  while (shift > 0 && factor * (256 << shift) > 65535) shift--;
  const auto nearest = static_cast<int32_t>(std::min(65535.0, factor * (256 << shift)));
  for (int32_t away = 0; away < 512; away++) {
    const int32_t multiplier = nearest + (away % 2 ? away / 2 + 1 : -away / 2);
    if (multiplier < 0 || multiplier > 65535) continue;
    int32_t low = 0, high = 65535 - (255 * multiplier >> 8);  // of the bias
    for (int x = 0; x < 256; x++) {
      const int32_t value = x * multiplier >> 8;
      low = std::max(low, (table[x] << shift) - value);
      if (table[x] < most) high = std::min(high, ((table[x] + 1) << shift) - 1 - value);
    }
    if (low <= high) return RegridRule{multiplier, low, shift, most};
  }
  return std::nullopt;
}

namespace {

class Regrid : public Step {
 public:
  Regrid(std::vector<int64_t> shape, std::vector<uint8_t> table, const IntegerKernel* kernel)
      : shape_(std::move(shape)), table_(std::move(table)), rule_(regrid_rule(table_)), kernel_(kernel) {
    if (shape_.size() != 4) throw std::invalid_argument("a shape of other than four dimensions; allowed: N, C, H, W");
    product(shape_);
  }
  StepShapes shapes() const override { return {shape_, shape_, false, false}; }
  void run_step(const void* x, const uint8_t*, void* y) override {
    const auto* from = static_cast<const uint8_t*>(x);
    auto* to = static_cast<uint8_t*>(y);
    if (rule_) return kernel_->regrid(from, product(shape_), *rule_, to);
    for (int64_t i = 0; i < product(shape_); i++) to[i] = table_[from[i]];
  }

 private:
  std::vector<int64_t> shape_;
  std::vector<uint8_t> table_;
  std::optional<RegridRule> rule_;
  const IntegerKernel* kernel_;
};

class Quantize : public Step {
 public:
  Quantize(std::vector<int64_t> shape, const QuantizeGrid& grid, const IntegerKernel* kernel)
      : shape_(std::move(shape)), grid_(grid), kernel_(kernel) {
    if (shape_.size() != 4) throw std::invalid_argument("a shape of other than four dimensions; allowed: N, C, H, W");
    product(shape_);
  }
  StepShapes shapes() const override { return {shape_, shape_, true}; }
  void run_step(const void* x, const uint8_t*, void* y) override {
    kernel_->quantize(static_cast<const float*>(x), product(shape_), grid_, static_cast<uint8_t*>(y));
  }

 private:
  std::vector<int64_t> shape_;
  QuantizeGrid grid_;
  const IntegerKernel* kernel_;
};

using Byte8 = uint8_t __attribute__((vector_size(8)));
using Byte16 = uint8_t __attribute__((vector_size(16)));
using Short8 = int16_t __attribute__((vector_size(16)));

template <class T>
T larger(T a, T b) {
  return a > b ? a : b;
}

// to[w] = the largest of column w, of `count` rows that follow one another; the last vector overlaps the one before. kRows:
// their number where the compiler knows it, or 0.
template <class Vector, int kRows>
void largest_of_rows(const uint8_t* from, int64_t count, int64_t W, uint8_t* to) {
  constexpr int64_t kBytes = sizeof(Vector);
  const int64_t rows = kRows ? kRows : count;
  for (int64_t i = 0; i < W; i += kBytes) {
    const int64_t at = std::min(i, W - kBytes);
    Vector largest = Get<Vector>(from + at);
    for (int64_t r = 1; r < rows; r++) largest = larger(largest, Get<Vector>(from + r * W + at));
    std::memcpy(to + at, &largest, kBytes);
  }
}

template <class Vector>
void largest_of_rows(const uint8_t* from, int64_t rows, int64_t W, uint8_t* to) {
  if (rows == 2) return largest_of_rows<Vector, 2>(from, rows, W, to);
  if (rows == 3) return largest_of_rows<Vector, 3>(from, rows, W, to);
  largest_of_rows<Vector, 0>(from, rows, W, to);
}

// y[q] = the largest of `count` neighbours from column 2 q, by eights, of which the last overlap those before. 16 bytes are
// read from each second neighbour. kColumns: as kRows.
template <int kColumns>
void largest_of_columns(const uint8_t* row, int64_t count, int64_t Q, uint8_t* y) {
  const int64_t columns = kColumns ? kColumns : count;
  for (int64_t q = 0; q < Q; q += 8) {
    const int64_t at = std::max<int64_t>(0, std::min(q, Q - 8));
    Short8 largest{};  // signed, of which SSE2 has the larger
    for (int64_t s = 0; s < columns; s += 2) {
      const Word8 pairs = Get<Word8>(row + 2 * at + s);  // the first of a pair is the lower byte
      largest = larger(largest, reinterpret_cast<Short8>(pairs & 255));
      if (s + 1 < columns) largest = larger(largest, reinterpret_cast<Short8>(pairs >> 8));
    }
    const Byte8 eight = __builtin_convertvector(largest, Byte8);
    Q >= 8 ? std::memcpy(y + at, &eight, 8) : std::memcpy(y, &eight, static_cast<size_t>(Q));
  }
}

class MaxPool : public Step {
 public:
  MaxPool(std::vector<int64_t> shape, const Pool& pool) : shape_(std::move(shape)), pool_(pool) {
    if (shape_.size() != 4) throw std::invalid_argument("a pool of other than four dimensions; allowed: N, C, H, W");
    for (int64_t size : {pool.rows, pool.columns, pool.row_stride, pool.column_stride})
      if (size < 1) throw std::invalid_argument("a pool of size or stride " + std::to_string(size) + "; allowed: from 1");
    for (int64_t padding : {pool.row_padding, pool.column_padding})
      if (padding < 0 || padding > 1 << 24)
        throw std::invalid_argument("a pool of padding " + std::to_string(padding) + "; allowed: 0 to 2^24");
    const int64_t height = shape_[2] + 2 * pool.row_padding, width = shape_[3] + 2 * pool.column_padding;
    if (height < pool.rows || width < pool.columns) throw std::invalid_argument("a pool larger than its padded image; allowed: windows that fit it");
    product(shape_);
    P_ = (height - pool.rows) / pool.row_stride + 1, Q_ = (width - pool.columns) / pool.column_stride + 1;
  }
  StepShapes shapes() const override { return {shape_, {shape_[0], shape_[1], P_, Q_}, false, false}; }
  void run_step(const void* x, const uint8_t*, void* result) override {
    const int64_t H = shape_[2], W = shape_[3];
    auto* y = static_cast<uint8_t*>(result);
    // The largest of the rows of a window; made anew, as several pipelines may run one step at once.
    std::vector<uint8_t> largest(static_cast<size_t>(W + 2 * pool_.column_padding + 16));
    uint8_t* row = largest.data() + pool_.column_padding;
    for (int64_t plane = 0; plane < shape_[0] * shape_[1]; plane++) {
      const uint8_t* image = static_cast<const uint8_t*>(x) + plane * H * W;
      for (int64_t p = 0; p < P_; p++, y += Q_) {
        const int64_t from = p * pool_.row_stride - pool_.row_padding, first = std::max<int64_t>(0, from);
        pool_rows(image, first, std::min(H, from + pool_.rows), row);
        pool_columns(largest.data(), y);
      }
    }
  }

 private:
  void pool_rows(const uint8_t* image, int64_t first, int64_t last, uint8_t* row) const {
    const int64_t W = shape_[3], rows = last - first;
    if (rows <= 0) {  // all of the window lies beside the image
      std::fill_n(row, W, uint8_t{0});
      return;
    }
    const uint8_t* from = image + first * W;
    if (W >= 16) {
      largest_of_rows<Byte16>(from, rows, W, row);
    } else if (W >= 8) {
      largest_of_rows<Byte8>(from, rows, W, row);
    } else {
      std::copy_n(from, W, row);
      for (int64_t i = W; i < rows * W; i++) row[i % W] = std::max(row[i % W], from[i]);
    }
  }

  void pool_columns(const uint8_t* row, uint8_t* y) const {
    const int64_t columns = pool_.columns, stride = pool_.column_stride, Q = Q_;
    if (stride != 2) {
      std::fill_n(y, Q, uint8_t{0});
      for (int64_t s = 0; s < columns; s++)
        for (int64_t q = 0; q < Q; q++) y[q] = std::max(y[q], row[q * stride + s]);
      return;
    }
    if (columns == 2) return largest_of_columns<2>(row, columns, Q, y);
    if (columns == 3) return largest_of_columns<3>(row, columns, Q, y);
    largest_of_columns<0>(row, columns, Q, y);
  }

  std::vector<int64_t> shape_;
  Pool pool_;
  int64_t P_, Q_;
};

class Head : public Step {
 public:
  Head(std::vector<int64_t> shape, int64_t classes, const float* weight, const float* bias, const IntegerKernel* kernel)
      : shape_(std::move(shape)), classes_(classes), bias_(bias, bias + classes), kernel_(kernel) {
    const int64_t C = shape_[1];
    product(shape_);
    weight_.resize(static_cast<size_t>(checked_product({C, classes})));
    for (int64_t k = 0; k < classes; k++)
      for (int64_t c = 0; c < C; c++) weight_[c * classes + k] = weight[k * C + c];
  }
  StepShapes shapes() const override { return {shape_, {shape_[0], classes_}, false, false, true}; }
  void run_step(const void* x, const uint8_t*, void* y) override {
    const auto* from = static_cast<const uint8_t*>(x);
    const int64_t C = shape_[1], size = shape_[2] * shape_[3];
    std::vector<float> sums(static_cast<size_t>(C));
    for (int64_t n = 0; n < shape_[0]; n++) {
      for (int64_t c = 0; c < C; c++, from += size) {
        int64_t sum = 0;
        for (int64_t i = 0; i < size; i++) sum += from[i];
        sums[c] = static_cast<float>(sum);
      }
      kernel_->linear(sums.data(), C, weight_.data(), bias_.data(), classes_, static_cast<float*>(y) + n * classes_);
    }
  }

 private:
  std::vector<int64_t> shape_;
  int64_t classes_;
  std::vector<float> weight_, bias_;  // weight [C][K]
  const IntegerKernel* kernel_;
};

}  // namespace

std::shared_ptr<Step> make_head(std::vector<int64_t> shape, int64_t classes, const float* weight, const float* bias,
                                const IntegerKernel* kernel) {
  return std::make_shared<Head>(std::move(shape), classes, weight, bias, kernel);
}

std::shared_ptr<Step> make_regrid(std::vector<int64_t> shape, std::vector<uint8_t> table,
                                  const IntegerKernel* kernel) {
  return std::make_shared<Regrid>(std::move(shape), std::move(table), kernel);
}

std::shared_ptr<Step> make_quantize(std::vector<int64_t> shape, float step, int zero, int bits,
                                    const IntegerKernel* kernel) {
  const auto low = static_cast<float>(-zero), most = static_cast<float>((1 << bits) - 1);
  return std::make_shared<Quantize>(std::move(shape), QuantizeGrid{step, low, low + most, -low}, kernel);
}

std::shared_ptr<Step> make_max_pool(std::vector<int64_t> shape, const Pool& pool) {
  return std::make_shared<MaxPool>(std::move(shape), pool);
}

}  // namespace sbkit
