#include "rows.h"

namespace sbkit {

Rows::Rows(const Request& request, bool zeros_have_rows)
    : channels_(request.shape.C), taps_(request.shape.R * request.shape.S) {
  for (const int8_t code : request.weights.codes) codes_.push_back(static_cast<CodeSet>(1 << (code + 1)));
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
  const float scale = request.weights.scale[filter], negative_scale = request.weights.negative_scale[filter];
  const int64_t size = channels_ * taps_;
  CodeSet found = kNone;
  for (int64_t i = filter * size; i < (filter + 1) * size; i++) found |= codes_[i];
  const bool plus = found & kPlus, minus = found & kMinus, zero = found & kZero;
  mixed |= plus && minus, zeros |= zero;
  auto add = [&](CodeSet added, CodeSet subtracted, float coefficient) {
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
