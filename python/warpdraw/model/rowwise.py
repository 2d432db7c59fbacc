"""Forms of linear and activation whose result for a row is the same bits in any batch and slot (CPU)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
    blocks = (flat,) if count <= BLOCK else flat.view(-1, BLOCK, flat.shape[1]).unbind()
    columns = weight.t()
    done = [torch.mm(block, columns) if bias is None else torch.addmm(bias, block, columns) for block in blocks]
    out = done[0] if count <= BLOCK else torch.cat(done)
    return (out if count == out.shape[0] else out[:count]).view(*x.shape[:-1], -1)


def map_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function of x [..., K], one call a row.

    Over several rows a vector loop's scalar tail, with another exponential, falls on elements that the batch decides;
    unless rows are whole vectors, and so few that they are not shared among threads.
    """
    rows, at_once = x.view(-1, x.shape[-1]), 1
    if x.shape[-1] % WHOLE_VECTORS == 0:
        at_once = max(1, ONE_THREAD // x.shape[-1])
    if len(rows) <= at_once:
        return function(x)
    return torch.cat([function(part) for part in torch.split(rows, at_once)]).view_as(x)
