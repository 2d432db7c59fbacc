"""The grammar of contracts: one string says an op's inputs, their types, shapes, defaults and ranges, and its outputs.

    logits: float[B V], temperature: f32[B] = 1.0 in [0, inf), bias: f32[B V]?, order: vllm|hf = vllm
        -> tokens: i64|i32[B], logprob: f32[B]?

An input is a tensor ``dtype[sizes]``, optional with ``?``. With a default it is a parameter that also takes one
Python number for all rows; numbers are checked against the range, tensor entries by the kernel, row by row. Words
joined by ``|`` without sizes are a choice. ``float`` stands for f32, f16 or bf16, ``logits.dtype`` for the dtype of
another input. Capital letters are sizes, bound on first sight. An output with ``?`` is made on request.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i32": torch.int32,
    "i64": torch.int64,
    "bool": torch.bool,
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = {torch.int32: (-(2**31), 2**31 - 1), torch.int64: (-(2**63), 2**63 - 1)}

_ITEM = re.compile(
    r"(?P<name>\w+): (?P<types>[\w.|-]+)(\[(?P<sizes>[^\]]*)\])?(?P<optional>\?)?"
    r"( = (?P<default>[\w.-]+))?( in (?P<low>\S+), (?P<high>[^\s,]+))?"
)

Sizes = dict[str, int]


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


@dataclass(frozen=True)
class Range:
    """An interval that a number must lie in, as it is printed."""

    text: str
    low: float
    high: float

    @staticmethod
    def parse(low: str, high: str) -> Range:
        low_end, high_end = float(low[1:]), float(high[:-1])
        if low[0] == "(":
            low_end = math.nextafter(low_end, math.inf)
        if high[-1] == ")":
            high_end = math.nextafter(high_end, -math.inf)
        return Range(f"{low}, {high}", low_end, high_end)


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a contract."""

    name: str
    dtypes: tuple[torch.dtype, ...]  # the first is the one that outputs are made with
    same_dtype_as: str | None
    sizes: tuple[str, ...]
    optional: bool
    default: float | int | None  # not None: a parameter that also takes a number
    range: Range | None

    def check(self, value: Tensor, sizes: Sizes, device: torch.device) -> None:
        if value.dtype not in self.dtypes:
            raise TypeError(f"{self.name}: expected a tensor of {_names(self.dtypes)}, got {_names((value.dtype,))}")
        if value.device != device:
            raise ValueError(f"{self.name}: expected a tensor on {device}, like the first input, got {value.device}")
        shape = value.shape
        if len(shape) != len(self.sizes):
            raise ValueError(f"{self.name}: expected shape [{', '.join(self.sizes)}], got {list(shape)}")
        for letter, size in zip(self.sizes, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"{self.name}: expected {letter} = {sizes[letter]} in shape "
                                 f"[{', '.join(self.sizes)}], got {list(shape)}")  # fmt: skip
            if size == 0 and letter != "B":
                raise ValueError(f"{self.name}: expected {letter} of at least 1, got shape {list(shape)}")
        if len(shape) > 1 and shape[-1] > 1 and value.stride(-1) != 1:
            raise ValueError(
                f"{self.name}: expected the last axis to be contiguous (stride 1), got strides {value.stride()}"
            )

    def check_number(self, value: Any) -> float | int:
        wanted = self.dtypes[0]
        bounds = INTEGERS.get(wanted)
        accepted = int if bounds else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted):
            kind = "an int" if bounds else "a number"
            raise TypeError(f"{self.name}: expected {kind} or a tensor [{', '.join(self.sizes)}] of {_names(self.dtypes)}, "
                            f"got {value!r}")  # fmt: skip
        if self.range and not self.range.low <= value <= self.range.high:
            raise ValueError(f"{self.name}: expected a value in {self.range.text}, got {value!r}")
        if bounds and not bounds[0] <= value <= bounds[1]:
            raise ValueError(
                f"{self.name}: expected an {_names((wanted,))} integer in [{bounds[0]}, {bounds[1]}], got {value}"
            )
        return value

    def empty(self, sizes: Sizes, device: torch.device, inputs: dict[str, Any]) -> Tensor:
        dtype = inputs[self.same_dtype_as].dtype if self.same_dtype_as else self.dtypes[0]
        return torch.empty([sizes[letter] for letter in self.sizes], dtype=dtype, device=device)


@dataclass(frozen=True)
class ChoiceSpec:
    """One named word out of several; kernels receive its index."""

    name: str
    choices: tuple[str, ...]
    default: str

    def check(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"{self.name}: expected one of {', '.join(map(repr, self.choices))}, got {value!r}")
        return str(value)


Spec = TensorSpec | ChoiceSpec


@dataclass(frozen=True)
class Contract:
    """A parsed contract: its inputs and outputs in order."""

    text: str
    inputs: tuple[Spec, ...]
    outputs: tuple[TensorSpec, ...]

    @staticmethod
    def parse(text: str) -> Contract:
        text = " ".join(text.split())
        inputs, outputs = (tuple(_parse_side(side)) for side in text.split(" -> "))
        return Contract(text, inputs, tuple(spec for spec in outputs if isinstance(spec, TensorSpec)))


def _parse_side(side: str) -> list[Spec]:
    specs: list[Spec] = []
    position = 0
    while position < len(side):
        match = _ITEM.match(side, position)
        if not match:
            raise ValueError(f"contract: cannot read {side[position:]!r}")
        specs.append(_spec(match))
        position = match.end()
        if position < len(side) and not side.startswith(", ", position):
            raise ValueError(f"contract: expected ', ' before {side[position:]!r}")
        position += 2
    return specs


def _spec(match: re.Match[str]) -> Spec:
    name, types, default = match["name"], match["types"], match["default"]
    if match["sizes"] is None:
        choices = tuple(types.split("|"))
        return ChoiceSpec(name, choices, default or choices[0])
    same_dtype_as = types.removesuffix(".dtype") if types.endswith(".dtype") else None
    dtypes = FLOATS if types == "float" or same_dtype_as else tuple(DTYPES[word] for word in types.split("|"))
    number = None if default is None else (int(default) if dtypes[0] in INTEGERS else float(default))
    bounds = Range.parse(match["low"], match["high"]) if match["low"] else None
    return TensorSpec(
        name, dtypes, same_dtype_as, tuple(match["sizes"].split()), bool(match["optional"]), number, bounds
    )
