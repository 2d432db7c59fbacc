// verify by rejection or in blocks, of rows that nothing edits.
#define WARPDRAW_CALLS
#include "cuda/verify.cuh"

namespace warpdraw::WARPDRAW_SIMT {

void verify_rejecting(const Queue& queue, const Tensor& target, const Parameters& in, const VerifyJob& job) {
  run_nodes<false, true>(queue, target, in, job, true);
}

}  // namespace warpdraw::WARPDRAW_SIMT
