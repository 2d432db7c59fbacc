// sample: one pass for the tile maxima, the filters' boundary among a few candidates, then the race.
#include "core/outputs.h"
#include "cpu/race.h"
#include "cpu/rows.h"
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {

void sample(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
            PerRow<float> min_p, PerRow<std::int64_t> seed, PerRow<std::int64_t> position, Order order, Tensor tokens,
            Tensor valid, Tensor logprob, Tensor raw_logprob) {
  const SampleOutputs out(tokens, valid, logprob, raw_logprob);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    for_rows(logits.shape[0], logits.shape[1], [&](std::int64_t b) {
      const Filter filter = make_filter(temperature[b], top_k[b], top_p[b], min_p[b], order);
      if (!filter.valid) return out.reject(b);
      with_row(logits.row(b), logits.shape[1], [&](const auto& row) {
        if (!(row.x_max >= -kLargest)) return out.reject(b);
        thread_local Candidates candidates;
        thread_local RaceWorkspace space;
        const Boundary boundary = select(row, filter, candidates);
        const Noise noise{std::uint64_t(seed[b]), std::uint64_t(position[b])};
        const std::uint32_t token = filter.greedy() ? boundary.id : race(row, filter.scale, boundary, noise, space);
        out.accept(b, token);
        const float x = to_float(row.logits[token]);
        if (out.logprob)
          out.logprob(b) = log_probability(exponent(x, row.x_max, filter.scale), mass_kept(row, filter.scale, boundary));
        if (out.raw_logprob)
          out.raw_logprob(b) = log_probability(exponent(x, row.x_max, kLog2E), mass_kept(row, kLog2E, keep_all()));
      });
    });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
