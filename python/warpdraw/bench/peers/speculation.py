"""What people write in eager PyTorch to verify drafts by rejection from logits: the usual way, the best we know of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .eager import eager_weights, idiom_probs
from .job import Job

Verify = Callable[[Tensor, Tensor, Tensor, Job], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Speculator:
    """Another way to verify drafts by rejection.

    `verify` is what is timed: of drafts i64 [B, K], target logits [B, K+1, V], draft logits [B, K, V] and the filters
    of both it makes tokens [B, K+1], -1 after the last, and accepted [B].
    """

    counted: str  # what is inside one timed call
    verify: Verify
    one_request: bool = False  # it takes no batch


def usual(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Probabilities over V of all rows by mask and sort, the residual of one row, multinomial over V."""
    p, q = (idiom_probs(rows.flatten(0, 1), job).view(rows.shape) for rows in (target, draft))
    if job.min_p:
        p, q = (probs / probs.sum(-1, keepdim=True) for probs in (p, q))
    x = drafts[..., None]
    accepted = _accepted(p[:, :-1].gather(2, x)[..., 0], q.gather(2, x)[..., 0])
    p_row, q_row = _row(p, accepted), _row(q, accepted)
    left = _residual(p_row, q_row, accepted < drafts.shape[1])
    return _joined(drafts, accepted, torch.multinomial(left, 1)), accepted


def best(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Select the k best first and work on those; the residual is an exponential race of one row's kept tokens."""
    B, K, V = draft.shape
    p, p_ids = _normalised(target, job)
    q, q_ids = _normalised(draft, job)
    accepted = _accepted(_at(p[:, :-1], None if p_ids is None else p_ids[:, :-1], drafts), _at(q, q_ids, drafts))
    p_row, q_row = _row(p, accepted), _row(q, accepted)
    ids = None if p_ids is None else _row(p_ids, accepted)
    if ids is not None and q_ids is not None:
        q_row = torch.zeros(B, V, device=q.device).scatter_(1, _row(q_ids, accepted), q_row).gather(1, ids)
    left = _residual(p_row, q_row, accepted < K)
    winner = (left / torch.empty_like(left).exponential_()).argmax(-1, keepdim=True)
    return _joined(drafts, accepted, winner if ids is None else ids.gather(1, winner)), accepted


def _normalised(logits: Tensor, job: Job) -> tuple[Tensor, Tensor | None]:
    weights, ids = eager_weights(logits.flatten(0, 1), job)
    if job.top_p < 1 or job.min_p:
        weights = weights / weights.sum(-1, keepdim=True)
    shape = (*logits.shape[:2], -1)
    return weights.view(shape), None if ids is None else ids.view(shape)


def _at(probs: Tensor, ids: Tensor | None, tokens: Tensor) -> Tensor:
    """The probability of a token of each row."""
    x = tokens[..., None]
    return probs.gather(2, x)[..., 0] if ids is None else probs.masked_fill(ids != x, 0.0).sum(-1)


def _accepted(p: Tensor, q: Tensor) -> Tensor:
    """How many drafts before the first rejection, from their probabilities [B, K]: i64 [B]."""
    return (torch.rand_like(q) * q < p).long().cumprod(1).sum(1)


def _row(rows: Tensor, accepted: Tensor) -> Tensor:
    """The row [B, n] after the accepted drafts, or the last there is."""
    return rows[torch.arange(len(rows), device=rows.device), accepted.clamp(max=rows.shape[1] - 1)]


def _residual(p: Tensor, q: Tensor, rejected: Tensor) -> Tensor:
    """max(p - q, 0) after a rejection; p after the last draft, and where rounding leaves nothing."""
    left = (p - q * rejected[:, None]).clamp(min=0.0)
    return torch.where(left.sum(-1, keepdim=True) > 0, left, p)


def _joined(drafts: Tensor, accepted: Tensor, token: Tensor) -> Tensor:
    places = torch.arange(drafts.shape[1] + 1, device=drafts.device)
    tokens = torch.nn.functional.pad(drafts, (0, 1), value=-1).masked_fill(places >= accepted[:, None], -1)
    return tokens.scatter(1, accepted[:, None], token)


USUAL_SPECULATOR = Speculator("mask by topk, sort, softmax of all rows over V; residual, multinomial over V", usual)
BEST_SPECULATOR = Speculator("topk first (all of V without top-k); residual and exponential race of one row", best)
