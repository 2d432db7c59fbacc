// verify by definition: from the root of each request's drafts, node by node, one token at a time.
#include "core/verify.h"
#include "scalar/draw.h"
#include "scalar/edits.h"

namespace warpdraw::scalar {
namespace {

// The distribution of one row after its filters.
struct Distribution {
  Row row;
  Filter filter;
  Places kept;
  std::uint64_t total = 0;
  std::vector<float> weights;  // of every token, the largest 1

  Distribution(std::vector<float> x, Filter given) : row(std::move(x)), filter(given), kept(row.kept(filter)) {
    weights.resize(row.x.size());
    if (empty()) return;
    total = row.sums(kept, filter.scale).mass;
    for (std::size_t i = kept.begin; i < kept.end; ++i)
      weights[key_id(row.ranked[i])] = row.weight_of(kept, i, filter.scale);
  }
  bool empty() const { return kept.begin == kept.end; }
  float unit() const { return empty() ? 0.0f : probability_unit(total); }
  float log_probability_of(std::int64_t token) const {
    return log_probability(exponent(row.x[std::size_t(token)], row.logit(kept.begin), filter.scale), total);
  }
};

using Masses = std::map<std::uint32_t, std::uint64_t>;

Masses masses_of(const std::vector<float>& probabilities) {
  Masses masses;
  for (std::size_t i = 0; i < probabilities.size(); ++i)
    if (const std::uint64_t m = mass(probabilities[i])) masses[std::uint32_t(i)] = m;
  return masses;
}
std::uint64_t sum_of(const Masses& masses) {
  std::uint64_t sum = 0;
  for (const auto& [id, m] : masses) sum += m;
  return sum;
}

// What is left of the target at a node.
struct Residual {
  std::vector<float> left;
  float scale = 1.0f;  // makes it a distribution

  Residual(const Distribution& target, double prefix) : left(target.weights) {
    const float unit = target.unit() * float(prefix);
    for (float& x : left) x *= unit;
  }
  void take_off(const std::vector<float>& weights_q, float unit_q) {
    for (std::size_t i = 0; i < left.size(); ++i) left[i] = left_of(left[i], scale, weights_q[i] * unit_q);
    scale = residual_scale(sum_of(masses_of(left)));
  }
};

struct Outcome {
  std::int64_t token;
  std::int64_t next = DraftTree::kNone;  // the draft that was accepted
};

class Request {
 public:
  Request(const VerifyCall& call, const VerifyOutputs& out, const Drafts& drafts, std::int64_t b)
      : call_(call), out_(out), drafts_(drafts), b_(b) {}

  void run() {
    edits_ = edits_of(call_.parameters, b_, call_.vocab);
    bool valid = call_.request_is_valid(b_) && edits_.valid && call_.target_filter(b_, 0).valid;
    for (std::int64_t node = 0; valid && node < call_.nodes(); ++node)
      valid = call_.tree.node_is_valid(b_, node, call_.rows(b_), call_.vocab);
    if (!valid || !lists_are_valid(edits_, call_.vocab)) return out_.finish(b_, 0, call_.nodes(), 0, false, false);
    if (edits_.history.size) history_.assign(edits_.history.begin(), edits_.history.end());
    if (call_.method_of(b_) == Method::block) return run_block();
    std::int64_t node = 0, depth = 0;
    while (true) {
      const std::vector<float> raw = raw_row(node);
      const Distribution target(edited(raw, node), call_.target_filter(b_, depth));
      if (target.empty()) return out_.finish(b_, depth, call_.nodes(), depth, false, false);
      const Outcome outcome = call_.compares(b_) ? compare(target, node, depth) : reject(target, node, depth);
      report(depth, outcome.token, node, target, raw);
      if (outcome.next == DraftTree::kNone)
        return out_.finish(b_, depth + 1, call_.nodes(), depth, true, call_.tree.first(b_, node) == DraftTree::kNone);
      history_.push_back(std::int32_t(outcome.token));
      node = outcome.next, ++depth;
    }
  }

 private:
  // The draft that is the token which the target draws.
  Outcome compare(const Distribution& target, std::int64_t node, std::int64_t depth) const {
    const std::int64_t token = draw_token(target, depth);
    std::int64_t draft = call_.tree.first(b_, node);
    while (draft != DraftTree::kNone && call_.tree.token(b_, draft) != token) draft = call_.tree.next(b_, draft);
    return {token, draft};
  }

  // The first draft that passes its test; if none does, a draw from what they leave of the target.
  Outcome reject(const Distribution& target, std::int64_t node, std::int64_t depth) const {
    std::int64_t draft = call_.tree.first(b_, node);
    if (draft == DraftTree::kNone) return {draw_token(target, depth)};
    const Distribution drafted = draft_row(node);
    std::vector<float> weights_q = drafted.weights;
    std::uint64_t total = drafted.total;
    Residual residual(target, 1.0);
    for (std::uint32_t tried = 0; draft != DraftTree::kNone && residual.scale > 0.0f; ++tried) {
      const std::size_t token = std::size_t(call_.tree.token(b_, draft));
      const float unit_q = residual_scale(total), p = residual.left[token] * residual.scale, q = weights_q[token] * unit_q;
      if (accepts(call_.accept_bits(b_, depth, tried), q, p)) return {std::int64_t(token), draft};
      residual.take_off(weights_q, unit_q);
      if (call_.siblings == Siblings::distinct) total -= mass(weights_q[token]), weights_q[token] = 0.0f;
      draft = call_.tree.next(b_, draft);
    }
    return {draw_residual(target, residual, depth)};
  }

