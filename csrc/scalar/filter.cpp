// filter_logits and filter_probs by definition.
#include "scalar/edits.h"
#include "scalar/row.h"

namespace warpdraw::scalar {
namespace {

// Calls write(b, row, kept, scale) for each row; nothing is kept of an invalid one.
template <typename T, typename Write> void over_rows(const Inputs& in, Order order, Write write) {
  const View<const T, 2> logits(in.logits);
  for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
    const Edits edits = make_edits(in, b);
    Filter filter = make_filter(in, b, order, {std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])});
    filter.valid = filter.valid && edits.valid;
    std::vector<float> x = to_floats(logits.row(b), logits.shape[1]);
    if (filter.valid) edit_row(edits, x);
    const Row row(x);
    const Places kept = row.kept(filter);
    write(b, row, kept, filter.scale);
  }
}

}  // namespace

void filter_logits(Queue, const Inputs& in, const Order& order, const Tensor& out_) {
  with_float(in.logits.dtype, [&]<typename T>() {
    const View<const T, 2> logits(in.logits);
    const View<T, 2> out(out_);
    over_rows<T>(in, order, [&](std::int64_t b, const Row& row, Places kept, float) {
      std::vector<bool> keep(row.x.size());
      for (std::size_t i = kept.begin; i < kept.end; ++i) keep[key_id(row.ranked[i])] = true;
      for (std::size_t i = 0; i < keep.size(); ++i) out.row(b)[i] = keep[i] ? logits.row(b)[i] : minus_infinity<T>();
    });
  });
}

void filter_probs(Queue, const Inputs& in, const Order& order, const Tensor& out_) {
  const View<float, 2> out(out_);
  with_float(in.logits.dtype, [&]<typename T>() {
    over_rows<T>(in, order, [&](std::int64_t b, const Row& row, Places kept, float scale) {
      const bool none = kept.begin == kept.end;
      std::fill_n(out.row(b), row.x.size(), none ? NAN : 0.0f);
      if (none) return;
      const std::uint64_t total = row.sums(kept, scale).mass;
      for (std::size_t i = kept.begin; i < kept.end; ++i)
        out.row(b)[key_id(row.ranked[i])] = probability(row.exponent_of(kept, i, scale), total);
    });
  });
}

}  // namespace warpdraw::scalar
