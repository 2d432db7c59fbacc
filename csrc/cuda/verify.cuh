// What verify does with the row of a node: the filters, then a draw or the drafts' tests. Whether the request comes to the node
// is found out afterwards, so that all rows are worked on at once.
#pragma once
#include "cuda/filters.cuh"
#include "cuda/report.cuh"
#include "cuda/residual.cuh"
#include "cuda/rows.cuh"
#include "cuda/verify_job.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Without kEverything: rows as they are in memory, top_k, top_p, min_p, temperature and the log-probability. Without kRejects:
// methods that compare drafts with the token that is drawn.
template <bool kEverything, bool kRejects> struct VerifyWork {
  using Place = NodePlace;
  static constexpr bool kAll = kEverything, kDrafts = kRejects;

  VerifyJob job;

  std::int64_t places() const { return job.call.requests * job.call.nodes(); }
  std::int64_t room() const { return job.call.tree.drafts * std::int64_t(sizeof(Tried)); }

  WD_DEVICE Place place(std::int64_t index) const {
    Place at = job.place(index);
    at.exists = at.exists && job.concerns(at);
    return at;
  }
  WD_DEVICE Edits edits(const Place& at, std::int64_t vocab) const {
    const Parameters& in = job.call.parameters;
    Edits edits = edits_of(in, at.b, vocab);
    if (in.bitmask) edits.bitmask.data = in.bitmask.of(at.b, at.first_row, at.node);
    if (in.history) edits.set_history({job.histories.row(at.index), edits.history.size + at.depth});
    return edits;
  }
  WD_DEVICE Filter filter(const Place& at) const { return job.call.target_filter(at.b, at.depth); }
  // By a whole block.
  WD_DEVICE bool is_valid(const Place& at) const {
    if (!job.call.request_is_valid(at.b)) return false;
    bool every = true;
    over_list(job.call.nodes(), [&](std::int64_t node) {
      every &= job.call.tree.node_is_valid(at.b, node, job.call.rows(at.b), job.call.vocab);
    });
    return sync_and(every);
  }
  WD_DEVICE AnyFloats draft(const Place& at) const {
    if (job.call.compares(at.b) || job.call.tree.first(at.b, at.node) == DraftTree::kNone) return {};
    return job.drafts.of(at.b, at.node);
  }
  // Nothing to draw from, no such node, or a request that is not valid: no node of it is.
  WD_DEVICE void reject(const Team& team, const Place& at) const {
    if (team.rank != 0 || thread() != 0) return;
    Outcome& outcome = job.outcome(at);
    const bool is_block = job.is_block(at.b);
    if (is_block && job.round == Round::first) outcome.p = outcome.q = 0.0f;
    if (is_block != (job.round == Round::draws_of_blocks)) return;
    outcome.token = outcome.draft = -1;
    outcome.may_end = is_block && job.may_end(at, 0);
  }

  template <typename R> WD_DEVICE void run(R& row, const Place& at, Filter& filter) const {
    const Kept p = kept(row, filter);
    report(row, at, draw(row, at, filter, p), p);
  }
  template <typename R, typename D> WD_DEVICE void run(R& row, D& draft, const Place& at, Filter& filter, char* room) const {
    const Kept p = kept(row, filter);
    if (!draft.logits.data) return report(row, at, draw(row, at, filter, p), p);
    Kept q = nothing_kept();
    std::uint64_t total_q = 0;
    if (draft.x_max >= -kLargest) {
      Filter drafted = job.call.draft_filter(at.b);
      q = kept(draft, drafted);
      total_q = mass_kept(draft, q.highest, q.scale, q.keeps);
    }
    Verdict verdict;
    verdict.total = mass_kept(row, p.highest, p.scale, p.keeps);
    if (try_drafts(row, draft, at, p, q, total_q, reinterpret_cast<Tried*>(room), verdict)) report(row, at, verdict, p);
  }

 private:
  WD_DEVICE Noise noise(const Place& at) const { return job.call.noise(at.b, at.depth); }
  // What is decided at a node.
  struct Verdict {
    Drawn drawn{0, 0.0f, false}, draft{0, 0.0f, false};  // draft: of a block, which may go on with it
    std::int64_t next = DraftTree::kNone;                // the draft that was accepted
    std::uint64_t total = 0;                             // mass of the row, once it is known
  };

  template <typename R> WD_DEVICE static Kept kept(R& row, Filter& filter) {
    const Interval keeps = Filters(row, filter).chain().keeps;
    return {keeps, highest_kept(row, keeps), filter.scale};
  }
  // A draw from the target, and the draft that it confirms.
  template <typename R> WD_DEVICE Verdict draw(R& row, const Place& at, const Filter& filter, const Kept& p) const {
    Verdict verdict;
    verdict.drawn = {p.keeps.last.id, p.keeps.last.x, row.has(int(p.keeps.last.id / kTile))};
    if (!filter.greedy()) verdict.drawn = Race(row, p.keeps, p.highest, p.scale, noise(at)).run();
    if (thread() != 0 || !verdict.drawn.is_mine) return verdict;
    if (kDrafts && job.is_block(at.b)) job.outcome(at).may_end = job.may_end(at, 0);
    const DraftTree& tree = job.call.tree;
    const std::int64_t token = verdict.drawn.token;
    verdict.next = tree.first(at.b, at.node);
    while (verdict.next != DraftTree::kNone && tree.token(at.b, verdict.next) != token)
      verdict.next = tree.next(at.b, verdict.next);
    return verdict;
  }
  template <typename R> WD_DEVICE static Drawn found(const R& row, std::uint32_t token) {
    const bool is_mine = row.has(int(token / kTile));
    return {token, is_mine ? row.at(token) : 0.0f, is_mine};
  }
  // Tries the drafts of a node in turn; draws from what they leave. A block is decided about in a second round, before which
  // there is nothing to report.
  template <typename R, typename D> WD_DEVICE bool try_drafts(R& row, D& draft, const Place& at, const Kept& p, const Kept& q,
                                                              std::uint64_t total_q, Tried* tried, Verdict& verdict) const {
    const bool writes = row.team.rank == 0 && thread() == 0, is_block = job.is_block(at.b);
    const DraftTree& tree = job.call.tree;
    Outcome& outcome = job.outcome(at);
    Residual<R, D> residual{
        row, draft, p, q, probability_unit(verdict.total), tried, 0, job.call.siblings == Siblings::distinct};
    if (is_block && job.round == Round::draws_of_blocks) residual.unit *= float(job.prefix(at));
    float scale = 1.0f;
    Swept swept{};
    std::int64_t next = tree.first(at.b, at.node);
    while (next != DraftTree::kNone && scale > 0.0f) {
      const std::uint32_t token = std::uint32_t(tree.token(at.b, next));
      const float unit_q = residual_scale(total_q);
      // Before the barriers of what follows, so that all see it then.
      if (writes) tried[residual.count] = {scale, unit_q, std::int32_t(token)};
      const Odds odds = odds_of(residual, token);
      if (is_block) {
        if (job.round == Round::first) {
          if (writes) outcome.p = odds.left, outcome.q = odds.weight_q * unit_q;
          return false;
        }
        verdict.draft = found(row, token);
      } else if (accepts(job.call.accept_bits(at.b, at.depth, std::uint32_t(residual.count)), odds.weight_q * unit_q,
                         odds.left * scale)) {
        verdict.drawn = found(row, token), verdict.next = next;
        return true;
      }
      ++residual.count;
      swept = sweep(residual, noise(at));
      scale = residual_scale(swept.total);
      if (residual.distinct) total_q -= mass(odds.weight_q);
      next = tree.next(at.b, next);
    }
    if (is_block && writes) outcome.may_end = job.may_end(at, swept.total);
    if (!swept.total) {  // rounding has left nothing: the target itself
      residual.count = 0, residual.unit = 1.0f;
      swept = sweep(residual, noise(at));
    }
    verdict.drawn = draw_left(residual, swept.tile, noise(at));
    return true;
  }

  template <typename R> WD_DEVICE void report(R& row, const Place& at, const Verdict& verdict, const Kept& p) const {
    Outcome& outcome = job.outcome(at);
    const Drawn &drawn = verdict.drawn, &draft = verdict.draft;
    if (drawn.is_mine && thread() == 0) outcome.token = std::int32_t(drawn.token), outcome.draft = std::int32_t(verdict.next);
    if (job.wants_logprob) {
      std::uint64_t total = verdict.total;
      if (!total) total = mass_kept(row, p.highest, p.scale, p.keeps);
      const auto logprob = [&](float x) { return log_probability(exponent(x, p.highest, p.scale), total); };
      if (drawn.is_mine && thread() == 0) outcome.logprob = logprob(drawn.x);
      if (draft.is_mine && thread() == 0) outcome.draft_logprob = logprob(draft.x);
    }
    if constexpr (kAll) {
      if (!job.wants_raw_logprob) return;
      undo_changes(row);
      mark_infinity(row);
      const std::uint64_t raw = mass_kept(row, row.x_max, kLog2E, {keep_none(), keep_all()});
      const auto logprob = [&](std::uint32_t id) { return log_probability(exponent(row.at(id), row.x_max, kLog2E), raw); };
      if (drawn.is_mine && thread() == 0) outcome.raw_logprob = logprob(drawn.token);
      if (draft.is_mine && thread() == 0) outcome.draft_raw_logprob = logprob(draft.token);
    }
  }
};

// Run the kernels for all nodes. `in` has the longest history that a node may have.
template <bool kEverything, bool kRejects>
void run_nodes(const Queue& queue, const Tensor& target, const Parameters& in, const VerifyJob& job, bool reads_again) {
  const VerifyWork<kEverything, kRejects> work{job};
  with_float(target.dtype, [&]<typename T>() { run_rows<T>(queue, target, &in, work, reads_again); });
}
void verify_rejecting(const Queue&, const Tensor& target, const Parameters& in, const VerifyJob&);
void verify_with_everything(const Queue&, const Tensor& target, const Parameters& in, const VerifyJob&);

}  // namespace warpdraw::WARPDRAW_SIMT
