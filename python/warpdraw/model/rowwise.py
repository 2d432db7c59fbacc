"""Forms of linear, activation and attention whose result for a row is the same bits in any batch and slot (CPU)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

DECODE_TOKENS = 16
"""Calls with at most this many tokens a row are decode steps: they run in these forms, position by position."""

BLOCK = 8
# A multiple of what vector loops take at once, and the most elements that an elementwise function gives one thread.
WHOLE_VECTORS = 64
ONE_THREAD = 16384


def linear_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., K] times weight [N, K] transposed, plus bias [N], in blocks of exactly BLOCK rows.

    A matrix product picks its kernel, and so its order of summation, by its shape: one shape, one order.
    """
    flat = x.reshape(-1, x.shape[-1])
    count = flat.shape[0]
    if count % BLOCK:
        flat = torch.constant_pad_nd(flat, (0, 0, 0, -count % BLOCK))
    blocks = [flat] if count <= BLOCK else torch.split(flat, BLOCK)
    columns = weight.t()
    done = [torch.mm(block, columns) if bias is None else torch.addmm(bias, block, columns) for block in blocks]
    out = done[0] if count <= BLOCK else torch.cat(done)
    return (out if count == out.shape[0] else out[:count]).view(*x.shape[:-1], -1)


def map_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function of x [..., K], one call a row.

    Over several rows a vector loop's scalar tail, with another exponential, falls on elements that the batch decides;
    unless rows are whole vectors, and so few that they are not shared among threads.
    """
    if x.shape[-1] % WHOLE_VECTORS == 0 and x.numel() <= ONE_THREAD:
        return function(x)
    return torch.stack([function(row) for row in x.flatten(0, -2).unbind()]).view_as(x)


def attend_row(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    places: list[tuple[int, list[int]]],
    window: int | None,
    mix: Callable[..., Tensor] = F.scaled_dot_product_attention,
    scale: float | None = None,
) -> Tensor:
    """Attention of query [B, T, H, D] over cached keys and values [slots, kv_heads, capacity, D], a call a position.

    Each call sees exactly the keys that it may: no padding and no mask, so nothing in it knows about other rows.
    `places` are the slot and the positions of each row. The
    heads of a group stand side by side as the query's sequence. `mix` is the attention of one call.
    """
    grouped = query.view(*query.shape[:2], keys.shape[1], -1, query.shape[3])
    mixed = []
    for row, (slot, positions) in zip(grouped.unbind(), places, strict=True):
        several = (row,) if len(positions) == 1 else row.unsqueeze(1).unbind()
        for heads, position in zip(several, positions, strict=True):
            seen = slice(0 if window is None else max(0, position + 1 - window), position + 1)
            mixed.append(mix(heads, keys[slot : slot + 1, :, seen], values[slot : slot + 1, :, seen], scale=scale))
    return (mixed[0] if len(mixed) == 1 else torch.cat(mixed)).view_as(query)
