"""What a forward call may be given: tokens, slots of the cache, the length of a context."""

from __future__ import annotations

import torch
from torch import Tensor

from .cache import KVCache
from .config import ModelConfig


def check_tokens(tokens: Tensor, config: ModelConfig) -> None:
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or not tokens.numel():
        raise ValueError(f"tokens is {tokens.dtype} {list(tokens.shape)}; it must be int64 [B >= 1, T >= 1]")
    if tokens.device.type == "cpu":  # elsewhere this would wait for the device
        least, most = int(tokens.min()), int(tokens.max())
        if least < 0 or most >= config.vocab_size:
            raise ValueError(f"tokens has ids from {least} to {most}; they must be from 0 to {config.vocab_size - 1}")


def check_context(length: int, held: int, config: ModelConfig) -> None:
    if length > config.max_positions:
        before = f", {held} of them in the cache" if held else ""
        raise ValueError(
            f"tokens make a context of {length} tokens{before}; "
            f"the model allows at most config.max_positions = {config.max_positions}"
        )


def check_rows(tokens: Tensor, cache: KVCache, rows: Tensor | None) -> Tensor:
    """The slots of the rows, on the host."""
    batch = tokens.shape[0]
    if rows is None:
        if batch > cache.slots:
            raise ValueError(f"tokens has {batch} rows; the cache has {cache.slots} slots")
        return torch.arange(batch)
    rows = rows.cpu()
    if rows.dtype != torch.int64 or rows.shape != (batch,):
        raise ValueError(f"rows is {rows.dtype} {list(rows.shape)}; it must be int64 [{batch}], as tokens")
    named = rows.tolist()
    if len(set(named)) < batch or min(named) < 0 or max(named) >= cache.slots:
        raise ValueError(f"rows is {named}; it must be different slots between 0 and {cache.slots - 1}")
    return rows
