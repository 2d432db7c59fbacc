"""What our calls should take on a GPU by the sources alone, beside their targets."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import Any

from . import gpu_devices as d
from .goals import TIME
from .gpu_call import Call, cluster_for
from .gpu_grid import COPY, FLOOR, PLAIN, SPECULATIVE_VOCABULARY, VOCABULARIES, Place, goals_of
from .gpu_jobs import COMBINED, EVERYTHING, GREEDY, SOFTMAX, SPECULATIVE, TEMPERED, Point
from .gpu_methods import OURS
from .gpu_paths import CLUSTER, SPLIT, TRITON, Prediction, by_clusters, by_split
from .gpu_triton_path import by_triton


@cache
def predict(point: Point, path: str, device: d.Device) -> Prediction:
    """The prediction for one path: CLUSTER, SPLIT, or TRITON for COMBINED; ValueError where it cannot run."""
    if path == TRITON:
        return by_triton(Call.of(point), device)
    call = Call.of(point)
    blocks = cluster_for(device, call.rows, call.tiles, call.at_once, call.itemsize)
    by_cluster = bool(blocks) and (call.reads_again or call.rows * blocks <= 2 * device.multiprocessors)
    if path == CLUSTER:
        if not blocks:
            raise ValueError(f"vocab: expected a row that fits on chip, got {point.vocab}")
        return replace(by_clusters(call, device, blocks), taken=by_cluster)
    if path != SPLIT:
        raise ValueError(f"path: expected {CLUSTER}, {SPLIT} or {TRITON}, got {path!r}")
    return replace(by_split(call, device), taken=not by_cluster)


def taken(point: Point, device: d.Device) -> Prediction:
    """The prediction for the path that `cuda` takes."""
    try:
        clusters = predict(point, CLUSTER, device)
    except ValueError:
        return predict(point, SPLIT, device)
    return clusters if clusters.taken else predict(point, SPLIT, device)


def floor_us(point: Point, device: d.Device) -> float:
    """The bytes that must be moved, at the bandwidth of a copy."""
    return point.bytes / device.copied


def target_us(point: Point, device: d.Device) -> float | None:
    """The most that the targets of `warpdraw bench gpu` allow; None where they have none for our op alone."""
    allowed = []
    for goal in goals_of(Place(point)):
        if goal.target is None:
            continue
        if goal.kind == TIME:
            allowed.append(goal.target)
        elif goal.against in (FLOOR, COPY):
            allowed.append(goal.target * floor_us(point, device))
        elif goal.other == (PLAIN,):
            allowed.append(goal.target * taken(replace(point, job=COMBINED), device).microseconds)
    return min(allowed, default=None)


def points() -> list[tuple[Point, tuple[str, ...]]]:
    """What is predicted, with the paths: what the targets name."""
    vocab, both = VOCABULARIES[0], (CLUSTER, SPLIT)
    sizes = [(COMBINED, "bfloat16", (1, 32, 128, 256, 512)), (COMBINED, "float32", (64, 128, 256, 512))]
    sizes += [(TEMPERED, "bfloat16", (128, 256, 512)), (GREEDY, "bfloat16", (128, 256, 512))]
    sizes += [(SOFTMAX, "float32", (128, 256, 512)), (EVERYTHING, "bfloat16", (1, 128))]
    made = [(Point(job, vocab, batch, dtype), both) for job, dtype, batches in sizes for batch in batches]
    made += [(Point(job, SPECULATIVE_VOCABULARY, 32), both) for job in SPECULATIVE]
    return made + [(Point(COMBINED, vocab, batch), (TRITON,)) for batch in (1, 64, 256)]


def predictions(device: d.Device) -> list[dict[str, Any]]:
    """All predictions as plain data, with floor and target."""
    made = []
    for point, paths in points():
        for path in paths:
            found = predict(point, path, device)
            target = target_us(point, device) if path != TRITON else triton_target_us(point, device)
            made.append(
                {
                    **asdict(point),
                    **asdict(found),
                    "floor_us": floor_us(point, device),
                    "target_us": target,
                    "holds": None if target is None else found.microseconds <= target,
                }
            )
    return made


def triton_target_us(point: Point, device: d.Device) -> float | None:
    """Its targets (docs/measured.md, "The Triton kernels"): 20 us at B = 1, 2.5 times CUDA's time from B = 64 on."""
    if point.batch == 1:
        return 20.0
    return 2.5 * taken(point, device).microseconds if point.batch >= 64 else None


# How methods of `warpdraw bench gpu` name the paths.
FORCED = {f"{OURS}, cuda_cluster": CLUSTER, f"{OURS}, cuda_split": SPLIT, f"{OURS}, triton": TRITON}


def predicted_us(point: Point, method: str, device: d.Device | None) -> float | None:
    """What a method of the benchmark should take; None where that is not known.

    Cold and peaked rows only: the counts are of those.
    """
    if device is None or (point.cache, point.logits) != ("cold", "peaked"):
        return None
    try:
        if method == OURS:
            return taken(point, device).microseconds
        return predict(point, FORCED[method], device).microseconds if method in FORCED else None
    except ValueError:  # a job or a path that there is no model of
        return None
