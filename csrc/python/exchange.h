// Tensors as Python objects: reading and making them through DLPack's C exchange table, so that libtorch is not linked.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "core/float_environment.h"
#include "python/dlpack_abi.h"
#include "tensor.h"

namespace warpdraw {

namespace py = pybind11;

// The exchange table of an object's type, or null if it is no tensor. Remembers the last type seen.
inline const dlpack::Exchange* exchange_of(PyObject* object) {
  static std::pair<PyTypeObject*, const dlpack::Exchange*> last{};
  PyTypeObject* type = Py_TYPE(object);
  if (last.first != type) {
    const py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    const auto* api = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api->major != dlpack::kMajor) throw py::type_error("the tensor's DLPack exchange table has an unknown version");
    last = {type, api};
  }
  return last.second;
}

inline constexpr DType kDTypes[] = {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64, DType::boolean};

inline dlpack::DataType dlpack_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return {dlpack::kFloat, 32, 1};
    case DType::f16:
      return {dlpack::kFloat, 16, 1};
    case DType::bf16:
      return {dlpack::kBfloat, 16, 1};
    case DType::i32:
      return {dlpack::kInt, 32, 1};
    case DType::i64:
      return {dlpack::kInt, 64, 1};
    case DType::boolean:
      return {dlpack::kBool, 8, 1};
  }
  return {};
}

// Finds our name of a data type; false if we have none.
inline bool dtype_from(dlpack::DataType t, DType* out) {
  for (const DType dtype : kDTypes) {
    const dlpack::DataType known = dlpack_dtype(dtype);
    if (t.code == known.code && t.bits == known.bits && t.lanes == known.lanes) {
      *out = dtype;
      return true;
    }
  }
  return false;
}

inline Tensor borrowed(const dlpack::Tensor& t, DType dtype) {
  return {.present = true,
          .data = static_cast<char*>(t.data) + t.byte_offset,
          .dtype = dtype,
          .device = t.device.type == dlpack::kCpu ? Device::cpu : Device::cuda,
          .device_index = t.device.id,
          .ndim = t.ndim,
          .shape = t.shape,
          .stride = t.strides};
}

// A new tensor of the same type of object as a given one.
inline py::object make_tensor(const dlpack::Exchange* api, DType dtype, dlpack::Device device, std::int32_t ndim,
                              std::int64_t* shape) {
  dlpack::Tensor prototype{nullptr, device, ndim, dlpack_dtype(dtype), shape, nullptr, 0};
  dlpack::Managed* managed = nullptr;
  std::string error = "allocation failed";
  const auto fail = [](void* context, const char*, const char* text) { *static_cast<std::string*>(context) = text; };
  if (api->allocate(&prototype, &managed, &error, fail)) throw std::runtime_error(error);
  void* object = nullptr;
  if (api->to_object(managed, &object)) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

}  // namespace warpdraw

namespace pybind11::detail {

// None is an absent tensor.
template <> struct type_caster<warpdraw::Tensor> {
  PYBIND11_TYPE_CASTER(warpdraw::Tensor, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    if (source.is_none()) return true;
    const auto* api = warpdraw::exchange_of(source.ptr());
    if (!api) return false;
    warpdraw::dlpack::Tensor t;
    warpdraw::DType dtype;
    if (api->borrow(source.ptr(), &t)) throw error_already_set();
    if (!warpdraw::dtype_from(t.dtype, &dtype)) throw type_error("unsupported dtype");
    value = warpdraw::borrowed(t, dtype);
    return true;
  }
};

// A Python number, or a tensor with a value for each row.
template <typename T> struct type_caster<warpdraw::PerRow<T>> {
  PYBIND11_TYPE_CASTER(warpdraw::PerRow<T>, const_name("number | torch.Tensor"));
  bool load(handle source, bool convert) {
    make_caster<T> number;
    if (PyFloat_Check(source.ptr()) || PyLong_Check(source.ptr())) {
      const warpdraw::FloatEnvironment environment;  // so that a subnormal number is not flushed on its way to fp32
      if (!number.load(source, convert)) return false;
      value.value = cast_op<T>(number);
      return true;
    }
    make_caster<warpdraw::Tensor> tensor;
    if (source.is_none() || !tensor.load(source, convert)) return false;
    value.tensor = warpdraw::View<const T, 1>(cast_op<warpdraw::Tensor&>(tensor));
    return true;
  }
};

}  // namespace pybind11::detail
