// filter_logits and filter_probs by definition.
#include "scalar/row.h"

namespace warpdraw::scalar {

void filter_logits(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                   PerRow<float> min_p, Order order, Tensor out_) {
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const View<T, 2> out(out_);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Row row(logits.row(b), logits.shape[1]);
      const std::size_t kept = row.kept(make_filter(temperature[b], top_k[b], top_p[b], min_p[b], order));
      std::vector<bool> keep(row.x.size());
      for (std::size_t i = 0; i < kept; ++i) keep[key_id(row.ranked[i])] = true;
      for (std::size_t i = 0; i < keep.size(); ++i) out.row(b)[i] = keep[i] ? logits.row(b)[i] : minus_infinity<T>();
    }
  });
}

void filter_probs(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                  PerRow<float> min_p, Order order, Tensor out_) {
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const View<float, 2> out(out_);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Row row(logits.row(b), logits.shape[1]);
      const Filter filter = make_filter(temperature[b], top_k[b], top_p[b], min_p[b], order);
      const std::size_t kept = row.kept(filter);
      const std::uint64_t total = row.mass_of(kept, filter.scale);
      std::fill_n(out.row(b), logits.shape[1], kept ? 0.0f : NAN);
      for (std::size_t i = 0; i < kept; ++i)
        out.row(b)[key_id(row.ranked[i])] = probability(exponent(key_logit(row.ranked[i]), row.x_max, filter.scale), total);
    }
  });
}

}  // namespace warpdraw::scalar
