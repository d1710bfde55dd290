// `table` for integers, offline: the lists of entries, their bounds, and the layer that owns them.
#include <algorithm>

#include "integer_geometry.h"

namespace sbkit {

namespace {

constexpr int64_t kMost16 = 65535;

struct Part {  // of the filters' codes: groups of channels, and taps
  int first_group, groups, first_tap, taps;
  bool fill;
};

struct Listed {
  IntegerRow row;
  std::vector<uint16_t> entries;
  int64_t nonzeros[2];
};

class IntegerTable : public IntegerLayer {
 public:
  IntegerTable(const IntegerRequest& request, MaskTables* tables, const IntegerChoice& choice)
      : request_(request),
        geometry_(choice.geometry),
        masks_(tables->masks(geometry_.group)),
        table_(tables->table(geometry_.group, geometry_.lane_bits)) {
    lay_out();
    list_blocks();
    set_pointers();
    // What was measured with AVX-512 is 1.2 to 1.7 times the estimate (the least times that `lookup` is fitted to).
    facts_.cost = 1.45 * choice.cycles;
    describe();
  }

  void run(const uint8_t* x, const uint8_t* residual, void* y, int stages) override {
    std::lock_guard<std::mutex> lock(mutex_);
    job_.stages = stages;
    request_.kernel->run_table(job_, x, residual, y);
  }

 private:
  void lay_out();
  std::vector<Part> cut() const;
  void list_blocks();
  void list_block(const std::vector<Part>& parts);
  Listed list(const Part& part, int64_t filter) const;
  int64_t nonzeros(const Part& part, int64_t filter) const;
  std::vector<uint16_t> chains(std::vector<std::pair<int, uint16_t>> items) const;
  void set_pointers();
  void describe();

