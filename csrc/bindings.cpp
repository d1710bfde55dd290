// The only file that knows Python. It checks what would otherwise crash; friendlier checks live in sbkit/kernels.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "algorithm.h"
#include "bindings.h"
#include "dataflow.h"
#include "limits.h"

namespace py = pybind11;
using namespace sbkit;

namespace {

using EncodingRow = std::pair<std::string, Encoding>;

const std::vector<EncodingRow> kEncodings = {{"two_group", Encoding::kTwoGroup},
                                             {"rewritten", Encoding::kRewritten},
                                             {"signed", Encoding::kSigned},
                                             {"codebook", Encoding::kCodebook}};

const Kernel& kernel_named(const std::string& isa) {
  std::string allowed;
  for (int i = 0; i < kKernelCount; i++) {
    if (!kKernels[i]->supported()) continue;
    if (kKernels[i]->isa == isa) return *kKernels[i];
    allowed += std::string(allowed.empty() ? "" : ", ") + kKernels[i]->isa;
  }
  throw py::value_error("isa = '" + isa + "'; allowed here: " + allowed);
}

// The row of a table whose key is `value`, or an exception that names the keys.
template <typename Row, typename Key>
const Row& chosen(const char* name, const std::string& value, const std::vector<Row>& table, Key Row::*key) {
  std::string allowed;
  for (const Row& row : table) {
    if (row.*key == value) return row;
    allowed += (allowed.empty() ? "" : ", ") + row.*key;
  }
  throw py::value_error(std::string(name) + " = '" + value + "'; allowed: " + allowed);
}

Weights checked_weights(const ConvShape& shape, const py::array& codes, const py::array& scale,
                        const py::array& negative_scale, const py::array& channel_sign) {
  const int64_t count = checked_product({shape.K, shape.C, shape.R, shape.S});
  const int8_t* code = checked<int8_t>(codes, "codes", {shape.K, shape.C, shape.R, shape.S});
  const float* plus = checked<float>(scale, "scale", {shape.K});
  const float* minus = checked<float>(negative_scale, "negative_scale", {shape.K});
  const int8_t* sign = checked<int8_t>(channel_sign, "channel_sign", {shape.C});
  Weights weights{{code, code + count}, {plus, plus + shape.K}, {minus, minus + shape.K}, {sign, sign + shape.C}};
  for (int8_t c : weights.codes) {
    if (c < -1 || c > 1) throw py::value_error("codes hold " + std::to_string(c) + "; allowed: -1, 0, +1");
  }
  for (float s : weights.channel_sign) {
    if (s != 1 && s != -1) throw py::value_error("channel_sign holds " + std::to_string(s) + "; allowed: -1, +1");
  }
  return weights;
}

// Whether the algorithm has the encoding and the group, and the codes allow the encoding.
void check_encoding(const AlgorithmRow& algorithm, const std::string& encoding, const Request& request) {
  const auto& allowed = algorithm.most_channels;
  const auto most = std::find_if(allowed.begin(), allowed.end(),
                                 [&](const auto& each) { return each.first == request.encoding; });
  if (most == allowed.end())
    throw py::value_error("encoding '" + encoding + "' with algorithm '" + algorithm.name + "'");
  if (request.group < 0 || request.group > most->second) {
    throw py::value_error("group = " + std::to_string(request.group) + "; allowed: 0 (automatic) to " +
                          std::to_string(most->second));
  }
  if (request.encoding == Encoding::kTwoGroup) return;
  const Weights& weights = request.weights;
  if (weights.scale != weights.negative_scale)
    throw py::value_error("encoding '" + encoding + "' needs scale == negative_scale");
  if (request.encoding == Encoding::kRewritten &&
      std::find(weights.codes.begin(), weights.codes.end(), 0) != weights.codes.end())
    throw py::value_error("encoding 'rewritten' met a code 0; allowed: codes -1 and +1 only");
}

class Convolution {
 public:
  Convolution(const std::string& algorithm, const py::array& codes, const py::array& scale,
              const py::array& negative_scale, const py::array& channel_sign, const std::vector<int64_t>& dims,
              const std::string& isa, bool skip_zeros, const std::string& encoding, int group, int threads,
              const py::array& bias, bool relu, bool tune)
      : shape_(checked_shape(dims)) {
    const AlgorithmRow& row = chosen("algorithm", algorithm, kAlgorithms, &AlgorithmRow::name);
    if (threads < 1 || threads > kMostThreads) {
      throw py::value_error("threads = " + std::to_string(threads) + "; allowed: 1 to " + std::to_string(kMostThreads));
    }
    Request request;
    request.shape = shape_;
    request.weights = checked_weights(shape_, codes, scale, negative_scale, channel_sign);
    request.kernel = &kernel_named(isa);
    request.encoding = chosen("encoding", encoding, kEncodings, &EncodingRow::first).second;
    request.skip_zeros = skip_zeros;
    request.group = group;
    request.threads = threads;
    request.tune = tune;
    const float* b = checked<float>(bias, "bias", {shape_.K});
    request.bias.assign(b, b + shape_.K);
    request.relu = relu;
    check_encoding(row, encoding, request);
    py::gil_scoped_release unlocked;
    layer_ = row.prepare(request);
  }

