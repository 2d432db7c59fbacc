"""FlashInfer: fused top-k and top-p sampling, and its chain verification; k and p as tensors with an entry a row."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..quietly import quietly
from .job import Absent, Job, Peer
from .speculation import Speculator

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


def _probs(logits: Tensor, job: Job) -> Tensor:
    """What the chain needs: probabilities f32 over V, each filter a launch."""
    rows, sampling = logits.flatten(0, 1), _sampling()
    top_k, top_p = _per_row(job, *rows.shape, rows.device)
    probs = sampling.softmax(rows, job.temperature)
    probs = sampling.top_k_renorm_probs(probs, top_k) if job.top_k else probs
    probs = sampling.top_p_renorm_probs(probs, top_p) if job.top_p < 1 else probs
    return probs.view(logits.shape)  # type: ignore[no-any-return]


def verify(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Tokens i32 [B, K+1] and accepted i32 [B]."""
    if job.min_p:
        raise ValueError(f"job: expected no min-p, got {job}")
    considered, emitted = torch.zeros(2, len(drafts), dtype=torch.int32, device=drafts.device)
    tokens, _, emitted = _sampling().chain_speculative_sampling(
        _probs(draft, job), drafts.int(), _probs(target, job), considered, emitted, seed=SEED, offset=OFFSET
    )
    return tokens, emitted


def load_speculation() -> Speculator:
    """From the same logits: what makes the probabilities counts."""
    _sampling()
    return Speculator("softmax, top_k_renorm_probs and top_p_renorm_probs of both, chain_speculative_sampling", verify)
