// softmax and log_softmax: a pass for the maximum, one for the mass, one that writes.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls write(out row, row, scale) for each row with a candidate. Temperature 0 puts `certain` on its first token, `none`
// elsewhere.
template <typename Write> void over_rows(const Tensor& logits_, const PerRow<float>& temperature, const Tensor& out_,
                                         float certain, float none, Write write) {
  const View<float, 2> out(out_);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const std::int64_t rows = logits.shape[0], vocab = logits.shape[1];
    in_parallel(rows, rows * vocab * std::int64_t(sizeof(T)), [&](std::int64_t b) {
      thread_local RowSpace space;
      const Filter filter = make_filter(temperature[b], 0, 1.0f, 0.0f, Order::vllm);
      with_row(logits.row(b), vocab, space, [&](const auto& row) {
        if (!filter.valid || !(row.x_max >= -kLargest)) {
          std::fill_n(out.row(b), vocab, NAN);
        } else if (filter.greedy()) {
          const std::uint32_t first = first_token(row).id;
          std::fill_n(out.row(b), vocab, none);
          out.row(b)[first] = certain;
        } else {
          write(out.row(b), row, filter.scale);
        }
      });
    });
  });
}

}  // namespace

// The second pass leaves the masses in the output, the third turns them into probabilities: no exponential is computed twice.
void softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, 1.0f, 0.0f, [](float* to, const auto& row, float scale) {
    const auto keep_masses = [&](std::int64_t tile, const Tile& masses) { row.write_tile(to, tile, masses); };
    const std::uint64_t total = mass_of_all(row, row.x_max, scale, keep_masses);
    const float unit = probability_unit(total) / kMassScale;  // both are exact powers of two apart
    row.in_parts([&](std::int64_t begin, std::int64_t end) {
      const std::int64_t last = std::min(end * kTile, row.vocab);
      for (std::int64_t i = begin * kTile; i < last; ++i) to[i] *= unit;
    });
  });
}

void log_softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, 0.0f, -HUGE_VALF, [](float* to, const auto& row, float scale) {
    const Floats offset = floats(0.0f - float(log_mass(mass_of_all(row, row.x_max, scale))));
    row.write(to, [&](const Tile& x, std::int64_t) {
      Tile y;
      for (int i = 0; i < kVectors; ++i) {
        const Mask mask = at_least(x.x[i], floats(-kLargest));
        y.x[i] = choose(mask, fma((x.x[i] - row.x_max) * scale, floats(kLn2), offset), floats(-HUGE_VALF));
      }
      return y;
    });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
