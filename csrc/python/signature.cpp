#include "python/signature.h"

#include <cmath>

#include "core/numerics.h"

namespace warpdraw {
namespace {

std::string name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    case DType::i32:
      return "int32";
    case DType::i64:
      return "int64";
    case DType::boolean:
      return "bool";
  }
  return "";
}

std::string name_of(dlpack::DataType t) {
  DType dtype;
  if (dtype_from(t, &dtype)) return name_of(dtype);
  const char* kind = t.code == dlpack::kInt ? "int" : t.code == 1 ? "uint" : t.code == dlpack::kFloat ? "float" : "dtype code ";
  return kind + std::to_string(t.code <= dlpack::kFloat ? t.bits : t.code);
}

std::string name_of(dlpack::Device device) {
  if (device.type == dlpack::kCpu) return "cpu";
  if (device.type == dlpack::kCuda) return "cuda:" + std::to_string(device.id);
  return "device type " + std::to_string(device.type) + ":" + std::to_string(device.id);
}

std::string text_of(PyObject* value) { return py::repr(py::handle(value)).cast<std::string>(); }

std::string shape_of(const std::int64_t* shape, int ndim) {
  std::string text;
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return "[" + text + "]";
}

template <typename T, typename Name> std::string joined(const std::vector<T>& items, const char* between, Name name) {
  std::string text;
  for (const T& item : items) text += (text.empty() ? "" : between) + name(item);
  return text;
}

std::string dtypes_text(const std::vector<DType>& dtypes) {
  return joined(dtypes, " or ", [](DType dtype) { return name_of(dtype); });
}

constexpr auto kQuoted = [](const std::string& word) { return "'" + word + "'"; };

}  // namespace

bool Signature::Argument::accepts(DType dtype) const {
  for (const DType allowed : dtypes)
    if (allowed == dtype) return true;
  return false;
}

Signature::Signature(std::string op, const py::sequence& inputs, const py::sequence& outputs) : op_(std::move(op)) {
  for (const auto& spec : inputs) arguments_.push_back(parse(spec, false));
  inputs_ = arguments_.size();
  for (const auto& spec : outputs) arguments_.push_back(parse(spec, true));
  for (std::size_t i = 0; i < inputs_; ++i) positional_ += arguments_[i].choices.empty();
}

Signature::Argument Signature::parse(const py::handle& spec, bool output) {
  Argument argument;
  argument.name = spec.attr("name").cast<std::string>();
  argument.key = py::reinterpret_steal<py::object>(PyUnicode_InternFromString(argument.name.c_str()));
  if (py::hasattr(spec, "choices")) {
    for (const auto& choice : spec.attr("choices")) argument.choices.push_back(choice.cast<std::string>());
    argument.fallback = spec.attr("default");
    return argument;
  }
  argument.optional = spec.attr("optional").cast<bool>();
  for (const auto& word : spec.attr("dtype_names")) {
    for (const DType dtype : kDTypes)
      if (name_of(dtype) == word.cast<std::string>()) argument.dtypes.push_back(dtype);
  }
  argument.integer = argument.dtypes[0] == DType::i32 || argument.dtypes[0] == DType::i64;
  for (const auto& word : spec.attr("sizes")) {
    const auto letter = word.cast<std::string>();
    std::size_t index = 0;
    while (index < letters_.size() && letters_[index] != letter) ++index;
    if (index == letters_.size()) letters_.push_back(letter);
    argument.sizes.push_back(int(index));
  }
  if (letters_.size() > Call{}.sizes.size()) throw py::value_error("contract: too many size letters");
  if (!spec.attr("same_dtype_as").is_none()) {
    const auto other = spec.attr("same_dtype_as").cast<std::string>();
    for (std::size_t i = 0; i < arguments_.size(); ++i)
      if (arguments_[i].name == other) argument.same_dtype_as = int(i);
  }
  if (output) {
    argument.fallback = py::bool_(!argument.optional);
    return argument;
  }
  argument.takes_number = !spec.attr("default").is_none();
  if (argument.takes_number || argument.optional) argument.fallback = spec.attr("default");
  if (argument.takes_number) {
    argument.low = spec.attr("low").cast<double>();
    argument.high = spec.attr("high").cast<double>();
    argument.range = spec.attr("range_text").cast<std::string>();
  }
  return argument;
}

