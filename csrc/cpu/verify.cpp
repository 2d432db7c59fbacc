// verify: node by node from the root of each request's drafts; a row that is not reached is not read.
#include "core/verify.h"

#include "cpu/residual.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

struct Space {
  RowSpace target, drafted, raw;
  Candidates candidates;
  RaceSpace race;
  std::vector<Refused> refused;
  std::vector<std::int32_t> history;  // with the drafts that were accepted
};

struct Outcome {
  std::int64_t token;
  std::int64_t next = DraftTree::kNone;  // the draft that was accepted
};

class Request {
 public:
  Request(const VerifyCall& call, const VerifyOutputs& out, const Drafts& drafts, std::int64_t b, Space& space)
      : call_(call), out_(out), drafts_(drafts), b_(b), space_(space), edits_(edits_of(call.parameters, b, call.vocab)) {}

  void run() {
    if (!is_valid()) return out_.finish(b_, 0, call_.nodes(), 0, false, false);
    if (call_.parameters.history) start_history();
    if (call_.method_of(b_) == Method::block) return run_block();
    std::int64_t node = 0, depth = 0;
    while (true) {
      Distribution target = target_row(node, depth);
      if (target.empty()) return out_.finish(b_, depth, call_.nodes(), depth, false, false);
      const Outcome outcome = call_.compares(b_) ? compare(target, node, depth) : reject(target, node, depth);
      report(depth, outcome.token, node, target);
      if (outcome.next == DraftTree::kNone)
        return out_.finish(b_, depth + 1, call_.nodes(), depth, true, call_.tree.first(b_, node) == DraftTree::kNone);
      follow(outcome.token, depth);
      node = outcome.next, ++depth;
    }
  }

 private:
  bool is_valid() const {
    bool valid = call_.request_is_valid(b_) && edits_.valid && call_.target_filter(b_, 0).valid;
    for (std::int64_t node = 0; valid && node < call_.nodes(); ++node)
      valid = call_.tree.node_is_valid(b_, node, call_.rows(b_), call_.vocab);
    return valid && lists_are_valid(edits_, call_.vocab);
  }

  // The draft that is the token which the target draws.
  Outcome compare(const Distribution& target, std::int64_t node, std::int64_t depth) {
    const std::int64_t token = draw(target, depth);
    std::int64_t draft = call_.tree.first(b_, node);
    while (draft != DraftTree::kNone && call_.tree.token(b_, draft) != token) draft = call_.tree.next(b_, draft);
    return {token, draft};
  }

  // The first draft that passes its test; if none does, a draw from what they leave of the target.
  Outcome reject(Distribution& target, std::int64_t node, std::int64_t depth) {
    std::int64_t draft = call_.tree.first(b_, node);
    if (draft == DraftTree::kNone) return {draw(target, depth)};
    const std::uint64_t target_total = target.total(next_row(drafts_.draft_logits, 0, node));
    Distribution drafted = draft_row(node);
    Residual residual(target, probability_unit(target_total), drafted, call_.siblings, space_.refused);
    if (surely_accepts(drafted, draft, residual, depth)) return {call_.tree.token(b_, draft), draft};
    std::uint64_t total = drafted.total(next_row(drafts_.target_logits, call_.first_row(b_), draft));
    float scale = 1.0f;
    for (std::uint32_t tried = 0; draft != DraftTree::kNone && scale > 0.0f; ++tried) {
      const std::int64_t token = call_.tree.token(b_, draft);
      const float weight_q = residual.drafted_weight(token), unit_q = residual_scale(total);
      if (accepts(call_.accept_bits(b_, depth, tried), weight_q * unit_q, residual.left(token) * scale)) return {token, draft};
      residual.refuse({scale, unit_q}, token);
      if (call_.siblings == Siblings::distinct) total -= mass(weight_q);
      draft = call_.tree.next(b_, draft);
      if (draft != DraftTree::kNone) scale = residual_scale(residual.mass());  // else it decides nothing
    }
    return {residual.draw(call_.noise(b_, depth), space_.race)};
  }

  // Whether a node's first draft passes its test whatever the draft distribution's total is, which takes a pass to know.
  bool surely_accepts(Distribution& drafted, std::int64_t draft, const Residual& residual, std::int64_t depth) const {
    const std::int64_t token = call_.tree.token(b_, draft);
    const float weight_q = drafted.weight_of(token), most = weight_q * residual_scale(drafted.least_total());
    const bool drawable = weight_q * probability_unit(std::uint64_t(call_.vocab) << 40) > 0.0f;
    return drawable && accepts(call_.accept_bits(b_, depth, 0), most, residual.left(token));
  }

