// An op's contract as native code: binds the arguments of a Python call, checks them and makes the outputs.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "python/exchange.h"

namespace warpdraw {

class Signature {
 public:
  // Inputs and outputs as warpdraw.contract parses them; the attributes used here are those of its TensorSpec and ChoiceSpec.
  Signature(std::string op, const py::sequence& inputs, const py::sequence& outputs);

  // The arguments of a kernel: inputs in order (a choice as its index), then outputs (None where not asked for).
  py::tuple bind(const py::args& args, const py::kwargs& kwargs) const;

 private:
  struct Argument {
    std::string name;
    py::object key;       // the name as an interned Python string
    py::object fallback;  // the value if none is given; null if one must be
    bool optional = false;
    std::vector<std::string> choices;  // a choice if not empty, else a tensor:
    std::vector<DType> dtypes;
    int same_dtype_as = -1;  // an input whose dtype this one has
    std::vector<int> sizes;  // letters
    bool takes_number = false;
    bool integer = false;
    double low = 0, high = 0;  // for numbers
    std::string range;

    bool accepts(DType dtype) const;
  };
  // What the inputs of one call have in common.
  struct Call {
    const dlpack::Exchange* api = nullptr;
    dlpack::Device device{};
    std::array<std::int64_t, 8> sizes;
    std::vector<DType> dtypes;
  };

  Argument parse(const py::handle& spec, bool output);
  void place(const py::args& args, const py::kwargs& kwargs, std::vector<PyObject*>& slots) const;
  void check_tensor(const Argument& argument, PyObject* value, Call& call, DType* dtype) const;
  py::object check_number(const Argument& argument, PyObject* value) const;
  py::object check_choice(const Argument& argument, PyObject* value) const;
  py::object make_output(const Argument& argument, PyObject* value, Call& call) const;
  std::string shape_text(const Argument& argument) const;

  std::string op_;
  std::vector<Argument> arguments_;  // inputs, then outputs
  std::size_t inputs_ = 0, positional_ = 0;
  std::vector<std::string> letters_;
};

}  // namespace warpdraw
