"""sonic-sampler's fused pipeline: bfloat16 logits, at most 128 kept tokens, noise that was drawn before."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..quietly import quietly
from .job import Absent, Job, Peer

MOST_KEPT = 128


def _modules() -> tuple[Any, Any]:
    if not torch.cuda.is_available():
        raise Absent("sonic-sampler needs a CUDA device")
    try:
        with quietly():
            return import_module("sonic_sampler.core"), import_module("sonic_sampler.interface")
    except Exception as error:  # its imports compile and look at the device
        raise Absent(f"sonic-sampler cannot be imported ({type(error).__name__}: {error})") from None


@lru_cache(maxsize=2)
def _ready(job: Job, batch: int, vocab: int, device: torch.device) -> tuple[Any, Any]:
    """The sampler and its buffers, with the parameters of the job in every row and fresh noise."""
    core, interface = _modules()
    buffers = core.SamplingBuffers.default(size=batch, timesteps=1, vocab_size=vocab, device=device)
    buffers.temperature.fill_(job.temperature)
    buffers.top_k.fill_(job.top_k)
    buffers.top_p.fill_(job.top_p)
    buffers.min_p.fill_(job.min_p)
    indicator = core.Indicator
    wanted = indicator.TEMPERATURE | indicator.TOP_K | indicator.TOP_P | indicator.MIN_P
    buffers.flags.target.view(torch.int16).fill_(int(wanted))
    noise = buffers.weights.gumbel.target
    noise.copy_(torch.empty(noise.shape, device=device).exponential_().log_())
    return interface.UnshardedFusedSingular.initialize(vocab_size=vocab, batch_size=batch, lookahead=0), buffers


def draw(logits: Tensor, job: Job) -> Tensor:
    """Tokens i32 [B]."""
    if logits.dtype != torch.bfloat16:
        raise ValueError(f"logits: expected bfloat16, got {logits.dtype}")
    if not 0 < job.top_k <= MOST_KEPT:
        raise ValueError(f"job: expected top_k from 1 to {MOST_KEPT}, got {job}")
    sampler, buffers = _ready(job, *logits.shape, logits.device)
    tokens: Tensor = sampler.autoregressive(logits, buffers).tokens
    return tokens.squeeze(1)


def load() -> Peer:
    """Drawing the noise for [B, V] anew, which each step needs, is not counted."""
    _modules()
    return Peer(
        "two Triton kernels; the noise of the step is drawn before and not counted", None, draw, any_shape=False
    )
