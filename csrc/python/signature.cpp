#include "python/signature.h"

#include <memory>

#include "core/numerics.h"
#include "python/exporter.h"

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
  const char* kind = t.code == dlpack::kInt        ? "int"
                     : t.code == dlpack::kUnsigned ? "uint"
                     : t.code == dlpack::kFloat    ? "float"
                                                   : "dtype code ";
  return kind + std::to_string(t.code <= dlpack::kFloat ? t.bits : t.code);
}

std::string name_of(dlpack::Device device) {
  if (device.type == dlpack::kCpu) return "cpu";
  if (device.type == dlpack::kCuda) return "cuda:" + std::to_string(device.id);
  return "device type " + std::to_string(device.type) + ":" + std::to_string(device.id);
}

std::string text_of(PyObject* value) { return py::repr(py::handle(value)).cast<std::string>(); }

std::string first_line(const py::error_already_set& error) {
  const auto text = py::str(error.value()).cast<std::string>();
  return text.substr(0, text.find('\n'));
}

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

bool Signature::Parameter::accepts(DType dtype) const {
  for (const DType allowed : dtypes)
    if (allowed == dtype) return true;
  return false;
}

Signature::Signature(std::string op, const py::sequence& inputs, const py::sequence& outputs, py::type result)
    : op_(std::move(op)), result_(std::move(result)) {
  if (inputs.size() > kMostInputs || outputs.size() > kMostOutputs) throw py::value_error("contract: too many arguments");
  for (const auto& spec : inputs) parameters_.push_back(parse(spec, false));
  inputs_ = parameters_.size();
  for (const auto& spec : outputs) parameters_.push_back(parse(spec, true));
  if (letters_.size() > kMostSizes) throw py::value_error("contract: too many size letters");
  for (std::size_t i = 0; i < inputs_; ++i) {
    Parameter& parameter = parameters_[i];
    positional_ += parameter.choices.empty() && parameter.size_letter < 0;
    if (py::hasattr(inputs[i], "partner") && !inputs[i].attr("partner").is_none())
      parameter.partner = input_named(inputs[i].attr("partner").cast<std::string>());
    parse_conditions(inputs[i], parameter);
  }
  for (const Parameter& parameter : parameters_) {
    Argument value;
    if (!parameter.choices.empty()) value.integer = check_choice(parameter, parameter.choices, parameter.fallback.ptr());
    if (parameter.takes_number || parameter.size_letter >= 0) {
      value.number = parameter.fallback.cast<double>();
      value.integer = std::int64_t(value.number);
    }
    defaults_.push_back(value);
  }
}

int Signature::input_named(const std::string& name) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].name == name) return int(i);
  throw py::value_error("contract: no input is named " + name);
}

int Signature::letter_of(const std::string& letter) {
  std::size_t index = 0;
  while (index < letters_.size() && letters_[index] != letter) ++index;
  if (index == letters_.size()) letters_.push_back(letter);
  return int(index);
}

Signature::Size Signature::parse_size(const std::string& text) {
  const std::size_t slash = text.find('/'), plus = text.find('+');
  if (slash != std::string::npos) return {.words_for = input_named(text.substr(0, slash))};
  if (plus != std::string::npos) return {.letter = letter_of(text.substr(0, plus)), .more = std::stoi(text.substr(plus + 1))};
  return {.letter = letter_of(text)};
}

