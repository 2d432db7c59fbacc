"""Attention whose scores have a soft cap, called as torch's scaled_dot_product_attention is."""

from __future__ import annotations

import torch
from torch import Tensor

from .rowwise import map_rows


def capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    cap: float,
    scale: float | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(cap tanh(scale q k^T / cap)) v, in the dtype of query but for the softmax (Gemma 2, arXiv 2408.00118).

    query [B, H, T, D] over key and value [B, G, S, D]; mask (bool, True is seen, or numbers to add to the scores)
    broadcasts to [B, 1, T, S]. With `enable_gqa` H may be a multiple of G. On the CPU what a row of the batch gives
    does not depend on the other rows.
    """
    batch, heads, tokens, size = query.shape
    groups = key.shape[1] if enable_gqa else heads
    # The heads of a group stand side by side as one longer query, so that keys and values are read as they lie.
    scores = query.reshape(batch, groups, -1, size) @ key.transpose(-1, -2) * (scale or size**-0.5)
    scores = (scores / cap).flatten(1)
    tanh = map_rows(torch.tanh, scores) if scores.device.type == "cpu" else torch.tanh(scores)
    scores = (tanh * cap).view(batch, groups, heads // groups, tokens, -1)
    if is_causal:
        mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        mask = mask.unsqueeze(-3)
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    wide = torch.promote_types(query.dtype, torch.float32)
    weights = torch.softmax(scores, -1, dtype=wide).to(query.dtype)
    mixed = weights.view(batch, groups, -1, key.shape[2]) @ value
    return mixed.view(batch, heads, tokens, -1)
