// The shared arithmetic as this instruction set computes it, a vector at a time; the length is a multiple of 16.
#include "cpu/simd.h"
#include "ops.h"

namespace warpdraw::WARPDRAW_ISA {

void numerics(Queue, const Tensor& exponents_, const Tensor& bits_, const Tensor& weights_, const Tensor& exponentials_) {
  const View<const float, 1> exponents(exponents_);
  const View<const std::int32_t, 1> bits(bits_);
  const View<float, 1> weights_out(weights_), exponentials_out(exponentials_);
  if (exponents.shape[0] % 16) throw std::invalid_argument("expected a multiple of 16 values");
  for (std::int64_t i = 0; i < exponents.shape[0]; i += kLanes) {
    Words r;
    memcpy(&r, bits.row() + i, sizeof r);
    const Floats w = weights(load(exponents.row() + i)), e = exponentials(r);
    memcpy(weights_out.row() + i, &w, sizeof w);
    memcpy(exponentials_out.row() + i, &e, sizeof e);
  }
}

}  // namespace warpdraw::WARPDRAW_ISA
