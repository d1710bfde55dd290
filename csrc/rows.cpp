#include "rows.h"

#include <algorithm>

namespace sbkit {

namespace {

constexpr uint8_t kNone = 0, kMinus = 1, kZero = 2, kPlus = 4;

}  // namespace

Rows::Rows(const Request& request, bool zeros_have_rows)
    : codes_(request.weights.codes.data()), channels_(request.shape.C), taps_(request.shape.R * request.shape.S) {
  first.push_back(0);
  for (int64_t k = 0; k < request.shape.K; k++) {
    add_filter(request, k, zeros_have_rows);
    first.push_back(narrow(static_cast<int64_t>(all.size())));
  }
  if (request.encoding == Encoding::kRewritten) {
    all.push_back({0, kMinus | kPlus, kNone});  // every activation, whatever the filter, as no code is 0
    for (const float scale : request.weights.scale) shared.push_back(-scale);
  }
}

void Rows::add_filter(const Request& request, int64_t filter, bool zeros_have_rows) {
  const int8_t *begin = codes_ + filter * channels_ * taps_, *end = begin + channels_ * taps_;
  const float scale = request.weights.scale[filter], negative_scale = request.weights.negative_scale[filter];
  const bool plus = std::find(begin, end, 1) != end, minus = std::find(begin, end, -1) != end;
  const bool zero = std::find(begin, end, 0) != end;
  mixed |= plus && minus, zeros |= zero;
  auto add = [&](uint8_t added, uint8_t subtracted, float coefficient) {
    all.push_back({filter, added, subtracted});
    coefficients.push_back(coefficient);
  };
  if (request.encoding == Encoding::kRewritten) {
    if (plus) add(kPlus, kNone, 2 * scale);
  } else if (plus && minus && scale == negative_scale) {
    add(kPlus, kMinus, scale);
  } else {
    if (plus) add(kPlus, kNone, scale);
    if (minus) add(kMinus, kNone, -negative_scale);
  }
  if (zero && zeros_have_rows) add(kZero, kNone, 0);
}

}  // namespace sbkit
