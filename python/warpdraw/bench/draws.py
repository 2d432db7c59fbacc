"""Methods that draw tokens: ours from Python, its kernel alone, the peers; and the floors below all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import native_kernel
from .method import KERNEL, OURS, Bound, Method, batches
from .peers import LLAMA, Job, Peer
from .verify import (
    NotVerified,
    check_distribution,
    check_drawn,
    check_equal,
    check_kept,
    check_weights,
    scalar_tokens,
)

SEED, POSITION = 7, 11
READ, EXP = "read once", "read + exp"
# The second floor gives the largest of several partial sums of exp(x - EXP_SHIFT), as many as there are vector lanes.
EXP_SHIFT, EXP_PARTS, PROBES = 30.0, 64, 61
CANDIDATES = "llama.cpp's candidates only"


@dataclass(frozen=True)
class Draw:
    """One draw for each row under the filters of a job, in the order that all peers have: temperature, k, p, min-p."""

    job: Job

    def ours(self) -> Method:
        """The eager Python call with a new position each time, outputs made by the call."""
        job = self.job

        def bind(inputs: Sequence[Tensor]) -> Bound:
            positions = count()
            temperature, top_k, top_p, min_p = job.temperature, job.top_k, job.top_p, job.min_p

            def call(number: int) -> Any:
                return ops.sample(
                    inputs[number], temperature, top_k, top_p, min_p, SEED, next(positions), order="hf"
                ).tokens

            return call

        def check(rows: Tensor, results: list[Tensor]) -> None:
            tokens = torch.cat(results)
            check_kept(OURS, ops.filter_logits(rows, **asdict(job), order="hf") > -torch.inf, rows, job)
            check_drawn(OURS, tokens, rows, job)
            batch = len(results[0])
            positions = torch.arange(len(rows)) // batch
            check_equal(OURS, tokens, scalar_tokens(rows, job, SEED, positions), "the scalar oracle")

        return Method(OURS, "the Python call with numbers as parameters, outputs made by it", bind, check)

    def kernel(self) -> Method:
        """The native kernel on bound arguments: what a C++ caller pays."""

        def bind(inputs: Sequence[Tensor]) -> Bound:
            tokens = [torch.empty(len(x), dtype=torch.int64) for x in inputs]
            valid = torch.empty(max(len(x) for x in inputs), dtype=torch.bool)
            calls = [
                ops.sample.prepare(
                    x, **asdict(self.job), seed=SEED, position=POSITION, order="hf", tokens=out, valid=valid[: len(x)]
                )
                for x, out in zip(inputs, tokens, strict=True)
            ]

            def call(number: int) -> Tensor:
                calls[number]()
                return tokens[number]

            return call

        def check(rows: Tensor, results: list[Tensor]) -> None:
            tokens = torch.cat(results)
            check_drawn(KERNEL, tokens, rows, self.job)
            check_equal(KERNEL, tokens, scalar_tokens(rows, self.job, SEED, POSITION), "the scalar oracle")

        return Method(KERNEL, "the kernel on arguments bound before (Op.prepare)", bind, check)

    def by(self, name: str, peers: Mapping[str, Peer]) -> Method:
        """A peer, of those that were found; if it was not, a method that says what it needs."""
        job, peer = self.job, peers.get(name)
        if peer is None:
            return absent(name)

        def bind(inputs: Sequence[Tensor]) -> Bound:
            draw = peer.draw
            return lambda number: draw(inputs[number], job)

        def check(rows: Tensor, results: list[Tensor]) -> None:
            batch = len(results[0])
            if peer.probs is not None:
                weights = torch.cat([peer.probs(x, job) for x in batches(rows, batch)])
                check_weights(name, weights, rows, job)
            check_drawn(name, torch.cat(results), rows, job)
            if peer.any_shape:
                check_distribution(name, peer.draw, job)

        return Method(name, peer.counted, bind, check)


def absent(name: str) -> Method:
    """A method that cannot be timed, because the peer of that name is not here."""

    def bind(inputs: Sequence[Tensor]) -> Bound:
        raise LookupError(name)

    return Method(name, "", bind, lambda rows, results: None, needs=(name,))


def candidates() -> Method:
    """The part of llama.cpp's call that only copies the logits into its array."""

    def bind(inputs: Sequence[Tensor]) -> Bound:
        from .peers.llama_cpp import build

        return lambda number: build(inputs[number])

    def check(rows: Tensor, results: list[Any]) -> None:
        # There is one array, and the last input was the last to be written.
        last = results[-1].data
        expected = rows[-1].float().numpy()
        if not ((last["logit"] == expected).all() and (last["id"] == results[-1].ids).all()):
            raise NotVerified(f"{CANDIDATES}: the array does not hold the logits")

    return Method(CANDIDATES, "ids and logits written to the array, 12 bytes a token", bind, check, needs=(LLAMA,))


def floor(name: str) -> Method:
    """The least that a pass can cost, as a kernel of the same build: READ, the largest logit; EXP, a sum of weights."""
    kernel_name = {READ: "read_floor", EXP: "exp_floor"}[name]

    def bind(inputs: Sequence[Tensor]) -> Bound:
        kernel = native_kernel(kernel_name)
        if kernel is None:
            raise NotVerified(f"{name}: the backend has no {kernel_name}")
        outs = [torch.empty(len(x)) for x in inputs]
        calls = [kernel.prepare(x, out) for x, out in zip(inputs, outs, strict=True)]

        def call(number: int) -> Tensor:
            calls[number]()
            return outs[number]

        return call

    def check(rows: Tensor, results: list[Tensor]) -> None:
        got, total = torch.cat(results), (rows.double() - EXP_SHIFT).exp().sum(-1)
        low, high = (rows.amax(-1),) * 2 if name == READ else (total / EXP_PARTS, total * (1 + 1e-3))
        # Wherever one token is raised above all others, the result must follow.
        where, top = torch.linspace(0, rows.shape[1] - 1, PROBES).long()[:, None], rows[0].amax() + 5
        probed = bind([rows[:1].repeat(PROBES, 1).scatter_(1, where, top.item())])(0)
        followed = probed == top if name == READ else probed > 2 * got[0]
        if not ((got >= low) & (got <= high)).all() or not followed.all():
            raise NotVerified(f"{name} does not read every token")

    return Method(name, f"the kernel {kernel_name}, on one thread", bind, check)
