"""What `warpdraw bench verify` measures and what it is to reach: all rules of one size in turn with the peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .cases import CACHES
from .goals import Goal, faster, within
from .peers import COMPILED_EAGER, EAGER, TRANSFORMERS_SPECULATION, USUAL, Job, Speculator
from .speculation_cases import FROM_DRAFT_ROWS, METHODS, DraftedCase, in_words
from .speculation_methods import (
    GREEDY,
    PLAIN,
    PLAIN_GREEDY,
    READ_ALL,
    READ_ONE,
    READ_TARGET,
    Way,
    by,
    name_of,
    ours,
    plain,
    read,
)

# The sizes that the targets are for.
TARGET_VOCAB, TARGET_DRAFTS, TARGET_BATCHES = 128256, 5, (1, 8)
EAGER_TARGET, REJECTION_TARGET, COMPARING_TARGET = 25.0, 1.5, 1.15

SWEEP = "against the number of drafts"
SWEPT_DRAFTS = (1, 2, 3, 5, 8)


@dataclass(frozen=True)
class Speculation:
    """Methods timed in turn on the same drafts, and the goals of each rule by cache state."""

    case: DraftedCase
    job: Job
    methods: tuple[str, ...]  # the rules, of METHODS
    ways: tuple[Way, ...]
    goals: Mapping[str, Mapping[str, tuple[Goal, ...]]]  # by cache state, then by rule
    series: Mapping[str, str]  # of the picture: the kind of line each way is


def title(method: str, job: Job) -> str:
    """A rule and its filters in words: what a job is called."""
    return f"{method}, {in_words(job)}"


def grid(
    cases: Sequence[DraftedCase], jobs: Sequence[Job], peers: Mapping[str, Speculator], only: str = ""
) -> list[Speculation]:
    """All sizes with all filters, and of the rules those with a title that has `only`."""
    made = []
    for job in jobs:
        methods = tuple(method for method in METHODS if only in title(method, job))
        made += [_measured(case, job, methods, peers) for case in cases if methods]
    return made


def _measured(case: DraftedCase, job: Job, methods: tuple[str, ...], peers: Mapping[str, Speculator]) -> Speculation:
    rejecting = set(methods) & set(FROM_DRAFT_ROWS)
    ways = [ours(method, job) for method in methods]
    ways += [plain(PLAIN, job)] if set(methods) - {"greedy"} else []
    ways += [plain(PLAIN_GREEDY, GREEDY)] if "greedy" in methods else []
    names = [USUAL, EAGER]
    names += [TRANSFORMERS_SPECULATION] if case.batch == 1 else []
    names += [COMPILED_EAGER] if COMPILED_EAGER in peers else []
    ways += [by(name, job, peers) for name in names] if rejecting else []
    ways += [read(name) for name in ((READ_TARGET, READ_ONE, READ_ALL) if rejecting else (READ_TARGET,))]
    found = {way.name for way in ways}
    goals = {
        cache: {method: tuple(_known(_goals(method, case, cache), found)) for method in methods} for cache in CACHES
    }
    return Speculation(case, job, methods, tuple(ways), goals, {})


def _known(goals: list[Goal], names: set[str]) -> list[Goal]:
    return [goal for goal in goals if set(goal.other) <= names]


def _goals(method: str, case: DraftedCase, cache: str) -> list[Goal]:
    """A goal without a target is for information."""
    name = name_of(method)
    sized = (case.vocab, case.drafts) == (TARGET_VOCAB, TARGET_DRAFTS) and case.batch in TARGET_BATCHES
    limits = {"rejection": REJECTION_TARGET, "coupled": COMPARING_TARGET, "point_mass": COMPARING_TARGET}
    goals = [within(PLAIN_GREEDY if method == "greedy" else PLAIN, limits.get(method) if sized else None, name)]
    if method in FROM_DRAFT_ROWS:
        # As elsewhere, targets against eager PyTorch are for hot rows: cold, reading the rows is what takes the time.
        target = EAGER_TARGET if sized and method == "rejection" and cache == "hot" else None
        goals += [faster(USUAL, target, name), faster(EAGER, target, name)]
        goals += [faster(other, None, name) for other in (TRANSFORMERS_SPECULATION, COMPILED_EAGER)]
        return [*goals, within(READ_ONE, None, name), within(READ_ALL, None, name)]
    return [*goals, within(READ_TARGET, None, name)]


def sweep(case: DraftedCase, job: Job, peers: Mapping[str, Speculator]) -> list[Speculation]:
    """One request with few and with many drafts: what the picture shows."""
    lines = {"ours": [replace(ours(method, job), name=method) for method in ("rejection", "block", "coupled")]}
    lines["peer"] = [plain(PLAIN, job), by(EAGER, job, peers)]
    lines["floor"] = [read(READ_TARGET), read(READ_ALL)]
    series = {way.name: kind for kind, ways in lines.items() for way in ways}
    made = tuple(way for ways in lines.values() for way in ways)
    nothing: Mapping[str, Mapping[str, tuple[Goal, ...]]] = {cache: {} for cache in CACHES}
    return [
        Speculation(replace(case, batch=1, drafts=drafts), job, (), made, nothing, series) for drafts in SWEPT_DRAFTS
    ]
