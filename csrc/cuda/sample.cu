// sample: the lean kernels for what most calls use, and which calls these are.
#include "cuda/sample.cuh"
#include "cuda/uses.h"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

bool reports_more(const SampleOutputs& out) { return out.needs_raw() || out.top_count() || out.kept_count || out.kept_ids; }

// Whether some row may need a sum over all of its tokens. With top_k it needs one over few.
bool sums_rows(const Inputs& in, const SampleOutputs& out) {
  const bool sums = is_on(in.top_p, 1.0f) || out.logprob || (out.top_of == TopOf::filtered && out.top_count());
  return (sums && !is_on(in.top_k, 0)) || out.needs_raw_mass() || filters_the_tail(in);
}

}  // namespace

void sample(Queue queue, const Inputs& in, const Reports& reports) {
  const SampleOutputs out(reports);
  const bool reads_again = sums_rows(in, out);
  if (filters_the_tail(in) || edits_rows(in) || reports_more(out)) {
#ifdef WARPDRAW_LEAN
    throw std::invalid_argument(
        "sample: this shape of the kernels is there for tuning and takes temperature, top_k, top_p, min_p "
        "and logprob alone");
#else
    return sample_with_everything(queue, in, reports, reads_again);
#endif
  }
  const SampleWork<false> work{in, out, reports.order};
  with_float(in.logits.dtype, [&]<typename T>() { run_rows<T>(queue, in.logits, &in, work, reads_again); });
}

}  // namespace warpdraw::WARPDRAW_SIMT
