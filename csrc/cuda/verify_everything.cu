// verify with every method and every feature.
#define WARPDRAW_CALLS
#include "cuda/verify.cuh"

namespace warpdraw::WARPDRAW_SIMT {

void verify_with_everything(const Queue& queue, const Tensor& target, const Parameters& in, const VerifyJob& job) {
  run_nodes<true, true>(queue, target, in, job, true);
}

}  // namespace warpdraw::WARPDRAW_SIMT
