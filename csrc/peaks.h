// What this core can do at best, for the roofline: fused multiply-adds from registers, and loads of random table slots
// with their addition, which is all that the kernels do most of the time.
#pragma once

#include "kernels.h"

namespace sbkit {

struct Peaks {
  double multiply_adds;  // vectors a second
  double l1_adds;        // slots loaded and added a second, from a table of half the first-level cache
  double l2_adds;        // the same from a table of 512 KiB
};

Peaks measure_peaks(const Kernel& kernel);

}  // namespace sbkit
