// What the offline side of outer layers (outer.h) hands to the ISA files.
//
// Lanes are output positions. The four bytes of four taps, a *quad*, stand side by side in a lane of 32 bits: one instruction
// multiplies the four with a filter's four weights, which are the same in all lanes, and adds the products to the lane's sum
// (VNNI; with AVX2 three do). The bytes under the windows of some output rows are laid out so, the *panel*, a row for each
// quad. A sum begins at -zero * (sum of the filter's weights).
#pragma once

#include <cstdint>

namespace sbkit {

constexpr int kOuterFilters = 4;  // that share loads of the panel

struct OuterJob {
  int64_t N, C, H, W, K, P, Q;
  int32_t stride, padding, window_h, window_w, threads;
  int64_t padded_h, pitch, phase_columns;  // padded activations [N][C][padded_h][pitch], as in IntegerJob
  int32_t taps, quads, rows_of_panel;      // of all channels; of taps; output rows
  const int64_t* tap;                      // [4 * quads]: from a window's first byte in the padded ones
  const int8_t* weights;                   // [blocks of kOuterFilters][quads][kOuterFilters][4]
  const int32_t* start;                    // [blocks of kOuterFilters][kOuterFilters]
  const float *scale, *bias;               // as start
  float most;
  uint8_t *padded, *panel;                 // panel [thread][quads][panel_positions][4]
  int64_t panel_positions, panel_stride;
};

using OuterBody = void (*)(const OuterJob& job, const uint8_t* x, uint8_t* y);

void RunOuterPlain(const OuterJob& job, const uint8_t* x, uint8_t* y);
void RunOuterAvx2(const OuterJob& job, const uint8_t* x, uint8_t* y);
void RunOuterAvx512(const OuterJob& job, const uint8_t* x, uint8_t* y);  // with VNNI

}  // namespace sbkit
