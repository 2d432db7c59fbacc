"""What a peer is asked to do, and what a peer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Job:
    """The filters to apply, in this order: temperature, top-k, top-p on the survivors, min-p."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


class Absent(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Peer:
    """Another way to draw a token from each row of logits.

    `draw` is what is timed: tokens i64 [B]. `probs` is what is verified before: the weights f32 [B, V] that it draws
    by, zero for dropped tokens; None where it computes none, so that only its draws can be verified.
    """

    counted: str  # what is inside one timed call
    probs: Callable[[Tensor, Job], Tensor] | None
    draw: Callable[[Tensor, Job], Tensor]
    any_shape: bool = True  # False: another shape than the timed one costs too much to verify draws on
