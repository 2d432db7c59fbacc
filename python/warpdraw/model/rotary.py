"""Rotary positions: the tables of angles, and the rotation of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import ModelConfig, RopeScaling


class RotaryTables(nn.Module):
    """cos and sin of the angles of every position, by `ModelConfig.rotary_set`: the model's, and its sliding layers'.

    Whole tables, made once: a value read by position is the same bits in every batch. RoFormer, arXiv 2104.09864.
    """

    cos: Tensor
    sin: Tensor
    sliding_cos: Tensor
    sliding_sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sliding = config.sliding_rope_theta is not None
        self._add("", config, config.rope_theta, config.rope_scaling)
        if config.sliding_rope_theta is not None:
            self._add("sliding_", config, config.sliding_rope_theta, None)

    def at(self, positions: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """cos and sin [B, T, 1, R / 2] at `positions` [B, T] of each set."""
        main = self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)
        if not self.sliding:
            return (main,)
        return main, (self.sliding_cos[positions].unsqueeze(2), self.sliding_sin[positions].unsqueeze(2))

    def _add(self, prefix: str, config: ModelConfig, theta: float, scaling: RopeScaling | None) -> None:
        cos, sin = _tables(config.max_positions, config.rotary_size, theta, scaling)
        self.register_buffer(f"{prefix}cos", cos, persistent=False)
        self.register_buffer(f"{prefix}sin", sin, persistent=False)


def _tables(positions: int, size: int, theta: float, scaling: RopeScaling | None) -> tuple[Tensor, Tensor]:
    """cos and sin (float32 [positions, R / 2]) of position * theta^(-2 i / R), R = size, stretched as scaling says."""
    exponents = torch.arange(0, size, 2, device="cpu").float() / size
    frequencies = 1.0 / theta**exponents
    if scaling is not None:
        frequencies = _stretch(frequencies, scaling, theta)
    # The product is float32, as checkpoints were trained with; its cosine in float64 rounds the same on every machine.
    angles = torch.outer(torch.arange(positions, device="cpu").float(), frequencies).double()
    amplitude = 1.0 if scaling is None else scaling.amplitude
    return (amplitude * angles.cos()).float(), (amplitude * angles.sin()).float()


def _stretch(frequencies: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    if scaling.kind == "longrope":
        return frequencies / torch.tensor(scaling.factors, device="cpu")
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    kept = (
        _kept_yarn(len(frequencies), scaling, theta) if scaling.kind == "yarn" else _kept_llama3(frequencies, scaling)
    )
    return (1 - kept) * stretched + kept * frequencies


def _kept_llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    # kept = (original / wavelength - low) / (high - low), clamped to [0, 1]
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    return ((turns - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)).clamp(0, 1)


def _kept_yarn(count: int, scaling: RopeScaling, theta: float) -> Tensor:
    # index(turns) = count * log(original / (2 pi turns)) / log(theta): which frequency turns so often
    # kept = (index(low) - i) / (index(low) - index(high)), clamped to [0, 1]
    first, last = (
        count * math.log(scaling.original_positions / (2 * math.pi * turns)) / math.log(theta)
        for turns in (scaling.high_factor, scaling.low_factor)
    )
    if scaling.whole_indices:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * count - 1)
    if first == last:
        last += 0.001
    return ((last - torch.arange(count, device="cpu").float()) / (last - first)).clamp(0, 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_(i + D/2)) of x [B, T, H, D] by the angles of cos and sin [B, T, 1, D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rotate_part(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first R elements of x [B, T, H, D], for cos and sin [B, T, 1, R/2]; the others stay."""
    half = cos.shape[-1]
    first, second, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
