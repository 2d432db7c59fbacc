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
#include "ops.h"
#include "python/signature.h"

using namespace warpdraw;

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
    const Block out = philox({{c0, c1, c2, c3}}, key0, key1);
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
  py::class_<Signature>(m, "Signature").def(py::init<std::string, py::sequence, py::sequence>()).def("bind", &Signature::bind);
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
