// Tensors as Python objects: reading and making them through DLPack's C exchange table, so that libtorch is not linked.
#pragma once
#include <pybind11/pybind11.h>

#include <new>
#include <string>
#include <utility>

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

// A few bytes of host memory for an output of a value or two a row, in one block with what describes it: the usual allocator
// takes as long as the kernel does.
struct SmallTensor {
  static constexpr std::size_t kMostBytes = 4096;

  dlpack::Managed managed;
  std::int64_t shape[2], strides[2];
  alignas(64) unsigned char bytes[];

  static dlpack::Managed* make(DType dtype, dlpack::Device device, std::int32_t ndim, const std::int64_t* shape,
                               std::size_t bytes) {
    auto* self = static_cast<SmallTensor*>(::operator new(sizeof(SmallTensor) + bytes, std::align_val_t(64)));
    for (int i = ndim - 1, stride = 1; i >= 0; stride *= int(shape[i--])) self->shape[i] = shape[i], self->strides[i] = stride;
    self->managed = {dlpack::kMajor, 0, self,
                     free,           0, {self->bytes, device, ndim, dlpack_dtype(dtype), self->shape, self->strides, 0}};
    return &self->managed;
  }
  static void free(dlpack::Managed* managed) { ::operator delete(managed->context, std::align_val_t(64)); }
};

// A new tensor of the same type of object as a given one.
inline py::object make_tensor(const dlpack::Exchange* api, DType dtype, dlpack::Device device, std::int32_t ndim,
                              std::int64_t* shape) {
  dlpack::Managed* managed = nullptr;
  const dlpack::DataType type = dlpack_dtype(dtype);
  std::size_t bytes = type.bits / 8;
  for (int i = 0; i < ndim; ++i) bytes *= std::size_t(shape[i]);
  if (device.type == dlpack::kCpu && ndim <= 2 && bytes <= SmallTensor::kMostBytes) {
    managed = SmallTensor::make(dtype, device, ndim, shape, bytes);
  } else {
    dlpack::Tensor prototype{nullptr, device, ndim, type, shape, nullptr, 0};
    std::string error = "allocation failed";
    const auto fail = [](void* context, const char*, const char* text) { *static_cast<std::string*>(context) = text; };
    if (api->allocate(&prototype, &managed, &error, fail)) throw std::runtime_error(error);
  }
  void* object = nullptr;
  if (api->to_object(managed, &object)) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

// A tensor of a data type that kernels know.
inline Tensor borrow(PyObject* object) {
  const auto* api = exchange_of(object);
  dlpack::Tensor t;
  DType dtype;
  if (!api) throw py::type_error("expected a tensor, got " + py::repr(object).cast<std::string>().substr(0, 80));
  if (api->borrow(object, &t)) throw py::error_already_set();
  if (!dtype_from(t.dtype, &dtype)) throw py::type_error("unsupported dtype");
  return borrowed(t, dtype);
}

}  // namespace warpdraw