Signature::Parameter Signature::parse(const py::handle& spec, bool output) {
  Parameter parameter;
  parameter.name = spec.attr("name").cast<std::string>();
  parameter.key = py::reinterpret_steal<py::object>(PyUnicode_InternFromString(parameter.name.c_str()));
  if (py::hasattr(spec, "choices")) {
    for (const auto& choice : spec.attr("choices")) parameter.choices.push_back(choice.cast<std::string>());
    parameter.fallback = spec.attr("default");
    return parameter;
  }
  if (!spec.attr("high_size").is_none()) parameter.high_letter = letter_of(spec.attr("high_size").cast<std::string>());
  if (py::hasattr(spec, "letter")) {
    parameter.size_letter = letter_of(spec.attr("letter").cast<std::string>());
    parameter.fallback = spec.attr("default");
    parameter.integer = true;
    parameter.range = "[0, " + letters_[parameter.high_letter] + "]";
    return parameter;
  }
  parameter.optional = spec.attr("optional").cast<bool>();
  for (const auto& word : spec.attr("dtype_names")) {
    for (const DType dtype : kDTypes)
      if (name_of(dtype) == word.cast<std::string>()) parameter.dtypes.push_back(dtype);
  }
  parameter.integer = parameter.dtypes[0] == DType::i32 || parameter.dtypes[0] == DType::i64;
  for (const auto& size : spec.attr("sizes")) parameter.sizes.push_back(parse_size(size.cast<std::string>()));
  for (const auto& size : spec.attr("other_sizes")) parameter.other_sizes.push_back(parse_size(size.cast<std::string>()));
  for (const auto& word : spec.attr("words")) parameter.words.push_back(word.cast<std::string>());
  if (!spec.attr("same_dtype_as").is_none())
    parameter.same_dtype_as = input_named(spec.attr("same_dtype_as").cast<std::string>());
  if (output) return parameter;
  parameter.takes_number = !spec.attr("default").is_none();
  if (parameter.takes_number || parameter.optional) parameter.fallback = spec.attr("default");
  if (parameter.takes_number) {
    parameter.low = spec.attr("low").cast<double>();
    parameter.high = spec.attr("high").cast<double>();
    parameter.range = spec.attr("range_text").cast<std::string>();
  }
  return parameter;
}

void Signature::parse_conditions(const py::handle& spec, Parameter& parameter) const {
  if (parameter.words.empty()) return;
  for (const auto& each : spec.attr("conditions")) {
    const auto [word, input, needs] = each.cast<std::tuple<std::string, std::string, bool>>();
    std::size_t index = 0;
    while (parameter.words[index] != word) ++index;
    parameter.conditions.push_back({index, input_named(input), needs});
  }
}

std::string Signature::shape_text(const std::vector<Size>& sizes) const {
  const auto text = [this](Size size) {
    std::string name = size.letter < 0 ? "W" : letters_[size.letter];
    if (size.more) name.append("+").append(std::to_string(size.more));
    return name;
  };
  return "[" + joined(sizes, ", ", text) + "]";
}

std::string Signature::shape_text(const Parameter& parameter) const {
  const std::string text = shape_text(parameter.sizes);
  return parameter.other_sizes.empty()
             ? text
             : text + ", or " + shape_text(parameter.other_sizes) + " with " + parameters_[parameter.partner].name + ",";
}

// Notes what the call gives for each parameter.
void Signature::place(const py::tuple& args, const py::dict& kwargs, Call& call) const {
  if (args.size() > positional_)
    throw py::type_error(op_ + ": expected at most " + std::to_string(positional_) + " positional arguments, got " +
                         std::to_string(args.size()));
  for (std::size_t i = 0; i < args.size(); ++i) call.given[i] = PyTuple_GET_ITEM(args.ptr(), Py_ssize_t(i));
  PyObject *key, *value;
  for (Py_ssize_t position = 0; PyDict_Next(kwargs.ptr(), &position, &key, &value);) {
    std::size_t i = 0;
    while (i < parameters_.size() && parameters_[i].key.ptr() != key) ++i;
    if (i == parameters_.size())  // not the interned string itself: compare the text
      for (i = 0; i < parameters_.size() && PyUnicode_Compare(parameters_[i].key.ptr(), key) != 0;) ++i;
    if (i == parameters_.size())
      throw py::type_error(op_ + ": unexpected argument " + text_of(key) + "; expected one of " +
                           joined(parameters_, ", ", [](const Parameter& parameter) { return parameter.name; }));
    if (call.given[i]) throw py::type_error(op_ + ": got " + parameters_[i].name + " twice");
    call.given[i] = value;
  }
}

