"""Measures the CPU `sample` op against eager PyTorch and against one read of the logits, after verifying them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from ..environment import environment
from .harness import COLD_BYTES, Method, time_in_turn
from .peers import Job, eager, eager_weights, idiom, idiom_probs, read_amax, read_dot

OURS, IDIOM, EAGER = "warpdraw.sample", "mask and multinomial", "best eager"
READS = ("one read (dot)", "one read (amax)")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = ("peaked", "normal")

# The peers compute in fp32 and sum in another order: at the edge of p and min-p they may differ by rounding.
BAND = 1e-5
VERIFIED_ROWS, DRAWS = 16, 4


class NotVerified(Exception):
    """A method that is to be timed does not do the job."""


@dataclass(frozen=True)
class Case:
    """The logits of one measurement: their sizes, their dtype (of DTYPES) and their distribution (of SHAPES)."""

    vocab: int
    batch: int
    dtype: str
    logits: str

    @property
    def bytes(self) -> int:
        """How many bytes one call must read."""
        return self.batch * self.vocab * DTYPES[self.dtype].itemsize

    def make(self, count: int) -> list[Tensor]:
        """Logits [batch, vocab], `count` of them.

        "normal" is N(0, 3); "peaked" is N(-4, 2) with 40 tokens that decay from 16 like Zipf's law.
        """
        generator = torch.Generator().manual_seed(2024)
        rows = torch.randn(count * self.batch, self.vocab, generator=generator)
        if self.logits == "normal":
            rows.mul_(3)
        else:
            heavy = min(40, self.vocab)
            places = torch.randint(self.vocab, (len(rows), heavy), generator=generator)
            decay = 16 - 2 * torch.log(torch.arange(1, heavy + 1, dtype=torch.float32))
            rows.mul_(2).sub_(4).scatter_(1, places, decay.expand(len(rows), heavy))
        return list(rows.to(DTYPES[self.dtype]).view(count, self.batch, self.vocab).unbind())


def measure(
    case: Case, job: Job, seconds: float, on_progress: Callable[[float], None] = lambda part: None
) -> list[dict[str, Any]]:
    """Verify every method, then time it, cold and hot: a record for each method and cache state."""
    inputs = case.make(max(2, -(-COLD_BYTES // case.bytes)))
    verify(torch.cat(inputs[: max(1, VERIFIED_ROWS // case.batch)]), job)

    records: list[dict[str, Any]] = []
    for cache, given, progress in (
        ("cold", inputs, lambda part: on_progress(part / 2)),
        ("hot", inputs[:1], lambda part: on_progress(0.5 + part / 2)),
    ):
        timings = time_in_turn(_methods(inputs[0], job), given, seconds, progress)
        floor = min(timings[name].median for name in READS if name in timings)
        records += [
            {
                "vocab": case.vocab,
                "batch": case.batch,
                "cache": cache,
                "bytes": case.bytes,
                "method": name,
                "median_us": timing.median * 1e6,
                "p10_us": timing.p10 * 1e6,
                "p90_us": timing.p90 * 1e6,
                "calls": timing.calls,
                "times_warpdraw": timing.median / timings[OURS].median,
                "times_one_read": timing.median / floor,
            }
            for name, timing in timings.items()
        ]
    return records


def report(records: list[dict[str, Any]], dtype: str, logits: str, job: Job) -> dict[str, Any]:
    """The records with everything that one needs to judge or repeat them."""
    return {
        "benchmark": "sample",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "job": asdict(job) | {"order": "hf", "dtype": dtype, "logits": logits},
        "method": {
            "timing": "wall time, methods called in turn in one process",
            "cold": f"each call on the next of several inputs of together at least {COLD_BYTES} bytes",
            "hot": "each call on the same input",
            "verified": "kept sets and drawn tokens against the float64 reference, before timing",
        },
        "results": records,
    }


def verify(logits: Tensor, job: Job) -> None:
    """Raise NotVerified unless every method keeps what the float64 reference keeps and draws only from it."""
    fewest = _reference_kept(logits, job, -BAND)
    most = _reference_kept(logits, job, BAND)
    weights, ids = eager_weights(logits, job)
    kept = {
        OURS: ops.filter_logits(logits, **asdict(job), order="hf") > -torch.inf,
        IDIOM: idiom_probs(logits, job) > 0,
        EAGER: weights > 0 if ids is None else torch.zeros_like(most).scatter_(1, ids, weights > 0),
    }
    for name, mask in kept.items():
        if (fewest & ~mask).any() or (mask & ~most).any():
            raise NotVerified(f"{name} does not keep the tokens that the reference keeps")
    for name, method in _methods(logits, job).items():
        for _ in range(DRAWS if name in kept else 0):
            if not most.gather(1, method(logits)[:, None]).all():
                raise NotVerified(f"{name} drew a token that the reference drops")
    drawn = ops.sample(logits, **asdict(job), seed=1, position=2, order="hf").tokens
    with use("scalar"):
        if not torch.equal(drawn, ops.sample(logits, **asdict(job), seed=1, position=2, order="hf").tokens):
            raise NotVerified(f"{OURS} does not draw the tokens of the scalar oracle")


def _reference_kept(logits: Tensor, job: Job, band: float) -> Tensor:
    top_p = job.top_p if job.top_p >= 1 else min(max(job.top_p + band, 0.0), 1.0)
    with use("reference"):
        kept: Tensor = ops.filter_logits(logits, job.temperature, job.top_k, top_p, job.min_p * (1 - band), order="hf")
    return kept > -torch.inf


def _methods(example: Tensor, job: Job) -> dict[str, Method]:
    positions = count()

    def ours(logits: Tensor) -> Tensor:
        tokens: Tensor = ops.sample(
            logits, job.temperature, job.top_k, job.top_p, job.min_p, 7, next(positions), order="hf"
        ).tokens
        return tokens

    methods: dict[str, Method] = {OURS: ours, IDIOM: partial(idiom, job=job), EAGER: partial(eager, job=job)}
    if example.numel() * example.element_size() % 4 == 0:
        methods[READS[0]] = read_dot
    return methods | {READS[1]: read_amax}
