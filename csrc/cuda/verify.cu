// verify: which kernels a call needs, the histories of its nodes before them, and the walk over the outcomes after them.
#include "cuda/uses.h"
#include "cuda/verify.cuh"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

// Writes the history of every node: that of the request and the drafts that lead to the node.
WD_KERNEL history_kernel(WD_GRID_CONSTANT const VerifyJob job) {
  const NodePlace at = job.place(block_x());
  if (!at.exists) return;
  const Edits edits = edits_of(job.call.parameters, at.b, job.call.vocab);
  if (!edits.valid) return;
  std::int32_t* history = job.histories.row(at.index);
  over_list(edits.history.size, [&](std::int64_t i) { history[i] = edits.history[i]; });
  if (thread() != 0) return;
  std::int64_t node = at.node;
  for (std::int64_t i = edits.history.size + at.depth; node > 0; node = job.call.tree.parent(at.b, node))
    history[--i] = std::int32_t(job.call.tree.token(at.b, node));
}

struct WalkParams {
  VerifyJob job;
  VerifyOutputs out;
  bool is_near;  // whether the outcomes of a request fit in shared memory
};

class Walk {
 public:
  WD_DEVICE Walk(const WalkParams& p, const Outcome* outcomes, std::int64_t b)
      : call_(p.job.call), out_(p.out), outcomes_(outcomes), b_(b) {}

  // From the root over the drafts that were accepted.
  WD_DEVICE void run() const {
    std::int64_t node = 0, depth = 0;
    for (;; ++depth) {
      const Outcome& at = outcomes_[node];
      if (at.token < 0) return out_.finish(b_, depth, call_.nodes(), depth, false, false);
      write(depth, at.token, node, at.logprob, at.raw_logprob);
      if (at.draft < 0) break;
      node = at.draft;
    }
    out_.finish(b_, depth + 1, call_.nodes(), depth, true, ends_drafts(node));
  }
  // The longest prefix that may stand.
  WD_DEVICE void run_block() const {
    std::int64_t end = 0;
    for (std::int64_t node = 1; node < call_.nodes(); ++node)
      if (outcomes_[node].may_end) end = node;
    for (std::int64_t i = 0; i < end; ++i)
      write(i, call_.tree.token(b_, i + 1), i, outcomes_[i].draft_logprob, outcomes_[i].draft_raw_logprob);
    const Outcome& at = outcomes_[end];
    if (at.token < 0) return out_.finish(b_, end, call_.nodes(), end, false, false);
    write(end, at.token, end, at.logprob, at.raw_logprob);
    out_.finish(b_, end + 1, call_.nodes(), end, true, ends_drafts(end));
  }

 private:
  WD_DEVICE bool ends_drafts(std::int64_t node) const { return call_.tree.first(b_, node) == DraftTree::kNone; }
  WD_DEVICE void write(std::int64_t place, std::int64_t token, std::int64_t node, float logprob, float raw_logprob) const {
    out_.set_token(b_, place, token, node);
    if (out_.logprob) out_.logprob.row(b_)[place] = logprob;
    if (out_.raw_logprob) out_.raw_logprob.row(b_)[place] = raw_logprob;
  }

  const VerifyCall& call_;
  const VerifyOutputs& out_;
  const Outcome* outcomes_;
  std::int64_t b_;
};

WD_KERNEL walk_kernel(WD_GRID_CONSTANT const WalkParams p) {
  wait_for_previous_kernel();
  const std::int64_t b = block_x(), nodes = p.job.call.nodes();
  const Outcome* outcomes = p.job.outcomes + b * nodes;
  if (p.is_near) {
    auto* near = reinterpret_cast<Outcome*>(shared_memory());
    over_list(nodes, [&](std::int64_t i) { near[i] = outcomes[i]; });
    sync();
    outcomes = near;
  }
  if (thread() != 0) return;
  const Walk walk(p, outcomes, b);
  if (p.job.is_block(b))
    walk.run_block();
  else
    walk.run();
}

bool may_be(const PerRow<std::int32_t>& method, Method which) { return method.tensor || method.value == std::int32_t(which); }

}  // namespace

void verify(Queue queue, const Drafts& drafts, const Parameters& parameters, const DraftedFrom& from,
            const Verdicts& verdicts) {
  const VerifyOutputs out(verdicts);
  VerifyJob job{.call = VerifyCall(drafts, parameters, from, verdicts.order),
                .drafts = DraftRows(drafts.draft_logits),
                .outcomes = nullptr,
                .histories = {},
                .wants_logprob = bool(out.logprob),
                .wants_raw_logprob = bool(out.raw_logprob)};
  const std::int64_t nodes = job.call.nodes(), places = job.call.requests * nodes;
  const auto room = [&](std::int64_t bytes) { return queue.room(queue.context, std::size_t(bytes)); };
  if (places) job.outcomes = static_cast<Outcome*>(room(places * std::int64_t(sizeof(Outcome))));
  Parameters longest = parameters;
  if (places && parameters.history) {
    const std::int64_t length = longest.history.shape[1] += job.call.tree.drafts;
    job.histories.data = static_cast<std::int32_t*>(room((places * length + 1) * std::int64_t(sizeof(std::int32_t))));
    job.histories.shape[0] = places, job.histories.shape[1] = length, job.histories.stride[0] = length;
    job.histories.stride[1] = 1;
    launch(history_kernel, {.blocks_x = places, .stream = queue.stream}, job);
  }

  const bool has_drafts = job.call.has_draft_logits;
  const bool may_block = job.may_be_block() && may_be(drafts.method, Method::block);
  const auto run = [&] {
    if (filters_the_tail(parameters) || edits_rows(parameters) || job.wants_raw_logprob)
      return verify_with_everything(queue, drafts.target_logits, longest, job);
    if (has_drafts && (may_block || may_be(drafts.method, Method::rejection)))
      return verify_rejecting(queue, drafts.target_logits, longest, job);
    const bool sums = is_on(parameters.top_p, 1.0f) || job.wants_logprob;
    run_nodes<false, false>(queue, drafts.target_logits, longest, job, sums && !is_on(parameters.top_k, 0));
  };
  run();
  if (places == 0) return;
  if (may_block) {
    job.round = Round::draws_of_blocks;
    run();
  }
  WalkParams walk{job, out, nodes * std::int64_t(sizeof(Outcome)) <= 32 << 10};
  launch(walk_kernel,
         {.blocks_x = job.call.requests,
          .shared = walk.is_near ? std::size_t(nodes) * sizeof(Outcome) : 0,
          .stream = queue.stream,
          .follows = true},
         walk);
}

}  // namespace warpdraw::WARPDRAW_SIMT
