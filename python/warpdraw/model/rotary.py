"""Rotary positions: the tables of angles, and the rotation of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import ModelConfig, RopeScaling


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin (float32 [max_positions, D / 2]) of position * theta^(-2 i / D), stretched as the config says.

    Whole tables, made once: a value read by position is the same bits in every batch. RoFormer, arXiv 2104.09864.
    """
    exponents = torch.arange(0, config.head_dim, 2, device="cpu").float() / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is not None:
        frequencies = _stretch(frequencies, config.rope_scaling)
    # The product is float32, as checkpoints were trained with; its cosine in float64 rounds the same on every machine.
    angles = torch.outer(torch.arange(config.max_positions, device="cpu").float(), frequencies).double()
    return angles.cos().float(), angles.sin().float()


def _stretch(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    # blend = (original / wavelength - low) / (high - low), clamped to [0, 1]: 0 stretches, 1 keeps
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    blend = ((turns - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)).clamp(0, 1)
    return (1 - blend) * stretched + blend * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_(i + D/2)) of x [B, T, H, D] by the angles of cos and sin [B, T, 1, D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
