// How a layer's activations are padded and laid out in panels (panels.h).
#pragma once

#include <vector>

#include "conv.h"
#include "panels.h"

namespace sbkit {

// Fills in the job, all but its pointers and `most`, and returns the taps that it is to point at: of `taps_of_entry`, of which
// the last entry may have fewer, then filled up by the first tap.
std::vector<int64_t> lay_out_panels(const ConvShape& shape, int threads, int taps_of_entry, PanelJob* job);

}  // namespace sbkit
