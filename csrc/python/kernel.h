// A kernel of one backend as a Python object: callable, and counting its launches.
#pragma once
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/float_environment.h"
#include "invoke.h"
#include "python/device.h"
#include "python/exchange.h"
#include "python/room.h"

namespace warpdraw {

// The arguments of a call, and where tensors come from.
struct Bound {
  const dlpack::Exchange* api = nullptr;
  std::vector<Argument> arguments;
};

// Of the calling thread.
inline thread_local Wish wish;

class Kernel {
 public:
  static constexpr int kOldest = 80;  // sm_80

  // A kernel of a GPU, simulated or not, takes a path; the one that picks its path counts for `cluster` or `split`.
  Kernel(std::string name, Device device, Entry entry, std::size_t arguments, std::optional<Path> path = {},
         const Kernel* cluster = nullptr, const Kernel* split = nullptr)
      : name_(std::move(name)),
        device_(device),
        entry_(entry),
        arguments_(arguments),
        path_(path),
        cluster_(cluster),
        split_(split) {}

  std::size_t arguments() const { return arguments_; }
  std::int64_t launches() const { return launches_.load(std::memory_order_relaxed); }

  bool runs_on(dlpack::Device device) const {
    if (device_ == Device::cpu) return device.type == dlpack::kCpu;
    return device.type == dlpack::kCuda && capability_of(device.id) >= kOldest;
  }

  void run(const dlpack::Exchange* api, const Argument* arguments) const {
    if (path_) return run_on_gpu(api, arguments);
    count();
    const py::gil_scoped_release unlocked;
    const FloatEnvironment environment;
    entry_(Queue{}, arguments);
  }

  // Arguments that were bound by a Signature, or for a kernel without one: what is checked here guards memory, not meaning.
  Bound read(const py::tuple& bound) const {
    if (bound.size() != arguments_)
      throw py::type_error(name_ + ": expected " + std::to_string(arguments_) + " arguments, got " +
                           std::to_string(bound.size()));
    Bound read{nullptr, std::vector<Argument>(arguments_)};
    auto& arguments = read.arguments;
    for (std::size_t i = 0; i < arguments_; ++i) {
      PyObject* value = PyTuple_GET_ITEM(bound.ptr(), Py_ssize_t(i));
      if (value == Py_None) continue;
      if (PyFloat_Check(value)) {
        arguments[i].number = PyFloat_AS_DOUBLE(value);
      } else if (PyLong_Check(value)) {
        arguments[i].integer = PyLong_AsLongLong(value);
        if (PyErr_Occurred()) throw py::error_already_set();
        arguments[i].number = double(arguments[i].integer);
      } else {
        arguments[i].tensor = borrow(value);
        if (arguments[i].tensor.device != device_ || arguments[i].tensor.device_index != arguments[0].tensor.device_index)
          throw py::value_error(name_ + ": was given a tensor on another device than its own");
        read.api = exchange_of(value);
      }
    }
    if (!arguments[0].tensor.present) throw py::type_error(name_ + ": expected a tensor first");
    const int ordinal = arguments[0].tensor.device_index;
    if (device_ == Device::cuda && capability_of(ordinal) < kOldest)
      throw py::value_error(name_ + ": expected a GPU of sm_" + std::to_string(kOldest) +
                            " or later, cuda:" + std::to_string(ordinal) + " is sm_" + std::to_string(capability_of(ordinal)));
    return read;
  }

 private:
  void count() const { launches_.fetch_add(1, std::memory_order_relaxed); }

  void run_on_gpu(const dlpack::Exchange* api, const Argument* arguments) const {
    const int ordinal = arguments[0].tensor.device_index;  // the first argument of every op is a tensor
    const bool real = device_ == Device::cuda;
    Path ran = *path_;  // an op that has one way only notes none
    {
      Room room(api, {real ? dlpack::kCuda : dlpack::kCpu, ordinal});
      Queue queue{nullptr, ordinal, *path_, &ran, Room::take, &room, wish};
      if (real && api->current_stream(dlpack::kCuda, ordinal, &queue.stream)) throw py::error_already_set();
      const py::gil_scoped_release unlocked;
      const FloatEnvironment environment;
      std::optional<CurrentDevice> current;
      if (real) current.emplace(ordinal);
      entry_(queue, arguments);
    }
    const Kernel* counted = ran == *path_ || !cluster_ ? this : ran == Path::cluster ? cluster_ : split_;
    counted->count();
  }

  std::string name_;
  Device device_;
  Entry entry_;
  std::size_t arguments_;
  std::optional<Path> path_;
  const Kernel *cluster_, *split_;
  mutable std::atomic<std::int64_t> launches_{0};
};

// The same call again and again, for measurements.
class Prepared {
 public:
  Prepared(const Kernel& kernel, const py::tuple& bound) : kernel_(kernel), bound_(bound), read_(kernel.read(bound)) {}
  void run() const { kernel_.run(read_.api, read_.arguments.data()); }

 private:
  const Kernel& kernel_;
  py::tuple bound_;  // keeps the tensors alive
  Bound read_;
};

}  // namespace warpdraw
