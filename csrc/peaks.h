// How fast this CPU sums at best: the bounds that integer layers are held against.
#pragma once

#include "integer_kernels.h"

namespace sbkit {

struct Peaks {  // operations a second, of one core; 0: not known
  double additions, bytes, words, lookups;
};

// Takes some tens of milliseconds. Other programs can only lower it, so it is the best of many short runs.
Peaks measure_peaks(const IntegerKernel& kernel);

}  // namespace sbkit
