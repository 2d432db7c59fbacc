"""Noise in eager PyTorch: Philox4x32-10, uniform numbers and exponentials, from seed, position, stream and index."""

from __future__ import annotations

import torch
from torch import Tensor

STREAMS = {"tile": 0, "token": 1, "xtc": 2, "accept": 3, "residual_tile": 4, "residual_token": 5}
STREAM_BITS = 8  # of the last word of a counter; the step has the others
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low words of a 32-bit product, in 16-bit halves because int64 has no unsigned product."""
    upper, lower = (a >> 16) * b, (a & 0xFFFF) * b
    return (upper + (lower >> 16)) >> 16, (((upper & 0xFFFF) << 16) + lower) & LOW


def philox(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Four 32-bit words for each counter of four, under a key of two (Salmon et al., SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high2, low2 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    return [c0, c1, c2, c3]


def uniforms(seed: Tensor, position: Tensor, stream: str, count: int, step: int = 0) -> Tensor:
    """Uniform numbers in (0, 1) in float64, [B, count]: index i takes word i % 4 of counter i // 4."""
    seed, position = seed[:, None], position[:, None]
    block = torch.arange((count + 3) // 4, device=seed.device)[None]
    zero = torch.zeros_like(block + seed)
    counter = [
        block + zero,
        (position & LOW) + zero,
        (position >> 32 & LOW) + zero,
        zero + (STREAMS[stream] | step << STREAM_BITS),
    ]
    words = torch.stack(philox(counter, [(seed & LOW) + zero, (seed >> 32 & LOW) + zero]), dim=-1)
    return (words.flatten(1)[:, :count].double() + 0.5) / 2**32


def exponentials(seed: Tensor, position: Tensor, stream: str, count: int) -> Tensor:
    """Standard exponentials in float64, [B, count], from the uniform numbers of the same index."""
    return -torch.log1p(-uniforms(seed, position, stream, count))