void Signature::check_words(const Parameter& parameter, const Size& size, std::int64_t words, const Call& call) const {
  const Argument& counted = call.values[size.words_for];
  std::int64_t vocab = 1;
  for (std::size_t i = 0; i < letters_.size(); ++i)
    if (int(i) == parameters_[size.words_for].high_letter) vocab = call.sizes[i];
  const std::int64_t needed = counted.tensor.present ? 1 : counted.integer ? counted.integer : vocab;
  const std::int64_t least = (needed + 31) / 32, most = (vocab + 31) / 32;
  if (words < least || words > most)
    throw py::value_error(
        parameter.name + ": expected shape " + shape_text(parameter) + " with W " +
        (least == most ? "= " + std::to_string(most) : "in [" + std::to_string(least) + ", " + std::to_string(most) + "]") +
        " words of 32 bits, got W = " + std::to_string(words));
}

void Signature::check_tensor(const Parameter& parameter, PyObject* value, Call& call, Tensor* out) const {
  const dlpack::Exchange* api = exchange_of(value);
  if (!api) {
    const std::string also = !parameter.words.empty()  ? "one of " + joined(parameter.words, ", ", kQuoted) + " or "
                             : !parameter.takes_number ? ""
                             : parameter.integer       ? "an int or "
                                                       : "a number or ";
    throw py::type_error(parameter.name + ": expected " + also + "a tensor " + shape_text(parameter) + " of " +
                         dtypes_text(parameter.dtypes) + ", got " + text_of(value).substr(0, 80));
  }
  dlpack::Tensor t;
  if (api->borrow(value, &t)) {
    const py::error_already_set error;
    throw py::value_error(parameter.name + ": expected a dense tensor with data: " + first_line(error));
  }
  const DType dtype = check_dtype(parameter, t.dtype);
  if (!call.api) {
    call.api = api;
    call.device = t.device;
  } else if (t.device.type != call.device.type || t.device.id != call.device.id) {
    throw py::value_error(parameter.name + ": expected a tensor on " + name_of(call.device) + " like " + parameters_[0].name +
                          ", got one on " + name_of(t.device));
  }
  const std::vector<Size>& sizes =
      t.ndim == int(parameter.other_sizes.size()) && t.ndim ? parameter.other_sizes : parameter.sizes;
  if (t.ndim != int(sizes.size()))
    throw py::value_error(parameter.name + ": expected shape " + shape_text(parameter) + ", got " + shape_of(t.shape, t.ndim));
  bool empty = false;
  for (int i = 0; i < t.ndim; ++i) {
    empty |= t.shape[i] == 0;
    if (sizes[i].letter < 0) {
      check_words(parameter, sizes[i], t.shape[i], call);
      continue;
    }
    std::int64_t& size = call.sizes[sizes[i].letter];
    const std::string& letter = letters_[sizes[i].letter];
    if (size < 0) size = t.shape[i] - sizes[i].more;
    if (size != t.shape[i] - sizes[i].more)
      throw py::value_error(parameter.name + ": expected shape " + shape_text(parameter) + " with " + letter + " = " +
                            std::to_string(size) + ", got " + shape_of(t.shape, t.ndim));
    if ((size <= 0 && (letter != "B" || size < 0)) || (size > kMaxVocab && letter == "V"))
      throw py::value_error(parameter.name + ": expected " + letter + " of at least 1" +
                            (letter == "V" ? " and at most " + std::to_string(kMaxVocab) : "") + ", got shape " +
                            shape_of(t.shape, t.ndim));
  }
  if (t.ndim > 1 && t.shape[t.ndim - 1] > 1 && t.strides[t.ndim - 1] != 1)
    throw py::value_error(parameter.name + ": expected a contiguous last axis (stride 1), got strides " +
                          shape_of(t.strides, t.ndim));
  if (!t.data && !empty) throw py::value_error(parameter.name + ": expected a tensor with data, got a fake one");
  *out = borrowed(t, dtype);
}

