// How a layer's activations are padded and laid out in panels (panels.h).
#pragma once

#include <vector>

#include "conv.h"
#include "panels.h"

namespace sbkit {

// Fills in the job, all but its pointers and `most`, and returns the taps to point at, `taps_of_entry` for each entry. The last
// entry is filled up with the first tap, whose weight must be 0 there.
std::vector<int64_t> lay_out_panels(const ConvShape& shape, int threads, int taps_of_entry, PanelJob* job);

}  // namespace sbkit