  const IntegerRequest request_;
  const IntegerGeometry geometry_;
  const FilterMasks masks_;
  const MaskTable table_;
  IntegerTaps taps_;
  IntegerTiles tiles_;
  IntegerJob job_{};
  std::vector<int32_t> channel_slot_;
  std::vector<IntegerStep> steps_;
  std::vector<IntegerBlock> blocks_;
  std::vector<IntegerPass> passes_;
  std::vector<IntegerRow> rows_;
  std::vector<uint16_t> entries_;
  AlignedBuffer padded_, tables_, sums_, wide_;
};

void IntegerTable::lay_out() {
  const ConvShape& s = request_.shape;
  IntegerJob& job = job_;
  job.N = s.N, job.C = s.C, job.H = s.H, job.W = s.W, job.K = s.K, job.P = s.P(), job.Q = s.Q();
  job.stride = narrow(s.stride), job.padding = narrow(s.padding);
  job.padded_h = padded_rows(s), job.phase_columns = phase_columns(s), job.pitch = job.phase_columns * s.stride;
  job.lane_bits = geometry_.lane_bits, job.chain = geometry_.chain, job.group = geometry_.group;
  job.rows_of_tile = geometry_.rows, job.blocks = geometry_.blocks;
  job.shared = request_.rewritten, job.threads = request_.threads;
  taps_ = lay_out_taps(request_, geometry_, job.pitch, job.phase_columns);
  tiles_ = lay_out_tiles(request_, geometry_);
  job.tiles = narrow(tiles_.rows.size());
  job.lines = narrow(taps_.lines.size()), job.pairs = taps_.pairs(), job.phases = narrow(std::min(s.stride, s.R));
  job.slot_bytes = job.pairs * job.lines * 2 * request_.kernel->vector_bytes;
  job.group_bytes = table_.slots() * job.slot_bytes;
  for (int slot : table_.channel_slots()) channel_slot_.push_back(slot < 0 ? -1 : slot * job.slot_bytes);
  for (const IntegerStep& step : table_.steps())
    steps_.push_back({step.to * job.slot_bytes, step.a * job.slot_bytes, step.b * job.slot_bytes});
}

int64_t IntegerTable::nonzeros(const Part& part, int64_t filter) const {
  int64_t count = 0;
  for (int g = part.first_group; g < part.first_group + part.groups; g++) {
    for (int tap = part.first_tap; tap < part.first_tap + part.taps; tap++) {
      for (int sign : {0, 1}) count += __builtin_popcount(masks_.at(filter, g, tap, sign));
    }
  }
  return count;
}

// Passes of as many groups as share the cache, cut further by taps where one alone might overflow 16 bits.
std::vector<Part> IntegerTable::cut() const {
  std::vector<Part> parts;
  for (int g = 0; g < masks_.groups; g += geometry_.groups_per_pass) {
    const int groups = std::min(geometry_.groups_per_pass, masks_.groups - g);
    for (int count = 1;; count++) {
      std::vector<Part> tried;
      for (int i = 0; i < count; i++) {
        const int first = masks_.taps * i / count, last = masks_.taps * (i + 1) / count;
        if (last > first) tried.push_back({g, groups, first, last - first, tried.empty()});
      }
      bool fits = true;
      for (const Part& part : tried) {
        for (int f = 0; f < masks_.filters && fits; f++) fits = nonzeros(part, f) * request_.most() <= kMost16;
      }
      if (!fits && count < masks_.taps) continue;
      if (!fits) throw std::logic_error("one tap of a pass overflows 16 bits");
      parts.insert(parts.end(), tried.begin(), tried.end());
      break;
    }
  }
  return parts;
}

// Entries, each with its non-zeros, in chains that are as full as may be; ends with empty masks for loads of four.
std::vector<uint16_t> IntegerTable::chains(std::vector<std::pair<int, uint16_t>> items) const {
  struct Chain {
    int count = 0, nonzeros = 0;
    uint16_t entry[4] = {};  // 0 is in the empty mask's slot
  };
  const size_t length = geometry_.chain;
  const int capacity = geometry_.lane_bits == 8 ? chain_capacity(request_) : 32;
  std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<Chain> chains(ceil_div(items.size(), length));
  for (const auto& [nonzeros, entry] : items) {
    Chain* emptiest = nullptr;
    for (Chain& chain : chains) {
      if (chain.count == geometry_.chain || chain.nonzeros + nonzeros > capacity) continue;
      if (!emptiest || chain.nonzeros < emptiest->nonzeros) emptiest = &chain;
    }
    if (!emptiest) emptiest = &chains.emplace_back();
    emptiest->entry[emptiest->count++] = entry, emptiest->nonzeros += nonzeros;
  }
  while (chains.size() * length % 4) chains.emplace_back();
  std::vector<uint16_t> listed;
  for (const Chain& chain : chains) {
    if (geometry_.lane_bits == 8 && chain.nonzeros * request_.most() > 255) throw std::logic_error("a chain overflows");
    listed.insert(listed.end(), chain.entry, chain.entry + length);
  }
  return listed;
}

Listed IntegerTable::list(const Part& part, int64_t filter) const {
  Listed listed{};
  const int64_t S = request_.shape.S, pair_bytes = job_.slot_bytes / job_.pairs;
  for (int sign : {0, 1}) {
    std::vector<std::pair<int, uint16_t>> items;
    for (int g = 0; g < part.groups; g++) {
      for (int tap = part.first_tap; tap < part.first_tap + part.taps; tap++) {
        const int64_t r = tap / S, s = tap % S;
        uint32_t rest = masks_.at(filter, part.first_group + g, tap, sign);
        while (rest) {
          const uint32_t mask = table_.take(&rest);
          const int64_t at = g * int64_t{job_.group_bytes} + table_.slot(mask) * int64_t{job_.slot_bytes} +
                             taps_.pair[s] * pair_bytes +
                             taps_.line[r] * int64_t{2 * request_.kernel->vector_bytes} + taps_.offset[s];
          items.emplace_back(__builtin_popcount(mask), static_cast<uint16_t>(at));
          listed.nonzeros[sign] += items.back().first;
        }
      }
    }
    const std::vector<uint16_t> entries = chains(std::move(items));
    listed.entries.insert(listed.entries.end(), entries.begin(), entries.end());
    (sign ? listed.row.subtracts : listed.row.adds) = static_cast<uint16_t>(entries.size() / 4);
    if (entries.size() / 4 > kMost16) throw std::invalid_argument("a window has too many taps for 16-bit counts");
  }
  return listed;
}

void IntegerTable::list_blocks() {
  const std::vector<Part> parts = cut();
  job_.passes = narrow(parts.size());
  for (int b = 0; b < geometry_.blocks; b++) {
    const int64_t first = job_.K * b / geometry_.blocks, last = job_.K * (b + 1) / geometry_.blocks;
    blocks_.push_back({narrow(first), narrow(last - first), narrow(passes_.size())});
    list_block(parts);
  }
}

// The passes of the last block. Sums are flushed before the pass that might overflow one of them.
void IntegerTable::list_block(const std::vector<Part>& parts) {
  const int32_t shared = request_.rewritten;
  const IntegerBlock& block = blocks_.back();
  std::vector<int64_t> used(block.filters + shared), negative(used.size());  // non-zeros since the last flush
  size_t begin = passes_.size();
  // Accumulators begin at the largest sum that the passes up to the next flush can subtract.
  auto flush = [&] {
    if (begin == passes_.size()) return;
    passes_.back().flush = true;
    for (size_t p = begin; p < passes_.size(); p++) {
      for (size_t i = 0; i < used.size(); i++) {
        IntegerRow& row = rows_[passes_[p].first_row + i];
        row.start = static_cast<uint16_t>(negative[row.filter] * request_.most());
      }
    }
    begin = passes_.size();
    std::fill(used.begin(), used.end(), 0), std::fill(negative.begin(), negative.end(), 0);
  };
  for (const Part& part : parts) {
    std::vector<Listed> listed;
    bool fits = true;
    for (int32_t i = 0; i < narrow(used.size()); i++) {
      listed.push_back(list(part, i < shared ? 0 : block.first_filter + i));
      listed.back().row.filter = i;
      fits &= (used[i] + listed[i].nonzeros[0] + listed[i].nonzeros[1]) * request_.most() <= kMost16;
    }
    if (!fits) flush();
    for (size_t i = 0; i < used.size(); i++) {
      used[i] += listed[i].nonzeros[0] + listed[i].nonzeros[1], negative[i] += listed[i].nonzeros[1];
      if (used[i] * request_.most() > kMost16) throw std::logic_error("a pass overflows 16 bits");
    }
    // Rows of equal lengths follow one another, which the branch predictor likes; the shared sum stays in front.
    std::stable_sort(listed.begin() + shared, listed.end(), [](const Listed& a, const Listed& b) {
      return std::pair(a.row.adds, a.row.subtracts) < std::pair(b.row.adds, b.row.subtracts);
    });
    passes_.push_back({part.first_group, part.groups, part.fill, begin == passes_.size(), false, narrow(rows_.size()),
                       static_cast<int64_t>(entries_.size())});
    for (const Listed& each : listed) {
      rows_.push_back(each.row);
      entries_.insert(entries_.end(), each.entries.begin(), each.entries.end());
    }
  }
  flush();
}

void IntegerTable::set_pointers() {
  const ConvShape& s = request_.shape;
  const int64_t vector = request_.kernel->vector_bytes, threads = request_.threads;
  int64_t filters = 0;
  for (const IntegerBlock& block : blocks_) filters = std::max<int64_t>(filters, block.filters + job_.shared);
  const int64_t vectors = filters * geometry_.rows;
  auto aligned = [](int64_t bytes) { return ceil_div(bytes + 64, 4096) * 4096; };
  job_.table_stride = aligned(int64_t{job_.group_bytes} * geometry_.groups_per_pass + vector);
  job_.sums_stride = aligned(vectors * vector * (geometry_.lane_bits == 8 ? 2 : 1));
  job_.wide_stride = aligned(vectors * (vector / geometry_.lane_bits) * 32);
  // Units read 8 columns and lines below the image, whose sums nobody stores.
  const int64_t beyond = (geometry_.rows * s.stride + 1) * job_.pitch + 64;
  padded_ = zeros(checked_product({s.N, s.C, job_.padded_h, job_.pitch}) + beyond);
  tables_ = zeros(job_.table_stride * threads), sums_ = zeros(job_.sums_stride * threads);
  wide_ = zeros(job_.wide_stride * threads);
  job_.padded = reinterpret_cast<uint8_t*>(padded_.get()), job_.table = reinterpret_cast<uint8_t*>(tables_.get());
  job_.sums = reinterpret_cast<uint8_t*>(sums_.get()), job_.wide = reinterpret_cast<uint8_t*>(wide_.get());
  job_.unit = tiles_.units.data(), job_.rows_in_tile = tiles_.rows.data();
  job_.line = taps_.lines.data(), job_.copy = taps_.copies.data();
  job_.channel_slot = channel_slot_.data(), job_.step = steps_.data(), job_.steps = narrow(steps_.size());
  job_.block = blocks_.data(), job_.pass = passes_.data(), job_.rows = rows_.data(), job_.entries = entries_.data();
  const Rounding& rounding = request_.rounding;
  job_.scale = rounding.scale.empty() ? nullptr : rounding.scale.data(), job_.bias = rounding.bias.data();
  job_.residual_scale = rounding.residual_scale, job_.most = static_cast<float>((1 << rounding.bits) - 1);
}

void IntegerTable::describe() {
  const ConvShape& s = request_.shape;
  auto text = [](int64_t value) { return std::to_string(value); };
  facts_.group = geometry_.group, facts_.lane_bits = geometry_.lane_bits;
  facts_.weight_bytes = static_cast<int64_t>(entries_.size() * sizeof(uint16_t) + rows_.size() * sizeof(IntegerRow));
  facts_.geometry = text(geometry_.lane_bits) + "-bit lanes, " + text(geometry_.positions) + " positions a unit, " +
                    text(geometry_.rows) + " rows, " + text(table_.slots()) + " slots, " +
                    text(geometry_.groups_per_pass) + " groups a pass, chains of " + text(geometry_.chain) +
                    (geometry_.blocks > 1 ? ", " + text(geometry_.blocks) + " filter blocks" : "");
  int64_t fours = 0, rows = 0;  // of entries, in all lists; executed by all tiles
  for (const IntegerRow& row : rows_) fours += row.adds + row.subtracts;
  for (int32_t tile : tiles_.rows) rows += tile;
  facts_.sum_work.entries = 4 * fours * rows;
  facts_.sum_work.instructions = facts_.sum_work.entries + (geometry_.lane_bits == 8 ? 4 * fours / geometry_.chain * rows : 0);
  facts_.operations.table_adds = int64_t{job_.steps} * masks_.groups * ((job_.P - 1) * s.stride + s.R) *
                                 ((job_.Q - 1) * s.stride + s.S);
  facts_.operations.entry_adds = table_.entries() * job_.P * job_.Q;
  facts_.operations.combine_adds = job_.shared ? job_.K * job_.P * job_.Q : 0;
}

}  // namespace

std::unique_ptr<IntegerLayer> make_integer_table(const IntegerRequest& request) {
  check_sums_fit(request);
  MaskTables tables(request);
  const std::optional<IntegerChoice> choice = choose_geometry(request, &tables);
  if (!choice) return make_integer_dense(request);  // a window too large for tables of 64 KB
  return std::make_unique<IntegerTable>(request, &tables, *choice);
}

}  // namespace sbkit
