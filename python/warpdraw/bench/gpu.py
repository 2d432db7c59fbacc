"""Runs the grid of `warpdraw bench gpu` place by place, within its time, and says what was not measured."""

from __future__ import annotations

from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch

from ..backends import backend_for
from ..environment import package_version
from .gpu_clock import clock_of
from .gpu_grid import QUICK, Sizes, grid
from .gpu_jobs import COMBINED, COUPLED, EVERYTHING, JOINT, REJECTION, SOFTMAX, Point
from .gpu_measure import Bench
from .gpu_run import DROPPED, Options, Save, Tell, bandwidth_record, chosen, device_record, dropped, on, title
from .peers import GPU_LOADERS, GPU_SPECULATORS, available, load_peers
from .records import described

COPY_BYTES, QUICK_COPY_BYTES = 2**30, 2**20
PLACE_SECONDS = 0.2
PACKAGES = ("transformers", "flashinfer-python", "sonic-sampler")
METHOD = {
    "timing": "events around replays of a CUDA graph of the calls, methods in turn; a sample is the mean of its calls. "
    "A call that waits for the device cannot be captured: events around one call. On the CPU wall time",
    "cold": "each call on the next of several inputs, together `device.cold_bytes`, three times the L2 cache; "
    "where there is no graph, a buffer of twice the cache is filled before the call",
    "warm": "each call on the same input",
    "floor": "the bytes that must be moved, over the bandwidth of a copy that is timed in turn with the methods",
    "verified": "our outputs against the CPU backend before and after timing; peers against the float64 reference",
}


def run(options: Options, tell: Tell = lambda what, part: None, save: Save = lambda document: None) -> dict[str, Any]:
    """Measure the grid: a document of plain data. `save` is given what there is after each place.

    Raises BackendError where the device has no backend, ValueError for an `only` that names no job.
    """
    device = torch.device(options.device)
    with on(device):
        return _run(options, device, tell, save)


def _run(options: Options, device: torch.device, tell: Tell, save: Save) -> dict[str, Any]:
    begun = perf_counter()
    backend = backend_for(device)
    sizes = QUICK if options.quick else Sizes()
    places = chosen(grid(sizes), options.only, lambda place: place.point)
    tell("looking for peers", 0.0)
    peers, absent = load_peers(options.skip, GPU_LOADERS)
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
        device=device_record(device) | {"cold_bytes": bench.clock.cold_bytes},
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
            document["dropped"] = dropped([place.point for place in places[number:]], DROPPED)
            break
        tell(title(place.point), min(1.0, max(number / len(places), spent / options.seconds)))
        bench.measure(place)
        _summarise(document, bench, begun)
        save(document)
        if reason := bench.clock.lost():
            document["dropped"] = dropped([place.point for place in places[number + 1 :]], reason)
            break
    if not bench.clock.lost():
        for batch in sorted({1, *sizes.few}):
            bench.measure_host(Point(COMBINED, sizes.vocabularies[0], batch))
        for place in places:  # the last: a profiler that was on may slow down what follows
            if place.forced and place.point.job in (COMBINED, JOINT, EVERYTHING, SOFTMAX, COUPLED, REJECTION):
                bench.count_kernels(place)
    _summarise(document, bench, begun)
    save(document)
    return document


def _summarise(document: dict[str, Any], bench: Bench, begun: float) -> None:
    document["seconds"] = perf_counter() - begun
    document |= bandwidth_record(bench.bandwidths)
