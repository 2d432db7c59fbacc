"""Attention whose scores have a soft cap, called as torch's scaled_dot_product_attention is."""

from __future__ import annotations

import torch
from torch import Tensor


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

    query [B, H, T, D] over key and value [B, G, S, D]; mask (bool, True is seen) broadcasts to [B, 1, T, S]. With
    `enable_gqa` H may be a multiple of G. Every scratch tensor belongs to the call: what a row gives depends on the
    shapes and the numbers of this call alone.
    """
    batch, heads, tokens, size = query.shape
    groups = key.shape[1] if enable_gqa else heads
    # The heads of a group stand side by side as one longer query, so that keys and values are read as they lie.
    scores = query.reshape(batch, groups, -1, size) @ key.transpose(-1, -2) * (scale or size**-0.5)
    scores = torch.tanh(scores / cap) * cap
    if is_causal:
        mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        by_head = scores.view(batch, groups, heads // groups, tokens, -1)
        scores = by_head.masked_fill(~mask.unsqueeze(-3), -torch.inf).view_as(scores)
    wide = torch.promote_types(query.dtype, torch.float32)
    mixed = torch.softmax(scores, -1, dtype=wide).to(query.dtype) @ value
    return mixed.view(batch, heads, tokens, -1)