std::string Signature::shape_text(const Argument& argument) const {
  return "[" + joined(argument.sizes, ", ", [this](int letter) { return letters_[letter]; }) + "]";
}

// Fills each argument's slot from the call or with its fallback; borrowed from args, kwargs or the argument.
void Signature::place(const py::args& args, const py::kwargs& kwargs, std::vector<PyObject*>& slots) const {
  if (args.size() > positional_)
    throw py::type_error(op_ + ": expected at most " + std::to_string(positional_) + " positional arguments, got " +
                         std::to_string(args.size()));
  for (std::size_t i = 0; i < args.size(); ++i) slots[i] = PyTuple_GET_ITEM(args.ptr(), i);
  PyObject *key, *value;
  for (Py_ssize_t position = 0; PyDict_Next(kwargs.ptr(), &position, &key, &value);) {
    std::size_t i = 0;
    while (i < arguments_.size() && arguments_[i].key.ptr() != key) ++i;
    if (i == arguments_.size())  // not the interned string itself: compare the text
      for (i = 0; i < arguments_.size() && PyUnicode_Compare(arguments_[i].key.ptr(), key) != 0;) ++i;
    if (i == arguments_.size())
      throw py::type_error(op_ + ": unexpected argument " + text_of(key) + "; expected one of " +
                           joined(arguments_, ", ", [](const Argument& argument) { return argument.name; }));
    if (slots[i]) throw py::type_error(op_ + ": got " + arguments_[i].name + " twice");
    slots[i] = value;
  }
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    if (slots[i]) continue;
    slots[i] = arguments_[i].fallback.ptr();
    if (!slots[i])
      throw py::type_error(op_ + ": missing argument " + arguments_[i].name + ", a tensor " + shape_text(arguments_[i]));
  }
}

void Signature::check_tensor(const Argument& argument, PyObject* value, Call& call, DType* dtype) const {
  const dlpack::Exchange* api = exchange_of(value);
  if (!api) {
    const char* also = argument.takes_number ? (argument.integer ? "an int or " : "a number or ") : "";
    throw py::type_error(argument.name + ": expected " + also + "a tensor " + shape_text(argument) + " of " +
                         dtypes_text(argument.dtypes) + ", got " + text_of(value).substr(0, 80));
  }
  dlpack::Tensor t;
  if (api->borrow(value, &t)) {
    const py::error_already_set error;
    const auto text = py::str(error.value()).cast<std::string>();
    throw py::value_error(argument.name + ": expected a dense tensor with data: " + text.substr(0, text.find('\n')));
  }
  if (!dtype_from(t.dtype, dtype) || !argument.accepts(*dtype))
    throw py::type_error(argument.name + ": expected a tensor of " + dtypes_text(argument.dtypes) + ", got " +
                         name_of(t.dtype));
  if (!call.api) {
    call.api = api;
    call.device = t.device;
  } else if (t.device.type != call.device.type || t.device.id != call.device.id) {
    throw py::value_error(argument.name + ": expected a tensor on " + name_of(call.device) + " like " + arguments_[0].name +
                          ", got one on " + name_of(t.device));
  }
  if (t.ndim != int(argument.sizes.size()))
    throw py::value_error(argument.name + ": expected shape " + shape_text(argument) + ", got " + shape_of(t.shape, t.ndim));
  bool empty = false;
  for (int i = 0; i < t.ndim; ++i) {
    std::int64_t& size = call.sizes[argument.sizes[i]];
    const std::string& letter = letters_[argument.sizes[i]];
    if (size < 0) size = t.shape[i];
    if (size != t.shape[i])
      throw py::value_error(argument.name + ": expected shape " + shape_text(argument) + " with " + letter + " = " +
                            std::to_string(size) + ", got " + shape_of(t.shape, t.ndim));
    if ((size == 0 && letter != "B") || (size > kMaxVocab && letter == "V"))
      throw py::value_error(argument.name + ": expected " + letter + " of at least 1" +
                            (letter == "V" ? " and at most " + std::to_string(kMaxVocab) : "") + ", got shape " +
                            shape_of(t.shape, t.ndim));
    empty |= size == 0;
  }
  if (t.ndim > 1 && t.shape[t.ndim - 1] > 1 && t.strides[t.ndim - 1] != 1)
    throw py::value_error(argument.name + ": expected a contiguous last axis (stride 1), got strides " +
                          shape_of(t.strides, t.ndim));
  if (!t.data && !empty) throw py::value_error(argument.name + ": expected a tensor with data, got a fake one");
}

