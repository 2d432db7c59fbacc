// Python bindings: one submodule a backend, one function an op. Tensors arrive through DLPack's C exchange table, so libtorch
// is not linked. Arguments were checked against the op's contract before they come here; what is checked again guards memory,
// not meaning.
#include <pybind11/pybind11.h>

#include <atomic>
#include <type_traits>
#include <utility>

#include "core/filter.h"
#include "core/float_environment.h"
#include "core/philox.h"
#include "dlpack_abi.h"
#include "ops.h"

namespace py = pybind11;
using namespace warpdraw;

namespace {

// The exchange table of a tensor type, or null if it has none of a version we can read. Remembers the last type seen.
const dlpack::Exchange* exchange_of(PyTypeObject* type) {
  static std::pair<PyTypeObject*, const dlpack::Exchange*> last{};
  if (last.first != type) {
    const py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    const auto* api = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api->major != dlpack::kMajor) throw py::type_error("the tensor's DLPack exchange table has an unknown version");
    last = {type, api};
  }
  return last.second;
}

DType dtype_from(dlpack::DataType t) {
  if (t.lanes == 1) {
    if (t.code == dlpack::kFloat && t.bits == 32) return DType::f32;
    if (t.code == dlpack::kFloat && t.bits == 16) return DType::f16;
    if (t.code == dlpack::kBfloat && t.bits == 16) return DType::bf16;
    if (t.code == dlpack::kInt && t.bits == 32) return DType::i32;
    if (t.code == dlpack::kInt && t.bits == 64) return DType::i64;
    if (t.code == dlpack::kBool && t.bits == 8) return DType::boolean;
  }
  throw py::type_error("unsupported dtype");
}

}  // namespace

namespace pybind11::detail {

// None is an absent tensor.
template <> struct type_caster<Tensor> {
  PYBIND11_TYPE_CASTER(Tensor, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    if (source.is_none()) return true;
    const auto* api = exchange_of(Py_TYPE(source.ptr()));
    if (!api) return false;
    dlpack::Tensor t;
    if (api->borrow(source.ptr(), &t)) throw error_already_set();
    if (t.device.type != dlpack::kCpu && t.device.type != dlpack::kCuda) throw type_error("unsupported device");
    value = {.present = true,
             .data = static_cast<char*>(t.data) + t.byte_offset,
             .dtype = dtype_from(t.dtype),
             .device = t.device.type == dlpack::kCpu ? Device::cpu : Device::cuda,
             .device_index = t.device.id,
             .ndim = t.ndim,
             .shape = t.shape,
             .stride = t.strides};
    return true;
  }
};

// A Python number, or a tensor with a value for each row.
template <typename T> struct type_caster<PerRow<T>> {
  PYBIND11_TYPE_CASTER(PerRow<T>, const_name("number | torch.Tensor"));
  bool load(handle source, bool convert) {
    make_caster<T> number;
    if (PyFloat_Check(source.ptr()) || PyLong_Check(source.ptr())) {
      if (!number.load(source, convert)) return false;
      value.value = cast_op<T>(number);
      return true;
    }
    make_caster<Tensor> tensor;
    if (source.is_none() || !tensor.load(source, convert)) return false;
    value.tensor = View<const T, 1>(cast_op<Tensor&>(tensor));
    return true;
  }
};

}  // namespace pybind11::detail

namespace {

// Binds one op of a CPU backend; counts its launches.
template <auto function, typename... A> void bind(py::module_& module, const char* name, void (*)(Queue, A...)) {
  static std::atomic<std::int64_t> launches{0};
  module.def(name, [](std::conditional_t<std::is_same_v<A, Order>, int, A>... args) {
    const auto on_host = [](const auto& arg) {
      if constexpr (std::is_same_v<std::decay_t<decltype(arg)>, Tensor>)
        if (arg.present && arg.device != Device::cpu)
          throw py::value_error("a CPU backend was given a tensor on another device");
    };
    (on_host(args), ...);
    launches.fetch_add(1, std::memory_order_relaxed);
    const py::gil_scoped_release unlocked;
    const FloatEnvironment environment;
    function(/*queue=*/nullptr, static_cast<A>(args)...);
  });
  py::dict counters = module.attr("launches");
  counters[name] = py::cpp_function([] { return launches.load(std::memory_order_relaxed); });
}

// The shared arithmetic, for known-answer tests.
void add_numerics(py::module_ module) {
  using U = std::uint32_t;
  module.def("philox", [](U c0, U c1, U c2, U c3, U key0, U key1) {
    const Words out = philox({{c0, c1, c2, c3}}, key0, key1);
    return py::make_tuple(out.word[0], out.word[1], out.word[2], out.word[3]);
  });
  module.def("noise_bits", [](std::int64_t seed, std::int64_t position, U stream, U index) {
    return Noise{std::uint64_t(seed), std::uint64_t(position)}.bits(Stream(stream), index);
  });
  module.def("exponential", exponential);
  module.def("weight", weight);
  module.def("mass", mass);
  module.def("log_mass", log_mass);
}

}  // namespace

#define BIND(backend, op) bind<&backend::op>(module_##backend, #op, &backend::op)
#define BACKEND(backend)                                    \
  py::module_ module_##backend = m.def_submodule(#backend); \
  module_##backend.attr("launches") = py::dict();           \
  BIND(backend, softmax);                                   \
  BIND(backend, log_softmax);                               \
  BIND(backend, filter_logits);                             \
  BIND(backend, filter_probs);                              \
  BIND(backend, sample);                                    \
  BIND(backend, numerics)

PYBIND11_MODULE(_C, m) {
  BACKEND(scalar);
  BACKEND(portable);
#ifdef WARPDRAW_HAS_avx2
  BACKEND(avx2);
  BACKEND(avx512);
#endif
  add_numerics(m.def_submodule("numerics"));
#ifdef __x86_64__
  __builtin_cpu_init();
  m.attr("runs_avx2") = bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  m.attr("runs_avx512") = bool(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"));
#endif
}
