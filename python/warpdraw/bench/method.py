"""A method: something that is timed on inputs, and how to know that it does its job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

# Runs on the input of a number, and returns what it made.
Bound = Callable[[int], Any]

# The name under which our op appears: called from Python, or its kernel alone, run again on the same tensors.
OURS, KERNEL = "warpdraw.sample", "warpdraw.sample, the kernel"


@dataclass(frozen=True)
class Method:
    """A name, the work bound to inputs, and a check that raises NotVerified.

    `bind` takes inputs [B, V] and returns what is timed. `check` is given the rows of all inputs and what the bound
    method returned for each. `needs` names the peer without which there is no such method.
    """

    name: str
    counted: str
    bind: Callable[[Sequence[Tensor]], Bound]
    check: Callable[[Tensor, list[Any]], None]
    needs: tuple[str, ...] = ()
    threads: int = 1

    def named(self, name: str, threads: int = 1) -> Method:
        """The same under another name, or with another number of threads."""
        return replace(self, name=name, threads=threads)

    def verify(self, inputs: Sequence[Tensor], rows: Tensor) -> None:
        """Check the method as it is timed, on the first of its inputs, of which `rows` [R, V] are the first rows."""
        bound = self.bind(inputs)
        self.check(rows, [_first(bound(number), len(rows)) for number in range(len(inputs))])


def _first(result: Any, rows: int) -> Any:
    # Copied, because a prepared call writes into the same outputs each time, and so does one with an out buffer.
    if isinstance(result, Tensor):
        return result[:rows].clone()
    return (
        tuple(None if each is None else _first(each, rows) for each in result) if isinstance(result, tuple) else result
    )


def batches(rows: Tensor, batch: int) -> list[Tensor]:
    """Rows [R, V] as inputs of `batch` rows."""
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]
