"""transformers' logits warpers, as `generate` chains them, its repetition penalty and its speculative sampling."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..quietly import quietly
from .job import Absent, Job, Peer
from .speculation import Speculator


def _module() -> Any:
    try:
        with quietly():
            return import_module("transformers.generation.logits_process")
    except ImportError as error:
        raise Absent(f"transformers is not installed ({error})") from None


@lru_cache
def _warpers(job: Job) -> Any:
    module = _module()
    chain = module.LogitsProcessorList()
    chain.append(module.TemperatureLogitsWarper(job.temperature))
    if job.top_k:
        chain.append(module.TopKLogitsWarper(job.top_k))
    if job.top_p < 1:
        chain.append(module.TopPLogitsWarper(job.top_p))
    if job.min_p:
        chain.append(module.MinPLogitsWarper(job.min_p))
    return chain


def warped_probs(logits: Tensor, job: Job) -> Tensor:
    """f32 [B, V]; like `generate`, which makes the logits float32 first."""
    scores: Tensor = _warpers(job)(None, logits.float())
    return scores.softmax(-1)


def draw(logits: Tensor, job: Job) -> Tensor:
    """Tokens i64 [B]."""
    return torch.multinomial(warped_probs(logits, job), 1).squeeze(1)


def load() -> Peer:
    _module()
    return Peer("float32, the warpers, softmax and multinomial over V", warped_probs, draw)


def repetition_penalty(penalty: float) -> Any:
    """The processor: call it with ids i64 [B, H] and logits [B, V]."""
    return _module().RepetitionPenaltyLogitsProcessor(penalty)


def _verify(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    warp, length = _warpers(job), drafts.shape[1]
    utils = import_module("transformers.generation.utils")
    p, q = (warp(None, rows[0].float())[None] for rows in (target, draft))
    tokens, accepted = utils._speculative_sampling(drafts, q, length, p)
    return torch.nn.functional.pad(tokens, (0, length + 1 - tokens.shape[1]), value=-1), accepted.view(1)


def load_speculation() -> Speculator:
    """What assisted generation calls, which takes one request only."""
    _module()
    with quietly():
        utils = import_module("transformers.generation.utils")
    if not hasattr(utils, "_speculative_sampling"):
        raise Absent("this transformers has no _speculative_sampling")
    return Speculator("float32, the warpers on all rows at once, _speculative_sampling", _verify, one_request=True)
