// The shared arithmetic, one value a thread, for known-answer tests.
#include "core/numerics.h"
#include "cuda/launch.h"
#include "ops.h"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

struct NumericsParams {
  View<const float, 1> exponents;
  View<const std::int32_t, 1> bits;
  View<float, 1> weights, exponentials;
};

WD_KERNEL numerics_kernel(WD_GRID_CONSTANT const NumericsParams p) {
  const std::int64_t i = simt::block_x() * simt::kThreads + simt::thread();
  if (i >= p.exponents.shape[0]) return;
  p.weights(i) = weight(p.exponents(i));
  p.exponentials(i) = exponential(std::uint32_t(p.bits(i)));
}

}  // namespace

void numerics(Queue queue, const Tensor& exponents, const Tensor& bits, const Tensor& weights, const Tensor& exponentials) {
  const NumericsParams p{View<const float, 1>(exponents), View<const std::int32_t, 1>(bits), View<float, 1>(weights),
                         View<float, 1>(exponentials)};
  const std::int64_t blocks = (p.exponents.shape[0] + simt::kThreads - 1) / simt::kThreads;
  if (blocks) simt::launch(numerics_kernel, {.blocks_x = blocks, .stream = queue.stream}, p);
}

}  // namespace warpdraw::WARPDRAW_SIMT
