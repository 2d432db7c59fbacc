// What verify decides by: the drafts of a request as a tree, the rules of acceptance, the residual, and where results go.
#pragma once
#include <cmath>

#include "core/filter.h"
#include "core/philox.h"
#include "ops.h"

namespace warpdraw {

// u = (r + 1/2) / 2^32, never 0 or 1.
WD_HD inline double uniform(std::uint32_t r) { return (double(r) + 0.5) * 0x1p-32; }

// u q < p, strictly; a draft that its own distribution never draws is rejected.
WD_HD inline bool accepts(std::uint32_t r, float q, float p) { return q > 0.0f && uniform(r) * double(q) < double(p); }

// One of the drafts that a node rejected: what is left of the target is max(left * scale - q, 0), q in units of unit_q.
struct Rejected {
  float scale, unit_q;
};
// What is left of p, the probability under the target, after q was taken off it.
WD_HD inline float left_of(float p, float scale, float q) {
  const float left = p * scale - q;
  return left > 0.0f ? left : 0.0f;
}
// What a residual of this mass is multiplied with to be a distribution; 0 if nothing is left.
WD_HD inline float residual_scale(std::uint64_t total) { return total ? probability_unit(total) : 0.0f; }

// Block verification (Sun et al., arXiv 2403.10444): the probability P that a prefix of drafts stands, one draft longer.
WD_HD inline double longer_prefix(double prefix, float p, float q) {
  if (!(q > 0.0f)) return 0.0;
  const double longer = prefix * (double(p) / double(q));
  return longer < 1.0 ? longer : 1.0;
}
// Whether a prefix may be where the block ends: u < Z / (Z + 1 - P), Z the mass of the residual after it.
WD_HD inline bool ends_block(std::uint32_t r, double prefix, std::uint64_t residual) {
  if (prefix >= 1.0) return true;
  const double z = double(residual) * 0x1p-40;
  return uniform(r) * (z + 1.0 - prefix) < z;
}
// Whether all drafts may stand: u < P.
WD_HD inline bool fills_block(std::uint32_t r, double prefix) { return uniform(r) < prefix; }

// How the drafts hang together: node 0 is the end of the sequence so far, node i the i-th draft. A chain needs no links.
struct DraftTree {
  static constexpr std::int64_t kNone = -1;

  View<const std::int64_t, 2> tokens;
  View<const std::int32_t, 2> tokens_int32, first_child, next_sibling;
  std::int64_t drafts = 0;

  DraftTree() = default;
  DraftTree(const Drafts& given, const DraftedFrom& from)
      : first_child(from.first_child), next_sibling(from.next_sibling), drafts(given.tokens.shape[1]) {
    if (given.tokens.dtype == DType::i32)
      tokens_int32 = View<const std::int32_t, 2>(given.tokens);
    else
      tokens = View<const std::int64_t, 2>(given.tokens);
  }

  WD_HD bool is_chain() const { return !first_child; }
  WD_HD std::int64_t token(std::int64_t b, std::int64_t node) const {
    return tokens ? tokens.row(b)[node - 1] : tokens_int32.row(b)[node - 1];
  }
  // The first draft after a node, and the next one of the same parent; those of token -1 are left out.
  WD_HD std::int64_t first(std::int64_t b, std::int64_t node) const {
    if (is_chain()) return node < drafts && token(b, node + 1) >= 0 ? node + 1 : kNone;
    return real(b, first_child.row(b)[node]);
  }
  WD_HD std::int64_t next(std::int64_t b, std::int64_t node) const {
    return is_chain() ? kNone : real(b, next_sibling.row(b)[node]);
  }
  // Whether a node's links lead to later nodes, and no two of a request to the same one; `rows` nodes have logits.
  WD_HD bool node_is_valid(std::int64_t b, std::int64_t node, std::int64_t rows, std::int64_t vocab) const {
    if (node > 0) {
      const std::int64_t id = token(b, node);
      if (id < -1 || id >= vocab || (node >= rows && id >= 0)) return false;
    }
    if (is_chain()) return true;
    const std::int32_t* child = first_child.row(b);
    const std::int32_t* sibling = next_sibling.row(b);
    const auto leads_on = [&](std::int64_t to) { return to == kNone || (to > node && to <= drafts); };
    if (!leads_on(child[node]) || !leads_on(sibling[node]) || (node == 0 && sibling[0] != kNone)) return false;
    int links = 0;
    for (std::int64_t i = 0; i < node; ++i) links += (child[i] == node) + (sibling[i] == node);
    return links <= 1;
  }
  // The node before one that something leads to; kNone if nothing does.
  WD_HD std::int64_t parent(std::int64_t b, std::int64_t node) const {
    if (is_chain()) return node - 1;
    const std::int32_t* child = first_child.row(b);
    const std::int32_t* sibling = next_sibling.row(b);
    for (std::int64_t i = node - 1; i >= 0; --i) {
      if (child[i] == node) return i;
      if (sibling[i] == node) node = i;
    }
    return kNone;
  }

