"""sample: draw one token from each row of logits, and report on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..op import op
from .arguments import INPUTS, ORDER, Arguments
from .filters import Kept, candidates_of, kept_tokens, log_weights
from .race import race

SIZES = "top_n: N = 0 in [0, V], max_kept: M = 0 in [0, V]"
OUTPUTS = (
    "tokens: i64|i32[B], valid: bool[B], logprob: f32[B]?, raw_logprob: f32[B]?, rank: i32[B]?, "
    "kept_count: i32[B]?, kept_ids: i32[B M]?, top_ids: i32[B N]?, top_logprobs: f32[B N]?"
)


@op(f"{INPUTS}, {SIZES}, {ORDER}, top_of: raw|filtered = raw -> {OUTPUTS}")
def sample(*inputs: Any) -> tuple[Tensor, ...]:
    """Draw a token from ``softmax(x / T)`` over the kept tokens, x the logits after bias, penalties and bans.

    docs/sampling.md defines every step, its parameters and the order in which they apply. A parameter is a number for
    all rows or a tensor [B] with an entry for each; lists of ids are padded with -1; what is left out is off.

    The draw is an exponential race, exactly the categorical distribution: of the tiles of 64 consecutive ids, the one
    with the largest mass / E wins, then the token with the largest mass / E in it. The E come from Philox4x32-10 under
    the row's seed and position, so the token is a function of its row's logits and parameters alone: not of the batch,
    the slot in it, the number of threads or the backend. Give each position of a sequence its own ``position``.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride. -inf and NaN are never drawn; where +inf
            occurs among the candidates, those tokens are drawn equally.
        temperature: float32. 0 takes the first largest logit.
        top_k, top_p, min_p, top_n_sigma, typical_p, epsilon, eta: the filters; int32 for top_k, else float32.
        xtc_probability, xtc_threshold: float32; XTC's coin has a stream of noise of its own.
        dynatemp_range, dynatemp_exponent: float32; temperature from the row's entropy.
        seed, position: int64; equal ones draw the same token from the same row.
        vocab_size: int32, ids from there on are never candidates; 0 is V.
        bitmask: int32 [B, W], one bit an id, least significant first, 1 allowed.
        allowed_ids, banned_ids, stop_ids: int32 [B, any]; stop_ids are banned for the first ``min_tokens`` (int32)
            tokens of the output.
        bias_ids, bias: int32 and float32 [B, C], added to the logits.
        history, history_length, prompt_length: int32 [B, H], [B], [B]: the tokens so far; see `TokenHistory`.
        repetition_penalty, frequency_penalty, presence_penalty: float32.
        dry_multiplier, dry_base, dry_allowed_length, dry_breakers: float32, float32, int32, int32 [B, E].
        no_repeat_ngram: int32.
        top_n, max_kept: ints; sizes of the lists that are reported.
        order: which filter sees what: ``"vllm"``, ``"hf"``, ``"flashinfer-joint"`` or ``"llama.cpp"``.
        top_of: the top tokens of the ``"raw"`` distribution or of the ``"filtered"`` one.
        tokens: int64 or int32 [B] to write into, or True to make an int64 one.
        valid: bool [B] to write into, or True to make one.
        logprob, raw_logprob, rank, kept_count, kept_ids, top_ids, top_logprobs: True to have it, or a tensor to write
            into; lists are made when their size is given.

    Returns:
        A named tuple of the outputs in this order; what was not asked for is None. An invalid row (no candidate, or a
        tensor's entry outside its range) has token -1, valid False, log-probabilities NaN, rank and count 0, lists of
        -1 and -inf; no other row is affected.

    Raises:
        TypeError, ValueError: a dtype, shape, device or number that the contract does not allow; the argument is named.

    >>> import torch, warpdraw
    >>> logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 9.0, 0.0]])
    >>> warpdraw.sample(logits, temperature=0.0).tokens
    tensor([2, 1])
    >>> warpdraw.sample(logits, top_k=2, seed=7, position=torch.tensor([0, 1])).valid
    tensor([True, True])
    >>> history = torch.tensor([[2, 2], [0, 0]], dtype=torch.int32)
    >>> drawn = warpdraw.sample(logits, temperature=0.0, history=history, repetition_penalty=2.0, rank=True, top_n=1)
    >>> drawn.tokens.tolist(), drawn.rank.tolist(), drawn.top_ids.tolist()
    ([1, 1], [2, 1], [[2], [1]])
    """
    *shared, top_n, max_kept, order, top_of = inputs
    arguments = Arguments.of(*shared, order)
    kept = kept_tokens(arguments)
    tokens = race(kept.log_weights.exp(), arguments.seed, arguments.position)
    valid = kept.mask.any(-1)
    raw_x = candidates_of(arguments.logits)
    raw = log_weights(raw_x, torch.ones_like(arguments.temperature)).log_softmax(-1)
    filtered = kept.log_weights.log_softmax(-1)

    def of_token(values: Tensor) -> Tensor:
        return values.gather(-1, tokens[:, None])[:, 0].masked_fill(~valid, torch.nan).float()

    top = (raw_x, raw) if top_of == "raw" else (kept.logits, filtered)
    return (
        tokens.masked_fill(~valid, -1),
        valid,
        of_token(filtered),
        of_token(raw),
        _rank(arguments.logits, tokens) * valid,
        kept.mask.sum(-1),
        _kept_ids(kept, max_kept),
        *_top(*top, valid, top_n),
    )


def _rank(logits: Tensor, tokens: Tensor) -> Tensor:
    """Each token's place in its raw row's total order, from 1; NaN has no place."""
    x = logits.double()
    own = x.gather(-1, tokens[:, None])
    before = torch.arange(x.shape[1], device=x.device) < tokens[:, None]
    return 1 + ((x > own) | ((x == own) & before)).sum(-1)


def _kept_ids(kept: Kept, size: int) -> Tensor:
    """The first kept ids, ascending, [B, size], padded with -1."""
    V = kept.mask.shape[1]
    ids = torch.where(kept.mask, torch.arange(V, device=kept.mask.device), V).sort(-1).values[:, :size]
    return torch.where(ids < V, ids, -1)


def _top(x: Tensor, log_probability: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first tokens of a distribution in its total order and their log-probabilities, [B, size] each."""
    ids = x.argsort(dim=-1, descending=True, stable=True)[:, :size]
    missing = (x.gather(-1, ids) == -torch.inf) | ~valid[:, None]
    return ids.masked_fill(missing, -1), log_probability.gather(-1, ids).masked_fill(missing, -torch.inf).float()
