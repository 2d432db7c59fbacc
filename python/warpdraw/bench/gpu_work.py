"""Our op on the inputs of a point, made ready once, so that it can be run, verified and timed in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..op import Op
from .gpu_jobs import SOFTMAX, Point, Pool, arguments, rows_of_arguments
from .verify import NotVerified, check_close

TEMPERATURE = 0.7  # of softmax
VERIFIED_ROWS = 4
AS_TENSORS = "parameters as tensors [B], outputs made before"


@dataclass(frozen=True)
class Work:
    """Our op on the inputs of a point: what each call is given, and `room` for what they write, call after call."""

    op: Op
    given: Sequence[dict[str, Any]]
    room: dict[str, Tensor]
    counted: str

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def results(self) -> list[dict[str, Tensor]]:
        """What the call on each input writes."""
        return [{name: value[number] for name, value in self.room.items()} for number in range(len(self))]

    def run(self, number: int) -> Any:
        """The call on the input of a number."""
        return self.op(**self.given[number] | self.results[number])

    @property
    def ends(self) -> list[int]:
        """The inputs that are compared with the CPU backend."""
        return sorted({0, len(self) - 1})

    def poison(self) -> None:
        """Fill what calls write with nonsense: all that is compared, so that it shows if a call does not write it."""
        for number in self.ends:
            for tensor in self.results[number].values():
                poison(tensor)

    def compare(self, name: str) -> None:
        """Raise NotVerified unless the calls have written what the CPU backend gives for some rows."""
        for number, fields in self._wanted.items():
            for field, expected in fields.items():
                _check_field(name, field, self.results[number][field][self._some].cpu(), expected)

    @cached_property
    def _some(self) -> list[int]:
        batch = len(next(iter(self.results[0].values())))
        return sorted({*range(min(VERIFIED_ROWS, batch)), batch - 1})

    @cached_property
    def _wanted(self) -> dict[int, dict[str, Tensor]]:
        of_rows = {number: rows_of_arguments(self.given[number], self._some) for number in self.ends}
        return {number: _named(self.op, self.op(**given)) for number, given in of_rows.items()}


def poison(tensor: Tensor) -> None:
    """Fill a tensor of outputs with what no call writes everywhere."""
    tensor.fill_(0 if tensor.dtype == torch.bool else 97)


def work_on(op: Op, given: Sequence[dict[str, Any]], counted: str) -> Work:
    """An op on what its calls are given, with outputs made before: those of all calls lie one after the other."""
    first = next(value for value in given[0].values() if isinstance(value, Tensor))
    made = _named(op, op(**rows_of_arguments(given[0], [0])))
    room = {
        name: torch.empty(len(given), len(first), *value.shape[1:], dtype=value.dtype, device=first.device)
        for name, value in made.items()
    }
    return Work(op, given, room, counted)


def _named(op: Op, result: Any) -> dict[str, Tensor]:
    """The outputs that an op gave, by their names."""
    made = {op.contract.outputs[0].name: result} if isinstance(result, Tensor) else result._asdict()
    return {name: value for name, value in made.items() if value is not None}


def our_work(point: Point, pool: Pool, inputs: Sequence[slice]) -> Work:
    """The op of a job on logits."""
    if point.job == SOFTMAX:
        temperature = torch.full((point.batch,), TEMPERATURE, device=pool.rows.device)
        given = [{"logits": pool.rows[rows], "temperature": temperature} for rows in inputs]
        return work_on(ops.softmax, given, "softmax(x / T) into a given buffer")
    given = [{"logits": pool.rows[rows], **arguments(point, pool, rows)} for rows in inputs]
    return work_on(ops.sample, given, AS_TENSORS)


def _check_field(name: str, field: str, got: Tensor, expected: Tensor) -> None:
    if expected.dtype.is_floating_point:
        check_close(name, f"the {field} of the CPU backend", got, expected)
    elif not torch.equal(got, expected):
        raise NotVerified(f"{name} does not give the {field} of the CPU backend")