DType Signature::check_dtype(const Parameter& parameter, dlpack::DataType given) const {
  DType dtype;
  if (!dtype_from(given, &dtype) || !parameter.accepts(dtype))
    throw py::type_error(parameter.name + ": expected a tensor of " + dtypes_text(parameter.dtypes) + ", got " +
                         name_of(given));
  return dtype;
}

// A tensor of torch for one of another library, and of the same memory, which the call keeps alive.
PyObject* Signature::take_over(const Parameter& parameter, PyObject* value, bool written, Call& call) const {
  const std::string name = parameter.name + ": ", type = Py_TYPE(value)->tp_name;
  const auto sharing = [&](auto step) {
    const std::string problem = name + "expected what DLPack can share, got a " + type + ": ";
    try {
      return step();
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_Exception)) throw;
      throw py::value_error(problem + first_line(error));
    } catch (const std::exception& error) {
      throw py::value_error(problem + error.what());
    }
  };
  Export exported = sharing([&] { return Export(value); });
  const dlpack::Tensor& t = exported.tensor();
  check_dtype(parameter, t.dtype);
  if (!exported.aligned())
    throw py::value_error(name + "expected entries of " + name_of(t.dtype) + " at multiples of their size, got others");
  if (exported.has_negative_strides())
    throw py::value_error(name + "expected strides of at least 0, got " + shape_of(t.strides, t.ndim));
  if (written && !exported.writable())
    throw py::value_error(name + "expected memory to write into, got a " + type + " that is read-only or does not say");
  call.taken.push_back(sharing([&] { return std::move(exported).to_torch(); }));
  return call.taken.back().ptr();
}

void Signature::check_number(const Parameter& parameter, PyObject* value, const Call& call, Argument* out) const {
  const auto outside = [&] {
    const std::string letter = parameter.high_letter < 0 ? "" : letters_[parameter.high_letter];
    throw py::value_error(
        parameter.name + ": expected a value in " + parameter.range +
        (letter.empty() ? "" : " with " + letter + " = " + std::to_string(call.sizes[parameter.high_letter])) + ", got " +
        text_of(value));
  };
  if (parameter.integer) {
    const auto index = py::reinterpret_steal<py::object>(PyBool_Check(value) ? nullptr : PyNumber_Index(value));
    if (!index) {
      PyErr_Clear();
      throw py::type_error(parameter.name + ": expected an int, got " + text_of(value).substr(0, 80));
    }
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    const double high = parameter.high_letter < 0 ? parameter.high : double(call.sizes[parameter.high_letter]);
    if (overflow || double(number) < parameter.low || double(number) > high) outside();
    out->integer = number;
    out->number = double(number);
    return;
  }
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error(parameter.name + ": expected a number, got " + text_of(value).substr(0, 80));
  }
  if (!(number >= parameter.low && number <= parameter.high)) outside();
  out->number = number;
}

std::int64_t Signature::check_choice(const Parameter& parameter, const std::vector<std::string>& words, PyObject* value) const {
  if (PyUnicode_Check(value))
    for (std::size_t i = 0; i < words.size(); ++i)
      if (PyUnicode_CompareWithASCIIString(value, words[i].c_str()) == 0) return std::int64_t(i);
  throw py::value_error(parameter.name + ": expected one of " + joined(words, ", ", kQuoted) + ", got " + text_of(value));
}

