#include "panel_layout.h"

#include <algorithm>

#include "integer_geometry.h"

namespace sbkit {

namespace {

constexpr int64_t kPanelBytes = 32 << 10;  // of the first-level cache

}  // namespace

std::vector<int64_t> lay_out_panels(const ConvShape& s, int threads, int taps_of_entry, PanelJob* job) {
  job->N = s.N, job->C = s.C, job->H = s.H, job->W = s.W, job->K = s.K, job->P = s.P(), job->Q = s.Q();
  job->stride = narrow(s.stride), job->padding = narrow(s.padding), job->threads = threads;
  job->window_h = narrow(s.R), job->window_w = narrow(s.S);
  job->padded_h = padded_rows(s), job->phase_columns = phase_columns(s), job->pitch = job->phase_columns * s.stride;
  std::vector<int64_t> taps;
  for (int64_t c = 0; c < s.C; c++) {
    for (int64_t r = 0; r < s.R; r++) {
      for (int64_t t = 0; t < s.S; t++)
        taps.push_back((c * job->padded_h + r) * job->pitch + t % s.stride * job->phase_columns + t / s.stride);
    }
  }
  job->taps = narrow(static_cast<int64_t>(taps.size())), job->entries = narrow(ceil_div(job->taps, int64_t{taps_of_entry}));
  taps.resize(static_cast<size_t>(job->entries) * taps_of_entry, taps[0]);
  const int64_t fitting = kPanelBytes / (int64_t{4} * job->entries * job->Q), shared = ceil_div(job->P, int64_t{threads});
  job->rows_of_panel = narrow(std::max<int64_t>(1, std::min({fitting, shared, job->P})));
  job->panel_positions = ceil_div(job->rows_of_panel * job->Q, 16) * 16;
  job->panel_stride = ceil_div(job->entries * job->panel_positions + 16, 16) * 16;  // rows are laid out by sixteens at most
  return taps;
}

}  // namespace sbkit
