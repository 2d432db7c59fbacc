"""Measures one place of the grid of a GPU: verifies its methods and times them in turn with a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from .. import ops
from ..backends import launches
from .goals import TIME, Goal
from .gpu_clock import Clock, Run
from .gpu_copy import Copy
from .gpu_devices import device_named
from .gpu_grid import COPY, FLOOR, PLAIN, Place, goals_of, methods_of
from .gpu_jobs import COMBINED, EVERYTHING, SOFTMAX, SPECULATIVE, Point, Pool, arguments, inputs_of
from .gpu_methods import OURS, READ, TORCH_SOFTMAX, Bound, forced_paths, of_peer, ours, read, torch_softmax
from .gpu_prediction import predicted_us
from .gpu_run import failure
from .gpu_speculation import PLAIN_DRAWS, of_speculator, our_verification, plain_draws
from .harness import Timing
from .peers import Peer, Speculator
from .verify import NotVerified

HOST = "host time of an eager call"
HOST_GOAL = Goal(TIME, HOST, (OURS,), target=6.0)


class Bench:
    """The measurements of a run, collected as plain data in `results`, `goals`, `failed` and `host`."""

    def __init__(
        self,
        clock: Clock,
        peers: dict[str, Peer],
        largest: int,
        copy_bytes: int,
        seconds: float,
        verdicts: bool,
        speculators: Mapping[str, Speculator] | None = None,
    ) -> None:
        self._speculators = speculators or {}
        self.clock, self._peers, self._largest, self._seconds = clock, peers, largest, seconds
        self._known = device_named(torch.cuda.get_device_name(clock.device)) if clock.device.type == "cuda" else None
        self._verdicts = verdicts  # what small sizes and a few calls give is none
        self._copy = Copy(clock, copy_bytes)
        self.results: list[dict[str, Any]] = []
        self.goals: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.host: list[dict[str, Any]] = []
        self.kernels: list[dict[str, Any]] = []
        self.bandwidths: list[float] = []  # of the copy, bytes read and written a second, at each place

    def measure(self, place: Place) -> None:
        """Verify and time the methods of a place; what fails is recorded and not timed."""
        try:
            self._measure(place)
        except RuntimeError as error:  # of the device, once it is asked what it did
            self._fail(place.point, OURS, error)

    def _measure(self, place: Place) -> None:
        point = place.point
        pool, inputs = self._inputs(point)
        bounds, runs, about = {}, {}, {}
        for bound in self._bounds(place, pool, inputs):
            try:
                bound.check()
                before = launches()
                extra = self.clock.extra_bytes(bound.call)
                ran = [name for name, count in launches().items() if count != before.get(name, 0)]
                about[bound.name] = {"counted": bound.counted, "extra_bytes": extra, "ran": ran}
                runs[bound.name] = self.clock.bind(bound.call, len(inputs))
                bounds[bound.name] = bound
                bound.poison()
            except Exception as error:  # whatever other people's code raises
                self._fail(point, bound.name, error)
        timings = self.clock.time_in_turn({**runs, FLOOR: self._copy.run}, self._seconds)
        bandwidth = self._copy.bandwidth(timings.pop(FLOOR))
        self.bandwidths.append(bandwidth)
        for name, bound in bounds.items():
            try:
                bound.compare()
            except NotVerified as error:
                self._fail(point, name, error)
                del timings[name], runs[name]
        self._record(place, timings, runs, about, bandwidth)

    def measure_host(self, point: Point) -> None:
        """How long the host is busy with an eager call that makes its outputs, and the goal of that."""
        pool, inputs = self._inputs(point)
        given = [arguments(point, pool, rows) for rows in inputs]
        try:
            timing = self.clock.host_seconds(
                lambda number: ops.sample(pool.rows[inputs[number]], **given[number]), len(inputs)
            )
        except (RuntimeError, ValueError, TypeError) as error:
            self._fail(point, HOST, error)
            return
        self.goals.append(asdict(point) | self._verdict(HOST_GOAL.record({OURS: timing})))
        self.host.append(asdict(point) | timing.record())

    def count_kernels(self, place: Place) -> None:
        """How many kernels, copies and fills the device runs for one call of each method."""
        pool, inputs = self._inputs(place.point)
        for bound in self._bounds(place, pool, inputs[:1]):
            try:
                found = self.clock.kernels(bound.call)
            except Exception as error:
                self._fail(place.point, f"counting kernels of {bound.name}", error)
            else:
                self.kernels.append(asdict(place.point) | {"method": bound.name, "kernels": found})

    def _inputs(self, point: Point) -> tuple[Pool, list[slice]]:
        return inputs_of(point, self._largest, self.clock.cold_bytes, self.clock.device)

    def _bounds(self, place: Place, pool: Pool, inputs: list[slice]) -> Iterator[Bound]:
        """The methods, ours first, made one after the other: what cannot be made is recorded."""
        point = place.point
        our_op = our_verification if point.job in SPECULATIVE else ours
        makers: dict[str, Callable[[], Bound]] = {OURS: partial(our_op, point, pool, inputs)}
        if place.forced:
            for path in forced_paths(self.clock.device):
                makers[f"{OURS}, {path}"] = partial(our_op, point, pool, inputs, path)
        if point.job == EVERYTHING:
            makers[PLAIN] = lambda: ours(replace(point, job=COMBINED), pool, inputs).named(PLAIN)
        known = {
            READ: partial(read, pool, inputs),
            TORCH_SOFTMAX: partial(torch_softmax, point, pool, inputs),
            PLAIN_DRAWS: partial(plain_draws, point, pool, inputs),
        }
        for name in methods_of(place):
            if name in known:
                makers[name] = known[name]
            elif point.job in SPECULATIVE:
                if name in self._speculators:
                    makers[name] = partial(of_speculator, name, self._speculators[name], point, pool, inputs)
            elif name in self._peers:
                makers[name] = partial(of_peer, name, self._peers[name], point, pool, inputs)
        for name, make in makers.items():
            try:
                yield make()
            except Exception as error:
                self._fail(point, name, error)

    def _fail(self, point: Point, name: str, error: Exception) -> None:
        self.failed.append(asdict(point) | {"method": name} | failure(error))

    def _record(
        self,
        place: Place,
        timings: dict[str, Timing],
        runs: dict[str, Run],
        about: dict[str, dict[str, Any]],
        bandwidth: float,
    ) -> None:
        point = place.point
        for name, timing in timings.items():
            predicted = predicted_us(point, name, self._known)
            self.results.append(
                {
                    **asdict(point),
                    "method": name,
                    **about[name],
                    **timing.record(),
                    "calls_in_a_sample": runs[name].calls,
                    "way": runs[name].way,
                    "reason": runs[name].reason,
                    "bytes": point.bytes,
                    "gigabytes_per_second": point.bytes / timing.median * 1e-9,
                    "of_copy_bandwidth": point.bytes / timing.median / bandwidth,
                    "predicted_us": predicted,
                    "measured_over_predicted": None if predicted is None else timing.median * 1e6 / predicted,
                }
            )
        least = point.bytes / bandwidth
        floor = Timing(least, least, least, 1, least)
        known = {**timings, (COPY if point.job == SOFTMAX else FLOOR): floor}
        for goal in goals_of(place):
            self.goals.append(asdict(point) | self._verdict(goal.record(known)))

    def _verdict(self, record: dict[str, Any]) -> dict[str, Any]:
        return record if self._verdicts else record | {"met": None}
