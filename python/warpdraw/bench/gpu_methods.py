"""The methods of a GPU measurement: our op by whatever path, and the peers, each with a check against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..backends import backends, launches, use
from .gpu_jobs import ROWS_OF, Point, Pool
from .gpu_work import TEMPERATURE, VERIFIED_ROWS, Work, our_work
from .peers import Job, Peer
from .verify import NotVerified, check_close, check_distribution, check_drawn, check_weights

OURS = "warpdraw"
# Paths that can be forced, by the type of device; the CPU's are there to try the code.
FORCED = {"cuda": ("cuda_cluster", "cuda_split", "triton"), "cpu": ("portable",)}
TORCH_SOFTMAX, READ = "torch.softmax", "one read (amax)"


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
    """Our op; `path` forces a backend by its name."""
    return bound_by(path, OURS, our_work(point, pool, inputs))


def bound_by(path: str | None, name: str, work: Work) -> Bound:
    """Work that was made ready, to be run as it comes or on a backend."""
    name = name if path is None else f"{name}, {path}"

    def call(number: int) -> Any:
        with using(path):
            return work.run(number)

    def check() -> None:
        work.poison()
        for number in work.ends:
            check_path(name, path, partial(call, number))
        work.compare(name)

    return Bound(name, work.counted, call, check, work.poison, partial(work.compare, name))


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


def check_path(name: str, path: str | None, call: Callable[[], Any]) -> None:
    """Raise NotVerified unless a call runs by the path that is forced, and by no other."""
    before = launches()
    call()
    ran = {key for key, count in launches().items() if count != before.get(key, 0)}
    # An op that has one path only is counted as that of the device.
    if path is not None and not all(key.startswith((f"{path}.", "cuda.")) for key in ran):
        raise NotVerified(f"{name} ran {', '.join(sorted(ran))}")
