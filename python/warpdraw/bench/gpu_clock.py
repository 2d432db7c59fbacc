"""Clocks of a device: how long one call takes there, from a graph of many calls, or by events around one call."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from .harness import Timing
from .quietly import quietly

# One sample is so many calls, or as many as take so long: what launching a graph costs is shared by all of them.
USUAL_CALLS, LONG_SECONDS = 20, 1e-3
FEWEST_ROUNDS, MOST_ROUNDS = 5, 200
# What is timed roughly is fewer calls.
FEW_CALLS, SHORT_SECONDS = 16, 3e-4
# The device is kept busy for so many of its cycles while the host queues what is timed.
HEAD_START = 1_000_000

GRAPH = "a CUDA graph of the calls"
EVENTS = "events around one call"
QUEUE = "events around a queue of calls"
WALL = "wall time of the calls"


@dataclass(frozen=True)
class Run:
    """Something that can be timed: `seconds` runs it once and returns the seconds of one call."""

    seconds: Callable[[], float]
    way: str  # GRAPH, EVENTS or WALL
    calls: int  # in one sample
    reason: str = ""  # why it is not the usual way


class Clock(ABC):
    """Times calls on one device. `cold_bytes` is how much data makes its largest cache forget the rest."""

    def __init__(self, device: torch.device, cold_bytes: int) -> None:
        self.device, self.cold_bytes = device, cold_bytes

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for the device."""

    def lost(self) -> str:
        """Why nothing more can be measured: an error that the device does not recover from; empty if it is well."""
        try:
            self.synchronize()
        except RuntimeError as error:
            return f"the device failed: {str(error).splitlines()[0]}"
        return ""

    @abstractmethod
    def bind(self, call: Callable[[int], Any], inputs: int, forget: bool = False) -> Run:
        """Make a call ready: it takes the numbers of its inputs in turn; with one input that is hot.

        `forget` is for inputs that fit in the cache together, but are to be cold: each sample begins without them.
        """

    @abstractmethod
    def bind_roughly(self, call: Callable[[int], Any], inputs: int) -> Run:
        """Make a call ready at little cost, to tell fast from slow: a few calls on cold inputs in turn."""

    @abstractmethod
    def once(self, work: Callable[[], Any]) -> float:
        """The seconds that some work takes on the device."""

    @abstractmethod
    def extra_bytes(self, call: Callable[[int], Any]) -> int | None:
        """The most memory that a call takes beside what is there; None where that is not known."""

    @abstractmethod
    def kernels(self, call: Callable[[int], Any]) -> int | None:
        """How many kernels, copies and fills the device runs for a call; None where there are none to count."""

    def time_in_turn(self, runs: Mapping[str, Run], seconds: float, fewest: int = FEWEST_ROUNDS) -> dict[str, Timing]:
        """Sample A B C A B C ... for about `seconds`, so that what slows the device down slows all of them."""
        samples: dict[str, list[float]] = {name: [] for name in runs}
        begun = perf_counter()
        for done in range(1, MOST_ROUNDS + 1):
            for name, run in runs.items():
                samples[name].append(run.seconds())
            if done >= fewest and perf_counter() - begun >= seconds:
                break
        return {name: Timing.of(found) for name, found in samples.items()}

    def host_seconds(self, call: Callable[[int], Any], inputs: int, calls: int = 300) -> Timing:
        """Wall time until the host has issued a call, which does not wait for the device."""
        spent = []
        for number in range(calls):
            if number % 50 == 0:
                self.synchronize()  # a full queue would make the host wait
                call(number % inputs)
            begun = perf_counter()
            call(number % inputs)
            spent.append(perf_counter() - begun)
        self.synchronize()
        return Timing.of(spent)


def clock_of(device: torch.device, cold_bytes: int | None = None) -> Clock:
    """The clock of a device: of the CPU too, so that the same code can be tried without a GPU."""
    if device.type == "cuda":
        return CudaClock(device, cold_bytes)
    return HostClock(device, cold_bytes or 2**18)


