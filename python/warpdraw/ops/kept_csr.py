"""kept_csr: the kept ids of all rows, packed one after the other."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_csr(kept_count: Tensor, kept_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Pack what `sample` reports as ``kept_count`` and ``kept_ids`` into compressed sparse rows.

    Args:
        kept_count: int32 [B], how many tokens of each row were kept.
        kept_ids: int32 [B, M], their ids, ascending, padded with -1.

    Returns:
        offsets int64 [B + 1] and ids int32: row b kept ``ids[offsets[b]:offsets[b + 1]]``.

    Raises:
        TypeError: an argument is not an int32 tensor.
        ValueError: shapes do not fit, or max_kept was smaller than a row's count, so that ids are missing.

    >>> import torch, warpdraw
    >>> logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 9.0, 0.0]])
    >>> drawn = warpdraw.sample(logits, min_p=0.3, kept_count=True, max_kept=3)
    >>> warpdraw.kept_csr(drawn.kept_count, drawn.kept_ids)
    (tensor([0, 2, 3]), tensor([0, 2, 1], dtype=torch.int32))
    """
    for name, value, dims, shape in (
        ("kept_count", kept_count, 1, "[B]"),
        ("kept_ids", kept_ids, 2, "[B, M]"),
    ):
        if not isinstance(value, Tensor) or value.dtype != torch.int32:
            found = value.dtype if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"{name}: expected a tensor {shape} of int32, got {found}")
        if value.dim() != dims or len(value) != len(kept_count):
            raise ValueError(f"{name}: expected shape {shape} with B = {len(kept_count)}, got {list(value.shape)}")
    M = kept_ids.shape[1]
    if (cut := kept_count > M).any():
        row = int(cut.nonzero()[0])
        raise ValueError(f"kept_ids: expected max_kept of at least {int(kept_count[row])} for row {row}, got {M}")
    offsets = torch.cat([kept_count.new_zeros(1, dtype=torch.int64), kept_count.cumsum(0)])
    filled = torch.arange(M, device=kept_ids.device) < kept_count[:, None]
    return offsets, kept_ids[filled]
