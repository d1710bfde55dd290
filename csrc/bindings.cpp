// The only file that knows Python. It checks what would otherwise crash; friendlier checks live in sbkit/kernels.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "dataflow.h"
#include "pack.h"
#include "peaks.h"
#include "reference.h"

namespace py = pybind11;
using namespace sbkit;

namespace {

constexpr int kMaxThreads = 1024;

// A C-contiguous, aligned array of exactly this dtype and shape, or an exception that names what came instead.
template <typename T>
const T* checked(const py::array& array, const char* name, const std::vector<int64_t>& shape) {
  if (!array.dtype().is(py::dtype::of<T>())) {
    throw py::type_error(std::string(name) + " has dtype " + std::string(py::str(array.dtype())) +
                         "; allowed: " + std::string(py::str(py::dtype::of<T>())));
  }
  bool same = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); i++) same = array.shape(static_cast<py::ssize_t>(i)) == shape[i];
  if (!same) {
    throw py::value_error(std::string(name) + " has shape " + std::string(py::str(array.attr("shape"))) +
                          "; allowed: " + std::string(py::str(py::tuple(py::cast(shape)))));
  }
  if (!(array.flags() & py::array::c_style) || reinterpret_cast<uintptr_t>(array.data()) % alignof(T) != 0) {
    throw py::value_error(std::string(name) + " is not C-contiguous and aligned; allowed: numpy.ascontiguousarray(" +
                          name + ")");
  }
  return static_cast<const T*>(array.data());
}

const Kernel& kernel_named(const std::string& isa) {
  std::string allowed;
  for (int i = 0; i < kKernelCount; i++) {
    if (!kKernels[i]->supported()) continue;
    if (kKernels[i]->isa == isa) return *kKernels[i];
    allowed += std::string(allowed.empty() ? "" : ", ") + kKernels[i]->isa;
  }
  throw py::value_error("isa = '" + isa + "'; allowed here: " + allowed);
}

template <typename T>
T choice(const char* name, const std::string& value, const std::vector<std::pair<std::string, T>>& choices) {
  std::string allowed;
  for (const auto& [key, chosen] : choices) {
    if (key == value) return chosen;
    allowed += (allowed.empty() ? "" : ", ") + key;
  }
  throw py::value_error(std::string(name) + " = '" + value + "'; allowed: " + allowed);
}

