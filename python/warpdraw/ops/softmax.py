"""softmax: probabilities of a row of logits at a temperature."""

from __future__ import annotations

from torch import Tensor

from ..op import op
from .arguments import Arguments, PerRow
from .filters import kept_tokens


@op("logits: float[B V], temperature: f32[B] = 1.0 in [0, inf) -> out: f32[B V]")
def softmax(logits: Tensor, temperature: PerRow) -> Tensor:
    """Return ``exp(x / T)`` over its sum, for each row of logits.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride. -inf and NaN get probability 0;
            where +inf occurs, those tokens share the probability equally.
        temperature: a number or float32 [B]. 0 puts all probability on the first largest logit.
        out: float32 [B, V] to write into, or True to make one.

    Returns:
        float32 [B, V]; a row without a candidate, or with a temperature that is negative, infinite or NaN, is NaN.

    The probabilities are the same bit for bit on every backend and at every number of threads.

    >>> import torch, warpdraw
    >>> warpdraw.softmax(torch.tensor([[1.0, 1.0, float("-inf")]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    return kept_tokens(Arguments.of(logits, temperature)).log_weights.softmax(-1).float()
