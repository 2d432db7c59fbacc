// Tensors of other libraries: taking over what DLPack's Python protocol exports, without a copy.
// Protocol: https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <utility>

#include "python/exchange.h"

namespace warpdraw {

// Whether an object has the protocol. Scalars of NumPy have not; arrays of no dimension have.
inline bool is_exporter(PyObject* object) {
  return PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)), "__dlpack__");
}

// What an object exported: a description of its memory, which lives as long as this.
class Export {
 public:
  // Throws what the object raises, and an error if it gives no capsule.
  explicit Export(PyObject* object) {
    using namespace py::literals;
    const auto exporter = py::reinterpret_borrow<py::object>(object);
    const auto [type, id] = exporter.attr("__dlpack_device__")().cast<std::pair<std::int32_t, std::int32_t>>();
    py::dict wishes;
    if (type == dlpack::kCuda || type == kRocm) wishes["stream"] = stream_of({type, id});
    try {
      capsule_ = exporter.attr("__dlpack__")("max_version"_a = py::make_tuple(dlpack::kMajor, 0), **wishes);
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      capsule_ = exporter.attr("__dlpack__")(**wishes);  // from before there were versions
    }
    if (PyCapsule_IsValid(capsule_.ptr(), "dltensor_versioned")) {
      const auto* managed = static_cast<const dlpack::Managed*>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor_versioned"));
      if (managed->major != dlpack::kMajor) throw std::runtime_error("__dlpack__ gave a tensor of an unknown version");
      tensor_ = &managed->tensor;
      writable_ = !(managed->flags & (kReadOnly | kCopied));
    } else if (PyCapsule_IsValid(capsule_.ptr(), "dltensor")) {
      tensor_ = static_cast<const dlpack::Tensor*>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"));
    } else {
      throw std::runtime_error("__dlpack__ gave no tensor");
    }
  }

  const dlpack::Tensor& tensor() const { return *tensor_; }

  // Whether it says that what is written there is written to the object. Before there were versions it could not say.
  bool writable() const { return writable_; }

  bool aligned() const {
    const auto address = reinterpret_cast<std::uintptr_t>(tensor_->data) + tensor_->byte_offset;
    return address % ((tensor_->dtype.bits + 7) / 8) == 0;
  }

  // torch ends the process at a negative stride.
  bool has_negative_strides() const {
    bool negative = false;
    for (int i = 0; tensor_->strides && i < tensor_->ndim; ++i) negative |= tensor_->strides[i] < 0;
    return negative;
  }

  // A tensor of torch that owns what was exported.
  py::object to_torch() && { return torch("utils").attr("dlpack").attr("from_dlpack")(std::move(capsule_)); }

 private:
  static constexpr std::uint64_t kReadOnly = 1, kCopied = 2;  // Managed::flags
  static constexpr std::int32_t kRocm = 10;                   // Device::type

  static py::object torch(const char* name) { return py::module_::import("torch").attr(name); }

  // The stream of torch on which kernels will run, by the number that the protocol has for it.
  static py::int_ stream_of(dlpack::Device device) {
    const auto stream = torch("cuda").attr("current_stream")(device.id).attr("cuda_stream").cast<std::uintptr_t>();
    return device.type == dlpack::kCuda && stream == 0 ? 1 : stream;
  }

  py::object capsule_;
  const dlpack::Tensor* tensor_ = nullptr;
  bool writable_ = false;
};

}  // namespace warpdraw
