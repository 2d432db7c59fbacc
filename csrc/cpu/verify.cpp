// verify: to come.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {

void verify(Queue queue, const Drafts& drafts, const Parameters& parameters, const DraftedFrom& from,
            const Verdicts& verdicts) {
  scalar::verify(queue, drafts, parameters, from, verdicts);
}

}  // namespace warpdraw::WARPDRAW_ISA
