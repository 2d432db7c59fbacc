"""Runs the grid of `warpdraw bench gpu` place by place, within its time, and says what was not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch

from ..backends import BackendError, backend_for
from ..environment import package_version
from .gpu_clock import clock_of
from .gpu_grid import QUICK, Place, Sizes, grid
from .gpu_jobs import COMBINED, COUPLED, EVERYTHING, JOINT, REJECTION, SOFTMAX, Point
from .gpu_measure import Bench
from .harness import Timing
from .peers import COMPILED, COMPILED_EAGER, GPU_LOADERS, GPU_SPECULATORS, available, load_peers
from .records import described

COPY_BYTES, QUICK_COPY_BYTES = 2**30, 2**20
PLACE_SECONDS = 0.2
PACKAGES = ("transformers", "flashinfer-python", "sonic-sampler")
DROPPED = "the time of the run was up: places are measured in the order of the grid, what has targets first"
METHOD = {
    "timing": "events around replays of a CUDA graph of the calls, methods in turn; a sample is the mean of its calls. "
    "A call that waits for the device cannot be captured: events around one call. On the CPU wall time",
    "cold": "each call on the next of several inputs, together `device.cold_bytes`, three times the L2 cache; "
    "where there is no graph, a buffer of twice the cache is filled before the call",
    "warm": "each call on the same input",
    "floor": "the bytes that must be moved, over the bandwidth of a copy that is timed in turn with the methods",
    "verified": "our outputs against the CPU backend before and after timing; peers against the float64 reference",
}

Tell = Callable[[str, float], None]
Save = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Options:
    """What is asked of a run: `only` picks the jobs with that text in their name, `seconds` is for the grid."""

    device: str = "cuda"
    quick: bool = False
    compile: bool = True
    only: str = ""
    seconds: float = 240.0


def run(options: Options, tell: Tell = lambda what, part: None, save: Save = lambda document: None) -> dict[str, Any]:
    """Measure the grid: a document of plain data. `save` is given what there is after each place.

    Raises BackendError where the device has no backend, ValueError for an `only` that names no job.
    """
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"device {device}: torch finds no CUDA device")
    if device.type == "cuda":
        with torch.cuda.device(device):
            return _run(options, device, tell, save)
    return _run(options, device, tell, save)


def _run(options: Options, device: torch.device, tell: Tell, save: Save) -> dict[str, Any]:
    begun = perf_counter()
    backend = backend_for(device)
    sizes = QUICK if options.quick else Sizes()
    places = _chosen(grid(sizes), options.only)
    tell("looking for peers", 0.0)
    skipped = "--quick" if options.quick else "" if options.compile else "--no-compile"
    without = dict.fromkeys((COMPILED, COMPILED_EAGER), f"skipped: {skipped}") if skipped else {}
    peers, absent = load_peers(without, GPU_LOADERS)
    speculators, others = available(GPU_SPECULATORS, {})
    absent |= others
    bench = Bench(
        clock_of(device),
        peers,
        max(sizes.batches),
        QUICK_COPY_BYTES if options.quick else COPY_BYTES,
        0.0 if options.quick else PLACE_SECONDS,
        not options.quick,
        speculators,
    )
    document = described(
        "gpu",
        bench.clock.cold_bytes,
        method=METHOD,
        options=asdict(options),
        backend=f"{backend.name}: {backend.reason}",
        device=_device(device) | {"cold_bytes": bench.clock.cold_bytes},
        packages={name: package_version(name) for name in PACKAGES},
        absent=absent,
        goals=bench.goals,
        failed=bench.failed,
        dropped=[],
        kernels=bench.kernels,
        host=bench.host,
        results=bench.results,
    )
    for number, place in enumerate(places):
        spent = perf_counter() - begun
        if spent > options.seconds:
            document["dropped"] = _dropped(places[number:], DROPPED)
            break
        tell(title(place.point), min(1.0, max(number / len(places), spent / options.seconds)))
        bench.measure(place)
        _summarise(document, bench, begun)
        save(document)
        if reason := bench.lost():
            document["dropped"] = _dropped(places[number + 1 :], reason)
            break
    if not bench.lost():
        for batch in sorted({1, *sizes.few}):
            bench.measure_host(Point(COMBINED, sizes.vocabularies[0], batch))
        for place in places:  # the last: a profiler that was on may slow down what follows
            if place.forced and place.point.job in (COMBINED, JOINT, EVERYTHING, SOFTMAX, COUPLED, REJECTION):
                bench.count_kernels(place)
    _summarise(document, bench, begun)
    save(document)
    return document


def title(point: Point) -> str:
    """A point in words."""
    return f"{point.job}, {point.batch} x {point.vocab} {point.dtype}, {point.logits}, {point.cache}"


def _summarise(document: dict[str, Any], bench: Bench, begun: float) -> None:
    document["seconds"] = perf_counter() - begun
    if bench.bandwidths:
        found = Timing.of(bench.bandwidths)
        document["copy_bandwidth"] = {name: getattr(found, name) * 1e-9 for name in ("median", "p10", "p90")} | {
            "unit": "GB/s, read and written"
        }


def _chosen(places: list[Place], only: str) -> list[Place]:
    chosen = [place for place in places if only in place.point.job]
    if not chosen:
        jobs = "; ".join(dict.fromkeys(place.point.job for place in places))
        raise ValueError(f"only: expected part of the name of a job ({jobs}), got {only!r}")
    return chosen


def _dropped(places: list[Place], reason: str) -> list[dict[str, Any]]:
    return [asdict(place.point) | {"reason": reason} for place in places]


def _device(device: torch.device) -> dict[str, Any]:
    """What the device is."""
    if device.type != "cuda":
        return {"type": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": device.type,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
    }
