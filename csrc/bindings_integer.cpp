// The integer kernels for Python; friendlier checks live in sbkit/integers.py.
#include <optional>

#include "bindings.h"
#include "integer.h"
#include "integer_kernels.h"
#include "limits.h"
#include "peaks.h"
#include "step.h"

namespace sbkit {

const IntegerKernel& integer_kernel_named(const std::string& isa) {
  std::string allowed;
  for (int i = 0; i < kIntegerKernelCount; i++) {
    if (!kIntegerKernels[i]->supported()) continue;
    if (kIntegerKernels[i]->isa == isa) return *kIntegerKernels[i];
    allowed += std::string(allowed.empty() ? "" : ", ") + kIntegerKernels[i]->isa;
  }
  throw py::value_error("isa = '" + isa + "' for integers; allowed here: " + allowed);
}

namespace {

class IntegerConvolution : public Step {
 public:
  IntegerConvolution(const std::string& algorithm, const py::array& codes, const std::vector<int64_t>& dims,
                     int activation_bits, const std::string& isa, int lane_bits, int group, bool rewritten, int threads,
                     const std::optional<std::tuple<py::array, py::array, float, int>>& rounding)
      : shape_(checked_shape(dims)) {
    IntegerRequest request;
    request.shape = shape_;
    const int8_t* code = checked<int8_t>(codes, "codes", {shape_.K, shape_.C, shape_.R, shape_.S});
    request.codes.assign(code, code + checked_product({shape_.K, shape_.C, shape_.R, shape_.S}));
    for (int8_t c : request.codes) {
      if (c < -1 || c > 1) throw py::value_error("codes hold " + std::to_string(c) + "; allowed: -1, 0, +1");
      if (c == 0 && rewritten) throw py::value_error("encoding 'rewritten' met a code 0; allowed: codes -1 and +1 only");
    }
    request.activation_bits = in_range("activation_bits", activation_bits, 2, 8);
    request.kernel = &integer_kernel_named(isa);
    request.lane_bits = lane_bits;
    if (lane_bits != 0 && lane_bits != 8 && lane_bits != 16)
      throw py::value_error("lane_bits = " + std::to_string(lane_bits) + "; allowed: 0 (automatic), 8, 16");
    request.group = in_range("group", group, 0, kMostCodebookChannels);
    request.rewritten = rewritten;
    request.threads = in_range("threads", threads, 1, kMostThreads);
    if (rounding) {
      const auto& [scale, bias, residual_scale, bits] = *rounding;
      request.rounding = {floats(scale, "scale", shape_.K), floats(bias, "bias", shape_.K), residual_scale,
                          in_range("bits", bits, 2, 8)};
    }
    most_ = request.most(), rounds_ = rounding.has_value();
    py::gil_scoped_release unlocked;
    if (algorithm == "dense") {
      layer_ = make_integer_dense(request);
    } else if (algorithm == "table") {
      layer_ = make_integer_table(request);
    } else if (algorithm == "lookup") {
      layer_ = make_integer_lookup(request);
    } else {
      throw std::invalid_argument("algorithm = '" + algorithm + "' for integers; allowed: dense, table, lookup");
    }
  }

  py::array run(const py::array& x, const std::optional<py::array>& residual, bool sums, bool finish) {
    const std::vector<int64_t> out{shape_.N, shape_.K, shape_.P(), shape_.Q()};
    const uint8_t* from = checked<uint8_t>(x, "x", {shape_.N, shape_.C, shape_.H, shape_.W});
    const uint8_t* added = residual ? checked<uint8_t>(*residual, "residual", out) : nullptr;
    if (added && !rounds_) throw py::value_error("residual without a rounding; allowed: None");
    const int largest = most_ < 255 ? largest_of(from, shape_.N * shape_.C * shape_.H * shape_.W) : 0;
    if (largest > most_)
      throw py::value_error("x holds " + std::to_string(largest) + "; allowed: 0 to " + std::to_string(most_));
    py::array y = rounds_ ? py::array(py::array_t<uint8_t>(out)) : py::array(py::array_t<int32_t>(out));
    void* to = y.mutable_data();
    py::gil_scoped_release unlocked;
    layer_->run(from, added, to, (sums ? kSums : 0) | (finish ? kFinish : 0));
    return y;
  }

