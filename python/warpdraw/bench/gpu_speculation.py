"""Verification of drafts on a GPU: our op by whatever path, plain draws of the same rows, and the peers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..contract import TensorSpec
from ..op import Op
from .gpu_jobs import DRAFTS, SPECULATIVE, Point, Pool
from .gpu_methods import OURS, Bound, bound_by
from .gpu_work import AS_TENSORS, work_on
from .peers import Job, Speculator
from .speculation_cases import Drafted, arguments, drafted
from .speculation_checks import check_law_of_rejection, check_verdicts

PLAIN_DRAWS = f"{OURS}, plain draws of the rows"
NOISE = 0.5
VERIFIED_REQUESTS = 2


@lru_cache(maxsize=1)
def drafted_inputs(pool: Pool, batch: int, count: int, job: Job) -> list[Drafted]:
    """Drafts for the inputs of a batch size; draft rows are those of the target with N(0, NOISE^2) added."""
    made = []
    for number, rows in enumerate(pool.inputs(batch * (DRAFTS + 1), count)):
        target = pool.rows[rows].view(batch, DRAFTS + 1, -1)
        generator = torch.Generator(target.device).manual_seed(2024 + number)
        noise = torch.randn(target[:, 1:].shape, generator=generator, device=target.device)
        made.append(drafted(target, noise.mul_(NOISE).add_(target[:, :-1]).to(target.dtype), job, number))
    return made


def _prepared(point: Point, pool: Pool, inputs: Sequence[slice]) -> tuple[str, Job, list[Drafted]]:
    rule, job = SPECULATIVE[point.job]
    return rule, job, drafted_inputs(pool, point.batch, len(inputs), job)


def our_verification(point: Point, pool: Pool, inputs: Sequence[slice], path: str | None = None) -> Bound:
    """`verify` with outputs made before; `path` forces a backend by its name."""
    rule, job, given = _prepared(point, pool, inputs)
    named = []
    for each in given:
        tensors = {"draft_tokens": each.drafts(rule), "target_logits": each.target}
        named.append(_as_tensors(ops.verify, tensors | arguments(rule, job, each)) | {"method": rule})
    return bound_by(path, OURS, work_on(ops.verify, named, AS_TENSORS))


def plain_draws(point: Point, pool: Pool, inputs: Sequence[slice]) -> Bound:
    """`sample` on all target rows in one call, with the same filters, seeds and positions."""
    _, job, given = _prepared(point, pool, inputs)
    named = []
    for each in given:
        rows = arguments("coupled", job, each) | each.of_rows()
        named.append(_as_tensors(ops.sample, {"logits": each.target.flatten(0, 1)} | rows))
    return bound_by(None, PLAIN_DRAWS, work_on(ops.sample, named, AS_TENSORS))


def _as_tensors(op: Op, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with an entry of its own for each request instead of numbers."""
    specs = {spec.name: spec for spec in op.contract.inputs if isinstance(spec, TensorSpec)}
    batch, device = next((len(value), value.device) for value in given.values() if isinstance(value, Tensor))
    return {
        name: torch.full((batch,), value, dtype=specs[name].dtypes[0], device=device)
        if isinstance(value, int | float)
        else value
        for name, value in given.items()
    }


def of_speculator(name: str, peer: Speculator, point: Point, pool: Pool, inputs: Sequence[slice]) -> Bound:
    """A peer on the same logits and drafts, its filters as it takes them."""
    _, job, given = _prepared(point, pool, inputs)

    def call(number: int) -> tuple[Tensor, Tensor]:
        each = given[number]
        return peer.verify(each.drawn, each.target, each.draft, job)

    def check() -> None:
        few = given[0].first(VERIFIED_REQUESTS).to(torch.device("cpu"))
        tokens, accepted = (made[: len(few.target)].cpu().long() for made in call(0))
        check_verdicts(name, tokens, accepted, few, job)
        check_law_of_rejection(name, peer.verify, job, peer.one_request, pool.rows.device)

    return Bound(name, peer.counted, call, check)
