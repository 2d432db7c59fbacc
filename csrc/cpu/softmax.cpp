// softmax and log_softmax: a pass for the maximum, one for the mass, one that writes.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls write(out row, row, scale, keeps) for each row with a candidate. Temperature 0 keeps the first token only.
template <typename Write>
void over_rows(const Tensor& logits_, const PerRow<float>& temperature, const Tensor& out_, Write write) {
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
          return;
        }
        const Boundary keeps = filter.greedy() ? first_token(row) : keep_all();
        const std::uint64_t total = filter.greedy() ? mass(1.0f) : mass_of_all(row, row.x_max, filter.scale);
        write(out.row(b), row, filter.scale, keeps, total);
      });
    });
  });
}

}  // namespace

void softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, [](float* to, const auto& row, float scale, Boundary keeps, std::uint64_t total) {
    const float unit = probability_unit(total);
    const bool all = keeps.x <= -kLargest;
    row.write(to, [&](const Tile& x, std::int64_t tile) {
      Tile w;
      if (all)  // weights of other than candidates are zero
        for (int i = 0; i < kVectors; ++i) w.x[i] = weights((x.x[i] - row.x_max) * scale);
      else
        w = kept_weights(x, tile, row.x_max, scale, keeps);
      for (Floats& v : w.x) v *= unit;
      return w;
    });
  });
}

void log_softmax(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out) {
  over_rows(logits, temperature, out, [](float* to, const auto& row, float scale, Boundary keeps, std::uint64_t total) {
    const Floats offset = floats(0.0f - float(log_mass(total)));
    row.write(to, [&](const Tile& x, std::int64_t tile) {
      Tile y;
      for (int i = 0; i < kVectors; ++i) {
        const Mask mask = kept(x.x[i], std::uint32_t(tile * kTile + i * kLanes), keeps);
        y.x[i] = choose(mask, fma((x.x[i] - row.x_max) * scale, floats(kLn2), offset), floats(-HUGE_VALF));
      }
      return y;
    });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