 private:
  WD_HD std::int64_t real(std::int64_t b, std::int64_t node) const {
    while (node != kNone && token(b, node) < 0) node = next_sibling.row(b)[node];
    return node;
  }
};

// A call of verify as kernels read it: node i of request b has target row (b, first_row(b), i) and, if it has drafts, draft row
// (b, i).
struct VerifyCall {
  Parameters parameters;
  PerRow<std::int32_t> method;
  PerRow<std::int64_t> step;
  View<const std::int32_t, 1> offsets;
  PerRow<float> draft_temperature;
  PerRow<std::int32_t> draft_top_k;
  PerRow<float> draft_top_p, draft_min_p;
  Siblings siblings;
  Order order;
  DraftTree tree;
  std::int64_t requests, vocab, target_rows;  // target_rows: of all requests, where they have offsets
  bool has_draft_logits;

  VerifyCall(const Drafts& drafts, const Parameters& of_target, const DraftedFrom& from, Order filters)
      : parameters(of_target),
        method(drafts.method),
        step(from.step),
        offsets(from.offsets),
        draft_temperature(from.temperature),
        draft_top_k(from.top_k),
        draft_top_p(from.top_p),
        draft_min_p(from.min_p),
        siblings(from.siblings),
        order(filters),
        tree(drafts, from),
        requests(drafts.tokens.shape[0]),
        vocab(drafts.target_logits.shape[drafts.target_logits.ndim - 1]),
        target_rows(drafts.target_logits.shape[0]),
        has_draft_logits(drafts.draft_logits.present) {}

  WD_HD std::int64_t nodes() const { return tree.drafts + 1; }
  WD_HD std::int64_t first_row(std::int64_t b) const { return offsets ? offsets(b) : 0; }
  WD_HD std::int64_t rows(std::int64_t b) const { return offsets ? std::int64_t(offsets(b + 1)) - offsets(b) : nodes(); }
  WD_HD Method method_of(std::int64_t b) const { return Method(method[b]); }
  WD_HD bool compares(std::int64_t b) const {  // drafts with the token that the target draws
    return method_of(b) != Method::rejection && method_of(b) != Method::block;
  }
  WD_HD Noise noise(std::int64_t b, std::int64_t depth) const {
    return {std::uint64_t(parameters.seed[b]), std::uint64_t(parameters.position[b]) + std::uint64_t(depth)};
  }
  // The bits of the u that decide about a draft of a node.
  WD_HD std::uint32_t accept_bits(std::int64_t b, std::int64_t depth, std::uint32_t sibling) const {
    Noise drawn = noise(b, depth);
    drawn.step = std::uint32_t(step[b]);
    return drawn.bits(Stream::accept, sibling);
  }
  WD_HD Filter target_filter(std::int64_t b, std::int64_t depth) const {
    Filter filter = make_filter(parameters, b, order, noise(b, depth));
    if (method_of(b) == Method::greedy) filter.k = 1;
    return filter;
  }
  WD_HD Filter draft_filter(std::int64_t b) const {
    return make_filter(draft_temperature[b], draft_top_k[b], draft_top_p[b], draft_min_p[b], order);
  }
  // What can be said of a request without looking at its nodes, its lists or its target filter.
  WD_HD bool request_is_valid(std::int64_t b) const {
    const std::int32_t rule = method[b];
    bool valid = rule >= 0 && rule <= std::int32_t(Method::greedy);
    if (valid && !compares(b)) valid = has_draft_logits && draft_filter(b).valid;
    if (rule == std::int32_t(Method::block)) valid = valid && tree.is_chain();
    valid = valid && step[b] >= 0 && step[b] < (std::int64_t(1) << (32 - kStreamBits));
    return valid && rows_are_valid(b);
  }
  WD_HD bool rows_are_valid(std::int64_t b) const {
    if (offsets && (offsets(b) < 0 || offsets(b + 1) > target_rows)) return false;
    return rows(b) >= 1 && rows(b) <= nodes();
  }
};

// Where verify writes its results for a request.
struct VerifyOutputs {
  View<std::int64_t, 2> tokens;
  View<std::int32_t, 2> tokens_int32;
  View<std::int32_t, 1> accepted;
  View<bool, 1> valid, bonus;
  View<float, 2> logprob, raw_logprob;
  View<std::int32_t, 2> nodes;

  explicit VerifyOutputs(const Verdicts& out)
      : accepted(out.accepted),
        valid(out.valid),
        bonus(out.bonus),
        logprob(out.logprob),
        raw_logprob(out.raw_logprob),
        nodes(out.nodes) {
    if (out.tokens.dtype == DType::i32)
      tokens_int32 = View<std::int32_t, 2>(out.tokens);
    else
      tokens = View<std::int64_t, 2>(out.tokens);
  }

  WD_HD void set_token(std::int64_t b, std::int64_t place, std::int64_t token, std::int64_t node) const {
    if (tokens)
      tokens.row(b)[place] = token;
    else
      tokens_int32.row(b)[place] = std::int32_t(token);
    if (nodes) nodes.row(b)[place] = std::int32_t(node);
  }
  // Ends a request that has `count` tokens, the last of them from a node without drafts if it is a bonus.
  WD_HD void finish(std::int64_t b, std::int64_t count, std::int64_t places, std::int64_t drafts_accepted, bool is_valid,
                    bool is_bonus) const {
    accepted(b) = std::int32_t(drafts_accepted), valid(b) = is_valid, bonus(b) = is_bonus;
    for (std::int64_t i = count; i < places; ++i) {
      set_token(b, i, -1, -1);
      if (logprob) logprob.row(b)[i] = -HUGE_VALF;
      if (raw_logprob) raw_logprob.row(b)[i] = -HUGE_VALF;
    }
  }
};

}  // namespace warpdraw