class HostClock(Clock):
    """The CPU's: wall time."""

    def synchronize(self) -> None:
        pass

    def bind(self, call: Callable[[int], Any], inputs: int, forget: bool = False) -> Run:
        calls = _calls(inputs, self.once(lambda: call(0)))
        return Run(lambda: self.once(lambda: [call(number % inputs) for number in range(calls)]) / calls, WALL, calls)

    def bind_roughly(self, call: Callable[[int], Any], inputs: int) -> Run:
        return self.bind(call, min(inputs, 2))

    def once(self, work: Callable[[], Any]) -> float:
        begun = perf_counter()
        work()
        return perf_counter() - begun

    def extra_bytes(self, call: Callable[[int], Any]) -> int | None:
        call(0)
        return None

    def kernels(self, call: Callable[[int], Any]) -> int | None:
        call(0)
        return None


class CudaClock(Clock):
    """A GPU's: events around the replay of a graph, or around one call if that cannot be captured."""

    def __init__(self, device: torch.device, cold_bytes: int | None = None) -> None:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        super().__init__(device, 3 * cache if cold_bytes is None else cold_bytes)
        self._flushed = torch.zeros(max(1, 2 * cache // 4), dtype=torch.int32, device=device)
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def bind(self, call: Callable[[int], Any], inputs: int, forget: bool = False) -> Run:
        # The first call on a side stream: it loads kernels and compiles, which a capture forbids.
        warm = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        warm.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(warm):
            for number in range(min(2, inputs)):
                call(number)
        torch.cuda.current_stream(self.device).wait_stream(warm)
        self.synchronize()
        # A failed capture leaves torch's generator unusable, so what waits for the device is found out before.
        reason = self._waits(call)
        if reason:
            return Run(lambda: self._of_one(call, inputs), EVENTS, 1, reason)
        calls = _calls(inputs, self.once(lambda: call(0)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for number in range(calls):
                call(number % inputs)
        graph.replay()
        self.synchronize()

        def seconds() -> float:
            if forget:
                self._forget()
            elif inputs == 1:
                graph.replay()  # other methods have been there since
            return self.once(graph.replay) / calls

        return Run(seconds, GRAPH, calls)

    def bind_roughly(self, call: Callable[[int], Any], inputs: int) -> Run:
        # The device is still busy with its head start while so few calls are queued.
        wanted = math.ceil(SHORT_SECONDS / max(self.once(lambda: call(0)), 1e-9))
        calls = max(min(2, inputs), min(FEW_CALLS, wanted))

        def seconds() -> float:
            self._forget()
            return self.once(lambda: [call(number % inputs) for number in range(calls)]) / calls

        return Run(seconds, QUEUE, calls)

    def _forget(self) -> None:
        # Read, not written: what is written would have to leave the cache while the next calls run.
        torch.amax(self._flushed, 0)

    def extra_bytes(self, call: Callable[[int], Any]) -> int | None:
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        result = call(0)
        self.synchronize()
        del result
        return torch.cuda.max_memory_allocated(self.device) - before

    def kernels(self, call: Callable[[int], Any]) -> int | None:
        call(0)
        self.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            call(0)
            self.synchronize()
        return sum(str(event.device_type).endswith("CUDA") for event in seen.events() or ())

    def _waits(self, call: Callable[[int], Any]) -> str:
        """Why the call cannot be captured; empty if nothing in it waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        with quietly():  # it warns that it does not find everything
            torch.cuda.set_sync_debug_mode("error")
        try:
            call(0)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return f"it waits for the device ({str(error).splitlines()[0][:100]})"
        finally:
            torch.cuda.set_sync_debug_mode(before)
            self.synchronize()
        return ""

    def once(self, work: Callable[[], Any]) -> float:
        torch.cuda._sleep(HEAD_START)  # type: ignore[no-untyped-call]
        self._start.record()
        work()
        self._end.record()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) * 1e-3

    def _of_one(self, call: Callable[[int], Any], inputs: int) -> float:
        if inputs == 1:
            call(0)
        else:
            self._flushed.zero_()
        return self.once(lambda: call(0))


def _calls(inputs: int, seconds: float) -> int:
    """How many calls make a sample: each input has its turn equally often."""
    wanted = min(USUAL_CALLS, math.ceil(LONG_SECONDS / max(seconds, 1e-9)))
    return inputs * math.ceil(wanted / inputs)
