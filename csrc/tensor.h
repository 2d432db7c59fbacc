// What a kernel sees of a torch.Tensor: a pointer, a shape and strides; and of a per-row parameter: a value for each row.
// Neither torch nor Python is included here, so every kernel file compiles alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "core/host_device.h"

namespace warpdraw {

struct f16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};
enum class DType { f32, f16, bf16, i32, i64, boolean };
enum class Device { cpu, cuda };

// Which of a GPU's kernels: a cluster per row that keeps the row on chip, or the row split over blocks.
enum class Path { automatic, cluster, split };

// How one launch shares its rows out, as far as it is not to be as the rule has it: for tuning.
struct Wish {
  int cluster = 0;                     // blocks for each row; 0: by the rule
  int resident = -1, persistent = -1;  // 1: rows stay on chip; as many clusters as run at once go through all rows. 0: not so
  bool split = false;                  // the other path
};

// Where a kernel runs. The CPU needs nothing of it.
struct Queue {
  void* stream = nullptr;                               // a cudaStream_t
  int device = 0;                                       // its ordinal
  Path path = Path::automatic;                          // the one that is wanted
  Path* ran = nullptr;                                  // where the one that ran is noted
  void* (*room)(void* context, std::size_t) = nullptr;  // bytes of device memory until the stream has passed this call
  void* context = nullptr;                              // of room
  Wish wish = {};
};

template <typename T> inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "not an element type");
  return DType::f32;
}();
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<f16> = DType::f16;
template <> inline constexpr DType dtype_of<bf16> = DType::bf16;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <> inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <> inline constexpr DType dtype_of<bool> = DType::boolean;

// A borrowed tensor whose element type is known only at run time. An optional tensor that was not given has no data type: it is
// absent.
struct Tensor {
  bool present = false;
  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int device_index = 0;
  int ndim = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* stride = nullptr;  // in elements
};

// The same tensor once its element type and rank are fixed. The last axis is dense where a kernel walks along it.
template <typename T, int N> struct View {
  T* data = nullptr;
  std::int64_t shape[N] = {}, stride[N] = {};

  View() = default;
  // Inlined everywhere, because the linker keeps one copy of what is not, whatever instruction set it was compiled for.
  __attribute__((always_inline)) explicit View(const Tensor& t) : data(static_cast<T*>(t.data)) {
    if (!t.present) return;
    if (t.dtype != dtype_of<std::remove_const_t<T>>) throw std::invalid_argument("unexpected dtype");
    if (t.ndim != N) throw std::invalid_argument("unexpected rank");
    for (int i = 0; i < N; ++i) shape[i] = t.shape[i], stride[i] = t.stride[i];
  }
  WD_HD explicit operator bool() const { return data != nullptr; }
  template <typename... I> WD_HD T* row(I... index) const {
    std::int64_t offset = 0;
    int axis = 0;
    ((offset += index * stride[axis++]), ...);
    return data + offset;
  }
  WD_HD T& operator()(std::int64_t i) const { return data[i * stride[0]]; }
};

// Rows with a dense last axis: one for each request, [B, size]; several for each, [B, R, size]; or as many as each has, one
// after the other, [N, size].
template <typename T> struct Rows {
  T* data = nullptr;
  std::int64_t request = 0, row = 0, size = 0;  // strides, and the length of a row
  bool together = false;                        // [B, R, size]

  Rows() = default;
  __attribute__((always_inline)) explicit Rows(const Tensor& t) : data(static_cast<T*>(t.data)) {
    if (!t.present) return;
    if (t.dtype != dtype_of<std::remove_const_t<T>>) throw std::invalid_argument("unexpected dtype");
    if (t.ndim != 2 && t.ndim != 3) throw std::invalid_argument("unexpected rank");
    request = t.stride[0], row = t.stride[t.ndim - 2], size = t.shape[t.ndim - 1], together = t.ndim == 3;
  }
  WD_HD explicit operator bool() const { return data != nullptr; }
  // The row of a request that has one.
  WD_HD T* of(std::int64_t b) const { return data + b * request; }
  // A row of a request that has several; `first` is where a request's begin in [N, size].
  WD_HD T* of(std::int64_t b, std::int64_t first, std::int64_t i) const {
    return data + (together ? b * request + i * row : (first + i) * row);
  }
};

// A parameter with one value for every row, or a tensor [B] of them.
template <typename T> struct PerRow {
  View<const T, 1> tensor;
  T value{};

  WD_HD T operator[](std::int64_t row) const { return tensor ? tensor(row) : value; }
};

// Calls f.operator()<T>() with the floating type named by dtype.
template <typename F> decltype(auto) with_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f16:
      return f.template operator()<f16>();
    case DType::bf16:
      return f.template operator()<bf16>();
    default:
      throw std::invalid_argument("expected float32, float16 or bfloat16");
  }
}

}  // namespace warpdraw
