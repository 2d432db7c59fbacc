"""What `warpdraw bench gpu` measures, the most important first, and what it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .goals import RATIO, TIME, Goal, faster, within
from .gpu_jobs import (
    COMBINED,
    EVERYTHING,
    GREEDY,
    JOINT,
    MIXED,
    REJECTION,
    SOFTMAX,
    SPECULATIVE,
    TEMPERED,
    TOP_K,
    TOP_P,
    Point,
)
from .gpu_methods import OURS, READ, TORCH_SOFTMAX
from .gpu_speculation import PLAIN_DRAWS
from .peers import (
    ARGMAX,
    COMPILED,
    COMPILED_EAGER,
    EAGER,
    FLASHINFER,
    FLASHINFER_CHAIN,
    FLASHINFER_FLOAT,
    IDIOM,
    SONIC,
    TRANSFORMERS,
    USUAL,
)

FLOOR, PLAIN = "one read at copy bandwidth", f"{OURS}, plain"
COPY = "one read and one write at copy bandwidth"
PLAIN_CALL, OUR_TIME = "the plain call", "microseconds"

BATCHES, VOCABULARIES = (1, 8, 32, 64, 128, 256, 512), (128256, 32000, 151936, 262144)
JOBS = (COMBINED, GREEDY, TEMPERED, TOP_K, TOP_P, MIXED, EVERYTHING, SOFTMAX)
# Where the forced paths, and the peers that take long to make ready, are measured too.
FEW = (1, 128)
# Where drafts are verified; the first is the one that targets are for.
SPECULATIVE_VOCABULARY, SPECULATIVE_BATCHES = 151936, (32, 1, 8, 128)


@dataclass(frozen=True)
class Place:
    """A point and what is timed there beside our op: peers by name, and our forced paths."""

    point: Point
    peers: tuple[str, ...] = ()
    forced: bool = False


@dataclass(frozen=True)
class Sizes:
    """How large the grid is; the first vocabulary is the one that targets are for."""

    vocabularies: tuple[int, ...] = VOCABULARIES
    batches: tuple[int, ...] = BATCHES
    few: tuple[int, ...] = FEW
    speculative: int = SPECULATIVE_VOCABULARY
    requests: tuple[int, ...] = SPECULATIVE_BATCHES


QUICK = Sizes((2000, 300), (1, 3), (3,), 300, (3,))


def grid(sizes: Sizes) -> list[Place]:
    """All places, in the order in which they are measured: when the time is up, the rest is dropped."""
    places: dict[Point, Place] = {}
    for place in _in_order(sizes):
        known = places.get(place.point, Place(place.point))
        peers = tuple(dict.fromkeys((*known.peers, *place.peers)))
        places[place.point] = Place(place.point, peers, known.forced or place.forced)
    return list(places.values())


def _in_order(sizes: Sizes) -> Iterator[Place]:
    vocab, *others = sizes.vocabularies
    # 1. What has a target, on peaked rows.
    for dtype in ("bfloat16", "float32"):
        for batch in sizes.batches:
            yield Place(
                Point(COMBINED, vocab, batch, dtype), (IDIOM, EAGER, TRANSFORMERS, SONIC, READ), batch in sizes.few
            )
    for job, peers in ((JOINT, (FLASHINFER, FLASHINFER_FLOAT)), (GREEDY, (ARGMAX,)), (TEMPERED, (IDIOM,))):
        for batch in sizes.batches:
            yield Place(Point(job, vocab, batch), peers, batch in sizes.few)
    for batch in sizes.batches:
        yield Place(Point(EVERYTHING, vocab, batch), (), batch in sizes.few)
        yield Place(Point(SOFTMAX, vocab, batch, "float32"), (TORCH_SOFTMAX,))
    for batch in sizes.requests:
        for job in SPECULATIVE:
            rivals = (USUAL, EAGER, FLASHINFER_CHAIN) if job.startswith(REJECTION) else ()
            yield Place(Point(job, sizes.speculative, batch), (PLAIN_DRAWS, *rivals), batch == sizes.requests[0])
    # 2. The other jobs, then rows of N(0, 3), both dtypes, and warm caches, at the same vocabulary.
    for job in (MIXED, TOP_K, TOP_P):
        for batch in sizes.batches:
            yield Place(Point(job, vocab, batch), (IDIOM, EAGER) if job != MIXED and batch in sizes.few else ())
    for job in (COMBINED, TEMPERED, TOP_P, MIXED, GREEDY, TOP_K, EVERYTHING):
        for batch in sizes.batches:
            yield Place(Point(job, vocab, batch, logits="normal"), (IDIOM,) if batch in sizes.few else ())
    for batch in sizes.batches:
        compiled = (COMPILED, COMPILED_EAGER) if batch in sizes.few else ()
        yield Place(Point(COMBINED, vocab, batch, cache="warm"), (EAGER, *compiled))
    # 3. The other vocabularies.
    for other in others:
        for dtype in ("bfloat16", "float32"):
            for batch in sizes.batches:
                yield Place(Point(COMBINED, other, batch, dtype), (IDIOM, EAGER) if batch in sizes.few else ())
    # 4. All the rest.
    for other in (vocab, *others):
        for job in JOBS:
            for dtype in ("bfloat16", "float32"):
                for logits in ("peaked", "normal"):
                    for batch in sizes.batches:
                        yield Place(Point(job, other, batch, dtype, logits))


def methods_of(place: Place) -> tuple[str, ...]:
    """The peers of a place that do its job on its logits."""
    point = place.point
    if point.job in SPECULATIVE:
        return place.peers
    half = point.dtype == "bfloat16"
    fits = {
        SONIC: point.job == COMBINED and half,
        FLASHINFER: point.job == JOINT,
        FLASHINFER_FLOAT: point.job == JOINT and half,
        ARGMAX: point.job == GREEDY,
        TORCH_SOFTMAX: point.job == SOFTMAX,
    }
    drawing = point.job not in (GREEDY, MIXED, EVERYTHING, SOFTMAX)
    return tuple(name for name in place.peers if fits.get(name, drawing))


def goals_of(place: Place) -> list[Goal]:
    """What is to be reached at a place; a goal without a target is for information."""
    point = place.point
    if point.job in SPECULATIVE:
        return _speculative_goals(place)
    cold, half = point.cache == "cold", point.dtype == "bfloat16"
    floor = COPY if point.job == SOFTMAX else FLOOR
    target = _floor_target(point) if cold else None
    made = [within(floor, target, OURS)]
    if point.job == COMBINED and cold and half and point.batch in (1, 32):
        made.append(Goal(TIME, OUR_TIME, (OURS,), target={1: 10.0, 32: 12.0}[point.batch]))
    if point.job == EVERYTHING:
        made.append(Goal(RATIO, PLAIN_CALL, (OURS,), (PLAIN,), 1.5))
    targets: Mapping[str, float] = {IDIOM: 20.0, FLASHINFER: 4.0, FLASHINFER_FLOAT: 4.0, SONIC: 1.5}
    made += [faster(name, targets.get(name), OURS) for name in methods_of(place) if name != READ]
    return made


def _speculative_goals(place: Place) -> list[Goal]:
    point = place.point
    sized = (point.vocab, point.batch) == (SPECULATIVE_VOCABULARY, SPECULATIVE_BATCHES[0])
    near = 1.6 if point.job.startswith(REJECTION) else 1.5
    made = [within(FLOOR, near if sized else None, OURS), within(PLAIN_DRAWS, None, OURS)]
    chain = 4.0 if sized and point.job == REJECTION else None
    return [*made, *(faster(name, chain if name == FLASHINFER_CHAIN else None, OURS) for name in place.peers[1:])]


def _floor_target(point: Point) -> float | None:
    """The most that a call may take, as a multiple of the floor, at the vocabulary of the targets."""
    if point.vocab != VOCABULARIES[0]:
        return None
    if point.job == COMBINED:
        if point.dtype == "float32":
            return 1.4 if point.batch >= 64 else None
        return 1.5 if point.batch >= 128 else None
    if point.batch < 128:
        return None
    if point.job == SOFTMAX:
        return 1 / 0.85 if point.dtype == "float32" else None
    return None if point.dtype != "bfloat16" else {TEMPERED: 1.6, GREEDY: 1.25}.get(point.job)
