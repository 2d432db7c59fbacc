"""Whether a method does what it is timed for: kept sets, weights and draws against the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from .peers import Job

# The peers compute in fp32 and sum in another order: at the edge of p and min-p they may differ by rounding.
BAND = 1e-5
# Weights that fp32 softmaxes may differ by, relative and absolute.
RELATIVE, ABSOLUTE = 1e-3, 1e-6

DRAWS, DRAWN_VOCAB = 4000, 500


class NotVerified(Exception):
    """A method that is to be timed does not do the job."""


@lru_cache(maxsize=8)
def kept_between(logits: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Which tokens the reference keeps for sure, and which it may keep inside the band at the edge."""
    return _reference_kept(logits, job, -BAND), _reference_kept(logits, job, BAND)


def _reference_kept(logits: Tensor, job: Job, band: float) -> Tensor:
    top_p = job.top_p if job.top_p >= 1 else min(max(job.top_p + band, 0.0), 1.0)
    with use("reference"):
        kept: Tensor = ops.filter_logits(logits, job.temperature, job.top_k, top_p, job.min_p * (1 - band), order="hf")
    return kept > -torch.inf


def check_kept(name: str, kept: Tensor, logits: Tensor, job: Job) -> None:
    """The mask of kept tokens is the reference's, outside the band."""
    fewest, most = kept_between(logits, job)
    if (fewest & ~kept).any() or (kept & ~most).any():
        raise NotVerified(f"{name} does not keep the tokens that the reference keeps")


def check_weights(name: str, weights: Tensor, logits: Tensor, job: Job) -> None:
    """Weights are in proportion to the probabilities, and zero where the reference drops."""
    check_kept(name, weights > 0, logits, job)
    x = logits.double().masked_fill(weights == 0, -torch.inf)
    x = x / job.temperature if job.temperature else x
    probs = weights.double() / weights.double().sum(-1, keepdim=True)
    check_close(name, "the probabilities of the reference", probs, x.softmax(-1))


def check_close(name: str, what: str, got: Tensor, want: Tensor) -> None:
    """Equal to the rounding of fp32."""
    wrong = ~torch.isclose(got.double(), want.double(), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise NotVerified(f"{name} does not give {what}: {got[where]:.6g} for {want[where]:.6g} at {list(where)}")


def check_drawn(name: str, tokens: Tensor, logits: Tensor, job: Job) -> None:
    """Tokens are among those that the reference keeps."""
    possible = kept_between(logits, job)[1]
    inside = (tokens >= 0) & (tokens < logits.shape[-1])
    if not (inside & possible.gather(1, tokens.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]).all():
        raise NotVerified(f"{name} drew a token that the reference drops")


def scalar_tokens(logits: Tensor, job: Job, seed: Any, position: Any) -> Tensor:
    """What the scalar oracle draws."""
    with use("scalar"):
        tokens: Tensor = ops.sample(logits, **asdict(job), seed=seed, position=position, order="hf").tokens
    return tokens


def check_equal(name: str, tokens: Tensor, expected: Tensor, whose: str) -> None:
    """Tokens are the same, bit for bit."""
    if not torch.equal(tokens, expected):
        raise NotVerified(f"{name} does not draw the tokens of {whose}")


@lru_cache
def check_distribution(name: str, draw: Callable[[Tensor, Job], Tensor], job: Job) -> None:
    """Draws from many copies of one row fall as the reference's probabilities say."""
    row = 3 * torch.randn(1, DRAWN_VOCAB, generator=torch.Generator().manual_seed(2024))
    with use("reference"):
        probs = ops.filter_probs(row, **asdict(job), order="hf")[0].double()
    check_law(name, draw(row.expand(DRAWS, -1).contiguous(), job), probs)


def check_law(name: str, tokens: Tensor, probs: Tensor) -> None:
    """Tokens fall as probabilities f64 [V] say, by a chi-square test.

    The threshold is ten standard deviations of the statistic above its mean: no run fails by chance.
    """
    expected = probs * len(tokens)
    counts = tokens.bincount(minlength=len(probs)).double()
    rare = expected < 5
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    statistic = ((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum().item()
    freedom = max(1, len(expected) - 1)
    if not statistic <= freedom + 10 * math.sqrt(2 * freedom):
        raise NotVerified(f"{name} does not draw by the probabilities (chi-square {statistic:.0f}, {freedom} bins)")
