// What products of floats (full.h) and of bytes (outer.h) have in common, for the ISA files. Lanes are output positions.
// Activations are padded; those under the windows of some output rows are laid out side by side, the *panel*, an *entry* of
// 4 bytes for each tap or for each four taps; a few filters at a time are multiplied with it.
#pragma once

#include <cstdint>

namespace sbkit {

struct PanelJob {
  int64_t N, C, H, W, K, P, Q;
  int32_t stride, padding, window_h, window_w, threads;
  int64_t padded_h, pitch, phase_columns;  // padded activations [N][C][padded_h][pitch], as in IntegerJob
  int32_t taps, entries, rows_of_panel;    // of all channels; output rows
  const int64_t* tap;                      // [entries][taps of one]: from a window's first activation in the padded ones
  float most;                              // of y
  int64_t panel_positions, panel_stride;   // panel [thread][entries][panel_positions]; a thread's stride, in units of 4
                                           // bytes, has room for rows that run past the end
};

}  // namespace sbkit
