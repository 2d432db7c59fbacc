// softmax and log_softmax: the mass of the row, then one pass that writes it.
#include "cuda/rows.cuh"
#include "cuda/sums.cuh"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

template <bool kLog> struct SoftmaxWork {
  static constexpr bool kAll = false;
  PerRow<float> temperature;
  View<float, 2> out;

  WD_DEVICE Edits edits(std::int64_t, std::int64_t vocab) const {
    Edits none{};
    none.valid = true, none.vocab = vocab;
    return none;
  }
  WD_DEVICE Filter filter(std::int64_t b) const { return make_filter(temperature[b], 0, 1.0f, 0.0f, Order::vllm); }
  WD_DEVICE void reject(const Team& team, std::int64_t b) const { fill_row(team, out.row(b), out.shape[1], float_of(kNaN)); }

  template <typename R> WD_DEVICE void run(R& row, std::int64_t b, Filter& filter) const {
    Interval keeps{keep_none(), keep_all()};
    if (filter.greedy()) keeps.last = {row.x_max, ids_of(row, row.x_max, keeps).first};
    const float highest = row.x_max, scale = filter.scale;
    const std::uint64_t total = mass_kept(row, highest, scale, keeps);
    const float unit = probability_unit(total), offset = 0.0f - float(log_mass(total));
    row.write(out.row(b), [&](float x, std::int64_t id) {
      const float t = exponent(x, highest, scale);
      const bool kept = keeps.keeps(x, std::uint32_t(id));
      if constexpr (kLog) return kept ? fmaf(t, kLn2, offset) : -HUGE_VALF;
      return kept ? weight(t) * unit : 0.0f;
    });
  }
};

template <bool kLog> void run(const Queue& queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  with_float(logits.dtype, [&]<typename T>() {
    run_rows<T>(queue, logits, nullptr, SoftmaxWork<kLog>{temperature, View<float, 2>(out)}, true);
  });
}

}  // namespace

void softmax(Queue queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  run<false>(queue, logits, temperature, out);
}

void log_softmax(Queue queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  run<true>(queue, logits, temperature, out);
}

}  // namespace warpdraw::WARPDRAW_SIMT
