// What the offline side of outer layers (outer.h) hands to the ISA files.
//
// An entry of a panel (panels.h) has the bytes of four taps, in a lane of 32 bits: one instruction multiplies the four with a
// filter's four weights, which are the same in all lanes, and adds the products to the lane's sum (VNNI; with AVX2 three do).
// A sum begins at -zero * (sum of the filter's weights).
#pragma once

#include <cstdint>

#include "panels.h"

namespace sbkit {

constexpr int kOuterFilters = 4;  // that share loads of the panel

struct OuterJob : PanelJob {
  const int8_t* weights;      // [blocks of kOuterFilters][entries][kOuterFilters][4]
  const int32_t* start;       // [blocks of kOuterFilters][kOuterFilters]
  const float *scale, *bias;  // [K]
  uint8_t *padded, *panel;
};

using OuterBody = void (*)(const OuterJob& job, const uint8_t* x, uint8_t* y);

void RunOuterPlain(const OuterJob& job, const uint8_t* x, uint8_t* y);
void RunOuterAvx2(const OuterJob& job, const uint8_t* x, uint8_t* y);
void RunOuterAvx512(const OuterJob& job, const uint8_t* x, uint8_t* y);  // with VNNI

}  // namespace sbkit
