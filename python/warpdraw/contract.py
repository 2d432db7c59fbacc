"""The grammar of contracts: one string says an op's inputs, their types, shapes, defaults and ranges, and its outputs.

    logits: float[B V], temperature: f32[B] = 1.0 in [0, inf), ids: i32[B C]?, bias: f32[B C]? with ids,
    vocab_size: i32[B] = 0 in [0, V], bitmask: i32[B vocab_size/32]?, top_n: N = 0 in [0, V], order: vllm|hf = vllm
        -> tokens: i64|i32[B], logprob: f32[B]?, top_ids: i32[B N]?

An input is a tensor ``dtype[sizes]``, optional with ``?``; ``with`` names inputs that must come with it. With a
default it is a parameter that also takes one Python number for all rows; numbers are checked against the range, tensor
entries by the kernel, row by row. ``float`` stands for f32, f16 or bf16, ``logits.dtype`` for the dtype of another
input. Of two shapes, ``float[B K+1 V]|[N V] with offsets``, the second comes with that other input and the first
without it.

Words joined by ``|`` without sizes are a choice. With sizes, ``coupled|rejection[B] = coupled``, they are a parameter:
one of the words, or a tensor of their places in the list. A word may need another input, ``rejection(draft_logits)``,
or exclude it, ``block(-first_child)``.

Capital letters are sizes, bound on first sight; all but B are at least 1. A letter in the place of a type makes a size
that the caller gives as a number. ``K+1`` is one more than K. ``vocab_size/32`` is a size of that many words of 32
bits: enough for the parameter (0 is V), and for V at most. An output with ``?`` is made on request, or when its size
was given. The native ``Signature`` binds and checks calls by what is parsed here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i32": torch.int32,
    "i64": torch.int64,
    "bool": torch.bool,
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = {
    torch.float32: torch.finfo(torch.float32).max,
    torch.int32: 2**31 - 1,
    torch.int64: 2**63 - 1,
}

_ONE_WORD = r"[\w.-]+(?:\([\w,-]+\))?"
_ITEM = re.compile(
    rf"(?P<name>\w+): (?P<types>{_ONE_WORD}(?:\|{_ONE_WORD})*)"
    r"(\[(?P<sizes>[^\]]*)\])?(\|\[(?P<other>[^\]]*)\])?(?P<optional>\?)?"
    r"( with (?P<partners>\w+))?"
    r"( = (?P<default>[\w.-]+))?( in (?P<range>[\[(]\S+, [^\s,]+[\])]))?"
)

_WORD = re.compile(r"(?P<word>[\w.-]+)(\((?P<names>[\w,-]+)\))?")


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a contract."""

    name: str
    dtypes: tuple[torch.dtype, ...]  # the first is the one that outputs are made with
    same_dtype_as: str | None
    sizes: tuple[str, ...]
    optional: bool
    default: float | int | None  # not None: a parameter that also takes a number
    range_text: str  # the interval that numbers lie in, and its ends as closed ones
    low: float
    high: float
    high_size: str | None = None  # the size that is the upper end
    partner: str | None = None  # the input that must be given with this one, or with its other shape
    other_sizes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # not empty: what numbers stand for
    conditions: tuple[tuple[str, str, bool], ...] = ()  # a word, an input, and whether it needs or excludes it

    @property
    def dtype_names(self) -> tuple[str, ...]:
        return tuple(str(dtype).removeprefix("torch.") for dtype in self.dtypes)


@dataclass(frozen=True)
class ChoiceSpec:
    """One named word out of several; kernels receive its index."""

    name: str
    choices: tuple[str, ...]
    default: str


@dataclass(frozen=True)
class SizeSpec:
    """One size that the caller gives, at most another one."""

    name: str
    letter: str
    default: int
    high_size: str


Spec = TensorSpec | ChoiceSpec | SizeSpec


