// The shared arithmetic, one value at a time.
#include "core/filter.h"
#include "core/philox.h"
#include "ops.h"

namespace warpdraw::scalar {

void numerics(Queue, const Tensor& exponents_, const Tensor& bits_, const Tensor& weights_, const Tensor& exponentials_) {
  const View<const float, 1> exponents(exponents_);
  const View<const std::int32_t, 1> bits(bits_);
  const View<float, 1> weights(weights_), exponentials(exponentials_);
  for (std::int64_t i = 0; i < exponents.shape[0]; ++i) {
    weights(i) = weight(exponents(i));
    exponentials(i) = exponential(std::uint32_t(bits(i)));
  }
}

}  // namespace warpdraw::scalar