  void run_block() {
    const std::int64_t all = call_.rows(b_) - 1;
    std::vector<double> prefix{1.0};
    std::int64_t end = 0, count = 0;
    std::vector<Distribution> targets, drafted;
    std::vector<std::vector<float>> raws;
    for (;; ++count) {
      raws.push_back(raw_row(count));
      targets.emplace_back(edited(raws.back(), count), call_.target_filter(b_, count));
      const std::int64_t draft = count < all ? call_.tree.first(b_, count) : DraftTree::kNone;
      const std::uint32_t bits = count ? call_.accept_bits(b_, count - 1, 0) : 0;
      if (draft == DraftTree::kNone) {
        if (count && fills_block(bits, prefix[std::size_t(count)])) end = count;
        break;
      }
      drafted.push_back(draft_row(count));
      Residual residual(targets.back(), prefix.back());
      residual.take_off(drafted.back().weights, drafted.back().unit());
      if (count && ends_block(bits, prefix.back(), sum_of(masses_of(residual.left)))) end = count;
      const std::size_t token = std::size_t(call_.tree.token(b_, draft));
      prefix.push_back(longer_prefix(prefix.back(), targets.back().weights[token] * targets.back().unit(),
                                     drafted.back().weights[token] * drafted.back().unit()));
      history_.push_back(std::int32_t(token));
    }
    for (std::int64_t i = 0; i < end; ++i) {
      const std::size_t at = std::size_t(i);
      report(i, call_.tree.token(b_, i + 1), i, targets[at], raws[at]);
    }
    const Distribution& target = targets[std::size_t(end)];
    if (target.empty()) return out_.finish(b_, end, call_.nodes(), end, false, false);
    std::int64_t token;
    if (end == count) {
      token = draw_token(target, end);
    } else {
      Residual residual(target, prefix[std::size_t(end)]);
      residual.take_off(drafted[std::size_t(end)].weights, drafted[std::size_t(end)].unit());
      token = draw_residual(target, residual, end);
    }
    report(end, token, end, target, raws[std::size_t(end)]);
    out_.finish(b_, end + 1, call_.nodes(), end, true, end == count);
  }

  std::int64_t draw_token(const Distribution& target, std::int64_t depth) const {
    return draw(target.row, target.kept, target.filter.scale, call_.noise(b_, depth));
  }
  // Of what is left; of the target where rounding leaves nothing, because the two distributions are the same.
  std::int64_t draw_residual(const Distribution& target, const Residual& residual, std::int64_t depth) const {
    Masses masses = masses_of(residual.left);
    if (masses.empty())
      for (std::size_t i = 0; i < target.weights.size(); ++i)
        if (const std::uint64_t m = mass(target.weights[i])) masses[std::uint32_t(i)] = m;
    return race_in_tiles(masses, call_.noise(b_, depth), Stream::residual_tile, Stream::residual_token);
  }

  std::vector<float> raw_row(std::int64_t node) const {
    return with_float(drafts_.target_logits.dtype, [&]<typename T>() {
      const Rows<const T> rows(drafts_.target_logits);
      return to_floats(rows.of(b_, call_.first_row(b_), node), call_.vocab);
    });
  }
  // With the restrictions and penalties of the node, whose drafts are the end of the history.
  std::vector<float> edited(std::vector<float> x, std::int64_t node) const {
    Edits edits = edits_;
    if (call_.parameters.bitmask) edits.bitmask.data = call_.parameters.bitmask.of(b_, call_.first_row(b_), node);
    if (call_.parameters.history) edits.set_history({history_.data(), std::int64_t(history_.size())});
    edit_row(edits, x);
    return x;
  }
  Distribution draft_row(std::int64_t node) const {
    return with_float(drafts_.draft_logits.dtype, [&]<typename T>() {
      const Rows<const T> rows(drafts_.draft_logits);
      return Distribution(to_floats(rows.of(b_, 0, node), call_.vocab), call_.draft_filter(b_));
    });
  }

  void report(std::int64_t place, std::int64_t token, std::int64_t node, const Distribution& target,
              const std::vector<float>& raw) const {
    out_.set_token(b_, place, token, node);
    if (out_.logprob) out_.logprob.row(b_)[place] = target.log_probability_of(token);
    if (!out_.raw_logprob) return;
    Filter none = make_filter(1.0f, 0, 1.0f, 0.0f, Order::vllm);
    out_.raw_logprob.row(b_)[place] = Distribution(raw, none).log_probability_of(token);
  }

  const VerifyCall& call_;
  const VerifyOutputs& out_;
  const Drafts& drafts_;
  std::int64_t b_;
  Edits edits_{};
  std::vector<std::int32_t> history_;  // with the drafts that were accepted
};

}  // namespace

void verify(Queue, const Drafts& drafts, const Parameters& parameters, const DraftedFrom& from, const Verdicts& verdicts) {
  const VerifyCall call(drafts, parameters, from, verdicts.order);
  const VerifyOutputs out(verdicts);
  for (std::int64_t b = 0; b < call.requests; ++b) Request(call, out, drafts, b).run();
}

}  // namespace warpdraw::scalar
