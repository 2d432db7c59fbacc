// softmax and log_softmax by definition.
#include "scalar/row.h"

namespace warpdraw::scalar {
namespace {

template <typename Value>
void over_rows(const Tensor& logits_, const PerRow<float>& temperature, const Tensor& out_, Value value) {
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const View<float, 2> out(out_);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Row row(to_floats(logits.row(b), logits.shape[1]));
      Filter filter = make_filter(temperature[b], 0, 1.0f, 0.0f, Order::vllm);
      const Places kept = row.kept(filter);
      const bool none = kept.begin == kept.end;
      const std::uint64_t total = none ? 0 : row.sums(kept, filter.scale).mass;
      std::fill_n(out.row(b), logits.shape[1], none ? NAN : value(-HUGE_VALF, total));
      for (std::size_t i = kept.begin; i < kept.end; ++i)
        out.row(b)[key_id(row.ranked[i])] = value(row.exponent_of(kept, i, filter.scale), total);
    }
  });
}

}  // namespace

void softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, probability);
}

void log_softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, log_probability);
}

}  // namespace warpdraw::scalar
