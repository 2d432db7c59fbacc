// The oracle: one row, ranked by a full sort and filtered by the definitions, one token at a time. Clarity is its only aim.
#pragma once
#include <algorithm>
#include <vector>

#include "core/element.h"
#include "core/filter.h"

namespace warpdraw::scalar {

// What a filter keeps: places in the ranking, from `begin` up to `end`.
struct Places {
  std::size_t begin, end;
};

template <typename T> std::vector<float> to_floats(const T* logits, std::int64_t vocab) {
  std::vector<float> x(static_cast<std::size_t>(vocab));
  std::transform(logits, logits + vocab, x.begin(), [](T value) { return to_float(value); });
  return x;
}

struct Row {
  std::vector<float> x;
  std::vector<std::uint64_t> ranked;  // the candidates, first of the total order first

  explicit Row(std::vector<float> logits) : x(std::move(logits)) {
    if (std::any_of(x.begin(), x.end(), [](float value) { return value > kLargest; }))
      std::transform(x.begin(), x.end(), x.begin(), indicator_of_infinity);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i] >= -kLargest) ranked.push_back(rank_key(x[i], std::uint32_t(i)));
    std::sort(ranked.rbegin(), ranked.rend());
  }

  Places all() const { return {0, ranked.size()}; }
  float logit(std::size_t place) const { return key_logit(ranked[place]); }
  // Relative to the first of what is seen.
  float exponent_of(Places seen, std::size_t place, float scale) const {
    return exponent(logit(place), logit(seen.begin), scale);
  }
  float weight_of(Places seen, std::size_t place, float scale) const { return weight(exponent_of(seen, place, scale)); }

  Sums sums(Places seen, float scale) const {
    Sums total{0, 0, std::int64_t(seen.end - seen.begin)};
    for (std::size_t i = seen.begin; i < seen.end; ++i) {
      total.mass += mass(weight_of(seen, i, scale));
      total.moment += moment(exponent_of(seen, i, scale));
    }
    return total;
  }

  // The filters. Each is given what it sees and returns what it keeps.
  Places top_n_sigma(const Filter& filter, Places seen) const {
    if (filter.top_n_sigma <= 0.0f) return seen;
    const float highest = logit(seen.begin);
    const Deviations deviations(highest, logit(seen.end - 1));
    std::uint64_t sum = 0, squares = 0;
    for (std::size_t i = seen.begin; i < seen.end; ++i) {
      const auto steps = std::uint64_t(deviations.steps(logit(i)));
      sum += steps, squares += steps * steps;
    }
    const double least = deviations.threshold(filter.top_n_sigma, sum, squares, std::int64_t(seen.end - seen.begin));
    return while_true(seen, [&](std::size_t i) { return double(logit(i)) >= least; });
  }
  Places top_k(const Filter& filter, Places seen) const {
    return {seen.begin, filter.k == 0 ? seen.end : std::min(seen.end, seen.begin + std::size_t(filter.k))};
  }
  Places min_p(const Filter& filter, Places seen) const {
    return while_true(seen, [&](std::size_t i) { return weight_of(seen, i, filter.filter_scale()) >= filter.min_p; });
  }
  Places top_p(const Filter& filter, Places seen) const {
    if (filter.p >= 1.0f) return seen;
    const std::uint64_t target = nucleus_mass(filter.p, sums(seen, filter.filter_scale()).mass);
    std::uint64_t sum = 0;
    for (std::size_t i = seen.begin; i < seen.end; ++i)
      if ((sum += mass(weight_of(seen, i, filter.filter_scale()))) >= target) return {seen.begin, i + 1};
    return seen;
  }
  Places typical_p(const Filter& filter, Places seen) const {
    if (filter.typical_p >= 1.0f) return seen;
    const float scale = filter.filter_scale();
    const Sums total = sums(seen, scale);
    const float mean = total.mean_exponent();
    const std::uint64_t target = nucleus_mass(filter.typical_p, total.mass);
    const auto distance = [&](std::size_t i) { return fabsf(exponent_of(seen, i, scale) - mean); };
    // What is kept grows from the entropy outwards, the more probable side first where both are equally far.
    std::size_t begin = seen.begin;
    while (begin < seen.end && exponent_of(seen, begin, scale) > mean) ++begin;
    std::size_t end = begin;
    for (std::uint64_t sum = 0; begin > seen.begin || end < seen.end;) {
      const bool upward = begin > seen.begin && (end == seen.end || distance(begin - 1) <= distance(end));
      sum += mass(weight_of(seen, upward ? --begin : end++, scale));
      if (sum >= target) break;
    }
    return {begin, end};
  }
  Places epsilon(const Filter& filter, Places seen) const {
    if (filter.epsilon <= 0.0f) return seen;
    return at_least(filter, seen, epsilon_mass(filter.epsilon, sums(seen, filter.filter_scale())));
  }
  Places eta(const Filter& filter, Places seen) const {
    if (filter.eta <= 0.0f) return seen;
    return at_least(filter, seen, eta_mass(filter.eta, sums(seen, filter.filter_scale())));
  }
  Places xtc(const Filter& filter, Places seen) const {
    if (filter.xtc_threshold > 1.0f) return seen;
    const Places likely = at_least(filter, seen, epsilon_mass(filter.xtc_threshold, sums(seen, filter.filter_scale())));
    return {likely.end - 1, seen.end};  // of one likely token, that one is the first
  }

  // Everything that the filters keep together. Sets the scale of the draw where it depends on the row.
  Places kept(Filter& filter) const {
    if (!filter.valid || ranked.empty()) return {0, 0};
    const bool dynamic = filter.dynatemp_range > 0.0f && !filter.greedy();
    if (dynamic && !filter.draws_last()) {
      set_dynamic_temperature(filter, sums(all(), kLog2E));
      if (filter.temperature == 0.0f) return {0, 1};
    }
    Places seen = top_n_sigma(filter, all());
    switch (filter.order) {
      case Order::vllm:
        seen = typical_p(filter, top_p(filter, top_k(filter, min_p(filter, seen))));
        break;
      case Order::hf:
        seen = typical_p(filter, min_p(filter, top_p(filter, top_k(filter, seen))));
        break;
      case Order::flashinfer_joint:
        seen.end = std::min({top_p(filter, seen).end, top_k(filter, seen).end, min_p(filter, seen).end});
        seen = typical_p(filter, seen);
        break;
      case Order::llama_cpp:
        seen = min_p(filter, top_p(filter, typical_p(filter, top_k(filter, seen))));
        break;
    }
    seen = xtc(filter, eta(filter, epsilon(filter, seen)));
    if (dynamic && filter.draws_last()) {
      set_dynamic_temperature(filter, sums(seen, kLog2E));
      if (filter.temperature == 0.0f) seen.end = seen.begin + 1;
    }
    return seen;
  }

 private:
  // The first of what is seen, and those after it while the condition holds.
  template <typename Condition> static Places while_true(Places seen, Condition condition) {
    std::size_t end = seen.begin + 1;
    while (end < seen.end && condition(end)) ++end;
    return {seen.begin, end};
  }
  Places at_least(const Filter& filter, Places seen, double least_mass) const {
    return while_true(seen, [&](std::size_t i) { return reaches(weight_of(seen, i, filter.filter_scale()), least_mass); });
  }
};

}  // namespace warpdraw::scalar
