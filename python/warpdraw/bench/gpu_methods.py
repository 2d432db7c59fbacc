"""The methods of a GPU measurement: our op by whatever path, and the peers, each with a check against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import backends, launches, use
from .gpu_jobs import ROWS_OF, SOFTMAX, Point, Pool, arguments, rows_of_arguments
from .peers import Job, Peer
from .verify import NotVerified, check_close, check_distribution, check_drawn, check_weights

OURS = "warpdraw"
# Paths that can be forced, by the type of device; the CPU's are there to try the code.
FORCED = {"cuda": ("cuda_cluster", "cuda_split", "triton"), "cpu": ("portable",)}
TORCH_SOFTMAX, READ = "torch.softmax", "one read (amax)"
TEMPERATURE = 0.7  # of softmax
VERIFIED_ROWS = 4


@dataclass(frozen=True)
class Bound:
    """A method on its inputs: `call` runs the one of a number, `check` raises NotVerified if that is not the job.

    `poison` fills the outputs that the calls write with nonsense, and `compare` raises NotVerified unless calls have
    written what they should since: before and after the timing, so that what is timed is what is compared.
    """

    name: str
    counted: str
    call: Callable[[int], Any]
    check: Callable[[], None]
    poison: Callable[[], None] = lambda: None
    compare: Callable[[], None] = lambda: None

    def named(self, name: str) -> Bound:
        """The same under another name."""
        return replace(self, name=name)


def forced_paths(device: torch.device) -> tuple[str, ...]:
    """The paths of a device that can run here."""
    available = {backend.name for backend in backends() if backend.available}
    return tuple(name for name in FORCED.get(device.type, ()) if name in available)


def ours(point: Point, pool: Pool, inputs: Sequence[slice], path: str | None = None) -> Bound:
    """Our op with outputs made before; `path` forces a backend by its name."""
    name = OURS if path is None else f"{OURS}, {path}"
    if point.job == SOFTMAX:
        return _our_softmax(name, point, pool, inputs, path)
    given = [arguments(point, pool, rows) for rows in inputs]
    made = ops.sample(pool.first(1), **rows_of_arguments(given[0], [0]))._asdict()
    results = [outputs(made, point.batch, pool.rows.device) for _ in inputs]

    def call(number: int) -> Any:
        with using(path):
            return ops.sample(pool.rows[inputs[number]], **given[number] | results[number])

    def want(number: int, some: list[int]) -> Any:
        return ops.sample(pool.rows[inputs[number]][some].cpu(), **rows_of_arguments(given[number], some))

    return written(name, path, call, results, want)


def written(
    name: str,
    path: str | None,
    call: Callable[[int], Any],
    results: Sequence[dict[str, Tensor]],
    want: Callable[[int, list[int]], Any],
) -> Bound:
    """Our op, which writes into `results`; `want` is what the CPU backend gives for some rows of an input."""
    ends = sorted({0, len(results) - 1})
    batch = len(next(iter(results[0].values())))

    def poison() -> None:
        for number in ends:
            for tensor in results[number].values():
                tensor.fill_(0 if tensor.dtype == torch.bool else 97)

    def compare() -> None:
        some = sorted({*range(min(VERIFIED_ROWS, batch)), batch - 1})
        for number in ends:
            for field, expected in want(number, some)._asdict().items():
                if expected is not None:
                    _check_field(name, field, results[number][field][some].cpu(), expected)

    def check() -> None:
        poison()
        for number in ends:
            _check_path(name, path, partial(call, number))
        compare()

    return Bound(name, "parameters as tensors [B], outputs made before", call, check, poison, compare)


def _check_field(name: str, field: str, got: Tensor, expected: Tensor) -> None:
    if expected.dtype.is_floating_point:
        check_close(name, f"the {field} of the CPU backend", got, expected)
    elif not torch.equal(got, expected):
        raise NotVerified(f"{name} does not give the {field} of the CPU backend")


def outputs(made: dict[str, Tensor | None], batch: int, device: torch.device) -> dict[str, Tensor]:
    """Tensors for the outputs of a batch, like those that were made for one row."""
    return {
        name: torch.empty(batch, *value.shape[1:], dtype=value.dtype, device=device)
        for name, value in made.items()
        if value is not None
    }


def _our_softmax(name: str, point: Point, pool: Pool, inputs: Sequence[slice], path: str | None) -> Bound:
    out = torch.empty(len(inputs), point.batch, point.vocab, device=pool.rows.device)
    temperature = torch.full((point.batch,), TEMPERATURE, device=pool.rows.device)

    def call(number: int) -> Tensor:
        with using(path):
            written: Tensor = ops.softmax(pool.rows[inputs[number]], temperature, out=out[number])
        return written

    def compare() -> None:
        rows = pool.first(min(VERIFIED_ROWS, point.batch))
        want = ops.softmax(rows, temperature[: len(rows)].cpu())
        check_close(name, "the probabilities of the CPU backend", out[0][: len(rows)].cpu(), want)

    def poison() -> None:
        out[0].fill_(97)

    def check() -> None:
        poison()
        _check_path(name, path, partial(call, 0))
        compare()

    return Bound(name, "softmax(x / T) into a given buffer", call, check, poison, compare)


def read(pool: Pool, inputs: Sequence[slice]) -> Bound:
    """One read of the logits as eager PyTorch does it."""
    return Bound(READ, "torch.amax", lambda number: pool.rows[inputs[number]].amax(-1), lambda: None)


def torch_softmax(point: Point, pool: Pool, inputs: Sequence[slice]) -> Bound:
    """What eager PyTorch writes for softmax(x / T)."""
    out = torch.empty(point.batch, point.vocab, device=pool.rows.device)

    def call(number: int) -> Tensor:
        return torch.softmax(pool.rows[inputs[number]].float() / TEMPERATURE, -1, out=out)

    def check() -> None:
        rows = pool.first(min(VERIFIED_ROWS, point.batch))
        check_close(
            TORCH_SOFTMAX, "softmax(x / T)", call(0)[: len(rows)].cpu(), (rows.double() / TEMPERATURE).softmax(-1)
        )

    return Bound(TORCH_SOFTMAX, "div and softmax", call, check)


def of_peer(name: str, peer: Peer, point: Point, pool: Pool, inputs: Sequence[slice]) -> Bound:
    """A peer on the same logits, its parameters as it takes them."""
    job = ROWS_OF[point.job][0]

    def call(number: int) -> Tensor:
        return peer.draw(pool.rows[inputs[number]], job)

    def check() -> None:
        logits = pool.rows[inputs[0]]
        rows = pool.first(min(VERIFIED_ROWS, point.batch))
        if peer.probs is not None:
            check_weights(name, peer.probs(logits, job)[: len(rows)].cpu(), rows, job)
        check_drawn(name, peer.draw(logits, job)[: len(rows)].cpu().long(), rows, job)
        if peer.any_shape:
            check_distribution(name, _drawn_on(peer.draw, logits.device), job)

    return Bound(name, peer.counted, call, check)


@lru_cache
def _drawn_on(draw: Callable[[Tensor, Job], Tensor], device: torch.device) -> Callable[[Tensor, Job], Tensor]:
    # The same object each time, so that the check of the distribution, which is cached by it, is made once.
    return lambda logits, job: draw(logits.to(device), job).cpu().long()


@contextmanager
def using(path: str | None) -> Iterator[None]:
    """Force a path by its name."""
    if path is None:
        yield
    else:
        with use(path):
            yield


def _check_path(name: str, path: str | None, call: Callable[[], Any]) -> None:
    """Where a path is forced, it and no other runs."""
    before = launches()
    call()
    ran = {key for key, count in launches().items() if count != before.get(key, 0)}
    # An op that has one path only is counted as that of the device.
    if path is not None and not all(key.startswith((f"{path}.", "cuda.")) for key in ran):
        raise NotVerified(f"{name} ran {', '.join(sorted(ran))}")