  // Every node is visited before it is known how many drafts stand; each that may be the last draws its token at once.
  void run_block() {
    const std::int64_t all = call_.rows(b_) - 1;
    double prefix = 1.0;
    std::int64_t end = 0, count = 0;
    Outcome last{-1};
    float last_log_probability = __builtin_nanf("");
    for (; prefix > 0.0; ++count) {  // no longer one stands after a prefix that cannot
      Distribution target = target_row(count, count);
      const std::int64_t draft = count < all ? call_.tree.first(b_, count) : DraftTree::kNone;
      const std::uint32_t bits = count ? call_.accept_bits(b_, count - 1, 0) : 0;
      const auto ends_here = [&](std::int64_t token) {
        end = count, last = {token, draft};
        if (out_.logprob && token >= 0) last_log_probability = target.log_probability_of(token);
      };
      if (draft == DraftTree::kNone) {
        if (!count || fills_block(bits, prefix)) ends_here(target.empty() ? -1 : draw(target, count));
        break;
      }
      const float unit_p = residual_scale(target.total(next_row(drafts_.draft_logits, 0, count)));
      Distribution drafted = draft_row(count);
      const float unit_q = residual_scale(drafted.total(next_row(drafts_.target_logits, call_.first_row(b_), draft)));
      const std::int64_t token = call_.tree.token(b_, draft);
      Residual residual(target, unit_p * float(prefix), drafted, call_.siblings, space_.refused);
      residual.refuse({1.0f, unit_q}, token);
      if (!count || ends_block(bits, prefix, prefix >= 1.0 ? 0 : residual.mass()))
        ends_here(target.empty() ? -1 : residual.draw(call_.noise(b_, count), space_.race));
      prefix = longer_prefix(prefix, target.weight_of(token) * unit_p, drafted.weight_of(token) * unit_q);
      if (prefix > 0.0) report(count, token, count, target);
      follow(token, count);
    }
    const bool drawn = last.token >= 0;
    if (drawn) {
      out_.set_token(b_, end, last.token, end);
      if (out_.logprob) out_.logprob.row(b_)[end] = last_log_probability;
      if (out_.raw_logprob) out_.raw_logprob.row(b_)[end] = raw_log_probability(end, last.token);
    }
    out_.finish(b_, end + drawn, call_.nodes(), end, drawn, drawn && last.next == DraftTree::kNone);
  }

  std::int64_t draw(const Distribution& target, std::int64_t depth) {
    if (target.certain()) return target.keeps().last.id;
    return target.with([&](const auto& row) {
      return race(row, target.highest(), target.scale(), target.keeps(), call_.noise(b_, depth), space_.race);
    });
  }

  void start_history() {
    if (std::int64_t(space_.history.size()) < edits_.history.size + call_.nodes())
      space_.history.resize(std::size_t(edits_.history.size + call_.nodes()));
    if (edits_.history.size)
      memcpy(space_.history.data(), edits_.history.data, std::size_t(edits_.history.size) * sizeof(std::int32_t));
  }
  // A draft of a node so deep was accepted, or may have been.
  void follow(std::int64_t token, std::int64_t depth) {
    if (call_.parameters.history) space_.history[std::size_t(edits_.history.size + depth)] = std::int32_t(token);
  }

  const void* row_of(const Tensor& rows, std::int64_t first, std::int64_t node) const {
    return with_float(rows.dtype, [&]<typename T>() -> const void* { return Rows<const T>(rows).of(b_, first, node); });
  }
  NextRow next_row(const Tensor& rows, std::int64_t first, std::int64_t node) const {
    return {row_of(rows, first, node), kTile * (rows.dtype == DType::f32 ? 4 : 2)};
  }
  // With the restrictions and penalties of the node, whose drafts are the end of the history.
  Distribution target_row(std::int64_t node, std::int64_t depth) {
    Edits edits = edits_;
    if (call_.parameters.bitmask) edits.bitmask.data = call_.parameters.bitmask.of(b_, call_.first_row(b_), node);
    if (call_.parameters.history) edits.set_history({space_.history.data(), edits_.history.size + depth});
    return {drafts_.target_logits.dtype,
            row_of(drafts_.target_logits, call_.first_row(b_), node),
            edits,
            call_.target_filter(b_, depth),
            space_.target,
            space_.candidates};
  }
  Distribution draft_row(std::int64_t node) {
    return whole_row(drafts_.draft_logits, 0, node, call_.draft_filter(b_), space_.drafted);
  }
  // As it is in memory.
  Distribution whole_row(const Tensor& rows, std::int64_t first, std::int64_t node, const Filter& filter, RowSpace& space) {
    Edits none{};
    none.vocab = call_.vocab;
    return {rows.dtype, row_of(rows, first, node), none, filter, space, space_.candidates};
  }

  void report(std::int64_t place, std::int64_t token, std::int64_t node, Distribution& target) {
    out_.set_token(b_, place, token, node);
    if (out_.logprob) out_.logprob.row(b_)[place] = target.log_probability_of(token);
    if (out_.raw_logprob) out_.raw_logprob.row(b_)[place] = raw_log_probability(node, token);
  }
  float raw_log_probability(std::int64_t node, std::int64_t token) {
    const Filter none = make_filter(1.0f, 0, 1.0f, 0.0f, Order::vllm);
    return whole_row(drafts_.target_logits, call_.first_row(b_), node, none, space_.raw).log_probability_of(token);
  }

  const VerifyCall& call_;
  const VerifyOutputs& out_;
  const Drafts& drafts_;
  std::int64_t b_;
  Space& space_;
  Edits edits_;
};

}  // namespace

void verify(Queue, const Drafts& drafts, const Parameters& parameters, const DraftedFrom& from, const Verdicts& verdicts) {
  const VerifyCall call(drafts, parameters, from, verdicts.order);
  const VerifyOutputs out(verdicts);
  const std::int64_t bytes_of_logit = drafts.target_logits.dtype == DType::f32 ? 4 : 2;
  in_parallel(call.requests, call.requests * call.nodes() * call.vocab * bytes_of_logit, [&](std::int64_t b) {
    thread_local Space space;
    Request(call, out, drafts, b, space).run();
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
