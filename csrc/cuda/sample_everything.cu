// sample with every feature: restrictions, bias, penalties, the filters of the long tail, all reports.
#define WARPDRAW_CALLS
#include "cuda/sample.cuh"

namespace warpdraw::WARPDRAW_SIMT {

void sample_with_everything(const Queue& queue, const Inputs& in, const Reports& reports, bool reads_again) {
  const SampleWork<true> work{in, SampleOutputs(reports), reports.order};
  with_float(in.logits.dtype, [&]<typename T>() { run_rows<T>(queue, in.logits, &in, work, reads_again); });
}

}  // namespace warpdraw::WARPDRAW_SIMT
