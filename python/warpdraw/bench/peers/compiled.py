"""The eager forms under torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..quietly import quietly
from .eager import eager_probs, eager_weights, idiom_probs
from .job import Absent, Job, Peer
from .speculation import Speculator, best


@lru_cache
def _compiled(job: Job) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def weights_and_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
        weights = idiom_probs(logits, job)
        return weights, torch.multinomial(weights, 1).squeeze(1)

    compiled: Any = torch.compile(weights_and_tokens, dynamic=False)
    return compiled  # type: ignore[no-any-return]


@lru_cache
def _compiled_best(job: Job) -> Callable[[Tensor], Tensor]:
    def tokens(logits: Tensor) -> Tensor:
        weights, ids = eager_weights(logits, job)
        winner = (weights / torch.empty_like(weights).exponential_()).argmax(-1, keepdim=True)
        return (winner if ids is None else ids.gather(1, winner)).squeeze(1)

    compiled: Any = torch.compile(tokens, dynamic=False)
    return compiled  # type: ignore[no-any-return]


@lru_cache
def _compiled_speculation(job: Job) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def verify(drafts: Tensor, target: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
        return best(drafts, target, draft, job)

    compiled: Any = torch.compile(verify, dynamic=False)
    return compiled  # type: ignore[no-any-return]


def _verify(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    with quietly():
        return _compiled_speculation(job)(drafts, target, draft)


def _call(logits: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    with quietly():
        return _compiled(job)(logits)


def load(device: torch.device | str = "cpu") -> Peer:
    """The usual idiom."""
    _try_compiler(device)
    return Peer(
        "the usual idiom, compiled for the shape; compiling is not counted",
        lambda logits, job: _call(logits, job)[0],
        lambda logits, job: _compiled(job)(logits)[1],
        any_shape=False,
    )


def load_best(device: torch.device | str = "cpu") -> Peer:
    """The best eager form."""
    _try_compiler(device)
    return Peer(
        "the best eager form, compiled for the shape; compiling is not counted",
        eager_probs,
        lambda logits, job: _compiled_best(job)(logits),
        any_shape=False,
    )


def load_speculation(device: torch.device | str = "cpu") -> Speculator:
    """The best eager form of verifying drafts."""
    _try_compiler(device)
    return Speculator("the best eager form, compiled for the shape; compiling is not counted", _verify)


def _try_compiler(device: torch.device | str) -> None:
    """Compile something small, to find out whether there is a compiler."""
    try:
        with quietly():
            torch.compile(lambda x: x * 2 + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Absent(f"torch.compile does not work here: {reason[:200]}") from None
