"""Runs the grid of `warpdraw bench cpu`: verify, time in turn, and put the figures beside their goals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..backends import backend_for
from ..environment import package_version
from .cases import Case
from .grid import QUICK, Measurement, Sizes, grid
from .harness import COLD_BYTES, Timing, time_in_turn
from .method import Method, batches
from .peers import COMPILED, load_peers
from .records import described

SECOND_THREAD = "a second thread"
QUICK_SECONDS, QUICK_COLD_BYTES = 0.01, 2**18
PACKAGES = ("transformers", "llama-cpp-python", "numpy")
# How many rows of each measurement the float64 reference looks at.
VERIFIED_ROWS = 4

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """What is asked of a run: `only` picks the measurements whose job holds that text."""

    quick: bool = False
    compile: bool = True
    only: str = ""


def run(options: Options, tell: Tell = lambda what, part: None) -> dict[str, Any]:
    """Measure the grid: a document of plain data. `tell` hears what is being done and the finished part, 0 to 1."""
    with _threads(1):
        tell("looking for peers", 0.0)
        skipped = "--quick" if options.quick else "" if options.compile else "--no-compile"
        peers, absent = load_peers({COMPILED: f"skipped: {skipped}"} if skipped else {})
        if reason := _no_second_thread():
            absent[SECOND_THREAD] = reason
        measurements = _chosen(grid(QUICK if options.quick else Sizes(), peers), options.only)
        total = sum(_weight(each) for each in measurements)
        finished = 0.0
        results: list[dict[str, Any]] = []
        goals: list[dict[str, Any]] = []
        for measurement in measurements:
            share = _weight(measurement) / total
            timed, reached = _measure(
                measurement, options, absent, partial(_tell, tell, measurement.job, finished, share)
            )
            results += timed
            goals += reached
            finished += share
        about = {
            "options": asdict(options),
            "backend": backend_for(torch.device("cpu")).reason,
            "packages": {name: package_version(name) for name in PACKAGES},
            "absent": absent,
        }
        cold_bytes = QUICK_COLD_BYTES if options.quick else COLD_BYTES
        return described("cpu", cold_bytes, **about, goals=goals, results=results)


def _measure(
    measurement: Measurement, options: Options, absent: dict[str, str], on_progress: Callable[[float], None]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The times of the methods and the figures of the goals, each as records, of all cache states."""
    on_progress(0.0)
    case, missing = measurement.case, {each.name: _missing(each, absent) for each in measurement.methods}
    methods = [each for each in measurement.methods if not missing[each.name]]
    rows = _rows(replace(case, batch=1))
    inputs = batches(rows, case.batch) if case.batch < len(rows) else [case.rows(case.batch)]
    for method in methods:
        with _threads(method.threads):
            method.verify(inputs, rows)
    timed, reached = [], []
    for number, (cache, goals) in enumerate(measurement.goals.items()):
        progress = partial(_tell_part, on_progress, number, len(measurement.goals))
        timings = _time(measurement, methods, cache, options, progress)
        where = {"job": measurement.job, **asdict(case), "cache": cache}
        for method in methods:
            about = {"method": method.name, "counted": method.counted, "threads": method.threads}
            timed.append(
                where | about | {"series": measurement.series.get(method.name)} | timings[method.name].record()
            )
        for goal in goals:
            record = goal.record(timings)
            # What small sizes and a few calls give is no verdict.
            record["met"] = None if options.quick else record["met"]
            record["missing"] = {name: missing[name] for name in record["missing"]}
            reached.append(where | record)
    return timed, reached


def _time(
    measurement: Measurement, methods: list[Method], cache: str, options: Options, on_progress: Callable[[float], None]
) -> dict[str, Timing]:
    inputs = measurement.case.inputs(cache, QUICK_COLD_BYTES if options.quick else COLD_BYTES)
    switches = {method.name: partial(torch.set_num_threads, method.threads) for method in methods}
    with _threads(1):
        return time_in_turn(
            {method.name: method.bind(inputs) for method in methods},
            range(len(inputs)),
            QUICK_SECONDS if options.quick else measurement.seconds,
            on_progress,
            before=switches if any(method.threads > 1 for method in methods) else None,
            turn=0.0 if options.quick else measurement.turn,
        )


def _missing(method: Method, absent: dict[str, str]) -> str:
    """Why the method cannot be timed; empty if it can."""
    needs = (*method.needs, SECOND_THREAD) if method.threads > 1 else method.needs
    return "; ".join(absent[need] for need in needs if need in absent)


@lru_cache(maxsize=4)
def _rows(case: Case) -> Tensor:
    # The same object for every batch size, so that the reference looks at it once.
    return case.rows(VERIFIED_ROWS).clone()


def _chosen(measurements: list[Measurement], only: str) -> list[Measurement]:
    chosen = [each for each in measurements if only in each.job]
    if not chosen:
        jobs = "; ".join(dict.fromkeys(each.job for each in measurements))
        raise ValueError(f"only: expected part of the name of a job ({jobs}), got {only!r}")
    return chosen


def _weight(measurement: Measurement) -> float:
    return measurement.seconds * len(measurement.goals) + 1.0


def _tell_part(on_progress: Callable[[float], None], finished: int, parts: int, part: float) -> None:
    on_progress((finished + part) / parts)


def _tell(tell: Tell, what: str, finished: float, share: float, part: float) -> None:
    tell(what, finished + share * part)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _no_second_thread() -> str:
    """Why two threads cannot be measured; empty if they can."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return "this process has one core"
    with _threads(2):
        return "" if torch.get_num_threads() == 2 else "torch does not take two threads here"