// What else must be given with an input, and what must not.
void Signature::check_company(const Parameter& parameter, const Argument& value, const Call& call) const {
  const auto is_given = [&](int input) { return call.values[std::size_t(input)].tensor.present; };
  const auto missing = [&](int input, const std::string& with) {
    throw py::value_error(parameters_[input].name + ": expected a tensor " + shape_text(parameters_[input].sizes) +
                          " together with " + with + ", got None");
  };
  const int partner = parameter.partner;
  if (!parameter.other_sizes.empty()) {
    const bool other = value.tensor.ndim == int(parameter.other_sizes.size());
    if (value.tensor.present && other && !is_given(partner))
      missing(partner, parameter.name + " " + shape_text(parameter.other_sizes));
    if (value.tensor.present && !other && is_given(partner))
      throw py::value_error(parameters_[partner].name + ": expected None together with " + parameter.name + " " +
                            shape_text(parameter.sizes) + ", got a tensor");
  } else if (partner >= 0 && (value.tensor.present || (parameter.takes_number && value.number != 0)) && !is_given(partner)) {
    missing(partner, parameter.name);
  }
  for (const Parameter::Condition& condition : parameter.conditions) {
    if (value.tensor.present || value.integer != std::int64_t(condition.word)) continue;
    const std::string with = parameter.name + " " + kQuoted(parameter.words[condition.word]);
    if (condition.needs && !is_given(condition.input)) missing(condition.input, with);
    if (!condition.needs && is_given(condition.input))
      throw py::value_error(parameters_[condition.input].name + ": expected None together with " + with + ", got a tensor");
  }
}

void Signature::bind_inputs(Call& call) const {
  std::uninitialized_copy(defaults_.begin(), defaults_.end(), call.values.value);
  call.sizes.fill(-1);
  for (std::size_t i = 0; i < inputs_; ++i) {
    const Parameter& parameter = parameters_[i];
    PyObject* value = call.given[i];
    Argument& argument = call.values[i];
    if (parameter.size_letter >= 0) call.sizes[parameter.size_letter] = argument.integer;
    if (!value) {
      if (!parameter.fallback)
        throw py::type_error(op_ + ": missing argument " + parameter.name + ", a tensor " + shape_text(parameter));
    } else if (parameter.size_letter >= 0) {
      check_number(parameter, value, call, &argument);
      call.sizes[parameter.size_letter] = argument.integer;
    } else if (!parameter.choices.empty()) {
      argument.integer = check_choice(parameter, parameter.choices, value);
    } else if (!parameter.words.empty() && PyUnicode_Check(value)) {
      argument.integer = check_choice(parameter, parameter.words, value);
      argument.number = double(argument.integer);
    } else if (parameter.takes_number && (PyLong_CheckExact(value) || (PyFloat_CheckExact(value) && !parameter.integer))) {
      check_number(parameter, value, call, &argument);  // the usual numbers first: asking any other type takes long
    } else if (exchange_of(value)) {
      check_tensor(parameter, value, call, &argument.tensor);
    } else if (is_exporter(value)) {
      call.given[i] = take_over(parameter, value, false, call);
      check_tensor(parameter, call.given[i], call, &argument.tensor);
    } else if (parameter.takes_number && !PyBool_Check(value) &&
               (parameter.integer ? PyIndex_Check(value) : PyNumber_Check(value))) {
      check_number(parameter, value, call, &argument);
    } else if (parameter.optional && value == Py_None) {
      call.given[i] = nullptr;
    } else {
      check_tensor(parameter, value, call, &argument.tensor);  // says what it should be
    }
  }
  for (std::size_t i = 0; i < inputs_; ++i)
    if (parameters_[i].partner >= 0 || !parameters_[i].conditions.empty()) check_company(parameters_[i], call.values[i], call);
}

bool Signature::made_by_default(const Parameter& output, const Call& call) const {
  if (!output.optional) return true;
  for (std::size_t i = 0; i < inputs_; ++i)
    for (const Size& size : output.sizes)
      if (parameters_[i].size_letter >= 0 && parameters_[i].size_letter == size.letter) return call.values[i].integer > 0;
  return false;
}

