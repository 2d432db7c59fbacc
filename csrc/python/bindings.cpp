// Python bindings: one submodule a backend, one kernel an op. Tensors arrive through DLPack's C exchange table, so libtorch is
// not linked.
#include <pybind11/pybind11.h>

#include <optional>

#include "core/filter.h"
#include "core/philox.h"
#include "invoke.h"
#include "python/signature.h"

using namespace warpdraw;

namespace {

template <auto function>
constexpr Entry kEntry = [](Queue queue, const Argument* arguments) { invoke(function, queue, arguments); };

void add(py::module_& module, const char* name, const Kernel& kernel) {
  module.attr(name) = py::cast(&kernel, py::return_value_policy::reference);
}

// Adds one op of a CPU backend.
template <auto function> void bind(py::module_& module, const char* name) {
  static const Kernel kernel(name, Device::cpu, kEntry<function>, argument_count(function));
  add(module, name, kernel);
}

// The modules of a GPU's backends, simulated or not: the two paths and, if it is for calls that ask for neither, the choice.
struct GpuModules {
  Device device;
  py::module_ cluster, split;
  std::optional<py::module_> automatic;
};

// Adds one op of a GPU's backends.
template <auto function> void bind(GpuModules& modules, const char* name) {
  constexpr Entry kRun = kEntry<function>;
  constexpr std::size_t kArguments = argument_count(function);
  static const Kernel cluster(name, modules.device, kRun, kArguments, Path::cluster);
  static const Kernel split(name, modules.device, kRun, kArguments, Path::split);
  static const Kernel automatic(name, modules.device, kRun, kArguments, Path::automatic, &cluster, &split);
  add(modules.cluster, name, cluster);
  add(modules.split, name, split);
  if (modules.automatic) add(*modules.automatic, name, automatic);
}

#if defined(WARPDRAW_HAS_cuda_shapes) || defined(WARPDRAW_HAS_cuda_host)
// Adds one op of the kernels of another shape.
template <auto function, Device device> void bind_shaped(py::module_& module, const char* name) {
  static const Kernel kernel(name, device, kEntry<function>, argument_count(function), Path::automatic);
  add(module, name, kernel);
}
#endif

// The shapes of the kernels for GPUs in this build: what `wish` can be tried with.
py::dict shapes() {
  py::dict found;
  [[maybe_unused]] const auto describe = [&](const char* name, const Shape& shape) {
    constexpr const char* kUntil[] = {"read", "maxima", "filters", "all"};
    py::dict of;
    of["threads"] = shape.threads, of["blocks"] = shape.blocks, of["loads"] = shape.loads, of["stages"] = shape.stages;
    of["until"] = kUntil[int(shape.until)];
    found[name] = of;
  };
#if defined(WARPDRAW_HAS_cuda) || defined(WARPDRAW_HAS_cuda_host)
  describe("usual", Shape{WARPDRAW_USUAL_SHAPE});
#endif
#ifdef WARPDRAW_HAS_cuda_shapes
#define DESCRIBE(name, ...) describe(#name, Shape{__VA_ARGS__});
  WARPDRAW_SHAPES(DESCRIBE)
#endif
  return found;
}

void set_wish(int cluster, int resident, int persistent, bool split) {
  const auto check = [](const char* name, bool holds, const char* expected, int got) {
    if (!holds) throw py::value_error(std::string(name) + ": expected " + expected + ", got " + std::to_string(got));
  };
  const bool power = cluster == 0 || cluster == 1 || cluster == 2 || cluster == 4 || cluster == 8 || cluster == 16;
  check("cluster", power, "0, 1, 2, 4, 8 or 16", cluster);
  check("resident", resident >= -1 && resident <= 1, "-1, 0 or 1", resident);
  check("persistent", persistent >= -1 && persistent <= 1, "-1, 0 or 1", persistent);
  if (split && (cluster || resident >= 0 || persistent >= 0))
    throw py::value_error("split: expected False beside cluster, resident or persistent, which are of the other path");
  wish = {cluster, resident, persistent, split};
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

#define BIND(backend, op) bind<&backend::op>(module_##backend, #op)
#define BIND_OPS(backend)       \
  BIND(backend, softmax);       \
  BIND(backend, log_softmax);   \
  BIND(backend, filter_logits); \
  BIND(backend, filter_probs);  \
  BIND(backend, sample);        \
  BIND(backend, verify);        \
  BIND(backend, numerics)
#define BACKEND(backend)                                    \
  py::module_ module_##backend = m.def_submodule(#backend); \
  BIND_OPS(backend)
#define VECTOR_BACKEND(backend) \
  BACKEND(backend);             \
  BIND(backend, read_floor);    \
  BIND(backend, exp_floor)

PYBIND11_MODULE(_C, m) {
  py::class_<Prepared>(m, "Prepared").def("__call__", &Prepared::run);
  py::class_<Kernel, std::unique_ptr<Kernel, py::nodelete>>(m, "Kernel")
      .def_property_readonly("launches", &Kernel::launches)
      .def("__call__",
           [](const Kernel& kernel, const py::args& bound) {
             const Bound read = kernel.read(bound);
             kernel.run(read.api, read.arguments.data());
           })
      .def("prepare", [](const Kernel& kernel, const py::args& bound) { return Prepared(kernel, bound); });
  py::class_<Signature>(m, "Signature")
      .def(py::init<std::string, py::sequence, py::sequence, py::type>())
      .def("bind", &Signature::bind)
      .def("call", &Signature::call);
  BACKEND(scalar);
  VECTOR_BACKEND(portable);
#ifdef WARPDRAW_HAS_avx2
  VECTOR_BACKEND(avx2);
  VECTOR_BACKEND(avx512);
#endif
#ifdef WARPDRAW_HAS_cuda
  GpuModules module_cuda{Device::cuda, m.def_submodule("cuda_cluster"), m.def_submodule("cuda_split"), m.def_submodule("cuda")};
  BIND_OPS(cuda);
#endif
#define BIND_SHAPED(backend, device)                                           \
  py::module_ module_##backend = m.def_submodule(#backend);                    \
  bind_shaped<&backend::softmax, device>(module_##backend, "softmax");         \
  bind_shaped<&backend::log_softmax, device>(module_##backend, "log_softmax"); \
  bind_shaped<&backend::sample, device>(module_##backend, "sample");
#ifdef WARPDRAW_HAS_cuda_shapes
#define BIND_SHAPE(name, ...) BIND_SHAPED(cuda_##name, Device::cuda)
  WARPDRAW_SHAPES(BIND_SHAPE)
#endif
  m.attr("shapes") = shapes();
  m.def("wish", &set_wish, py::arg("cluster") = 0, py::arg("resident") = -1, py::arg("persistent") = -1,
        py::arg("split") = false);
#ifdef WARPDRAW_HAS_cuda_host
  GpuModules module_cuda_host{Device::cpu, m.def_submodule("cuda_host_cluster"), m.def_submodule("cuda_host_split"), {}};
  BIND_OPS(cuda_host);
  BIND_SHAPED(cuda_host_ring, Device::cpu)
#endif
  add_numerics(m.def_submodule("numerics"));
#ifdef __x86_64__
  __builtin_cpu_init();
  m.attr("runs_avx2") = bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  m.attr("runs_avx512") = bool(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"));
#endif
}
