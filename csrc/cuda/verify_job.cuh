// A call of verify on a GPU: its nodes, each of which has a row, and the outcome of each.
#pragma once
#include "core/verify.h"
#include "cuda/row.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// What becomes of a request that comes to a node.
struct Outcome {
  std::int32_t token, draft;  // -1: nothing to draw from; none was accepted
  float logprob, raw_logprob;
  // Of block verification only: the probabilities of the draft, how likely it is for the target, and whether the block may end
  // here.
  float p, q, draft_logprob, draft_raw_logprob;
  std::int32_t may_end;
};

// Block verification looks at the drafts of all nodes before it decides about one.
enum class Round { first, draws_of_blocks };

// The logits that drafts came from, of whatever type.
struct DraftRows {
  AnyFloats logits;
  std::int64_t request = 0, row = 0;  // strides in bytes

  DraftRows() = default;
  explicit DraftRows(const Tensor& t) {
    if (!t.present) return;
    const std::int64_t bytes = t.dtype == DType::f32 ? 4 : 2;
    logits.data = t.data, logits.dtype = t.dtype;
    request = t.stride[0] * bytes, row = t.stride[1] * bytes;
  }
  WD_DEVICE AnyFloats of(std::int64_t b, std::int64_t node) const {
    return {static_cast<const char*>(logits.data) + b * request + node * row, logits.dtype};
  }
};

struct NodePlace {
  std::int64_t index, b, node, depth, first_row;
  bool exists;  // whether drafts lead to it and it has a row
};

// A call of verify, as far as all its kernels treat it alike.
struct VerifyJob {
  VerifyCall call;
  DraftRows drafts;
  Outcome* outcomes;                // [B, nodes]
  View<std::int32_t, 2> histories;  // [B * nodes, H], each with the drafts that lead to its node
  bool wants_logprob, wants_raw_logprob;
  Round round = Round::first;

  WD_DEVICE NodePlace place(std::int64_t index) const {
    const std::uint32_t nodes = std::uint32_t(call.nodes());
    NodePlace at{index, std::uint32_t(index) / nodes, std::uint32_t(index) % nodes, 0, 0, false};
    if (!call.rows_are_valid(at.b)) return at;
    at.first_row = call.first_row(at.b);
    at.exists = at.node < call.rows(at.b);
    std::int64_t node = at.node;
    for (; at.exists && node > 0; ++at.depth) {
      at.exists = call.tree.token(at.b, node) >= 0;
      node = call.tree.parent(at.b, node);
    }
    at.exists = at.exists && node == 0;
    return at;
  }
  // Without drafts to compare with, or with a tree of them, a request is not valid.
  WD_HD bool may_be_block() const { return call.has_draft_logits && call.tree.is_chain(); }
  WD_DEVICE bool is_block(std::int64_t b) const { return call.method_of(b) == Method::block && may_be_block(); }
  // Whether this round has anything to do for a node.
  WD_DEVICE bool concerns(const NodePlace& at) const {
    if (!is_block(at.b)) return round == Round::first;
    return round == Round::draws_of_blocks || call.tree.first(at.b, at.node) != DraftTree::kNone;
  }
  WD_DEVICE Outcome& outcome(const NodePlace& at) const { return outcomes[at.index]; }

  // The probability that the drafts before a node stand.
  WD_DEVICE double prefix(const NodePlace& at) const {
    double prefix = 1.0;
    for (const Outcome* before = &outcome(at) - at.node; before < &outcome(at); ++before)
      prefix = longer_prefix(prefix, before->p, before->q);
    return prefix;
  }
  WD_DEVICE bool may_end(const NodePlace& at, std::uint64_t residual) const {
    if (at.node == 0) return false;
    const std::uint32_t bits = call.accept_bits(at.b, at.node - 1, 0);
    if (call.tree.first(at.b, at.node) == DraftTree::kNone) return fills_block(bits, prefix(at));
    return ends_block(bits, prefix(at), residual);
  }
};

}  // namespace warpdraw::WARPDRAW_SIMT
