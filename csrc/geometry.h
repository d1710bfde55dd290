// How lanes and tiles cover the image, and what that costs.
#pragma once

#include <string>
#include <vector>

#include "algorithm.h"

namespace sbkit {

struct Geometry {
  Grid grid{};
  int32_t tile_h = 0, tile_w = 0;
  int32_t group = 0, groups_per_pass = 0;  // channels of a group
  int32_t filter_blocks = 0;
};

// The sizes of a job with this geometry, without lists and buffers.
Job lay_out(const Algorithm& algorithm, const Geometry& geometry);

struct Candidate {
  double cycles;
  Geometry geometry;
};

// All geometries that are possible, with the cycles that a cost model estimates, the least first.
std::vector<Candidate> possible_geometries(const Algorithm& algorithm);

// For people: "grid 1x4x4, tile 2x2, 8 channels a pass".
std::string describe(const Job& job);

}  // namespace sbkit
