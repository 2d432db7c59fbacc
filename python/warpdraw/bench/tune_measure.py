"""Tries all candidates at a place: verifies them, drops slow ones in rounds, and says whether one beats the rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backends import launches
from .gpu_clock import Clock, Run
from .gpu_copy import Copy
from .gpu_jobs import Point, inputs_of
from .gpu_run import failure
from .gpu_work import Work, our_work, poison
from .harness import Timing
from .tune_candidates import Candidate
from .tune_grid import Sizes
from .verify import NotVerified

COPIED = "a copy"
FEWEST, LAST = 6, 8  # how many are left, beside the rule, for the second round at least and for the last


class Tuner:
    """The findings of a run as plain data: `results` of places, and the candidates that `failed`, with the reason."""

    def __init__(self, clock: Clock, candidates: Sequence[Candidate], sizes: Sizes, copy_bytes: int) -> None:
        self._clock, self._sizes = clock, sizes
        self._rule, *_ = self._candidates = list(candidates)
        self._copy = Copy(clock, copy_bytes)
        self.results: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.bandwidths: list[float] = []
        self.doing = self._rule  # what runs or is made ready

    def work_at(self, point: Point) -> tuple[Work, bool]:
        """The op on the inputs of a point, and whether the caches have to forget them before each sample."""
        cold = self._clock.cold_bytes
        pool, inputs = inputs_of(point, max(self._sizes.batches), cold, self._clock.device)
        taken = inputs[: self._sizes.inputs]
        return our_work(point, pool, taken), len(taken) * point.bytes < cold

    def tune(self, point: Point) -> None:
        """Try all candidates at a place. What fails is recorded and not timed; without the rule there is no result."""
        try:
            self._tune(point)
        except (RuntimeError, NotVerified) as error:  # of the device, once it is asked what it did; or of the rule
            self.fail(point, self._rule, error)

    def fail(self, point: Point, candidate: Candidate, error: Exception) -> None:
        """Record what went wrong."""
        self.failed.append(asdict(point) | {"candidate": candidate.name} | failure(error))

    def _tune(self, point: Point) -> None:
        work, forget = self.work_at(point)
        _poison_all(work)
        _write_all(self._rule, work)
        work.compare(self._rule.name)
        right = {name: tensor.clone() for name, tensor in work.room.items()}
        verified, refused = self._verified(point, work, right)
        if self._rule.name not in verified:
            return

        first, second, last = self._sizes.rounds
        screened = self._time({each.name: self._roughly(each, work) for each in verified.values()}, first)
        kept = self._best(screened, max(FEWEST, len(screened) // 4))
        runs = self._bind(point, [verified[name] for name in kept], work, forget)
        timings = self._time(runs, second)
        kept = self._best(timings, LAST)
        finals = self._time({name: runs[name] for name in kept} | {COPIED: self._copy.run}, last)
        bandwidth = self._copy.bandwidth(finals.pop(COPIED))
        for name in kept:
            try:
                _compare_all(name, work, right, runs[name].seconds)
            except NotVerified as error:
                self.fail(point, verified[name], error)
                del finals[name]
        if self._rule.name not in finals:
            return
        self.bandwidths.append(bandwidth)
        self.results.append(
            asdict(point)
            | verdict(finals, self._rule.name, point.bytes / bandwidth)
            | {
                "copy_bandwidth": bandwidth,
                "refused": refused,
                "screened_us": {name: timing.median * 1e6 for name, timing in screened.items()},
                "timings": [
                    {"candidate": name, "last": name in finals, **(finals.get(name, timing)).record()}
                    | {"calls_in_a_sample": runs[name].calls, "way": runs[name].way, "reason": runs[name].reason}
                    | {"ran": _ran(verified[name], work) if name in finals else []}
                    for name, timing in timings.items()
                    if name in finals or name not in kept
                ],
            }
        )

    def _verified(
        self, point: Point, work: Work, right: Mapping[str, Tensor]
    ) -> tuple[dict[str, Candidate], list[dict[str, str]]]:
        """The candidates that give what the rule gives, in all rows of all inputs; and those that cannot run here."""
        verified, refused = {}, []
        for candidate in self._candidates:
            self.doing = candidate
            try:
                _compare_all(candidate.name, work, right, partial(_write_all, candidate, work))
                work.compare(candidate.name)
                verified[candidate.name] = candidate
            except ValueError as error:  # a plan that the row or the device does not allow
                refused.append({"candidate": candidate.name, "reason": str(error)})
            except (RuntimeError, NotVerified) as error:
                self.fail(point, candidate, error)
                if self._clock.lost():
                    return {}, refused
        return verified, refused

    def _bind(self, point: Point, candidates: Sequence[Candidate], work: Work, forget: bool) -> dict[str, Run]:
        runs = {}
        for candidate in candidates:
            self.doing = candidate
            try:
                runs[candidate.name] = self._clock.bind(partial(candidate.run, work), len(work), forget)
            except RuntimeError as error:
                self.fail(point, candidate, error)
        return runs

    def _roughly(self, candidate: Candidate, work: Work) -> Run:
        return self._clock.bind_roughly(partial(candidate.run, work), len(work))

    def _time(self, runs: Mapping[str, Run], rounds: int) -> dict[str, Timing]:
        return self._clock.time_in_turn(runs, 0.0, rounds)

    def _best(self, timings: Mapping[str, Timing], count: int) -> list[str]:
        """The names of the fastest, and of the rule wherever it is."""
        names = sorted(timings, key=lambda name: timings[name].median)
        return list(dict.fromkeys([*names[:count], self._rule.name]))


def verdict(timings: Mapping[str, Timing], rule: str, floor: float) -> dict[str, Any]:
    """Which one wins: the fastest, if nine tenths of its samples are below nine tenths of the rule's; else the rule."""
    fastest = min(timings, key=lambda name: timings[name].median)
    clear = fastest != rule and timings[fastest].p90 < timings[rule].p10
    winner = fastest if clear else rule
    return {
        "winner": winner,
        "clear": clear,
        "fastest": fastest,
        "us": timings[winner].median * 1e6,
        "fastest_us": timings[fastest].median * 1e6,
        "rule_us": timings[rule].median * 1e6,
        "ratio": timings[rule].median / timings[winner].median,
        "floor_us": floor * 1e6,
        "of_floor": timings[winner].median / floor,
    }


def _write_all(candidate: Candidate, work: Work) -> None:
    for number in range(len(work)):
        candidate.run(work, number)


def _poison_all(work: Work) -> None:
    for tensor in work.room.values():
        poison(tensor)


def _compare_all(name: str, work: Work, right: Mapping[str, Tensor], write: Callable[[], Any]) -> None:
    """Raise NotVerified unless what is written into outputs full of nonsense is right, bit for bit, in every row."""
    _poison_all(work)
    write()
    for field, expected in right.items():
        if not torch.equal(work.room[field], expected):
            raise NotVerified(f"{name} does not give the {field} of the rule in every row")


def _ran(candidate: Candidate, work: Work) -> list[str]:
    """Which kernels a candidate ran, as they are counted."""
    before = launches()
    candidate.run(work, 0)
    return [name for name, count in launches().items() if count != before.get(name, 0)]
