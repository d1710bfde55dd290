// How a layer is cut into units, tiles and passes for `table`, and what that costs.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "integer_masks.h"

namespace sbkit {

struct IntegerGeometry {
  int lane_bits = 8;
  int group = 4, groups_per_pass = 1;
  int positions = 7;  // of a unit
  int rows = 1;       // most of a tile
  int chain = 1;
  int blocks = 1;
};

// Where a tap's vectors lie.
struct IntegerTaps {
  std::vector<IntegerCopy> copies;  // two a pair
  std::vector<int> pair, offset;    // [S]: of the columns of a window; the offset in bytes from a line's start
  std::vector<IntegerLine> lines;
  std::vector<int> line;  // [R]: of the rows of a window, for a tile's first row
  int pairs() const { return narrow(static_cast<int64_t>(copies.size()) / 2); }
};

IntegerTaps lay_out_taps(const IntegerRequest& request, const IntegerGeometry& geometry, int64_t pitch,
                         int64_t phase_columns);

struct IntegerTiles {
  std::vector<IntegerUnit> units;  // as many a tile as a vector holds
  std::vector<int32_t> rows;       // of each tile, the largest first
};

IntegerTiles lay_out_tiles(const IntegerRequest& request, const IntegerGeometry& geometry);

int64_t padded_rows(const ConvShape& shape);
int64_t phase_columns(const ConvShape& shape);  // of the padded activations, for each remainder modulo the stride

// Entries of a chain of bytes have so many non-zeros together.
inline int chain_capacity(const IntegerRequest& request) { return 255 / request.most(); }

// The masks and tables of a layer, by the group's channels, made when first asked for.
class MaskTables {
 public:
  explicit MaskTables(const IntegerRequest& request) : request_(request) {}
  const FilterMasks& masks(int group);
  const MaskTable& table(int group, int lane_bits);

 private:
  const IntegerRequest& request_;
  std::map<int, FilterMasks> masks_;
  std::map<std::pair<int, int>, MaskTable> tables_;
};

struct IntegerChoice {
  IntegerGeometry geometry;
  double cycles = 0;
};

// The cheapest geometry; nothing if a window is too large for any.
std::optional<IntegerChoice> choose_geometry(const IntegerRequest& request, MaskTables* tables);

}  // namespace sbkit
