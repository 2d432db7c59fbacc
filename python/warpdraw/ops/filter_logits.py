"""filter_logits: logits with the tokens that are banned or that the filters drop set to -inf."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..op import op
from .arguments import INPUTS, ORDER, Arguments
from .filters import kept_tokens


@op(f"{INPUTS}, {ORDER} -> out: logits.dtype[B V]")
def filter_logits(*inputs: Any) -> Tensor:
    """Keep the logits of the tokens that `sample` may draw, as they were given, and set the others to -inf.

    Bias and penalties decide what is kept; they do not show in the logits. At least one token of a valid row remains.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride.
        all others: as for `sample`; seed and position decide XTC's coin, nothing else.
        out: [B, V] in the dtype of the logits to write into, or True to make one.

    Returns:
        [B, V] in the dtype of the logits, kept entries unchanged; an invalid row is all -inf.

    Raises:
        TypeError, ValueError: a dtype, shape, device or number that the contract does not allow; the argument is named.

    >>> import torch, warpdraw
    >>> warpdraw.filter_logits(torch.tensor([[3.0, 1.0, 2.0]]), top_k=2)
    tensor([[3., -inf, 2.]])
    >>> warpdraw.filter_logits(torch.tensor([[3.0, 1.0, 2.0]]), top_n_sigma=0.5)
    tensor([[3., -inf, -inf]])
    """
    arguments = Arguments.of(*inputs)
    return arguments.logits.masked_fill(~kept_tokens(arguments).mask, float("-inf"))
