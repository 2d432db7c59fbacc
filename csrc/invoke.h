// Calls a kernel with a list of arguments whose types are known at run time only: one list, from Python or a test, serves every
// op.
#pragma once
#include <cstddef>
#include <tuple>
#include <type_traits>

#include "ops.h"

namespace warpdraw {

// A tensor, or a number in both forms.
struct Argument {
  Tensor tensor;
  std::int64_t integer = 0;
  double number = 0;
};

using Entry = void (*)(Queue, const Argument*);

namespace invoke_detail {

// Stands for whatever a kernel wants at one place of the list.
struct Reader {
  const Argument* argument;

  operator Tensor() const { return argument->tensor; }
  operator Order() const { return Order(argument->integer); }
  operator Siblings() const { return Siblings(argument->integer); }
  operator TopOf() const { return TopOf(argument->integer); }
  operator std::int64_t() const { return argument->integer; }
  template <typename T, int N> operator View<T, N>() const { return View<T, N>(argument->tensor); }
  template <typename T> operator Rows<T>() const { return Rows<T>(argument->tensor); }
  template <typename T> operator PerRow<T>() const {
    PerRow<T> value;
    if (argument->tensor.present)
      value.tensor = View<const T, 1>(argument->tensor);
    else
      value.value = std::is_integral_v<T> ? T(argument->integer) : T(argument->number);
    return value;
  }
};

template <std::size_t> using ReaderAt = Reader;

// How many places of the list a kernel's parameter takes: one, or one for each member of a struct.
template <typename T, typename... Readers> constexpr std::size_t places() {
  if constexpr (std::is_convertible_v<Reader, T>)
    return 1;
  else if constexpr (requires { T{Readers{}..., Reader{}}; })
    return places<T, Readers..., Reader>();
  else
    return sizeof...(Readers);
}

template <typename T> T take(const Argument*& next) {
  if constexpr (std::is_convertible_v<Reader, T>) {
    return Reader{next++};
  } else {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      const Argument* first = next;
      next += sizeof...(I);
      return T{Reader{first + I}...};
    }(std::make_index_sequence<places<T>()>{});
  }
}

}  // namespace invoke_detail

template <typename... A> constexpr std::size_t argument_count(void (*)(Queue, A...)) {
  return (invoke_detail::places<std::remove_cvref_t<A>>() + ... + 0);
}

template <typename... A> void invoke(void (*kernel)(Queue, A...), Queue queue, const Argument* arguments) {
  // Braces, because they are evaluated from left to right.
  std::tuple<std::remove_cvref_t<A>...> values{invoke_detail::take<std::remove_cvref_t<A>>(arguments)...};
  std::apply([&](const auto&... value) { kernel(queue, value...); }, values);
}

}  // namespace warpdraw
