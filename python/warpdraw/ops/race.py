"""The draw in eager PyTorch: the tile with the largest mass / E, then the token with the largest mass / E in it."""

from __future__ import annotations

import torch
from torch import Tensor

from .noise import exponentials

TILE = 64


def race(weight: Tensor, seed: Tensor, position: Tensor, of_tiles: str = "tile", of_tokens: str = "token") -> Tensor:
    """The winner of each row of weights [B, V], [B], by the noise of two streams."""
    B, V = weight.shape
    tiles = (V + TILE - 1) // TILE
    weight = torch.nn.functional.pad(weight, (0, tiles * TILE - V)).view(B, tiles, TILE)
    tile = (weight.sum(-1) / exponentials(seed, position, of_tiles, tiles)).argmax(-1)
    rows = torch.arange(B, device=weight.device)
    keys = weight / exponentials(seed, position, of_tokens, tiles * TILE).view(B, tiles, TILE)
    return (tile * TILE + keys[rows, tile].argmax(-1)).clamp(max=V - 1)
