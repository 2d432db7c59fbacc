// The oracle: one row, ranked by a full sort and filtered by the definitions, one token at a time. Clarity is its only aim.
#pragma once
#include <algorithm>
#include <vector>

#include "core/filter.h"

namespace warpdraw::scalar {

struct Row {
  std::vector<float> x;               // logits as fp32
  std::vector<std::uint64_t> ranked;  // the candidates, first of the total order first
  float x_max = 0.0f;

  template <typename T> Row(const T* logits, std::int64_t vocab) : x(vocab) {
    std::transform(logits, logits + vocab, x.begin(), [](T value) { return to_float(value); });
    if (std::any_of(x.begin(), x.end(), [](float value) { return value > kLargest; }))
      std::transform(x.begin(), x.end(), x.begin(), indicator_of_infinity);
    for (std::int64_t i = 0; i < vocab; ++i)
      if (x[i] >= -kLargest) ranked.push_back(rank_key(x[i], std::uint32_t(i)));
    std::sort(ranked.rbegin(), ranked.rend());
    if (!ranked.empty()) x_max = key_logit(ranked[0]);
  }

  float weight_of(std::uint64_t key, float scale) const { return weight(exponent(key_logit(key), x_max, scale)); }

  std::uint64_t mass_of(std::size_t count, float scale) const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += mass(weight_of(ranked[i], scale));
    return sum;
  }

  // How many candidates each filter keeps, given how many it sees.
  std::size_t top_k(const Filter& filter, std::size_t seen) const {
    return filter.k == 0 ? seen : std::min(seen, std::size_t(filter.k));
  }
  std::size_t min_p(const Filter& filter, std::size_t seen) const {
    std::size_t count = 0;
    while (count < seen && weight_of(ranked[count], filter.filter_scale) >= filter.min_p) ++count;
    return count;
  }
  std::size_t top_p(const Filter& filter, std::size_t seen) const {
    if (filter.p >= 1.0f) return seen;
    const std::uint64_t target = nucleus_mass(filter.p, mass_of(seen, filter.filter_scale));
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < seen; ++i)
      if ((sum += mass(weight_of(ranked[i], filter.filter_scale))) >= target) return i + 1;
    return seen;
  }

  std::size_t kept(const Filter& filter) const {
    const std::size_t all = ranked.size();
    if (!filter.valid) return 0;
    switch (filter.order) {
      case Order::vllm:
        return top_p(filter, top_k(filter, min_p(filter, all)));
      case Order::flashinfer_joint:
        return std::min({top_p(filter, all), top_k(filter, all), min_p(filter, all)});
      case Order::hf:
      case Order::llama_cpp:
        return min_p(filter, top_p(filter, top_k(filter, all)));
    }
    return 0;
  }
};

}  // namespace warpdraw::scalar