  py::array_t<float> run(const py::array& x, const std::optional<py::array>& residual) {
    const float* from = checked<float>(x, "x", {shape_.N, shape_.C, shape_.H, shape_.W});
    const float* added = nullptr;
    if (residual) added = checked<float>(*residual, "residual", {shape_.N, shape_.K, shape_.P(), shape_.Q()});
    py::array_t<float> y({shape_.N, shape_.K, shape_.P(), shape_.Q()});
    float* to = y.mutable_data();
    py::gil_scoped_release unlocked;
    layer_->run(from, added, to);
    return y;
  }

  const Facts& facts() const { return layer_->facts(); }

 private:
  ConvShape shape_;
  std::unique_ptr<Layer> layer_;
};

template <typename Row, typename Key>
std::vector<std::string> keys(const std::vector<Row>& table, Key Row::*key) {
  std::vector<std::string> found;
  for (const Row& row : table) found.push_back(row.*key);
  return found;
}

// What sbkit/way.py states too.
py::dict limits() {
  const py::dict channels(py::arg("subsets") = kMostSubsetChannels, py::arg("ternary") = kMostTernaryChannels,
                          py::arg("codebook") = kMostCodebookChannels, py::arg("dataflow") = kMostDataflowChannels);
  return py::dict(py::arg("algorithms") = keys(kAlgorithms, &AlgorithmRow::name),
                  py::arg("encodings") = keys(kEncodings, &EncodingRow::first), py::arg("channels") = channels,
                  py::arg("patterns") = kMostPatterns, py::arg("threads") = kMostThreads);
}

py::dict build_info() {
  std::vector<std::string> isas;
  for (int i = 0; i < kKernelCount; i++) isas.push_back(kKernels[i]->isa);
#if defined(_OPENMP)
  const bool openmp = true;
#else
  const bool openmp = false;
#endif
  return py::dict(py::arg("compiler") = SBKIT_COMPILER, py::arg("flags") = SBKIT_FLAGS, py::arg("openmp") = openmp,
                  py::arg("isas") = isas);
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
  m.doc() = "Convolutions with low-bit weights; use them through sbkit.kernels.";
  m.def("build_info", &build_info, "Compiler, flags, whether OpenMP is in, and the ISAs compiled in.");
  m.def("limits", &limits, "The algorithms and encodings, and how much a plan can hold (limits.h).");
  m.def(
      "isas",
      [] {
        std::vector<std::string> names;
        for (int i = 0; i < kKernelCount; i++) {
          if (kKernels[i]->supported()) names.push_back(kKernels[i]->isa);
        }
        return names;
      },
      "The ISAs this CPU can run, the widest last.");
  m.def(
      "merge_pairs",
      [](int32_t inputs, const Sets& sets) {
        const Graph graph = merge_pairs(inputs, sets);
        return py::make_tuple(graph.nodes, graph.sums);
      },
      py::arg("inputs"), py::arg("sets"), "Data-flow graph of these sets: its nodes and its sums (dataflow.h).");
  bind_pipeline(m);
  bind_integer(m);
  py::class_<Convolution>(m, "Convolution")
      .def(py::init<const std::string&, const py::array&, const py::array&, const py::array&, const py::array&,
                    const std::vector<int64_t>&, const std::string&, bool, const std::string&, int, int,
                    const py::array&, bool, bool>(),
           py::arg("algorithm"), py::arg("codes"), py::arg("scale"), py::arg("negative_scale"), py::arg("channel_sign"),
           py::arg("dims"), py::arg("isa"), py::arg("skip_zeros"), py::arg("encoding"), py::arg("group"),
           py::arg("threads"), py::arg("bias"), py::arg("relu"), py::arg("tune"))
      .def("run", &Convolution::run, py::arg("x"), py::arg("residual"))
      .def_property_readonly("group", [](const Convolution& c) { return c.facts().group; })
      .def_property_readonly("cost", [](const Convolution& c) { return c.facts().cost; })
      .def_property_readonly("weight_bytes", [](const Convolution& c) { return c.facts().weight_bytes; })
      .def_property_readonly("geometry", [](const Convolution& c) { return c.facts().geometry; })
      .def_property_readonly("operations", [](const Convolution& c) { return counted(c.facts().operations); });
}
