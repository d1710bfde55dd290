// `lookup` in plain C++: every step of the method, and no more.
#include "integer.h"
#include "integer_kernels.h"

namespace sbkit {

namespace {

// The byte of an input position's channel, 0 beyond the image.
int activation(const LookupJob& job, const uint8_t* image, int64_t c, int64_t h, int64_t w) {
  if (c >= job.C || h < 0 || h >= job.H || w < 0 || w >= job.W) return 0;
  return image[(c * job.H + h) * job.W + w];
}

// The tables of one output row's window rows.
void fill_tables(const LookupJob& job, const uint8_t* image, int64_t p, uint8_t* table) {
  for (int64_t i = 0; i < job.window_h * job.padded_w; i++, table += job.position_bytes) {
    const int64_t h = p * job.stride + i / job.padded_w - job.padding, w = i % job.padded_w - job.padding;
    for (int64_t quad = 0; quad < job.quads; quad++) {
      for (int64_t entry = 0; entry < 64; entry++) {
        int sum = 0;
        for (int64_t j = 0; j < job.most_channels; j++) {
          const int channel = job.select[j * 64 + entry];
          if (channel != 255) sum += activation(job, image, quad * 4 * job.group + channel, h, w);
        }
        table[64 * quad + entry] = static_cast<uint8_t>(sum);
      }
    }
  }
}

int32_t sum_of(const LookupJob& job, const uint8_t* table, int64_t k) {
  const LookupBlock& block = job.block[k / 32];
  int32_t sum = 0;
  for (int64_t i = block.first_item; i < block.first_item + block.items; i++) {
    for (int64_t at = (i * 32 + k % 32) * 4, g = 0; g < 4; g++, at++) {
      const int value = table[job.items[i].table + job.codes[at]];
      sum += job.has_signs ? job.signs[at] * value : value;
    }
  }
  return sum * job.sign[k];
}

int32_t total_of(const LookupJob& job, const uint8_t* image, int64_t p, int64_t q) {
  int32_t total = 0;
  for (int64_t r = 0; r < job.window_h; r++) {
    for (int64_t s = 0; s < job.window_w; s++) {
      for (int64_t c = 0; c < job.C; c++)
        total += activation(job, image, c, p * job.stride + r - job.padding, q * job.stride + s - job.padding);
    }
  }
  return total;
}

void RunLookupPlain(const LookupJob& job, const uint8_t* x, const uint8_t* residual, void* y) {
  const Rounding rounding = job.scale ? Rounding{{job.scale, job.scale + job.K}, {job.bias, job.bias + job.K},
                                                 job.residual_scale, 32 - __builtin_clz(static_cast<int>(job.most))}
                                      : Rounding{};
  for (int64_t n = 0; n < job.N; n++) {
    for (int64_t p = 0; p < job.P; p++) {
      fill_tables(job, x + n * job.C * job.H * job.W, p, job.table);
      for (int64_t k = 0; k < job.K; k++) {
        for (int64_t q = 0; q < job.Q; q++) {
          const int64_t at = ((n * job.K + k) * job.P + p) * job.Q + q;
          int32_t sum = !(job.stages & kSums) ? 0 : sum_of(job, job.table + q * job.stride * job.position_bytes, k);
          if (job.shared) sum = 2 * sum - total_of(job, x + n * job.C * job.H * job.W, p, q);
          if (!(job.stages & kFinish)) continue;
          if (job.scale) {
            static_cast<uint8_t*>(y)[at] = rounded(rounding, k, sum, residual ? residual + at : nullptr);
          } else {
            static_cast<int32_t*>(y)[at] = sum;
          }
        }
      }
    }
  }
}

}  // namespace

const LookupBody kLookupPlain = {LookupForm::kQuads, true, nullptr, RunLookupPlain};

}  // namespace sbkit