py::array_t<int32_t> to_array(const std::vector<int32_t>& values) {
  return py::array_t<int32_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

class Convolution {
 public:
  Convolution(const std::string& algorithm, const py::array& codes, const py::array& scale,
              const py::array& negative_scale, const py::array& channel_sign, const std::vector<int64_t>& dims,
              const std::string& isa, bool skip_zeros, const std::string& encoding, int group, int threads,
              const py::array& bias, bool relu, bool tune, const std::vector<std::vector<int32_t>>& graphs,
              const std::vector<int32_t>& choices)
      : threads_(threads), relu_(relu) {
    if (dims.size() != 9) throw py::value_error("dims are N, C, H, W, K, R, S, stride, padding");
    shape_ = {dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[6], dims[7], dims[8]};
    for (int i = 0; i < 9; i++) {
      if (dims[i] < (i == 8 ? 0 : 1) || dims[i] > 1 << 24)
        throw py::value_error("dims hold " + std::to_string(dims[i]) + "; allowed: 1 (padding: 0) to 2^24");
    }
    if (shape_.H + 2 * shape_.padding < shape_.R || shape_.W + 2 * shape_.padding < shape_.S)
      throw py::value_error("the window does not fit the padded input");
    if (threads < 1 || threads > kMaxThreads)
      throw py::value_error("threads = " + std::to_string(threads) + "; allowed: 1 to 1024");
    int most = algorithm == "dataflow" ? kMaxTileChannels : kMaxGroup;
    if (encoding == "codebook") most = kMaxCodebookGroup;
    if (group < 0 || group > most)
      throw py::value_error("group = " + std::to_string(group) + "; allowed: 0 (automatic) to " + std::to_string(most));
    checked_product({shape_.N, shape_.C, shape_.H, shape_.W});
    checked_product({shape_.N, shape_.K, shape_.P(), shape_.Q()});
    const int64_t count = checked_product({shape_.K, shape_.C, shape_.R, shape_.S});
    Weights weights;
    const int8_t* code = checked<int8_t>(codes, "codes", {shape_.K, shape_.C, shape_.R, shape_.S});
    const float* plus = checked<float>(scale, "scale", {shape_.K});
    const float* minus = checked<float>(negative_scale, "negative_scale", {shape_.K});
    const int8_t* sign = checked<int8_t>(channel_sign, "channel_sign", {shape_.C});
    weights.codes.assign(code, code + count);
    weights.scale.assign(plus, plus + shape_.K);
    weights.negative_scale.assign(minus, minus + shape_.K);
    weights.channel_sign.assign(sign, sign + shape_.C);
    for (int8_t c : weights.codes) {
      if (c < -1 || c > 1) throw py::value_error("codes hold " + std::to_string(c) + "; allowed: -1, 0, +1");
    }
    for (float s : weights.channel_sign) {
      if (s != 1 && s != -1) throw py::value_error("channel_sign holds " + std::to_string(s) + "; allowed: -1, +1");
    }
    PlanOptions options;
    options.encoding = choice<Encoding>(
        "encoding", encoding,
        {{"two_group", Encoding::kTwoGroup}, {"rewritten", Encoding::kRewritten}, {"signed", Encoding::kSigned},
         {"codebook", Encoding::kCodebook}});
    if (options.encoding == Encoding::kRewritten) {
      for (int8_t c : weights.codes) {
        if (c == 0) throw py::value_error("encoding 'rewritten' met a code 0; allowed: codes -1 and +1 only");
      }
    }
    if (options.encoding != Encoding::kTwoGroup && weights.scale != weights.negative_scale)
      throw py::value_error("encoding '" + encoding + "' needs scale == negative_scale");
    if ((options.encoding == Encoding::kSigned || options.encoding == Encoding::kCodebook) && algorithm != "table")
      throw py::value_error("encoding '" + encoding + "' with algorithm '" + algorithm + "'; allowed: table");
    const float* b = checked<float>(bias, "bias", {shape_.K});
    options.bias.assign(b, b + shape_.K);
    options.relu = relu;
    bias_ = options.bias;
    if (algorithm == "dense") {
      py::gil_scoped_release unlocked;
      dense_ = dense_weights(shape_, weights);
      return;
    }
    options.algorithm = choice<Algorithm>(
        "algorithm", algorithm,
        {{"sparse", Algorithm::kSparse}, {"table", Algorithm::kTable}, {"dataflow", Algorithm::kDataflow}});
    options.skip_zeros = skip_zeros;
    options.group = group;
    options.threads = threads;
    options.tune = tune;
    if (!graphs.empty()) {
      if (graphs.size() != 4)
        throw py::value_error("graphs hold " + std::to_string(graphs.size()) + " arrays; allowed: 4");
      options.graphs = from_arrays({graphs[0], graphs[1], graphs[2], graphs[3]});
    }
    options.choices = choices;
    const Kernel& kernel = kernel_named(isa);
    py::gil_scoped_release unlocked;
    plan_.reset(new Plan(shape_, weights, kernel, options));
  }

  py::array_t<float> run(const py::array& x, const std::optional<py::array>& residual) {
    const float* from = checked<float>(x, "x", {shape_.N, shape_.C, shape_.H, shape_.W});
    const float* added = nullptr;
    if (residual) added = checked<float>(*residual, "residual", {shape_.N, shape_.K, shape_.P(), shape_.Q()});
    py::array_t<float> y({shape_.N, shape_.K, shape_.P(), shape_.Q()});
    float* to = y.mutable_data();
    py::gil_scoped_release unlocked;
    if (plan_) {
      plan_->run(from, added, to);
    } else {
      dense_conv2d(shape_, dense_.data(), bias_.data(), relu_, from, added, to, threads_);
    }
    return y;
  }

  int group() const { return plan_ ? plan_->group() : 0; }
  double cost() const { return plan_ ? plan_->cost() : 0; }
  int64_t weight_bytes() const {
    return plan_ ? plan_->weight_bytes() : static_cast<int64_t>(dense_.size() * sizeof(float));
  }
  std::string geometry() const { return plan_ ? plan_->geometry() : ""; }
  py::dict operations() const {
    Operations o;
    if (plan_) {
      o = plan_->operations();
    } else {
      o.entry_adds = o.multiplies = shape_.P() * shape_.Q() * static_cast<int64_t>(dense_.size());
    }
    return py::dict(py::arg("table_adds") = o.table_adds, py::arg("node_adds") = o.node_adds,
                    py::arg("entry_adds") = o.entry_adds, py::arg("combine_adds") = o.combine_adds,
                    py::arg("multiplies") = o.multiplies);
  }
  std::vector<int32_t> choices() const { return plan_ ? plan_->choices() : std::vector<int32_t>(); }
  py::tuple graphs() const {
    const GraphArrays arrays = to_arrays(plan_ ? plan_->graphs() : std::vector<Graph>());
    return py::make_tuple(to_array(arrays.graphs), to_array(arrays.nodes), to_array(arrays.lengths),
                          to_array(arrays.sums));
  }

 private:
  ConvShape shape_{};
  int threads_;
  bool relu_;
  std::vector<float> dense_, bias_;
  std::unique_ptr<Plan> plan_;
};

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
      "peaks",
      [](const std::string& isa) {
        const Kernel& kernel = kernel_named(isa);
        Peaks peaks;
        {
          py::gil_scoped_release unlocked;
          peaks = measure_peaks(kernel);
        }
        return py::dict(py::arg("lanes") = kernel.lanes, py::arg("multiply_adds") = peaks.multiply_adds,
                        py::arg("l1_adds") = peaks.l1_adds, py::arg("l2_adds") = peaks.l2_adds);
      },
      py::arg("isa"), "Vector operations a second that this core reaches (peaks.h).");
  m.def(
      "merge_pairs",
      [](int32_t inputs, const Sets& sets) {
        const Graph graph = merge_pairs(inputs, sets);
        check_graph(graph, sets);
        return py::make_tuple(graph.nodes, graph.sums);
      },
      py::arg("inputs"), py::arg("sets"), "Data-flow graph of these sets: its nodes and its sums (dataflow.h).");
  py::class_<Convolution>(m, "Convolution")
      .def(py::init<const std::string&, const py::array&, const py::array&, const py::array&, const py::array&,
                    const std::vector<int64_t>&, const std::string&, bool, const std::string&, int, int,
                    const py::array&, bool, bool, const std::vector<std::vector<int32_t>>&,
                    const std::vector<int32_t>&>(),
           py::arg("algorithm"), py::arg("codes"), py::arg("scale"), py::arg("negative_scale"), py::arg("channel_sign"),
           py::arg("dims"), py::arg("isa"), py::arg("skip_zeros"), py::arg("encoding"), py::arg("group"),
           py::arg("threads"), py::arg("bias"), py::arg("relu"), py::arg("tune"), py::arg("graphs"), py::arg("choices"))
      .def("run", &Convolution::run, py::arg("x"), py::arg("residual"))
      .def_property_readonly("group", &Convolution::group)
      .def_property_readonly("cost", &Convolution::cost)
      .def_property_readonly("weight_bytes", &Convolution::weight_bytes)
      .def_property_readonly("geometry", &Convolution::geometry)
      .def_property_readonly("operations", &Convolution::operations)
      .def_property_readonly("choices", &Convolution::choices)
      .def_property_readonly("graphs", &Convolution::graphs);
}
