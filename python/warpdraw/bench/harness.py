"""The timing harness: methods called in turn in one process, on rows that are cold or hot, as medians with spread."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter_ns
from typing import Any

# Cold inputs are different ones in turn, together at least this large: more than a core's own caches.
COLD_BYTES = 64 * 2**20
FEWEST_ROUNDS, MOST_ROUNDS, MOST_REPEATS = 3, 20_000, 16
SLOW_SECONDS = 0.1  # a method this slow is estimated from one call
TELL_SECONDS = 0.05  # telling the progress more often would disturb what is timed

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Timing:
    """Wall time of one call in seconds: the median, and the 10th and 90th percentile, of `calls` calls."""

    median: float
    p10: float
    p90: float
    calls: int
    minimum: float = field(default=math.nan, compare=False)

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        ordered = sorted(seconds)
        p10, median, p90 = (ordered[round(part * (len(ordered) - 1))] for part in (0.1, 0.5, 0.9))
        return Timing(median, p10, p90, len(ordered), ordered[0])

    def record(self) -> dict[str, float]:
        """Microseconds, as plain data."""
        return {
            "median_us": self.median * 1e6,
            "p10_us": self.p10 * 1e6,
            "p90_us": self.p90 * 1e6,
            "min_us": self.minimum * 1e6,
            "calls": self.calls,
        }


def time_in_turn(
    methods: Mapping[str, Callable[[Any], Any]],
    inputs: Sequence[Any],
    seconds: float,
    on_progress: Progress = lambda part: None,
    before: Mapping[str, Callable[[], None]] | None = None,
    turn: float = 0.0,
) -> dict[str, Timing]:
    """Time methods A B C A B C ... for about `seconds`, so that what slows the machine down slows all of them.

    With several inputs each call gets the next one (cold, if together they are larger than the caches). With one input
    a fast method is called once, untimed, before its turn, to have it hot. Within its turn a fast method is called
    several times, each call timed by itself, and for about `turn` seconds where that is given. `before` holds what is
    to be done, untimed, before the turn of a method. `on_progress` is told the finished part, 0 to 1.
    """
    following, hot = cycle(inputs), len(inputs) == 1
    prepare = {name: (before or {}).get(name, lambda: None) for name in methods}
    estimates = {name: _estimate(method, following, prepare[name]) for name, method in methods.items()}
    slowest = max(estimates.values())
    repeats = {
        name: max(1, min(MOST_REPEATS, int(slowest / cost / 4)), int(turn / cost)) for name, cost in estimates.items()
    }

    calls: dict[str, list[float]] = {name: [] for name in methods}
    told = 0.0
    with _no_collection():
        begun = perf_counter_ns()
        for done in range(1, MOST_ROUNDS + 1):
            for name, method in methods.items():
                prepare[name]()
                if hot and estimates[name] < slowest / 2:
                    method(inputs[0])
                calls[name] += [_time(method, next(following)) for _ in range(repeats[name])]
            elapsed = (perf_counter_ns() - begun) * 1e-9
            part = max(done / MOST_ROUNDS, elapsed / seconds if seconds else 1.0)
            if elapsed - told > TELL_SECONDS:
                on_progress(min(part, done / FEWEST_ROUNDS, 1.0))
                told = elapsed
            if part >= 1 and done >= FEWEST_ROUNDS:
                break
    return {name: Timing.of(seconds) for name, seconds in calls.items()}


def _estimate(method: Callable[[Any], Any], following: Iterator[Any], prepare: Callable[[], None]) -> float:
    prepare()
    first = _time(method, next(following))
    return first if first > SLOW_SECONDS else min(first, _time(method, next(following)))


def _time(method: Callable[[Any], Any], given: Any) -> float:
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
