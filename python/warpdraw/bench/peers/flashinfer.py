"""FlashInfer's fused top-k and top-p sampling, k and p as tensors with an entry for each row."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..quietly import quietly
from .job import Absent, Job, Peer

# Given as numbers, because the generator's own state would have to come from the device.
SEED, OFFSET = 7, 0


def _sampling() -> Any:
    if not torch.cuda.is_available():
        raise Absent("FlashInfer needs a CUDA device")
    try:
        with quietly():
            return import_module("flashinfer.sampling")
    except Exception as error:  # its imports load other packages, which may fail in any way
        raise Absent(f"FlashInfer cannot be imported ({type(error).__name__}: {error})") from None


@lru_cache
def _per_row(job: Job, batch: int, vocab: int, device: torch.device) -> tuple[Tensor, Tensor]:
    top_k = torch.full((batch,), job.top_k or vocab, dtype=torch.int32, device=device)
    return top_k, torch.full((batch,), job.top_p, dtype=torch.float32, device=device)


def draw(logits: Tensor, job: Job) -> Tensor:
    """Tokens i32 [B]; temperature 1 and no min-p, which this call does not have."""
    if job.temperature != 1 or job.min_p:
        raise ValueError(f"job: expected temperature 1 and no min-p, got {job}")
    top_k, top_p = _per_row(job, *logits.shape, logits.device)
    sampling = _sampling()
    tokens: Tensor = sampling.top_k_top_p_sampling_from_logits(
        logits, top_k, top_p, filter_apply_order="top_k_first", seed=SEED, offset=OFFSET
    )
    return tokens


def load() -> Peer:
    """On the logits as they are."""
    _sampling()
    return Peer("top_k_top_p_sampling_from_logits, k and p per row, no min-p", None, draw)


def load_float() -> Peer:
    """On a float32 copy, which counts: half precision is rounded inside."""
    _sampling()
    return Peer("the same on logits.float()", None, lambda logits, job: draw(logits.float(), job))
