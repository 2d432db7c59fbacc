"""The arguments of the kernels: what a call bound, as named tuples that keep the names of the contract.

What is not given is None, and so is a number that equals its default: the code for it is not compiled. So a kernel has
what a call uses, and a batch of mixed rows, whose parameters are tensors, is one launch.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ..contract import Contract, Spec, TensorSpec
from ..ops.arguments import INPUTS

SPECS = Contract.parse(f"{INPUTS} -> out: f32[B]").inputs


class PerRow(NamedTuple):
    """A value for each row, `stride` apart."""

    data: Any
    stride: Any


class Number(NamedTuple):
    """One for all rows."""

    value: Any


class Table(NamedTuple):
    """A tensor [B, size] whose rows are `stride` apart."""

    data: Any
    stride: Any
    size: Any


class Nodes(NamedTuple):
    """A tensor [B, rows, size]: `outer` apart are those of two requests, `stride` apart two rows of one."""

    data: Any
    outer: Any
    stride: Any
    size: Any


class Place(NamedTuple):
    """Which row a program is about: a request's only one, or that of one of its nodes."""

    request: Any  # whose parameters it has
    slot: Any  # whose room and history
    row: Any  # among those of its request
    depth: Any  # how many tokens of the request come before, beside its history


def names_of(name: str, specs: Sequence[Spec]) -> Any:
    """A type of named tuple with a field for each input or output of a contract, and a None at its end.

    Triton 3.6 forgets the constants of a tuple that is the last member of another.
    """
    return namedtuple(name, [*(spec.name for spec in specs), "end"], defaults=[None])


# The inputs that sample and the filter ops share, but for the logits.
Inputs = names_of("Inputs", SPECS[1:])


def rows_of(tensor: Tensor | None) -> PerRow | Table | Nodes | None:
    if tensor is None:
        return None
    if tensor.dim() == 3:
        return Nodes(tensor, tensor.stride(0), tensor.stride(1), tensor.shape[2])
    return PerRow(tensor, tensor.stride(0)) if tensor.dim() == 1 else Table(tensor, tensor.stride(0), tensor.shape[1])


def argument(spec: Spec, value: Any) -> PerRow | Table | Nodes | Number | None:
    if value is None or isinstance(value, Tensor):
        return rows_of(value)
    return None if isinstance(spec, TensorSpec) and value == spec.default else Number(value)


def inputs_of(bound: Sequence[Any]) -> Any:
    """Of a call of an op that has the shared inputs."""
    return Inputs(*[argument(spec, value) for spec, value in zip(SPECS[1:], bound[1:], strict=False)])


def named(contract: Contract, bound: Sequence[Any]) -> dict[str, Any]:
    """What a call bound, by the names of its contract."""
    specs = (*contract.inputs, *contract.outputs)
    return {spec.name: value for spec, value in zip(specs, bound, strict=True)}


@triton.jit
def only_row(request):
    """The place of a request that has one row."""
    nothing = tl.full([], 0, tl.int32)
    return Place(request, request, nothing, nothing)


@triton.jit
def pointer_of(table, at):
    """Where a row of a tensor begins."""
    if len(table) == 3:
        return table.data + at.request * table.stride
    else:
        return table.data + at.request * table.outer + at.row.to(tl.int64) * table.stride


@triton.jit
def of_row(parameter, at, default: tl.constexpr, dtype: tl.constexpr):
    """A row's value of a parameter."""
    if parameter is None:
        return tl.full([], default, dtype)
    elif len(parameter) == 1:
        return tl.full([], parameter.value, dtype)
    else:
        return tl.load(parameter.data + at.request * parameter.stride).to(dtype)


@triton.jit
def store(output, row, value):
    """A row's value of an output that may not be wanted."""
    if output is not None:
        tl.store(output.data + row * output.stride, value)