@dataclass(frozen=True)
class Contract:
    """A parsed contract: its inputs and outputs in order."""

    text: str
    inputs: tuple[Spec, ...]
    outputs: tuple[TensorSpec, ...]

    @staticmethod
    def parse(text: str) -> Contract:
        text = " ".join(text.split())
        inputs, outputs = (_parse_side(side) for side in text.split(" -> "))
        return Contract(text, tuple(inputs), tuple(spec for spec in outputs if isinstance(spec, TensorSpec)))

    def word(self, name: str, index: int) -> str:
        """The word that a choice's index stands for."""
        spec = next(spec for spec in self.inputs if spec.name == name)
        return words_of(spec)[index]


def words_of(spec: Spec) -> tuple[str, ...]:
    """The words that an input takes, if it takes some."""
    return spec.choices if isinstance(spec, ChoiceSpec) else getattr(spec, "words", ())


def size_of(text: str, sizes: dict[str, int]) -> int:
    """The number that a size of a contract stands for, when its letter is bound."""
    letter, _, more = text.partition("+")
    return sizes[letter] + int(more or 0)


def letters_in(sizes: tuple[str, ...], shape: torch.Size) -> dict[str, int]:
    """The letters that a tensor's shape binds."""
    bound = {}
    for text, size in zip(sizes, shape, strict=True):
        letter, _, more = text.partition("+")
        bound[letter] = size - int(more or 0)
    return bound


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
    if match["sizes"] is None and len(types) == 1 and types.isupper():
        return SizeSpec(name, types, int(default), _high_size(match["range"]) or "")
    listed = [_WORD.fullmatch(word) for word in types.split("|")]
    words = tuple(word["word"] for word in listed if word)
    if match["sizes"] is None:
        return ChoiceSpec(name, words, default or words[0])
    if not set(words) & {*DTYPES, "float"} and not types.endswith(".dtype"):
        sizes, last = tuple(match["sizes"].split()), len(words) - 1
        text = " or ".join(words)
        conditions = tuple(
            (word["word"], name.removeprefix("-"), not name.startswith("-"))
            for word in listed
            if word and word["names"]
            for name in word["names"].split(",")
        )
        default_word = words.index(default or words[0])
        return TensorSpec(
            name, (torch.int32,), None, sizes, False, default_word, text, 0, last, words=words, conditions=conditions
        )
    same_dtype_as = types.removesuffix(".dtype") if types.endswith(".dtype") else None
    dtypes = FLOATS if types == "float" or same_dtype_as else tuple(DTYPES[word] for word in types.split("|"))
    integer = not dtypes[0].is_floating_point
    number = None if default is None else (int(default) if integer else float(default))
    range_text, low, high = _range(match["range"], dtypes[0])
    return TensorSpec(
        name,
        dtypes,
        same_dtype_as,
        tuple(match["sizes"].split()),
        bool(match["optional"]),
        number,
        range_text,
        low,
        high,
        _high_size(match["range"]),
        match["partners"],
        tuple((match["other"] or "").split()),
    )


def _high_size(text: str | None) -> str | None:
    """The size letter that ends an interval, if one does."""
    end = (text or "0")[:-1].split(", ")[-1]
    return end if end.isupper() and len(end) == 1 else None


def _range(text: str | None, dtype: torch.dtype) -> tuple[str, float, float]:
    """An interval as it is printed, and as the closed interval of numbers that the dtype holds."""
    largest = LARGEST.get(dtype, math.inf)
    smallest = -largest if dtype.is_floating_point else -largest - 1
    if text is None:
        return f"[{smallest}, {largest}]", smallest, largest
    low, high = (largest if end.isupper() else float(end) for end in text[1:-1].split(", "))
    if text[0] == "(":
        low = _next(low, math.inf, dtype)
    if text[-1] == ")":
        high = _next(high, -math.inf, dtype)
    return text, max(low, smallest), min(high, largest)


def _next(value: float, towards: float, dtype: torch.dtype) -> float:
    """The neighbour of a value among those of the dtype: what is nearer would round to the excluded end."""
    end = torch.tensor([value, towards], dtype=dtype if dtype.is_floating_point else torch.float64)
    return float(torch.nextafter(end[0], end[1]))
