"""Measures the CPU `sample` op against eager PyTorch and against one read of the logits, after verifying them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .cases import CACHES, DTYPES, SHAPES, Case
from .harness import time_in_turn
from .method import OURS
from .peers import EAGER, IDIOM, Job, eager, eager_weights, idiom, idiom_probs, read_amax, read_dot
from .records import described
from .verify import NotVerified, check_drawn, check_equal, check_kept, scalar_tokens

__all__ = ["DTYPES", "OURS", "SHAPES", "Case", "NotVerified", "measure", "report", "verify"]

READS = ("one read (dot)", "one read (amax)")
VERIFIED_ROWS, DRAWS = 16, 4


def measure(
    case: Case, job: Job, seconds: float, on_progress: Callable[[float], None] = lambda part: None
) -> list[dict[str, Any]]:
    """Verify every method, then time it, cold and hot: a record for each method and cache state."""
    inputs = case.inputs("cold")
    verify(torch.cat(inputs[: max(1, VERIFIED_ROWS // case.batch)]), job)

    records: list[dict[str, Any]] = []
    for number, cache in enumerate(reversed(CACHES)):
        given = inputs if cache == "cold" else inputs[:1]
        progress = partial(_advance, on_progress, number)
        timings = time_in_turn(_methods(inputs[0], job), given, seconds, progress)
        floor = min(timings[name].median for name in READS if name in timings)
        records += [
            {
                "vocab": case.vocab,
                "batch": case.batch,
                "cache": cache,
                "bytes": case.bytes,
                "method": name,
                **timing.record(),
                "times_warpdraw": timing.median / timings[OURS].median,
                "times_one_read": timing.median / floor,
            }
            for name, timing in timings.items()
        ]
    return records


def _advance(on_progress: Callable[[float], None], finished: int, part: float) -> None:
    on_progress((finished + part) / len(CACHES))


def report(records: list[dict[str, Any]], dtype: str, logits: str, job: Job) -> dict[str, Any]:
    """The records with everything that one needs to judge or repeat them."""
    about = asdict(job) | {"order": "hf", "dtype": dtype, "logits": logits}
    return described("sample", job=about, results=records)


def verify(logits: Tensor, job: Job) -> None:
    """Raise NotVerified unless every method keeps what the float64 reference keeps and draws only from it."""
    weights, ids = eager_weights(logits, job)
    nothing = torch.zeros(logits.shape, dtype=torch.bool)
    kept = {
        OURS: ops.filter_logits(logits, **asdict(job), order="hf") > -torch.inf,
        IDIOM: idiom_probs(logits, job) > 0,
        EAGER: weights > 0 if ids is None else nothing.scatter_(1, ids, weights > 0),
    }
    for name, mask in kept.items():
        check_kept(name, mask, logits, job)
    for name, method in _methods(logits, job).items():
        for _ in range(DRAWS if name in kept else 0):
            check_drawn(name, method(logits), logits, job)
    drawn = ops.sample(logits, **asdict(job), seed=1, position=2, order="hf").tokens
    check_equal(OURS, drawn, scalar_tokens(logits, job, 1, 2), "the scalar oracle")


def _methods(example: Tensor, job: Job) -> dict[str, Callable[[Tensor], Any]]:
    positions = count()

    def ours(logits: Tensor) -> Tensor:
        tokens: Tensor = ops.sample(
            logits, job.temperature, job.top_k, job.top_p, job.min_p, 7, next(positions), order="hf"
        ).tokens
        return tokens

    methods: dict[str, Callable[[Tensor], Any]] = {
        OURS: ours,
        IDIOM: partial(idiom, job=job),
        EAGER: partial(eager, job=job),
    }
    if example.numel() * example.element_size() % 4 == 0:
        methods[READS[0]] = read_dot
    return methods | {READS[1]: read_amax}
