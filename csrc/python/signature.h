// An op's contract as native code: binds the arguments of a Python call, checks them, makes the outputs and runs a kernel.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "invoke.h"
#include "python/exchange.h"
#include "python/kernel.h"

namespace warpdraw {

class Signature {
 public:
  // Inputs and outputs as warpdraw.contract parses them; the attributes used here are those of its specifications. A call of
  // several outputs returns a `result`, a subclass of tuple.
  Signature(std::string op, const py::sequence& inputs, const py::sequence& outputs, py::type result);

  // The arguments of a kernel: inputs in order (a choice as its index), then outputs (None where not asked for). Tensors of
  // other libraries are torch's here, of the same memory.
  py::tuple bind(const py::tuple& args, const py::dict& kwargs) const;

  // Runs the first kernel on tensors of the CPU, the second on those of a GPU, and returns the output, or the result of
  // several; None, and nothing done, where the one for the tensors' device is None or does not run there.
  py::object call(const py::tuple& kernels, const py::tuple& args, const py::dict& kwargs) const;

 private:
  static constexpr std::size_t kMostInputs = 64, kMostOutputs = 16, kMostSizes = 16;

  // The size of an axis: a letter's, or the words of 32 bits that a parameter needs.
  struct Size {
    int letter = -1;
    int words_for = -1;  // index of the parameter
    int more = 0;        // than the letter
  };
  struct Parameter {
    std::string name;
    py::object key;       // the name as an interned Python string
    py::object fallback;  // the value if none is given; null if one must be
    bool optional = false;
    int size_letter = -1;              // a size that the caller gives, else
    std::vector<std::string> choices;  // a choice if not empty, else a tensor:
    std::vector<DType> dtypes;
    int same_dtype_as = -1;  // an input whose dtype this one has
    int partner = -1;        // an input that must be given with this one
    std::vector<Size> sizes, other_sizes;
    std::vector<std::string> words;  // what its numbers stand for, if not empty
    struct Condition {               // a word that needs another input, or excludes it
      std::size_t word;
      int input;
      bool needs;
    };
    std::vector<Condition> conditions;
    bool takes_number = false;
    bool integer = false;
    double low = 0, high = 0;  // for numbers
    int high_letter = -1;      // the size that is the upper end
    std::string range;

    bool accepts(DType dtype) const;
  };
  // The values of a call, not set at first.
  struct Arguments {
    union {
      Argument value[kMostInputs + kMostOutputs];
    };
    Arguments() {}  // NOLINT: they are copied in
    Argument& operator[](std::size_t i) { return value[i]; }
    const Argument& operator[](std::size_t i) const { return value[i]; }
  };
  // One call: what was given, and what its inputs have in common.
  struct Call {
    std::array<PyObject*, kMostInputs + kMostOutputs> given{};  // borrowed; null where the default serves
    Arguments values;                                           // starts with the defaults
    std::array<py::object, kMostOutputs> outputs;               // as they were given, or made
    std::vector<py::object> taken;                              // tensors of other libraries, as torch's
    std::array<std::int64_t, kMostSizes> sizes;
    const dlpack::Exchange* api = nullptr;
    dlpack::Device device{};
  };

  Parameter parse(const py::handle& spec, bool output);
  void parse_conditions(const py::handle& spec, Parameter& parameter) const;
  Size parse_size(const std::string& text);
  int letter_of(const std::string& letter);
  int input_named(const std::string& name) const;
  void place(const py::tuple& args, const py::dict& kwargs, Call& call) const;
  void bind_inputs(Call& call) const;
  void make_outputs(Call& call) const;
  void check_tensor(const Parameter& parameter, PyObject* value, Call& call, Tensor* out) const;
  DType check_dtype(const Parameter& parameter, dlpack::DataType given) const;
  PyObject* take_over(const Parameter& parameter, PyObject* value, bool written, Call& call) const;
  void check_words(const Parameter& parameter, const Size& size, std::int64_t words, const Call& call) const;
  void check_number(const Parameter& parameter, PyObject* value, const Call& call, Argument* out) const;
  std::int64_t check_choice(const Parameter& parameter, const std::vector<std::string>& words, PyObject* value) const;
  void check_company(const Parameter& parameter, const Argument& value, const Call& call) const;
  // Returns the output as the caller gets it; `value` becomes the tensor that kernels get.
  py::object make_output(const Parameter& parameter, PyObject*& value, Call& call, Tensor* out) const;
  bool made_by_default(const Parameter& output, const Call& call) const;
  std::string shape_text(const Parameter& parameter) const;
  std::string shape_text(const std::vector<Size>& sizes) const;

  std::string op_;
  py::type result_;
  std::vector<Parameter> parameters_;  // inputs, then outputs
  std::vector<Argument> defaults_;
  std::size_t inputs_ = 0, positional_ = 0;
  std::vector<std::string> letters_;
};

}  // namespace warpdraw
