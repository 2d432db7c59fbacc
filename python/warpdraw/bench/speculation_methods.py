"""Methods of `warpdraw bench verify`: ours by each rule, plain draws of the same rows, the peers, and the floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from .draws import READ, floor
from .method import Bound, batches
from .peers import Job, Speculator
from .speculation_cases import FROM_DRAFT_ROWS, Drafted, arguments
from .speculation_checks import check_law_of_rejection, check_verdicts
from .verify import NotVerified, check_drawn, check_equal, scalar_tokens

PLAIN, PLAIN_GREEDY = "K+1 plain draws", "K+1 plain greedy draws"
READ_TARGET, READ_ONE, READ_ALL = "read the target rows", "read + one draft row", "read + all draft rows"
GREEDY = Job(0.0, 0, 1.0, 0.0)
# How many requests of each measurement the oracle and the float64 reference look at.
VERIFIED_REQUESTS = 2

Check = Callable[[Sequence[Drafted], list[Any]], None]


@dataclass(frozen=True)
class Way:
    """A name, the work bound to inputs, and a check of what it made of each that raises NotVerified.

    It cannot do without so many of each request's draft rows, or all of them. `needs` is the peer without which there
    is no such way.
    """

    name: str
    counted: str
    bind: Callable[[Sequence[Drafted]], Bound]
    check: Check
    draft_rows: int = 0
    all_draft_rows: bool = False
    fast: bool = True  # so that it can be called once more to have its rows hot
    needs: str = ""

    def verify(self, inputs: Sequence[Drafted]) -> None:
        """Check it as it is timed, on all inputs."""
        bound = self.bind(inputs)
        self.check(inputs, [bound(number) for number in range(len(inputs))])


def name_of(method: str) -> str:
    """Ours by a rule."""
    return f"warpdraw.verify, {method}"


def ours(method: str, job: Job) -> Way:
    """The eager Python call: parameters as numbers, seed and position as tensors, outputs made by the call."""
    name = name_of(method)

    def call_on(given: Drafted) -> Callable[[], Any]:
        named, drafts, target = arguments(method, job, given), given.drafts(method), given.target
        return lambda: ops.verify(drafts, target, method=method, **named)

    def bind(inputs: Sequence[Drafted]) -> Bound:
        calls = [call_on(given) for given in inputs]
        return lambda number: calls[number]()

    def check(inputs: Sequence[Drafted], results: list[Any]) -> None:
        for given, result in zip(inputs, results, strict=True):
            few = given.first(VERIFIED_REQUESTS)
            with use("scalar"):
                expected = call_on(few)()
            for field, got, want in zip(expected._fields, result, expected, strict=True):
                if want is not None and not torch.equal(got[: len(want)], want):
                    raise NotVerified(f"{name} does not give the {field} of the scalar oracle")
        if method == "rejection":
            check_law_of_rejection(name, _rejection, job, False, inputs[0].target.device)

    counted, all_draft_rows = "the Python call with numbers as filters, outputs made by it", method in FROM_DRAFT_ROWS
    return Way(name, counted, bind, check, all_draft_rows=all_draft_rows)


def _rejection(drafts: Tensor, target: Tensor, draft: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    seed = torch.arange(len(drafts), device=drafts.device)
    given = Drafted(target, draft, drafts, drafts, seed, torch.zeros_like(seed))
    made = ops.verify(drafts, target, method="rejection", **arguments("rejection", job, given))
    return made.tokens, made.accepted


def plain(name: str, job: Job) -> Way:
    """One call of `sample` on all target rows, with the same filters, seeds and positions."""

    def bind(inputs: Sequence[Drafted]) -> Bound:
        rows = [given.target.flatten(0, 1) for given in inputs]
        noise = [given.of_rows() for given in inputs]
        filters = asdict(job)
        return lambda number: ops.sample(rows[number], **filters, **noise[number], order="hf").tokens

    def check(inputs: Sequence[Drafted], results: list[Tensor]) -> None:
        for given, tokens in zip(inputs, results, strict=True):
            few = given.first(VERIFIED_REQUESTS)
            rows = few.target.flatten(0, 1)
            check_equal(
                name, tokens[: len(rows)], scalar_tokens(rows, job, *few.of_rows().values()), "the scalar oracle"
            )
            check_drawn(name, tokens[: len(rows)], rows, job)

    return Way(name, "sample on all target rows in one call", bind, check)


def by(name: str, job: Job, peers: Mapping[str, Speculator]) -> Way:
    """A peer, of those that were found; if it was not, a way that says what it needs."""
    peer = peers.get(name)
    if peer is None:
        return Way(name, "", _nothing, lambda inputs, results: None, needs=name)

    def bind(inputs: Sequence[Drafted]) -> Bound:
        def call(number: int) -> Any:
            given = inputs[number]
            return peer.verify(given.drawn, given.target, given.draft, job)

        return call

    def check(inputs: Sequence[Drafted], results: list[tuple[Tensor, Tensor]]) -> None:
        for given, (tokens, accepted) in zip(inputs, results, strict=True):
            few = given.first(VERIFIED_REQUESTS)
            requests = len(few.target)
            if len(tokens) != len(given.target):
                raise NotVerified(f"{name} gives {len(tokens)} requests of {len(given.target)}")
            check_verdicts(name, tokens[:requests].long(), accepted[:requests], few, job)
        check_law_of_rejection(name, peer.verify, job, peer.one_request, inputs[0].target.device)

    return Way(name, peer.counted, bind, check, all_draft_rows=True, fast=False)


def _nothing(inputs: Sequence[Drafted]) -> Bound:
    raise LookupError("a peer that is not here")


def read(name: str) -> Way:
    """The floor: one read of the rows that a rule cannot do without, by a kernel that takes the largest logits."""
    once = floor(READ)

    def parts(inputs: Sequence[Drafted]) -> list[list[Tensor]]:
        rows = [given.draft.flatten(0, 1) for given in inputs]
        few = [x[: len(given.target)] for x, given in zip(rows, inputs, strict=True)]
        more = {READ_TARGET: [], READ_ONE: [few], READ_ALL: [rows]}[name]
        return [[given.target.flatten(0, 1) for given in inputs], *more]

    def bind(inputs: Sequence[Drafted]) -> Bound:
        calls = [once.bind(part) for part in parts(inputs)]
        return lambda number: [call(number) for call in calls]

    def check(inputs: Sequence[Drafted], results: list[list[Tensor]]) -> None:
        for number, part in enumerate(parts(inputs)):
            rows = part[0]
            once.check(rows, list(batches(results[0][number].float(), len(rows))))

    counted = f"the kernel of {READ}, on one thread"
    return Way(name, counted, bind, check, int(name == READ_ONE), name == READ_ALL)
