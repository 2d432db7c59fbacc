"""sample: draw one token from each row of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..op import op
from .filters import FILTERS, ORDER, PerRow, kept_tokens, per_row
from .noise import exponentials

TILE = 64


@op(
    f"logits: float[B V], {FILTERS}, seed: i64[B] = 0, position: i64[B] = 0, {ORDER}"
    " -> tokens: i64|i32[B], valid: bool[B], logprob: f32[B]?, raw_logprob: f32[B]?"
)
def sample(
    logits: Tensor,
    temperature: PerRow,
    top_k: PerRow,
    top_p: PerRow,
    min_p: PerRow,
    seed: PerRow,
    position: PerRow,
    order: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a token from ``softmax(logits / T)`` over the tokens that top-k, top-p and min-p keep.

    The draw is an exponential race, exactly the categorical distribution: of the tiles of 64 consecutive ids, the one
    with the largest mass / E wins, then the token with the largest mass / E in it. The E come from Philox4x32-10 under
    the row's seed and position, so the token is a function of its row's logits and parameters alone: not of the batch,
    the slot in it, the number of threads or the backend. Give each position of a sequence its own ``position``.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride. -inf and NaN are never drawn; where +inf
            occurs, those tokens are drawn equally.
        temperature: a number or float32 [B]. 0 takes the first largest logit.
        top_k, top_p, min_p, order: as for `filter_logits`.
        seed: an int or int64 [B].
        position: an int or int64 [B].
        tokens: int64 or int32 [B] to write into, or True to make an int64 one.
        valid: bool [B] to write into, or True to make one.
        logprob: True to also return the natural log-probability of the token among the kept ones, or float32 [B].
        raw_logprob: True to also return it in ``softmax(logits)``, before temperature and filters, or float32 [B].

    Returns:
        A named tuple ``(tokens, valid, logprob, raw_logprob)``; what was not asked for is None. A row without a
        candidate, or with a parameter tensor's entry outside its range, has token -1, valid False and logprob NaN;
        no other row is affected.

    Raises:
        TypeError, ValueError: a dtype, shape, device or number that the contract does not allow; the argument is named.

    >>> import torch, warpdraw
    >>> logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 9.0, 0.0]])
    >>> warpdraw.sample(logits, temperature=0.0).tokens
    tensor([2, 1])
    >>> warpdraw.sample(logits, top_k=2, seed=7, position=torch.tensor([0, 1])).valid
    tensor([True, True])
    """
    kept = kept_tokens(logits, temperature, top_k, top_p, min_p, order)
    seeds, positions = (per_row(value, logits, torch.int64) for value in (seed, position))
    B, V = logits.shape
    tiles = (V + TILE - 1) // TILE
    log_weight = kept.log_weights.masked_fill(~kept.mask, float("-inf"))
    weight = torch.nn.functional.pad(log_weight.exp().nan_to_num(0.0), (0, tiles * TILE - V)).view(B, tiles, TILE)
    tile = (weight.sum(-1) / exponentials(seeds, positions, "tile", tiles)).argmax(-1)
    rows = torch.arange(B, device=logits.device)
    race = exponentials(seeds, positions, "token", tiles * TILE).view(B, tiles, TILE)
    tokens = tile * TILE + (weight[rows, tile] / race[rows, tile]).argmax(-1)

    valid = kept.mask.any(-1)
    logprob = log_weight.log_softmax(-1)[rows, tokens].masked_fill(~valid, torch.nan)
    raw_logprob = kept.raw_log_weights.log_softmax(-1)[rows, tokens].masked_fill(~valid, torch.nan)
    return tokens.masked_fill(~valid, -1), valid, logprob.float(), raw_logprob.float()
