"""filter_probs: probabilities renormalised over the tokens that the filters keep."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..op import op
from .arguments import INPUTS, ORDER, Arguments
from .filters import kept_tokens


@op(f"{INPUTS}, {ORDER} -> out: f32[B V]")
def filter_probs(*inputs: Any) -> Tensor:
    """Return the distribution that `sample` draws from: ``softmax(x / T)`` over the kept tokens, 0 elsewhere.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride.
        all others: as for `sample`; seed and position decide XTC's coin, nothing else.
        out: float32 [B, V] to write into, or True to make one.

    Returns:
        float32 [B, V]; an invalid row is NaN.

    >>> import torch, warpdraw
    >>> warpdraw.filter_probs(torch.tensor([[2.0, 2.0, 1.0]]), top_k=2)
    tensor([[0.5000, 0.5000, 0.0000]])
    >>> warpdraw.filter_probs(torch.tensor([[2.0, 2.0, 1.0]]), banned_ids=torch.tensor([[2, -1]], dtype=torch.int32))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    return kept_tokens(Arguments.of(*inputs)).log_weights.softmax(-1).float()
