// The one table of algorithms.
#include "algorithm.h"
#include "limits.h"
#include "plan.h"
#include "reference.h"

namespace sbkit {

namespace {

std::unique_ptr<Layer> plain(const Request& request) { return std::make_unique<Dense>(request); }

template <std::unique_ptr<Algorithm> (*kMake)(const Request&)>
std::unique_ptr<Layer> planned(const Request& request) {
  return std::make_unique<Plan>(request, kMake);
}

}  // namespace

const std::vector<AlgorithmRow> kAlgorithms = {
    {"dense", {{Encoding::kTwoGroup, 0}}, plain},
    {"sparse", {{Encoding::kTwoGroup, 0}, {Encoding::kRewritten, 0}}, planned<make_sparse>},
    {"table",
     {{Encoding::kTwoGroup, kMostSubsetChannels},
      {Encoding::kRewritten, kMostSubsetChannels},
      {Encoding::kSigned, kMostSubsetChannels},  // kMostTernaryChannels where a filter has all three codes
      {Encoding::kCodebook, kMostCodebookChannels}},
     planned<make_table>},
    {"dataflow",
     {{Encoding::kTwoGroup, kMostDataflowChannels}, {Encoding::kRewritten, kMostDataflowChannels}},
     planned<make_dataflow>},
};

}  // namespace sbkit
