"""Runs `warpdraw bench tune` place by place, within its time: which shape and plan of kernels is the fastest where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch

from .. import _C
from ..backends import backend_for
from .gpu import COPY_BYTES, QUICK_COPY_BYTES
from .gpu_clock import clock_of
from .gpu_jobs import Point
from .gpu_run import DROPPED, Save, Tell, bandwidth_record, chosen, device_record, dropped, on, title
from .records import described
from .tune_candidates import Candidate, candidates_of, stages_of_usual
from .tune_grid import QUICK, Sizes, grid, staged
from .tune_measure import Tuner
from .tune_stages import time_stages
from .tune_watch import watched

# A place takes some seconds.
STUCK_SECONDS = 60.0
METHOD = {
    "candidates": "every shape of this build by the rule and by every plan of the one-launch path, and the split path",
    "refused": "a plan that the device or the row does not allow",
    "verified": "outputs filled with nonsense, then all rows of all inputs equal to the rule's bit for bit, and some "
    "to the CPU backend's; after the timing again for those of the last round, by what was timed",
    "timing": "three rounds, each in turn: of all candidates with few calls (events around a queue of them); of the "
    "best quarter, and then of the best few, with CUDA graphs of the calls; a sample is the mean of its calls. The "
    "rule is in every round. On the CPU wall time",
    "cold": "calls go through several inputs; if together they are less than `device.cold_bytes`, three times the L2 "
    "cache, twice the cache is read before each sample",
    "winner": "the fastest if its p90 is below the p10 of the rule, else the rule",
    "floor": "the bytes that must be moved, over the bandwidth of a copy that is timed in the last round",
    "stages": "kernels that stop after a stage, by the rule: wrong results, so they are timed alone and not verified",
}


@dataclass(frozen=True)
class Options:
    """What is asked of a run: `only` picks the jobs with that text in their name, `stages` asks where the time goes."""

    device: str = "cuda"
    quick: bool = False
    only: str = ""
    stages: bool = False
    seconds: float = 300.0


def run(
    options: Options,
    tell: Tell = lambda what, part: None,
    save: Save = lambda document: None,
    stuck: Save = lambda document: None,
) -> dict[str, Any]:
    """Try all candidates of the device: a document of plain data, given to `save` after each place.

    It is given to `stuck`, in a thread of its own, if a place does not end: the last failure then names the candidate.

    Raises BackendError where the device has no backend, ValueError for an `only` that names no job, or stages that
    this build has not.
    """
    device = torch.device(options.device)
    with on(device):
        backend = backend_for(device)
        clock = clock_of(device)
        sizes = QUICK if options.quick else Sizes()
        points = chosen(grid(sizes), options.only, lambda point: point)
        variants = _variants(device) if options.stages else []
        early = [point for point in staged(sizes) if variants and options.only in point.job]
        tried = candidates_of(device)
        tuner = Tuner(clock, tried, sizes, QUICK_COPY_BYTES if options.quick else COPY_BYTES)
        document = described(
            "tune",
            clock.cold_bytes,
            method=METHOD,
            options=asdict(options),
            backend=f"{backend.name}: {backend.reason}",
            device=device_record(device) | {"cold_bytes": clock.cold_bytes},
            shapes={name: dict(shape) for name, shape in _C.shapes.items()},
            candidates=[asdict(each) | {"name": each.name} for each in tried],
            failed=tuner.failed,
            dropped=[],
            stages=[],
            results=tuner.results,
        )
        begun = perf_counter()
        for point in early:
            tell(f"stages: {title(point)}", 0.0)
            with watched(STUCK_SECONDS, partial(_stuck, document, tuner, point, begun, stuck)):
                document["stages"] += time_stages(tuner, clock, variants, point)
            save(_summarised(document, tuner, begun))
        for number, point in enumerate(points):
            spent = perf_counter() - begun
            reason = clock.lost() or (DROPPED if spent > options.seconds else "")
            if reason:
                document["dropped"] = dropped(points[number:], reason)
                break
            tell(title(point), min(1.0, max(number / len(points), spent / max(options.seconds, 1e-9))))
            with watched(STUCK_SECONDS, partial(_stuck, document, tuner, point, begun, stuck)):
                tuner.tune(point)
            save(_summarised(document, tuner, begun))
    return _summarised(document, tuner, begun)


def _variants(device: torch.device) -> list[tuple[str, Candidate]]:
    """The shapes that stop early; raises ValueError where there are none."""
    variants = stages_of_usual() if device.type == "cuda" else []
    if len(variants) < 2:
        raise ValueError("stages: expected kernels for a GPU built with WARPDRAW_CUDA_SHAPES=ON, got a build without")
    return variants


def _stuck(document: dict[str, Any], tuner: Tuner, point: Point, begun: float, tell: Save) -> None:
    error = TimeoutError(f"it was the last to begin in {STUCK_SECONDS:g} seconds that have not ended")
    tuner.fail(point, tuner.doing, error)
    tell(_summarised(document, tuner, begun))


def _summarised(document: dict[str, Any], tuner: Tuner, begun: float) -> dict[str, Any]:
    return (
        document
        | bandwidth_record(tuner.bandwidths)
        | {
            "seconds": perf_counter() - begun,
            "wins": wins(document["candidates"], tuner.results),
        }
    )


def wins(candidates: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each shape: how often it won clearly, and the time of its best plan in the first round over the rule's.

    That is the geometric mean over the places; a shape that did not run at some of them has none.
    """
    rule = candidates[0]["name"]
    made = []
    for shape in dict.fromkeys(each["shape"] for each in candidates):
        names = [each["name"] for each in candidates if each["shape"] == shape]
        times = [([r["screened_us"][name] for name in names if name in r["screened_us"]], r) for r in results]
        logs = [math.log(min(found) / r["screened_us"][rule]) for found, r in times if found]
        complete = len(logs) == len(results) > 0
        made.append(
            {
                "shape": shape,
                "won": sum(r["clear"] and r["winner"] in names for r in results),
                "places": len(logs),
                "of_rule": math.exp(sum(logs) / len(logs)) if complete else None,
            }
        )
    return made
