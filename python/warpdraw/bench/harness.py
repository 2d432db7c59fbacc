"""The timing harness: methods called in turn in one process, on rows that are cold or hot, as medians with spread."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter_ns
from typing import Any

from torch import Tensor

# Cold inputs are different ones in turn, together at least this large: more than a core's own caches.
COLD_BYTES = 64 * 2**20
FEWEST_ROUNDS, MOST_ROUNDS, MOST_REPEATS = 5, 400, 16

Method = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Timing:
    """Wall time of one call in seconds: the median, and the 10th and 90th percentile, of `calls` calls."""

    median: float
    p10: float
    p90: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        ordered = sorted(seconds)
        p10, median, p90 = (ordered[round(part * (len(ordered) - 1))] for part in (0.1, 0.5, 0.9))
        return Timing(median, p10, p90, len(ordered))


def time_in_turn(
    methods: dict[str, Method],
    inputs: Sequence[Tensor],
    seconds: float,
    on_progress: Callable[[float], None] = lambda part: None,
) -> dict[str, Timing]:
    """Time methods A B C A B C ... for about `seconds`, so that what slows the machine down slows all of them.

    With several inputs each call gets the next one (cold, if together they are larger than the caches). With one input
    a fast method is called once, untimed, before its turn, to have it hot. Within its turn a fast method is called
    several times, each call timed by itself. `on_progress` is told the finished part, 0 to 1.
    """
    following, hot = cycle(inputs), len(inputs) == 1
    estimates = {name: min(_time(method, next(following)) for _ in range(2)) for name, method in methods.items()}
    slowest = max(estimates.values())
    repeats = {name: max(1, min(MOST_REPEATS, int(slowest / cost / 4))) for name, cost in estimates.items()}

    calls: dict[str, list[float]] = {name: [] for name in methods}
    with _no_collection():
        begun = perf_counter_ns()
        for done in range(1, MOST_ROUNDS + 1):
            for name, method in methods.items():
                if hot and estimates[name] < slowest / 2:
                    method(inputs[0])
                calls[name] += [_time(method, next(following)) for _ in range(repeats[name])]
            elapsed = (perf_counter_ns() - begun) * 1e-9
            part = max(done / MOST_ROUNDS, elapsed / seconds if seconds else 1.0)
            on_progress(min(part, done / FEWEST_ROUNDS, 1.0))
            if part >= 1 and done >= FEWEST_ROUNDS:
                break
    return {name: Timing.of(seconds) for name, seconds in calls.items()}


def _time(method: Method, given: Tensor) -> float:
    begun = perf_counter_ns()
    method(given)
    return max(perf_counter_ns() - begun, 1) * 1e-9


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
