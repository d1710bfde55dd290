// Pipelines of integer layers for Python; friendlier checks live in sbkit/inference/pipeline.py.
#include <cmath>

#include "bindings.h"
#include "pipeline.h"
#include "full.h"
#include "integer_kernels.h"
#include "limits.h"
#include "outer.h"

namespace sbkit {

namespace {

std::shared_ptr<Step> full(const py::array& weights, const py::array& bias, const std::vector<int64_t>& dims, int bits,
                           bool floats_in, const std::string& isa, int threads) {
  FullRequest request;
  const ConvShape& s = request.shape = checked_shape(dims);
  const float* from = checked<float>(weights, "weights", {s.K, s.C, s.R, s.S});
  request.weights.assign(from, from + checked_product({s.K, s.C, s.R, s.S}));
  request.bias = floats(bias, "bias", s.K), request.bits = in_range("bits", bits, 2, 8), request.floats = floats_in;
  request.kernel = &integer_kernel_named(isa), request.threads = in_range("threads", threads, 1, kMostThreads);
  return make_full(request);
}

std::shared_ptr<Step> outer(const py::array& weights, const py::array& scale, const py::array& bias,
                            const std::vector<int64_t>& dims, int bits, int zero, const std::string& isa, int threads) {
  OuterRequest request;
  const ConvShape& s = request.shape = checked_shape(dims);
  const int8_t* from = checked<int8_t>(weights, "weights", {s.K, s.C, s.R, s.S});
  request.weights.assign(from, from + checked_product({s.K, s.C, s.R, s.S}));
  request.rounding = {floats(scale, "scale", s.K), floats(bias, "bias", s.K), 0, in_range("bits", bits, 2, 8)};
  request.zero = in_range("zero", zero, 0, 255), request.kernel = &integer_kernel_named(isa);
  request.threads = in_range("threads", threads, 1, kMostThreads);
  return make_outer(request);
}

std::shared_ptr<Step> quantize(const std::vector<int64_t>& shape, double step, int zero, int bits,
                               const std::string& isa) {
  const auto narrowed = static_cast<float>(step);
  if (!std::isfinite(narrowed) || narrowed <= 0)
    throw py::value_error("step = " + std::to_string(step) + "; allowed: a positive float32");
  in_range("zero", zero, 0, (1 << in_range("bits", bits, 2, 8)) - 1);
  return make_quantize(shape, narrowed, zero, bits, &integer_kernel_named(isa));
}

std::shared_ptr<Step> regrid(const std::vector<int64_t>& shape, const py::array& table, const std::string& isa) {
  const uint8_t* entries = checked<uint8_t>(table, "table", {256});
  return make_regrid(shape, {entries, entries + 256}, &integer_kernel_named(isa));
}

std::shared_ptr<Step> head(const std::vector<int64_t>& shape, const py::array& weight, const py::array& bias,
                           const std::string& isa) {
  if (shape.size() != 4 || bias.ndim() != 1) throw py::value_error("a head whose shape or bias has other dimensions; allowed: (N, C, H, W) and (K,)");
  const int64_t classes = bias.shape(0);
  const float* weights = checked<float>(weight, "weight", {classes, shape[1]});
  return make_head(shape, classes, weights, checked<float>(bias, "bias", {classes}), &integer_kernel_named(isa));
}

std::unique_ptr<Pipeline> pipeline(int inputs, const std::vector<std::tuple<std::shared_ptr<Step>, int, int>>& links,
                             const std::vector<int>& outputs) {
  std::vector<Link> made;
  for (const auto& [step, x, residual] : links) made.push_back({step, x, residual});
  return std::make_unique<Pipeline>(in_range("inputs", inputs, 1, 1 << 20), std::move(made), outputs);
}

std::vector<py::array> run(Pipeline* pipeline, const std::vector<py::array>& inputs) {
  in_range("inputs", narrow(static_cast<int64_t>(inputs.size())), pipeline->inputs(), pipeline->inputs());
  std::vector<const void*> from;
  for (int i = 0; i < pipeline->inputs(); i++) {
    from.push_back(pipeline->floats(i) ? static_cast<const void*>(checked<float>(inputs[i], "x", pipeline->shape(i)))
                                    : checked<uint8_t>(inputs[i], "x", pipeline->shape(i)));
  }
  std::vector<py::array> results;
  std::vector<void*> to;
  for (int output : pipeline->outputs()) {
    const std::vector<int64_t>& shape = pipeline->shape(output);
    results.push_back(pipeline->floats(output) ? py::array(py::array_t<float>(shape)) : py::array_t<uint8_t>(shape));
    to.push_back(results.back().mutable_data());
  }
  py::gil_scoped_release unlocked;
  pipeline->run(from, to);
  return results;
}

}  // namespace

void bind_pipeline(py::module_& m) {
  py::class_<Step, std::shared_ptr<Step>>(m, "Step")
      .def_property_readonly("x_shape", [](const Step& step) { return step.shapes().x; })
      .def_property_readonly("y_shape", [](const Step& step) { return step.shapes().y; })
      .def_property_readonly("floats_out", [](const Step& step) { return step.shapes().floats_out; });
  m.def("full", &full, py::arg("weights"), py::arg("bias"), py::arg("dims"), py::arg("bits"), py::arg("floats"),
        py::arg("isa"), py::arg("threads"));
  m.def("outer", &outer, py::arg("weights"), py::arg("scale"), py::arg("bias"), py::arg("dims"), py::arg("bits"),
        py::arg("zero"), py::arg("isa"), py::arg("threads"));
  m.def("quantize", &quantize, py::arg("shape"), py::arg("step"), py::arg("zero"), py::arg("bits"), py::arg("isa"));
  m.def(
      "regrid_rule",
      [](const py::array& table) -> std::optional<std::tuple<int, int, int, int>> {
        const uint8_t* entries = checked<uint8_t>(table, "table", {256});
        const auto rule = regrid_rule({entries, entries + 256});
        if (!rule) return std::nullopt;
        return std::tuple{rule->multiplier, rule->bias, rule->shift, rule->most};
      },
      py::arg("table"));
  m.def("regrid", &regrid, py::arg("shape"), py::arg("table"), py::arg("isa"));
  m.def("head", &head, py::arg("shape"), py::arg("weight"), py::arg("bias"), py::arg("isa"));
  m.def(
      "max_pool",
      [](const std::vector<int64_t>& shape, const std::vector<int64_t>& window, const std::vector<int64_t>& stride,
         const std::vector<int64_t>& padding) {
        for (const auto* pair : {&window, &stride, &padding})
          if (pair->size() != 2) throw py::value_error("a window, stride or padding is not a pair; allowed: (rows, columns)");
        return make_max_pool(shape, {window[0], window[1], stride[0], stride[1], padding[0], padding[1]});
      },
      py::arg("shape"), py::arg("window"), py::arg("stride"), py::arg("padding"));
  py::class_<Pipeline>(m, "Pipeline")
      .def(py::init(&pipeline), py::arg("inputs"), py::arg("links"), py::arg("outputs"))
      .def("run", &run, py::arg("inputs"));
}

}  // namespace sbkit
