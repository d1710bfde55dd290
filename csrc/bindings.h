// What the files that know Python share: checks of what would otherwise crash.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "conv.h"

namespace sbkit {

namespace py = pybind11;

struct IntegerKernel;

void bind_pipeline(py::module_& m);    // bindings_pipeline.cpp
void bind_integer(py::module_& m);  // bindings_integer.cpp; after bind_pipeline
const IntegerKernel& integer_kernel_named(const std::string& isa);  // bindings_integer.cpp

// A value within its limits, or an exception that names it.
inline int in_range(const char* name, int value, int least, int most) {
  if (value >= least && value <= most) return value;
  throw py::value_error(std::string(name) + " = " + std::to_string(value) + "; allowed: " + std::to_string(least) +
                        " to " + std::to_string(most));
}

// A C-contiguous, aligned array of exactly this dtype and shape, or an exception that names what came instead.
template <typename T>
const T* checked(const py::array& array, const char* name, const std::vector<int64_t>& shape) {
  if (!array.dtype().equal(py::dtype::of<T>())) {  // an unpickled dtype is another object
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

inline std::vector<float> floats(const py::array& array, const char* name, int64_t count) {
  const float* data = checked<float>(array, name, {count});
  return {data, data + count};
}

inline py::dict counted(const Operations& o) {
  return py::dict(py::arg("table_adds") = o.table_adds, py::arg("node_adds") = o.node_adds,
                  py::arg("entry_adds") = o.entry_adds, py::arg("combine_adds") = o.combine_adds,
                  py::arg("multiplies") = o.multiplies);
}

inline ConvShape checked_shape(const std::vector<int64_t>& dims) {
  if (dims.size() != 9) throw py::value_error("dims are N, C, H, W, K, R, S, stride, padding");
  for (int i = 0; i < 9; i++) {
    if (dims[i] < (i == 8 ? 0 : 1) || dims[i] > 1 << 24)
      throw py::value_error("dims hold " + std::to_string(dims[i]) + "; allowed: 1 (padding: 0) to 2^24");
  }
  const ConvShape shape{dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[6], dims[7], dims[8]};
  if (shape.H + 2 * shape.padding < shape.R || shape.W + 2 * shape.padding < shape.S)
    throw py::value_error("the window does not fit the padded input");
  checked_product({shape.N, shape.C, shape.H, shape.W});
  checked_product({shape.N, shape.K, shape.P(), shape.Q()});
  return shape;
}

}  // namespace sbkit
