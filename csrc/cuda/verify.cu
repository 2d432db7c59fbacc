// verify: to come.
#include "cuda/rows.cuh"

namespace warpdraw::WARPDRAW_SIMT {

void verify(Queue, const Drafts&, const Parameters&, const DraftedFrom&, const Verdicts&) {
  throw std::invalid_argument("verify: not written yet");
}

}  // namespace warpdraw::WARPDRAW_SIMT
