"""What people write for this job in eager PyTorch: the usual idiom, and the best form that we know of."""

from __future__ import annotations

import torch
from torch import Tensor

from .job import Job, Peer


def idiom_probs(logits: Tensor, job: Job) -> Tensor:
    """Mask, sort, mask again: weights f32 [B, V] with zeros for what the filters drop."""
    logits = logits.float() / job.temperature
    if job.top_k:
        kth = torch.topk(logits, min(job.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if job.top_p < 1:
        ordered, indices = torch.sort(logits, descending=True)
        probs = ordered.softmax(-1)
        before = probs.cumsum(-1) - probs
        dropped = (before >= job.top_p).scatter(1, indices, before >= job.top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    probs = logits.softmax(-1)
    if job.min_p:
        probs = probs.masked_fill(probs < job.min_p * probs.amax(-1, keepdim=True), 0)
    return probs


def idiom(logits: Tensor, job: Job) -> Tensor:
    """Draw with multinomial over the vocabulary: tokens i64 [B]."""
    return torch.multinomial(idiom_probs(logits, job), 1).squeeze(1)


def eager_weights(logits: Tensor, job: Job) -> tuple[Tensor, Tensor | None]:
    """Select first, then work on the k values: weights f32 [B, k] and their token ids (None: all, in order)."""
    ids = None
    if job.top_k:
        logits, ids = torch.topk(logits, min(job.top_k, logits.shape[-1]))
    elif job.top_p < 1:
        logits, ids = torch.sort(logits, descending=True)
    probs = (logits.float() / job.temperature).softmax(-1)
    largest = probs[:, :1] if ids is not None else probs.amax(-1, keepdim=True)
    if job.top_p < 1:
        before = probs.cumsum(-1) - probs
        probs = probs.masked_fill(before >= job.top_p, 0)
    if job.min_p:
        probs = probs.masked_fill(probs < job.min_p * largest, 0)
    return probs, ids


def eager(logits: Tensor, job: Job) -> Tensor:
    """Draw by an exponential race among the k values: tokens i64 [B]."""
    weights, ids = eager_weights(logits, job)
    winner = (weights / torch.empty_like(weights).exponential_()).argmax(-1, keepdim=True)
    return (winner if ids is None else ids.gather(1, winner)).squeeze(1)


def read_dot(logits: Tensor) -> Tensor:
    """One read of the bytes and nothing else: the BLAS dot product of the logits, seen as fp32, with themselves."""
    flat = logits.view(-1)
    flat = flat if flat.dtype == torch.float32 else flat.view(torch.float32)
    return torch.dot(flat, flat)


def read_amax(logits: Tensor) -> Tensor:
    """One read as eager PyTorch does it: the largest logit of each row."""
    return logits.amax(-1)


def eager_probs(logits: Tensor, job: Job) -> Tensor:
    """The weights of the best eager form over the whole vocabulary: f32 [B, V]."""
    weights, ids = eager_weights(logits, job)
    return weights if ids is None else torch.zeros(logits.shape, device=logits.device).scatter_(1, ids, weights)


def argmax_probs(logits: Tensor, job: Job) -> Tensor:
    """All weight on what argmax takes: f32 [B, V]."""
    return torch.zeros(logits.shape, device=logits.device).scatter_(1, logits.argmax(-1, keepdim=True), 1.0)


def argmax(logits: Tensor, job: Job) -> Tensor:
    """Greedy: tokens i64 [B]."""
    return logits.argmax(-1)


IDIOM_PEER = Peer("mask by topk, sort and cumsum over V, softmax, multinomial over V", idiom_probs, idiom)
EAGER_PEER = Peer(
    "topk first (sort without top-k), softmax and an exponential race on what it left", eager_probs, eager
)
ARGMAX_PEER = Peer("torch.argmax", argmax_probs, argmax)