py::object Signature::make_output(const Parameter& parameter, PyObject*& value, Call& call, Tensor* out) const {
  const DType wanted = parameter.same_dtype_as >= 0 ? call.values[parameter.same_dtype_as].tensor.dtype : parameter.dtypes[0];
  if (!value) value = made_by_default(parameter, call) ? Py_True : Py_None;
  if (value == Py_True) {
    std::array<std::int64_t, kMostSizes> shape;
    for (std::size_t i = 0; i < parameter.sizes.size(); ++i) {
      shape[i] = call.sizes[parameter.sizes[i].letter] + parameter.sizes[i].more;
      if (shape[i] == 0 && i > 0)
        throw py::value_error(parameter.name + ": expected " + letters_[parameter.sizes[i].letter] + " of at least 1, got 0");
    }
    py::object made = make_tensor(call.api, wanted, call.device, std::int32_t(parameter.sizes.size()), shape.data());
    value = made.ptr();
    *out = borrow(value);
    return made;
  }
  if (value == Py_False || value == Py_None) {
    if (parameter.optional) return py::none();
  } else if (exchange_of(value) || is_exporter(value)) {
    auto given = py::reinterpret_borrow<py::object>(value);
    if (!exchange_of(value)) value = take_over(parameter, value, true, call);
    check_tensor(parameter, value, call, out);
    if (parameter.same_dtype_as >= 0 && out->dtype != wanted)
      throw py::type_error(parameter.name + ": expected a tensor of " + name_of(wanted) + " like " +
                           parameters_[parameter.same_dtype_as].name + ", got " + name_of(out->dtype));
    return given;
  }
  throw py::type_error(parameter.name + ": expected " + (parameter.optional ? "True, False" : "True") + " or a tensor " +
                       shape_text(parameter) + " to write into, got " + text_of(value).substr(0, 80));
}

void Signature::make_outputs(Call& call) const {
  for (std::size_t i = inputs_; i < parameters_.size(); ++i)
    call.outputs[i - inputs_] = make_output(parameters_[i], call.given[i], call, &call.values[i].tensor);
}

py::tuple Signature::bind(const py::tuple& args, const py::dict& kwargs) const {
  Call call;
  place(args, kwargs, call);
  bind_inputs(call);
  make_outputs(call);
  py::tuple bound(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    py::object value = py::none();
    if (i >= inputs_)
      value = call.values[i].tensor.present ? py::reinterpret_borrow<py::object>(call.given[i]) : py::none();
    else if (call.values[i].tensor.present)
      value = py::reinterpret_borrow<py::object>(call.given[i]);
    else if (parameter.integer || !parameter.choices.empty())
      value = py::int_(call.values[i].integer);
    else if (parameter.takes_number)
      value = py::float_(call.values[i].number);
    if (i < inputs_ && parameter.optional && !call.values[i].tensor.present) value = py::none();
    PyTuple_SET_ITEM(bound.ptr(), Py_ssize_t(i), value.release().ptr());
  }
  return bound;
}

py::object Signature::call(const py::tuple& kernels, const py::tuple& args, const py::dict& kwargs) const {
  Call call;
  place(args, kwargs, call);
  bind_inputs(call);
  const bool host = call.device.type == dlpack::kCpu;
  const auto* kernel = kernels[host ? 0 : 1].cast<const Kernel*>();
  if (!kernel || !kernel->runs_on(call.device)) return py::none();
  if (kernel->arguments() != parameters_.size())
    throw py::type_error(op_ + ": the kernel does not take what the contract says");
  make_outputs(call);
  kernel->run(call.api, call.values.value);
  const std::size_t count = parameters_.size() - inputs_;
  if (count == 1) return std::move(call.outputs[0]);
  auto* type = reinterpret_cast<PyTypeObject*>(result_.ptr());
  auto result = py::reinterpret_steal<py::object>(type->tp_alloc(type, Py_ssize_t(count)));
  if (!result) throw py::error_already_set();
  for (std::size_t i = 0; i < count; ++i) PyTuple_SET_ITEM(result.ptr(), Py_ssize_t(i), call.outputs[i].release().ptr());
  return result;
}

}  // namespace warpdraw
