// The part of DLPack's C exchange ABI (version 1.x) that reading and making a tensor needs.
// Layout: https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once
#include <cstdint>

namespace warpdraw::dlpack {

inline constexpr std::uint32_t kMajor = 1;
inline constexpr std::int32_t kCpu = 1, kCuda = 2;                                          // Device::type
inline constexpr std::uint8_t kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4, kBool = 6;  // DataType::code

struct Device {
  std::int32_t type, id;
};
struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t *shape, *strides;  // strides count elements
  std::uint64_t byte_offset;
};
static_assert(sizeof(Tensor) == 48);

// A tensor that owns its memory.
struct Managed {
  std::uint32_t major, minor;
  void* context;
  void (*free)(Managed* self);
  std::uint64_t flags;
  Tensor tensor;
};
static_assert(sizeof(Managed) == 80);

// The capsule type(tensor).__dlpack_c_exchange_api__ points at one of these for the process lifetime. Functions return 0 or set
// an error.
struct Exchange {
  std::uint32_t major, minor;
  void* previous;
  int (*allocate)(Tensor* prototype, Managed** out, void* context,
                  void (*fail)(void* context, const char* kind, const char* text));
  int (*to_managed)(void* py_object, Managed** out);
  int (*to_object)(Managed* tensor, void** py_object);  // takes the tensor over
  int (*borrow)(void* py_object, Tensor* out);          // valid until control returns to Python
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace warpdraw::dlpack