py::object Signature::check_number(const Argument& argument, PyObject* value) const {
  const auto outside = [&](const std::string& allowed) {
    throw py::value_error(argument.name + ": expected a value in " + allowed + ", got " + text_of(value));
  };
  if (argument.integer) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value));
    if (!index) {
      PyErr_Clear();
      throw py::type_error(argument.name + ": expected an int, got " + text_of(value).substr(0, 80));
    }
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow || double(number) < argument.low || double(number) > argument.high) outside(argument.range);
    return index;
  }
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error(argument.name + ": expected a number, got " + text_of(value).substr(0, 80));
  }
  if (!(number >= argument.low && number <= argument.high)) outside(argument.range);
  return py::float_(number);
}

py::object Signature::check_choice(const Argument& argument, PyObject* value) const {
  if (PyUnicode_Check(value))
    for (std::size_t i = 0; i < argument.choices.size(); ++i)
      if (PyUnicode_CompareWithASCIIString(value, argument.choices[i].c_str()) == 0) return py::int_(i);
  throw py::value_error(argument.name + ": expected one of " + joined(argument.choices, ", ", kQuoted) + ", got " +
                        text_of(value));
}

py::object Signature::make_output(const Argument& argument, PyObject* value, Call& call) const {
  const DType wanted = argument.same_dtype_as >= 0 ? call.dtypes[argument.same_dtype_as] : argument.dtypes[0];
  if (value == Py_True) {
    std::array<std::int64_t, 8> shape;
    for (std::size_t i = 0; i < argument.sizes.size(); ++i) shape[i] = call.sizes[argument.sizes[i]];
    return make_tensor(call.api, wanted, call.device, std::int32_t(argument.sizes.size()), shape.data());
  }
  if (value == Py_False || value == Py_None) {
    if (argument.optional) return py::none();
  } else if (exchange_of(value)) {
    DType dtype;
    check_tensor(argument, value, call, &dtype);
    if (argument.same_dtype_as >= 0 && dtype != wanted)
      throw py::type_error(argument.name + ": expected a tensor of " + name_of(wanted) + " like " +
                           arguments_[argument.same_dtype_as].name + ", got " + name_of(dtype));
    return py::reinterpret_borrow<py::object>(value);
  }
  throw py::type_error(argument.name + ": expected " + (argument.optional ? "True, False" : "True") + " or a tensor " +
                       shape_text(argument) + " to write into, got " + text_of(value).substr(0, 80));
}

py::tuple Signature::bind(const py::args& args, const py::kwargs& kwargs) const {
  std::vector<PyObject*> slots(arguments_.size(), nullptr);
  place(args, kwargs, slots);
  Call call;
  call.sizes.fill(-1);
  call.dtypes.resize(inputs_);
  py::tuple bound(arguments_.size());
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    const Argument& argument = arguments_[i];
    PyObject* value = slots[i];
    py::object result;
    if (i >= inputs_) {
      result = make_output(argument, value, call);
    } else if (!argument.choices.empty()) {
      result = check_choice(argument, value);
    } else if (argument.takes_number && !PyBool_Check(value) && !exchange_of(value) &&
               (argument.integer ? PyIndex_Check(value) : PyNumber_Check(value))) {
      result = check_number(argument, value);
    } else if (!(argument.optional && value == Py_None)) {
      check_tensor(argument, value, call, &call.dtypes[i]);
      result = py::reinterpret_borrow<py::object>(value);
    } else {
      result = py::none();
    }
    PyTuple_SET_ITEM(bound.ptr(), Py_ssize_t(i), result.release().ptr());
  }
  return bound;
}

}  // namespace warpdraw
