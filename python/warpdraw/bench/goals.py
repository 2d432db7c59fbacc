"""Goals: a figure made of the medians of one run, and what it is to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .harness import Timing
from .method import OURS

# What a figure says: how it is computed from our time and another one, and how it is read.
FASTER, RATIO, MORE, TIME = "x faster", "x its time", " us more", " us"

# A difference of medians may drown in the noise; no cost is less than the resolution of the clock.
LEAST_SECONDS = 1e-8


@dataclass(frozen=True)
class Goal:
    """A figure of one kind; a cost is a method's median, minus that of another method where two are named.

    FASTER must be at least `target`, the other kinds at most; without a target it is for information.
    """

    kind: str
    against: str  # in words
    ours: tuple[str, ...]
    other: tuple[str, ...] = ()  # none: our time itself is the figure
    target: float | None = None
    of_minimum: bool = False

    def record(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """The figure with its parts, as plain data; all None where a method is `missing`."""
        missing = [name for name in (*self.ours, *self.other) if name not in timings]
        ours, other = (None, None) if missing else (self._cost(self.ours, timings), self._cost(self.other, timings))
        figure = None if ours is None or other is None else self._figure(ours, other)
        return {
            "against": self.against,
            "ours": " minus ".join(self.ours),
            "ours_us": None if ours is None else ours * 1e6,
            "other": " minus ".join(self.other),
            "other_us": None if other is None or not self.other else other * 1e6,
            "statistic": "minimum" if self.of_minimum else "median",
            "kind": self.kind.strip(),
            "figure": figure,
            "target": self.target,
            "met": None if figure is None or self.target is None else self._met(figure, self.target),
            "missing": missing,
        }

    def _cost(self, names: tuple[str, ...], timings: Mapping[str, Timing]) -> float:
        costs = [timings[name].minimum if self.of_minimum else timings[name].median for name in names]
        return max(costs[0] - sum(costs[1:]), LEAST_SECONDS) if costs else 0.0

    def _figure(self, ours: float, other: float) -> float:
        if self.kind in (MORE, TIME):
            return (ours - other) * 1e6
        return other / ours if self.kind == FASTER else ours / other

    def _met(self, figure: float, target: float) -> bool:
        return figure >= target if self.kind == FASTER else figure <= target


def faster(other: str, target: float | None = None, ours: str = OURS) -> Goal:
    """Another method takes at least `target` times as long as ours."""
    return Goal(FASTER, other, (ours,), (other,), target)


def within(floor: str, target: float | None, ours: str) -> Goal:
    """Ours takes at most `target` times as long as something."""
    return Goal(RATIO, floor, (ours,), (floor,), target)


def above(floor: str, target: float | None, ours: str) -> Goal:
    """Ours takes at most `target` microseconds more than something."""
    return Goal(MORE, floor, (ours,), (floor,), target)
