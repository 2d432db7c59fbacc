"""Runs `warpdraw bench verify`, which times speculative verification: checked first, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from .. import ops
from ..backends import backend_for
from ..environment import package_version
from .cases import CACHES
from .cpu import QUICK_COLD_BYTES, QUICK_SECONDS
from .harness import COLD_BYTES, time_in_turn
from .peers import COMPILED_EAGER, SPECULATORS, Job, available
from .records import described
from .speculation_cases import METHODS, Drafted, DraftedCase, arguments, in_words, with_other_noise
from .speculation_grid import SWEEP, Speculation, grid, sweep, title
from .speculation_methods import VERIFIED_REQUESTS, name_of

# The acceptance is the mean of so many requests, each with noise of its own.
ACCEPTANCE_REQUESTS, QUICK_REQUESTS = 1024, 16
SWEEP_SECONDS = 1.0
PACKAGES = ("transformers",)
FILTERED, TEMPERED = Job(0.8, 50, 0.95, 0.0), Job(0.8, 0, 1.0, 0.0)
QUICK_VOCAB = 2000
# What a call costs depends on where its drafts are rejected, so hot rows are verified with so many noises in turn: a
# prime number of them, so that every method comes to all.
HOT_NOISES = 17
METHOD = {
    "timing": "wall time, methods called in turn in one process",
    "cold": "each call on the next of several inputs, whose target rows are together at least "
    "`cold_bytes_of_target_rows`",
    "hot": "each call on the same rows, with the next of several seeds and drafts; what is fast is called once, "
    "untimed, before its turn",
    "verified": "ours: every output against the scalar oracle, and for rejection the law of its tokens; plain draws "
    "against the scalar oracle; peers: what is possible, the law of their tokens and their acceptance",
}

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """What is asked of a run: sizes, filters of target and draft, and which rules (those with `only` in their job)."""

    vocab: int = 128256
    batches: tuple[int, ...] = (1, 8)
    drafts: int = 5
    dtype: str = "float32"
    logits: str = "peaked"
    noise: float = 0.5
    jobs: tuple[Job, ...] = (FILTERED, TEMPERED)
    only: str = ""
    quick: bool = False
    compile: bool = False
    sweep: bool = False
    seconds: float = 3.0  # for each size, filters and cache state


def run(options: Options, tell: Tell = lambda what, part: None) -> dict[str, Any]:
    """Measure: a document of plain data. `tell` hears what is being done and the finished part, 0 to 1."""
    tell("looking for peers", 0.0)
    peers, absent = available(SPECULATORS, {} if options.compile else {COMPILED_EAGER: "skipped without --compile"})
    vocab = min(options.vocab, QUICK_VOCAB) if options.quick else options.vocab
    cases = [
        DraftedCase(vocab, batch, options.drafts, options.dtype, options.logits, options.noise)
        for batch in options.batches
    ]
    measured = grid(cases, options.jobs, peers, options.only)
    if not measured:
        jobs = "; ".join(title(rule, job) for job in options.jobs for rule in METHODS)
        raise ValueError(f"only: expected part of the name of a job ({jobs}), got {options.only!r}")
    measured += sweep(cases[0], options.jobs[0], peers) if options.sweep else []
    results: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    for number, each in enumerate(measured):
        what = f"{each.case.batch} x {each.case.drafts} drafts, {in_words(each.job)}"
        timed, reached = _measure(each, options, absent, partial(_tell, tell, what, number, len(measured)))
        results += timed
        goals += reached
    return described(
        "verify",
        method=METHOD,
        options=asdict(options),
        cold_bytes_of_target_rows=QUICK_COLD_BYTES if options.quick else COLD_BYTES,
        backend=backend_for(torch.device("cpu")).reason,
        packages={name: package_version(name) for name in PACKAGES},
        absent=absent,
        goals=goals,
        results=results,
    )


def _measure(
    each: Speculation, options: Options, absent: dict[str, str], on_progress: Callable[[float], None]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The times of the methods and the figures of the goals, each as records, of both cache states."""
    on_progress(0.0)
    case, ways = each.case, [way for way in each.ways if way.needs not in absent]
    inputs = case.inputs(each.job, QUICK_COLD_BYTES if options.quick else COLD_BYTES)
    hot = list(with_other_noise(inputs[:1], each.job, HOT_NOISES * case.batch))
    for way in ways:
        way.verify([*inputs[: -(-VERIFIED_REQUESTS // case.batch)], hot[0]])
    requests = QUICK_REQUESTS if options.quick else ACCEPTANCE_REQUESTS
    accepted = {name_of(rule): _accepted(rule, each, inputs, requests) for rule in each.methods}
    seconds = QUICK_SECONDS if options.quick else SWEEP_SECONDS if each.series else options.seconds
    timed, reached = [], []
    for number, (cache, goals) in enumerate(each.goals.items()):
        given = inputs if cache == "cold" else hot
        calls = {way.name: way.bind(given) for way in ways}
        warming = {way.name: partial(calls[way.name], 0) for way in ways if cache == "hot" and way.fast}
        progress = partial(_tell_part, on_progress, number)
        timings = time_in_turn(calls, range(len(given)), seconds, progress, warming)
        where = {**asdict(case), "cache": cache}
        for way in ways:
            job = SWEEP if each.series else in_words(each.job)
            timed.append(
                {"job": job, **where, "method": way.name, "counted": way.counted, "series": each.series.get(way.name)}
                | {
                    "bytes": case.bytes(case.drafts if way.all_draft_rows else way.draft_rows),
                    "acceptance": accepted.get(way.name),
                }
                | timings[way.name].record()
            )
        for rule, wanted in goals.items():
            for goal in wanted:
                record = goal.record(timings)
                # What small sizes and a few calls give is no verdict.
                record["met"] = None if options.quick else record["met"]
                record["missing"] = {name: absent[name] for name in record["missing"]}
                reached.append({"job": title(rule, each.job), **where, **record})
    return timed, reached


def _accepted(rule: str, each: Speculation, inputs: list[Drafted], requests: int) -> dict[str, float]:
    """How many of the drafts are accepted, and how many tokens a call gives a request, with the standard error."""
    calls = (
        ops.verify(given.drafts(rule), given.target, method=rule, **arguments(rule, each.job, given)).accepted
        for given in with_other_noise(inputs, each.job, requests)
    )
    accepted = torch.cat(list(calls)).double()
    return {
        "of_drafts": accepted.mean().item() / each.case.drafts,
        "tokens": accepted.mean().item() + 1,
        "standard_error_of_tokens": accepted.std().item() / len(accepted) ** 0.5,
        "requests": len(accepted),
    }


def _tell_part(on_progress: Callable[[float], None], finished: int, part: float) -> None:
    on_progress((finished + part) / len(CACHES))


def _tell(tell: Tell, what: str, finished: int, of: int, part: float) -> None:
    tell(what, (finished + part) / of)
