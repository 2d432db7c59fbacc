"""filter_logits: logits with the tokens that the filters drop set to -inf."""

from __future__ import annotations

from torch import Tensor

from ..op import op
from .filters import FILTERS, ORDER, PerRow, kept_tokens


@op(f"logits: float[B V], {FILTERS}, {ORDER} -> out: logits.dtype[B V]")
def filter_logits(
    logits: Tensor, temperature: PerRow, top_k: PerRow, top_p: PerRow, min_p: PerRow, order: str
) -> Tensor:
    """Keep the logits that pass top-k, top-p and min-p, and set the others to -inf.

    Tokens are ranked by logit falling, then id rising, and each filter keeps a prefix of that order: top-k the first k,
    top-p the shortest prefix whose mass is at least p, min-p those whose weight ``exp(x / T)`` is at least min_p times
    the largest. At least one token of a valid row remains.

    Args:
        logits: [B, V], float32, float16 or bfloat16; any row stride. -inf and NaN are never kept; where +inf
            occurs, those tokens are the only candidates, with equal weights.
        temperature: a number or float32 [B]; the filters see ``softmax(logits / T)``. 0 keeps the first token.
        top_k: an int or int32 [B]; 0 is off.
        top_p: a number in [0, 1] or float32 [B]; 1 is off, and so are larger entries. arXiv 1904.09751.
        min_p: a number or float32 [B] in [0, 1]; 0 is off. arXiv 2407.01082.
        order: ``"vllm"`` min-p, then top-k, then top-p on the renormalised mass of what is left; ``"hf"`` top-k,
            top-p, min-p; ``"flashinfer-joint"`` top-p on the mass of all candidates, intersected with the others;
            ``"llama.cpp"`` as ``"hf"``, but the filters see temperature 1.
        out: [B, V] in the dtype of the logits to write into, or True to make one.

    Returns:
        [B, V] in the dtype of the logits, kept entries unchanged; a row without a candidate, or with a parameter
        tensor's entry outside its range, is all -inf.

    Raises:
        TypeError, ValueError: a dtype, shape, device or number that the contract does not allow; the argument is named.

    >>> import torch, warpdraw
    >>> warpdraw.filter_logits(torch.tensor([[3.0, 1.0, 2.0]]), top_k=2)
    tensor([[3., -inf, 2.]])
    """
    kept = kept_tokens(logits, temperature, top_k, top_p, min_p, order)
    return logits.masked_fill(~kept.mask, float("-inf"))
