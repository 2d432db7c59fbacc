"""How to draw: the parameters of one request, checked when they are made, and the seed of each sample."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from ..ops import sample

# What the op takes: its defaults and ranges are those of a request.
_OP: dict[str, Any] = {spec.name: spec for spec in sample.contract.inputs}
ORDERS: tuple[str, ...] = _OP["order"].choices
LARGEST_COUNT = 2**31 - 1

_MASK = 2**64 - 1


@dataclass(frozen=True)
class SamplingParams:
    """The parameters of one request.

    temperature  divides the logits; 0 is greedy.
    top_k        keeps the k best tokens; 0 is off, 1 is greedy.
    top_p        keeps the shortest prefix of the ranking whose mass is at least p; 1 is off.
    min_p        keeps tokens whose probability is at least min_p times the largest; 0 is off.
    order        which filter sees which distribution: "vllm", "hf", "flashinfer-joint" or "llama.cpp".
    seed         a 64-bit signed integer; None draws one at random, and the result reports it.
    n            how many samples to draw for the prompt; sample j uses ``sample_seed(seed, j)``.
    max_tokens   the most tokens to draw for a sample.
    min_tokens   before this many, end-of-text and stop ids cannot be drawn and stop strings do not count.
    stop         strings that end the text; the text ends before them.
    stop_ids     token ids that end the text, besides the checkpoint's end-of-text ids.
    logprobs     None: none; 0: of the drawn token; n: also the n most probable tokens.
    ignore_eos   draw on after an end-of-text token.

    Raises TypeError or ValueError; the message names the field, what is allowed and what it was.

    >>> SamplingParams(temperature=0.8, top_k=50, stop=["."]).stop
    ('.',)
    >>> SamplingParams(top_p=1.5)
    Traceback (most recent call last):
    ValueError: top_p: expected a number in [0, 1], got 1.5
    """

    temperature: float = _OP["temperature"].default
    top_k: int = _OP["top_k"].default
    top_p: float = _OP["top_p"].default
    min_p: float = _OP["min_p"].default
    order: str = _OP["order"].default
    seed: int | None = None
    n: int = 1
    max_tokens: int = 64
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "top_k", "top_p", "min_p"):
            _check_by_contract(name, getattr(self, name))
        if self.order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.seed is not None:
            _check_by_contract("seed", self.seed)
        _check_integer("n", self.n, 1, LARGEST_COUNT, "an integer >= 1")
        _check_integer("max_tokens", self.max_tokens, 1, LARGEST_COUNT, "an integer >= 1")
        _check_integer("min_tokens", self.min_tokens, 0, LARGEST_COUNT, "an integer >= 0")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: expected at most max_tokens = {self.max_tokens}, got {self.min_tokens}")
        if self.logprobs is not None:
            _check_integer("logprobs", self.logprobs, 0, LARGEST_COUNT, "None or an integer >= 0")
        if not isinstance(self.ignore_eos, bool):
            raise TypeError(f"ignore_eos: expected True or False, got {self.ignore_eos!r}")

        # Lists are welcome, and one string or id stands for itself; the frozen value holds tuples.
        stop = (self.stop,) if isinstance(self.stop, str) else _as_tuple("stop", self.stop, "strings")
        for text in stop:
            if not isinstance(text, str):
                raise TypeError(f"stop: expected strings, got {text!r} among them")
            if not text:
                raise ValueError("stop: expected strings of at least one character, got '' among them")
        one = isinstance(self.stop_ids, int)
        stop_ids = (self.stop_ids,) if one else _as_tuple("stop_ids", self.stop_ids, "token ids")
        for token in stop_ids:
            _check_integer("stop_ids", token, 0, LARGEST_COUNT, "token ids >= 0")
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_ids", stop_ids)


def fresh_seed() -> int:
    """A random seed from the operating system; 53 bits, so that JSON readers keep it exact."""
    return secrets.randbits(53)


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one sample: the request's own for sample 0, mix(mix(seed) + sample) for the others.

    mix is one step of splitmix64 (Steele, Lea, Flood 2014), a bijection of 64-bit integers: the other samples
    share no seed among them, and requests with neighbouring seeds do not repeat each other's.

    >>> sample_seed(7, 0)
    7
    >>> sample_seed(7, 1) == sample_seed(7, 1) != sample_seed(6, 2)
    True
    """
    if sample == 0:
        return seed
    mixed = _mix((_mix(seed & _MASK) + sample) & _MASK)
    return mixed - 2**64 if mixed >= 2**63 else mixed


def _mix(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def _check_by_contract(name: str, value: Any) -> None:
    spec = _OP[name]
    integer = isinstance(spec.default, int)
    allowed = f"{'an integer' if integer else 'a number'} in {spec.range_text}"
    if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
        raise TypeError(f"{name}: expected {allowed}, got {value!r}")
    if not spec.low <= value <= spec.high:
        raise ValueError(f"{name}: expected {allowed}, got {value!r}")


def _check_integer(name: str, value: Any, low: int, high: int, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected {allowed}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {allowed}, got {value!r}")


def _as_tuple(name: str, value: Any, holds: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}: expected a list of {holds}, got {value!r}")
    return tuple(value)