  StepShapes shapes() const override {
    if (!rounds_) throw py::value_error("a layer without a rounding in a pipeline; allowed: one that returns activations");
    const ConvShape& s = shape_;
    return {{s.N, s.C, s.H, s.W}, {s.N, s.K, s.P(), s.Q()}, false, true};
  }
  void run_step(const void* x, const uint8_t* residual, void* y) override {
    layer_->run(static_cast<const uint8_t*>(x), residual, y, kAllStages);
  }

  const IntegerFacts& facts() const { return layer_->facts(); }

 private:
  static int largest_of(const uint8_t* x, int64_t count) {
    uint8_t largest = 0;
    for (int64_t i = 0; i < count; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
  }

  ConvShape shape_;
  int most_;
  bool rounds_;
  std::unique_ptr<IntegerLayer> layer_;
};

}  // namespace

void bind_integer(py::module_& m) {
  m.def(
      "integer_isas",
      [] {
        std::vector<std::string> names;
        for (int i = 0; i < kIntegerKernelCount; i++) {
          if (kIntegerKernels[i]->supported()) names.push_back(kIntegerKernels[i]->isa);
        }
        return names;
      },
      "The ISAs in which this CPU can run integer kernels, the widest last.");
  m.def(
      "integer_peaks",
      [](const std::string& isa) {
        const IntegerKernel& kernel = integer_kernel_named(isa);
        py::gil_scoped_release unlocked;
        const Peaks peaks = measure_peaks(kernel);
        py::gil_scoped_acquire locked;
        return py::dict(py::arg("additions") = peaks.additions, py::arg("bytes") = peaks.bytes,
                        py::arg("words") = peaks.words, py::arg("lookups") = peaks.lookups);
      },
      py::arg("isa"), "Operations a second, by kind, that this ISA sums at most with (peaks.h).");
  py::class_<IntegerConvolution, Step, std::shared_ptr<IntegerConvolution>>(m, "IntegerConvolution")
      .def(py::init<const std::string&, const py::array&, const std::vector<int64_t>&, int, const std::string&, int,
                    int, bool, int, const std::optional<std::tuple<py::array, py::array, float, int>>&>(),
           py::arg("algorithm"), py::arg("codes"), py::arg("dims"), py::arg("activation_bits"), py::arg("isa"),
           py::arg("lane_bits"), py::arg("group"), py::arg("rewritten"), py::arg("threads"), py::arg("rounding"))
      .def("run", &IntegerConvolution::run, py::arg("x"), py::arg("residual"), py::arg("sums") = true,
           py::arg("finish") = true)
      .def_property_readonly("group", [](const IntegerConvolution& c) { return c.facts().group; })
      .def_property_readonly("lane_bits", [](const IntegerConvolution& c) { return c.facts().lane_bits; })
      .def_property_readonly("cost", [](const IntegerConvolution& c) { return c.facts().cost; })
      .def_property_readonly("weight_bytes", [](const IntegerConvolution& c) { return c.facts().weight_bytes; })
      .def_property_readonly("geometry", [](const IntegerConvolution& c) { return c.facts().geometry; })
      .def_property_readonly("operations", [](const IntegerConvolution& c) { return counted(c.facts().operations); })
      .def_property_readonly("sum_work", [](const IntegerConvolution& c) {
        const SumWork& work = c.facts().sum_work;
        return py::dict(py::arg("entries") = work.entries, py::arg("instructions") = work.instructions);
      });
}

}  // namespace sbkit
