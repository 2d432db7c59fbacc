// A kernel of one backend as a Python object: callable, and counting its launches.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/float_environment.h"
#include "invoke.h"
#include "python/exchange.h"

namespace warpdraw {

class Kernel {
 public:
  Kernel(std::string name, Device device, Entry entry, std::size_t arguments)
      : name_(std::move(name)), device_(device), entry_(entry), arguments_(arguments) {}

  Device device() const { return device_; }
  std::size_t arguments() const { return arguments_; }
  std::int64_t launches() const { return launches_.load(std::memory_order_relaxed); }

  void run(const Argument* arguments) const {
    launches_.fetch_add(1, std::memory_order_relaxed);
    const py::gil_scoped_release unlocked;
    const FloatEnvironment environment;
    entry_(/*queue=*/nullptr, arguments);
  }

  // Arguments that were bound by a Signature, or for a kernel without one: what is checked here guards memory, not meaning.
  std::vector<Argument> read(const py::tuple& bound) const {
    if (bound.size() != arguments_)
      throw py::type_error(name_ + ": expected " + std::to_string(arguments_) + " arguments, got " +
                           std::to_string(bound.size()));
    std::vector<Argument> arguments(arguments_);
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
        if (arguments[i].tensor.device != device_)
          throw py::value_error(name_ + ": was given a tensor on another device than its own");
      }
    }
    return arguments;
  }

 private:
  std::string name_;
  Device device_;
  Entry entry_;
  std::size_t arguments_;
  mutable std::atomic<std::int64_t> launches_{0};
};

// The same call again and again, for measurements.
class Prepared {
 public:
  Prepared(const Kernel& kernel, const py::tuple& bound) : kernel_(kernel), bound_(bound), arguments_(kernel.read(bound)) {}
  void run() const { kernel_.run(arguments_.data()); }

 private:
  const Kernel& kernel_;
  py::tuple bound_;  // keeps the tensors alive
  std::vector<Argument> arguments_;
};

}  // namespace warpdraw
