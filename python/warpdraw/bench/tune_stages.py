"""Where the time goes: kernels that stop early beside the whole one; the differences are what each stage costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from .gpu_clock import Clock
from .gpu_jobs import Point
from .harness import Timing
from .tune_candidates import Candidate
from .tune_measure import Tuner

ROUNDS = 30


def time_stages(
    tuner: Tuner, clock: Clock, variants: Sequence[tuple[str, Candidate]], point: Point
) -> list[dict[str, Any]]:
    """A record for each variant, in the order of the stages; not verified, for what stops early has no result."""
    work, forget = tuner.work_at(point)
    runs = {}
    for stage, candidate in variants:
        tuner.doing = candidate
        try:
            runs[stage] = clock.bind(partial(candidate.run, work), len(work), forget)
        except (RuntimeError, ValueError) as error:
            tuner.fail(point, candidate, error)
    return of_stages(point, clock.time_in_turn(runs, 0.0, ROUNDS))


def of_stages(point: Point, timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """The records: how long it takes up to a stage, and how much of that is more than up to the stage before."""
    made: list[dict[str, Any]] = []
    before = 0.0
    for stage, timing in timings.items():
        added = (timing.median - before) * 1e6
        made.append(asdict(point) | {"until": stage, **timing.record(), "added_us": added, "verified": False})
        before = timing.median
    return made
