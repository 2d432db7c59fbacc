"""log_softmax: log-probabilities of a row of logits at a temperature."""

from __future__ import annotations

from torch import Tensor

from ..op import op
from .arguments import Arguments, PerRow
from .filters import kept_tokens


@op("logits: float[B V], temperature: f32[B] = 1.0 in [0, inf) -> out: f32[B V]")
def log_softmax(logits: Tensor, temperature: PerRow) -> Tensor:
    """Return ``x / T`` minus the logarithm of the sum of ``exp(x / T)``, for each row of logits.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride. -inf and NaN get -inf;
            where +inf occurs, those tokens share the probability equally.
        temperature: a number or float32 [B]. 0 puts all probability on the first largest logit.
        out: float32 [B, V] to write into, or True to make one.

    Returns:
        float32 [B, V], natural logarithm; a row without a candidate, or with a temperature that is negative,
        infinite or NaN, is NaN.

    >>> import torch, warpdraw
    >>> warpdraw.log_softmax(torch.tensor([[0.0, 0.0]]))
    tensor([[-0.6931, -0.6931]])
    """
    return kept_tokens(Arguments.of(logits, temperature)).log_weights.log_softmax(-1).float()
