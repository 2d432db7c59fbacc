"""filter_probs: probabilities renormalised over the tokens that the filters keep."""

from __future__ import annotations

from torch import Tensor

from ..op import op
from .filters import FILTERS, ORDER, PerRow, kept_tokens


@op(f"logits: float[B V], {FILTERS}, {ORDER} -> out: f32[B V]")
def filter_probs(
    logits: Tensor, temperature: PerRow, top_k: PerRow, top_p: PerRow, min_p: PerRow, order: str
) -> Tensor:
    """Return the distribution that `sample` draws from: ``softmax(logits / T)`` over the kept tokens, 0 elsewhere.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride.
        temperature, top_k, top_p, min_p, order: as for `filter_logits`.
        out: float32 [B, V] to write into, or True to make one.

    Returns:
        float32 [B, V]; a row without a candidate, or with a parameter tensor's entry outside its range, is NaN.

    >>> import torch, warpdraw
    >>> warpdraw.filter_probs(torch.tensor([[2.0, 2.0, 1.0]]), top_k=2)
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    kept = kept_tokens(logits, temperature, top_k, top_p, min_p, order)
    return kept.log_weights.masked_fill(~kept.mask, float("-inf")).softmax(-1).float()
