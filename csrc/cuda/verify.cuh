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
    compare(row, at, filter, p);
  }

  template <typename R, typename D> WD_DEVICE void run(R& row, D& draft, const Place& at, Filter& filter, char* room) const {
    const Kept p = kept(row, filter);
    if (job.call.compares(at.b)) return compare(row, at, filter, p);
    const std::uint64_t total = mass_kept(row, p.highest, p.scale, p.keeps);
    if (!draft.logits.data) {  // a node without drafts
      const Drawn drawn = draw(row, p, filter, noise(at));
      if (thread() == 0 && drawn.is_mine && job.is_block(at.b)) job.outcome(at).may_end = job.may_end(at, 0);
      return report(row, at, drawn, DraftTree::kNone, no_draft(), p, total);
    }
    Kept q = nothing_kept();
    std::uint64_t total_q = 0;
    if (draft.x_max >= -kLargest) {
      Filter drafted = job.call.draft_filter(at.b);
      q = kept(draft, drafted);
      total_q = mass_kept(draft, q.highest, q.scale, q.keeps);
    }
    auto* tried = reinterpret_cast<Tried*>(room);
    Residual<R, D> residual{row, draft, p, q, probability_unit(total), tried, 0, job.call.siblings == Siblings::distinct};
    if (job.is_block(at.b)) return decide_in_block(row, at, residual, total, residual_scale(total_q));
    float scale = 1.0f;
    Swept swept{};
    std::int64_t next = job.call.tree.first(at.b, at.node);
    while (next != DraftTree::kNone && scale > 0.0f) {
      const std::uint32_t token = std::uint32_t(job.call.tree.token(at.b, next));
      const float unit_q = residual_scale(total_q);
      // Before the barriers of what follows, so that all see it then.
      if (row.team.rank == 0 && thread() == 0) tried[residual.count] = {scale, unit_q, std::int32_t(token)};
      const Odds odds = odds_of(residual, token);
      const std::uint32_t bits = job.call.accept_bits(at.b, at.depth, std::uint32_t(residual.count));
      if (accepts(bits, odds.weight_q * unit_q, odds.left * scale))
        return report(row, at, found(row, token), next, no_draft(), p, total);
      ++residual.count;
      swept = sweep(residual, noise(at));
      scale = residual_scale(swept.total);
      if (residual.distinct) total_q -= mass(odds.weight_q);
      next = job.call.tree.next(at.b, next);
    }
    report(row, at, draw_swept(residual, swept, noise(at)), DraftTree::kNone, no_draft(), p, total);
  }

 private:
  WD_DEVICE Noise noise(const Place& at) const { return job.call.noise(at.b, at.depth); }
  WD_DEVICE static Drawn no_draft() { return {0, 0.0f, false}; }

  template <typename R> WD_DEVICE static Kept kept(R& row, Filter& filter) {
    const Interval keeps = Filters(row, filter).chain().keeps;
    return {keeps, highest_kept(row, keeps), filter.scale};
  }
  template <typename R> WD_DEVICE static Drawn draw(R& row, const Kept& p, const Filter& filter, const Noise& noise) {
    if (filter.greedy()) return {p.keeps.last.id, p.keeps.last.x, row.has(int(p.keeps.last.id / kTile))};
    return Race(row, p.keeps, p.highest, p.scale, noise).run();
  }
  template <typename R> WD_DEVICE static Drawn found(const R& row, std::uint32_t token) {
    const bool is_mine = row.has(int(token / kTile));
    return {token, is_mine ? row.at(token) : 0.0f, is_mine};
  }
  // Of what is left; of the target where rounding leaves nothing.
  template <typename R, typename D>
  WD_DEVICE static Drawn draw_swept(Residual<R, D>& residual, Swept swept, const Noise& noise) {
    if (!swept.total) {
      residual.count = 0, residual.unit = 1.0f;
      swept = sweep(residual, noise);
    }
    return draw_left(residual, swept.tile, noise);
  }

  template <typename R> WD_DEVICE void compare(R& row, const Place& at, const Filter& filter, const Kept& p) const {
    const Drawn drawn = draw(row, p, filter, noise(at));
    const DraftTree& tree = job.call.tree;
    std::int64_t next = DraftTree::kNone;
    if (drawn.is_mine && thread() == 0) {
      next = tree.first(at.b, at.node);
      while (next != DraftTree::kNone && tree.token(at.b, next) != std::int64_t(drawn.token)) next = tree.next(at.b, next);
    }
    report(row, at, drawn, next, no_draft(), p, 0);
  }

  template <typename R, typename D>
  WD_DEVICE void decide_in_block(R& row, const Place& at, Residual<R, D>& residual, std::uint64_t total, float unit_q) const {
    const std::uint32_t token = std::uint32_t(job.call.tree.token(at.b, at.node + 1));
    Outcome& outcome = job.outcome(at);
    const bool writes = row.team.rank == 0 && thread() == 0;
    if (job.round == Round::first) {
      const Odds odds = odds_of(residual, token);
      if (writes) outcome.p = odds.left, outcome.q = odds.weight_q * unit_q;
      return;
    }
    residual.unit = residual.unit * float(job.prefix(at));
    if (writes) const_cast<Tried*>(residual.tried)[0] = {1.0f, unit_q, std::int32_t(token)};
    row.team.wait();
    residual.count = 1;
    const Swept swept = sweep(residual, noise(at));
    if (writes) outcome.may_end = job.may_end(at, swept.total);
    report(row, at, draw_swept(residual, swept, noise(at)), DraftTree::kNone, found(row, token), residual.p, total);
  }

  // Writes what was drawn and, of block verification, what is said of the draft; `total` is the mass of the row, 0 if unknown.
  template <typename R> WD_DEVICE void report(R& row, const Place& at, const Drawn& drawn, std::int64_t next,
                                              const Drawn& draft, const Kept& p, std::uint64_t total) const {
    Outcome& outcome = job.outcome(at);
    if (drawn.is_mine && thread() == 0) outcome.token = std::int32_t(drawn.token), outcome.draft = std::int32_t(next);
    if (job.wants_logprob) {
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
