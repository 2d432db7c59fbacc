"""The norms of a Transformer: RMSNorm, LayerNorm, and the RMSNorm whose weights are stored less an offset."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """The config's norm over the last `size` elements."""
    if config.norm_offset:
        return OffsetRMSNorm(size, config.norm_eps, config.norm_offset)
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(size, eps=config.norm_eps)


class OffsetRMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (offset + weight), rounded to the dtype of x once, at the end."""

    def __init__(self, size: int, eps: float, offset: float) -> None:
        super().__init__()
        self.size, self.eps, self.offset = size, eps, offset
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        weight = self.offset + self.weight.to(wide)
        return F.rms_norm(x.to(wide), (self.size,), weight, self.eps).to(x.dtype)
