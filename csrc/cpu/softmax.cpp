// softmax and log_softmax: a pass for the maximum, one for the mass, one that writes.
#include "cpu/rows.h"
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls write(out row, row, scale, boundary) for each row with a candidate. Temperature 0 keeps the first token only.
template <typename Write> void over_rows(Tensor logits_, PerRow<float> temperature, Tensor out_, Write write) {
  const View<float, 2> out(out_);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    for_rows(logits.shape[0], logits.shape[1], [&](std::int64_t b) {
      const Filter filter = make_filter(temperature[b], 0, 1.0f, 0.0f, Order::vllm);
      with_row(logits.row(b), logits.shape[1], [&](const auto& row) {
        if (!filter.valid || !(row.x_max >= -kLargest)) {
          std::fill_n(out.row(b), row.vocab, NAN);
          return;
        }
        write(out.row(b), row, filter.scale, filter.greedy() ? first_token(row) : keep_all());
      });
    });
  });
}

}  // namespace

void softmax(Queue, Tensor logits, PerRow<float> temperature, Tensor out) {
  over_rows(logits, temperature, out, [](float* to, const auto& row, float scale, Boundary boundary) {
    const float unit = probability_unit(mass_kept(row, scale, boundary));
    write_row(to, row, [&](const Tile& x, std::int64_t tile) {
      Tile w = kept_weights(x, tile, row.x_max, scale, boundary);
      for (Floats& v : w.x) v *= unit;
      return w;
    });
  });
}

void log_softmax(Queue, Tensor logits, PerRow<float> temperature, Tensor out) {
  over_rows(logits, temperature, out, [](float* to, const auto& row, float scale, Boundary boundary) {
    const Floats offset = floats(0.0f - float(log_mass(mass_kept(row, scale, boundary))));
    write_row(to, row, [&](const Tile& x, std::int64_t tile) {
      Tile y;
      for (int i = 0; i < kVectors; ++i) {
        const Mask mask = kept(x.x[i], std::uint32_t(tile * kTile + i * kLanes), boundary);
        y.x[i] = choose(mask, fma((x.x[i] - row.x_max) * scale, floats(kLn2), offset), floats(-HUGE_VALF));
      }
      return y;
    });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
