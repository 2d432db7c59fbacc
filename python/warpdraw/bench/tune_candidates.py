"""The ways in which the CUDA kernels can serve a call: shapes of kernels, paths, launch plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from .. import _C
from ..backends import INSTRUCTION_SETS, backends
from .gpu_methods import using
from .gpu_work import Work

USUAL = "usual"
CLUSTERS = (1, 2, 4, 8, 16)
BY_RULE, SPLIT = "by the rule", "split"
# The last stage of a shape's kernels, in order; only those that go through all give results.
STAGES = ("read", "maxima", "filters", "all")


@dataclass(frozen=True)
class Wish:
    """A launch plan of the one-launch path, or the split path; see `_C.wish`."""

    cluster: int = 0
    resident: int = -1
    persistent: int = -1
    split: bool = False

    def __str__(self) -> str:
        if self.split:
            return SPLIT
        where = "on chip" if self.resident else "read again"
        return f"cluster {self.cluster}, {where}, {'persistent' if self.persistent else 'a cluster a row'}"


@dataclass(frozen=True)
class Candidate:
    """One way: a shape, and in words its plan, which is a backend by name and a wish, where they are not the usual."""

    shape: str
    plan: str = BY_RULE
    backend: str | None = None
    wish: Wish | None = None

    @property
    def name(self) -> str:
        """Names it in a run."""
        return f"{self.shape}, {self.plan}"

    def run(self, work: Work, number: int) -> Any:
        """The call of some work on the input of a number, in this way."""
        with using(self.backend), _wishing(self.wish):
            return work.run(number)


@contextmanager
def _wishing(wish: Wish | None) -> Iterator[None]:
    if wish is None:
        yield
        return
    _C.wish(**asdict(wish))
    try:
        yield
    finally:
        _C.wish()


def candidates_of(device: torch.device) -> list[Candidate]:
    """All ways on tensors of a device; the first is the one that calls take by themselves, the rule.

    On the CPU they are those of the simulated GPU, or where the build has none the instruction sets.
    """
    available = {backend.name for backend in backends() if backend.available}
    if device.type == "cuda":
        made = [Candidate(USUAL), *_forced(USUAL, "cuda_cluster")]
        made.append(Candidate(USUAL, SPLIT, "cuda_split"))
        for shape in shapes_until("all"):
            if shape != USUAL:
                backend, split = f"cuda_{shape}", Wish(split=True)
                made += [Candidate(shape, backend=backend), *_forced(shape, backend)]
                made.append(Candidate(shape, str(split), backend, split))
    elif "cuda_host_cluster" in available:
        made = [Candidate(USUAL, backend="cuda_host_cluster"), *_forced(USUAL, "cuda_host_cluster")]
        made.append(Candidate(USUAL, SPLIT, "cuda_host_split"))
    else:
        made = [Candidate(USUAL), *(Candidate(name, backend=name) for name in INSTRUCTION_SETS)]
    return [each for each in made if each.backend is None or each.backend in available]


def _forced(shape: str, backend: str) -> list[Candidate]:
    """A shape by every plan of the one-launch path."""
    wishes = [Wish(*wish) for wish in product(CLUSTERS, (1, 0), (0, 1))]
    return [Candidate(shape, str(wish), backend, wish) for wish in wishes]


def shapes_until(stage: str) -> dict[str, Mapping[str, Any]]:
    """The shapes of this build whose kernels stop after a stage."""
    return {name: shape for name, shape in _C.shapes.items() if shape["until"] == stage}


def stages_of_usual() -> list[tuple[str, Candidate]]:
    """The shapes that are the usual one but stop after a stage, with that stage; the whole one is the last."""
    made = []
    for stage in STAGES[:-1]:
        for name, shape in shapes_until(stage).items():
            if {**shape, "until": "all"} == _C.shapes[USUAL]:
                made.append((stage, Candidate(name, backend=f"cuda_{name}")))
    return [*made, (STAGES[-1], Candidate(USUAL))]
