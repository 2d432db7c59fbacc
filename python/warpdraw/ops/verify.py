"""verify: accept or reject drafted tokens by the target's logits, and draw the token after them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..op import op
from .arguments import ORDER, PARAMETERS_OF_DRAFTS
from .drafts import reference

DRAFTS = (
    "draft_tokens: i64|i32[B K], target_logits: float[B K+1 V]|[N V] with offsets, draft_logits: float[B K V]?, "
    "method: coupled|rejection(draft_logits)|point_mass|block(draft_logits,-first_child)|greedy[B] = coupled"
)
DRAFTED_FROM = (
    "step: i64[B] = 0 in [0, 16777215], offsets: i32[B+1]?, "
    "draft_temperature: f32[B] = 1.0 in [0, inf), draft_top_k: i32[B] = 0 in [0, 2147483647], "
    "draft_top_p: f32[B] = 1.0 in [0, 1], draft_min_p: f32[B] = 0.0 in [0, 1], "
    "first_child: i32[B K+1]? with next_sibling, next_sibling: i32[B K+1]? with first_child, "
    "siblings: independent|distinct = independent"
)
OUTPUTS = (
    "tokens: i64|i32[B K+1], accepted: i32[B], valid: bool[B], bonus: bool[B], "
    "logprob: f32[B K+1]?, raw_logprob: f32[B K+1]?, nodes: i32[B K+1]?"
)


@op(f"{DRAFTS}, {PARAMETERS_OF_DRAFTS}, {DRAFTED_FROM}, {ORDER} -> {OUTPUTS}")
def verify(*inputs: Any) -> tuple[Tensor, ...]:
    """Accept drafted tokens so that all output follows the target's distribution, and draw one token more.

    p is the target's distribution at a position, after every restriction, penalty and filter, as `sample` defines it;
    q the one that the draft was drawn from; x the draft; u uniform. What comes out has exactly the law of drawing the
    tokens one after the other with `sample`, however the drafts came about:

    ``coupled``     Draws y from p with the noise of `sample` at that position and accepts x where it equals y. The
                    output is that of `sample` with the same seed, bit for bit; a draft drawn by `sample` with the same
                    seed and position agrees with probability at least (1 - TV) / (1 + TV) (Daliri, Musco and Suresh,
                    arXiv 2408.07978; TV is the total variation distance of p and q). Needs no q.
    ``rejection``   Accepts if u q(x) < p(x), else draws from max(p - q, 0) (Leviathan et al., arXiv 2211.17192; Chen et
                    al., arXiv 2302.01318): with probability 1 - TV.
    ``point_mass``  For drafts that are certain (n-grams, greedy drafts): rejection with q = 1 at x, which accepts with
                    probability p(x). Computed as ``coupled``, which has the same law then.
    ``block``       Block verification (Sun et al., arXiv 2403.10444): decides about all drafts together, and accepts at
                    least as many as ``rejection``. Needs ``step``, and drafts whose noise differs from step to step.
    ``greedy``      Accepts x where it is the first token of the total order; ``temperature`` is ignored.

    Drafts may form a tree: node 0 is the end of the sequence, node i the i-th draft; ``first_child`` and
    ``next_sibling`` [B, K+1] lead from a node to later ones, -1 where there is none. The children of a node are tried
    in their order (Miao et al., arXiv 2305.09781); for those drawn without replacement say ``siblings="distinct"``
    (Jeon et al., arXiv 2402.14160). Row i of the logits belongs to node i, and draft row i is what its children were
    drawn from. Without links the drafts are a chain.

    Args:
        draft_tokens: int64 or int32 [B, K], -1 where there is no draft.
        target_logits: [B, K+1, V], float32, float16 or bfloat16: row 0 before the first draft, row i after draft i. Or
            [N, V] with ``offsets`` int32 [B+1], where request b has rows offsets[b] to offsets[b+1] - 1, one more than
            drafts.
        draft_logits: [B, K, V] of any such dtype: what each draft was drawn from. For rejection and block.
        method: a word, or int32 [B] of places in the list of words.
        draft_temperature, draft_top_k, draft_top_p, draft_min_p: how the drafts were drawn from ``draft_logits``. They
            must be what was used: else the output does not follow the target.
        step: int64, how many times the request has been verified; for ``block``.
        position: int64, the index in the sequence of the first draft; the others count on.
        bitmask: int32 [B, K+1, W], or [N, W] with ``offsets``: one for each row of logits.
        history, history_length, prompt_length: the tokens before the drafts. Each row's penalties also read the drafts
            that lead to it.
        tokens: int64 or int32 [B, K+1] to write into, or True to make an int64 one.
        logprob, raw_logprob, nodes: True to have it, or a tensor to write into.

        All other arguments are those of `sample`, a number for all or a tensor [B] with an entry for each request.

    Returns:
        A named tuple. tokens [B, K+1]: the accepted drafts and the token after them, then -1. accepted [B]: how many
        drafts were accepted. valid [B]: False where there was nothing to draw from; the tokens before that stand. All
        of a request is invalid if a tensor's entry is outside its range: a draft that is no token, a link that does not
        lead on or a node that two lead to, a method that needs draft logits without them. bonus [B]: whether the last
        token came after a last draft. logprob, raw_logprob [B, K+1]: of the tokens under the filtered and the raw
        distribution of the target, -inf after them. nodes [B, K+1]: the node whose row of logits each token came from,
        so that nodes[:, 1:] are the accepted drafts.

    Raises:
        TypeError, ValueError: a dtype, shape, device, word or number that the contract does not allow, draft logits
            that are missing, or ``block`` with a tree; the argument is named.

    >>> import torch, warpdraw
    >>> target = torch.tensor([[[0.0, 5.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    >>> verified = warpdraw.verify(torch.tensor([[1, 2]]), target, method="greedy")
    >>> verified.tokens.tolist(), verified.accepted.tolist(), verified.bonus.tolist()
    ([[1, 0, -1]], [1], [False])
    >>> alone = [warpdraw.sample(target[:, i], seed=7, position=i).tokens.item() for i in range(3)]
    >>> verified = warpdraw.verify(torch.tensor([alone[:2]]), target, seed=7, position=0)
    >>> verified.tokens.tolist() == [alone], verified.accepted.item()
    (True, 2)
    """
    return reference(*inputs)
