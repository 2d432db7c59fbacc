// softmax and log_softmax by definition.
#include "scalar/row.h"

namespace warpdraw::scalar {
namespace {

template <typename Value> void over_rows(Tensor logits_, PerRow<float> temperature, Tensor out_, Value value) {
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const View<float, 2> out(out_);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Row row(logits.row(b), logits.shape[1]);
      const Filter filter = make_filter(temperature[b], 0, 1.0f, 0.0f, Order::vllm);
      const std::size_t kept = row.kept(filter);
      const std::uint64_t total = row.mass_of(kept, filter.scale);
      std::fill_n(out.row(b), logits.shape[1], kept ? value(-HUGE_VALF, total) : NAN);
      for (std::size_t i = 0; i < kept; ++i)
        out.row(b)[key_id(row.ranked[i])] = value(exponent(key_logit(row.ranked[i]), row.x_max, filter.scale), total);
    }
  });
}

}  // namespace

void softmax(Queue, Tensor logits, PerRow<float> temperature, Tensor out) { over_rows(logits, temperature, out, probability); }

void log_softmax(Queue, Tensor logits, PerRow<float> temperature, Tensor out) {
  over_rows(logits, temperature, out, log_probability);
}

}  // namespace warpdraw::scalar
