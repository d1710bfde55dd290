// A *row* is one sum over a filter's codes, and one accumulator. The encoding says which rows a filter has:
//
//   two_group  the activations of the codes +1 are added and those of the codes -1 subtracted. A filter whose -1 has
//              another scale than its +1 has two rows. A signed-binary filter costs what a {0,1} filter costs, whatever
//              the sign of its regions, as long as a region is no smaller than a channel group.
//   rewritten  one row of the codes +1, and one row of everything that all filters share: y = 2*scale*plus -
//              scale*total. It needs codes without zeros, and one scale.
//   signed     as two_group. With `table`, the whole pattern of a channel group, +1 and -1 together, is one entry of
//              the table, up to its sign. It needs one scale.
//   codebook   as signed, but the table holds only patterns that occur in the layer. Where training has limited those,
//              groups can be larger.
//
// Without skip_zeros, `sparse` and `dataflow` have a further row of the codes 0 (one more unique weight, of coefficient
// 0), and `table` adds a vector of zeros where a row's pattern in a channel group is empty.
#pragma once

#include <vector>

#include "layer.h"

namespace sbkit {

using CodeSet = uint8_t;  // a set of codes, of which each is one bit
constexpr CodeSet kNone = 0, kMinus = 1, kZero = 2, kPlus = 4;

struct Row {
  int64_t filter;
  CodeSet add, subtract;  // codes whose activations are added, subtracted
};

// The rows of a layer, and its codes.
class Rows {
 public:
  Rows(const Request& request, bool zeros_have_rows);

  std::vector<Row> all;             // by filter; the shared row, if there is one, last
  std::vector<int32_t> first;       // [K + 1]: the first row of each filter
  std::vector<float> coefficients;  // of each row but the shared one
  std::vector<float> shared;        // [K]: the shared row's coefficient in each filter; empty without a shared row
  bool mixed = false;               // whether some filter has codes of both signs
  bool zeros = false;               // whether some code is 0

  // The code, as a set of one, of the row's filter.
  CodeSet code(const Row& row, int64_t channel, int64_t tap) const {
    return codes_[(row.filter * channels_ + channel) * taps_ + tap];
  }

 private:
  void add_filter(const Request& request, int64_t filter, bool zeros_have_rows);
  std::vector<CodeSet> codes_;  // [K][C][R*S]
  int64_t channels_, taps_;
};

}  // namespace sbkit
