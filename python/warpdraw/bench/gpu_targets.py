"""The targets of the GPU backends, line by line, and what a document of `warpdraw bench gpu` says to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .goals import RATIO, TIME, Goal
from .gpu_grid import (
    COPY,
    FEW,
    FLOOR,
    OUR_TIME,
    PLAIN_CALL,
    SPECULATIVE_BATCHES,
    SPECULATIVE_VOCABULARY,
    VOCABULARIES,
    Place,
    Sizes,
    goals_of,
    grid,
)
from .gpu_jobs import (
    ALONE,
    COMBINED,
    COUPLED,
    EVERYTHING,
    GREEDY,
    JOINT,
    POINT_MASS,
    REJECTION,
    SOFTMAX,
    SPECULATIVE,
    TEMPERED,
    Point,
)
from .gpu_measure import HOST, HOST_GOAL
from .gpu_methods import OURS
from .harness import Timing
from .peers import FLASHINFER, FLASHINFER_CHAIN, IDIOM, SONIC

TRITON = f"{OURS}, triton"


@dataclass(frozen=True)
class Target:
    """A goal at a place."""

    point: Point
    goal: Goal

    def figure_in(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The record of the goal, made from the times of the document; its figure is None where one is missing."""
        records = document["host"] if self.goal is HOST_GOAL else document["results"]
        return self.goal.record(timings_at(self.point, records))


@dataclass(frozen=True)
class Line:
    """A line of a table: a job in words, and its targets, none where `warpdraw bench gpu` does not measure it."""

    job: str
    targets: tuple[Target, ...] = ()


def timings_at(point: Point, records: list[dict[str, Any]]) -> dict[str, Timing]:
    """The times of each method at a place, and the floor there."""
    at = [record for record in records if all(record[name] == value for name, value in vars(point).items())]
    made = {record.get("method", OURS): timing_of(record) for record in at}
    for record in at[:1]:
        if "of_copy_bandwidth" in record:
            least = record["median_us"] * record["of_copy_bandwidth"] * 1e-6
            made[COPY if point.job == SOFTMAX else FLOOR] = Timing(least, least, least, 1, least)
    return made


def timing_of(record: Mapping[str, Any]) -> Timing:
    """The time that `Timing.record` wrote."""
    median, p10, p90 = (record[f"{name}_us"] * 1e-6 for name in ("median", "p10", "p90"))
    return Timing(median, p10, p90, record["calls"])


def places() -> dict[Point, Place]:
    """The whole grid by its points."""
    return {place.point: place for place in grid(Sizes())}


def tables() -> dict[str, list[Line]]:
    """The lines of each table of docs/measured.md, in its order."""
    known = places()

    def of(against: str, *jobs: str, dtype: str = "bfloat16") -> tuple[Target, ...]:
        found = [place for point, place in known.items() if point.job in jobs and point.dtype == dtype]
        usual = [place for place in found if (place.point.logits, place.point.cache) == ("peaked", "cold")]
        return tuple(
            Target(place.point, goal)
            for place in usual
            for goal in goals_of(place)
            if goal.against == against and goal.target is not None and place.point.vocab == _vocabulary(place.point)
        )

    def combined(goal: Goal, *batches: int) -> tuple[Target, ...]:
        return tuple(Target(Point(COMBINED, VOCABULARIES[0], batch), goal) for batch in batches)

    triton = (Goal(TIME, OUR_TIME, (TRITON,), target=20.0), Goal(RATIO, "the CUDA kernels", (TRITON,), (OURS,), 2.5))
    everything = "everything on (penalties over 1024, bias, bitmask, 20 log-probabilities), bf16"
    coupled = (COUPLED, COUPLED + ALONE, POINT_MASS, POINT_MASS + ALONE)
    return {
        "CUDA": [
            Line("k = 50, p = 0.9, min-p = 0.05, bf16", of(OUR_TIME, COMBINED)),
            Line("the same", of(FLOOR, COMBINED)),
            Line("the same, fp32", of(FLOOR, COMBINED, dtype="float32")),
            Line("temperature only, bf16", of(FLOOR, TEMPERED)),
            Line("greedy, bf16", of(FLOOR, GREEDY)),
            Line("softmax, fp32 in and out", of(COPY, SOFTMAX, dtype="float32")),
            Line("against the eager sort idiom, bf16", of(IDIOM, COMBINED)),
            Line("against FlashInfer with per-row k and p, bf16", of(FLASHINFER, JOINT)),
            Line("against sonic-sampler, bf16", of(SONIC, COMBINED)),
            Line(everything, of(PLAIN_CALL, EVERYTHING)),
            Line(HOST, combined(HOST_GOAL, *FEW)),
            Line("`generate`: decode steps as CUDA graphs, tokens a second"),
        ],
        "Verification": [
            Line("`verify`, five drafts, coupled or point mass, bf16", of(FLOOR, *coupled)),
            Line(
                "`verify`, five drafts, rejection with draft logits, the same",
                of(FLOOR, REJECTION, REJECTION + ALONE),
            ),
            Line("the same against FlashInfer's softmax, renorm and chain sampling", of(FLASHINFER_CHAIN, REJECTION)),
        ],
        "Triton": [
            Line("k = 50, p = 0.9, min-p = 0.05, bf16", combined(triton[0], FEW[0])),
            Line("the same", combined(triton[1], FEW[1])),
        ],
    }


def _vocabulary(point: Point) -> int:
    """The vocabulary that the targets of a job are for."""
    return SPECULATIVE_VOCABULARY if point.job in SPECULATIVE else VOCABULARIES[0]


# What the first page shows: a few of the places that have peers.
SHOWN = (
    *(Point(COMBINED, VOCABULARIES[0], batch) for batch in (1, 32, 128, 512)),
    Point(COMBINED, VOCABULARIES[0], 128, "float32"),
    *(Point(job, VOCABULARIES[0], 128) for job in (JOINT, TEMPERED, GREEDY)),
    Point(SOFTMAX, VOCABULARIES[0], 128, "float32"),
    *(Point(job, SPECULATIVE_VOCABULARY, SPECULATIVE_BATCHES[0]) for job in (COUPLED, REJECTION)),
)
