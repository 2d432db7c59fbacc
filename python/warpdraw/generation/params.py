"""How to draw: the parameters of one request, checked when they are made, and the seed of each sample."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..guides import Guide
from ..ops import sample
from .repetition import Repetition
from .steering import check_steering

# What the op takes: its defaults and ranges are those of a request.
_OP: dict[str, Any] = {spec.name: spec for spec in sample.contract.inputs}
ORDERS: tuple[str, ...] = _OP["order"].choices
LOGPROBS_OF: tuple[str, ...] = _OP["top_of"].choices
# The strings that end a copy for DRY where a request names none, as in llama.cpp.
BREAKERS = ("\n", ":", '"', "*")
LARGEST_COUNT = 2**31 - 1
LARGEST_BIAS = torch.finfo(torch.float32).max

_MASK = 2**64 - 1

Token = int | str
Bitmask = Callable[[list[int]], Tensor | None]


@dataclass(frozen=True)
class SamplingParams:
    """The parameters of one request. What each number does, and in which order, is the matter of `warpdraw.sample`.

    How to draw:
    temperature        divides the logits; 0 is greedy.
    dynatemp_range     moves the temperature up or down by as much, with the entropy of the row; 0 is off.
    dynatemp_exponent  of the entropy, as a part of the largest possible one.
    top_k              keeps the k best tokens; 0 is off, 1 is greedy.
    top_p              keeps the shortest prefix of the ranking whose mass is at least p; 1 is off.
    min_p              keeps tokens whose probability is at least min_p times the largest; 0 is off.
    top_n_sigma        keeps tokens whose logit is at most n standard deviations below the largest; 0 is off.
    typical_p          keeps the tokens nearest to the entropy up to this mass; 1 is off.
    epsilon            keeps tokens at least this probable; 0 is off.
    eta                the same, but less strict where the entropy is high; 0 is off.
    xtc_probability    how often all but the last of the tokens with xtc_threshold or more are dropped; 0 is off.
    xtc_threshold      how probable a token must be for that.
    order              which filter sees which distribution: "vllm", "hf", "flashinfer-joint" or "llama.cpp".
    seed               a 64-bit signed integer; None draws one at random, and the result reports it.
    n                  how many samples to draw for the prompt; sample j uses ``sample_seed(seed, j)``.

    Penalties and bans. A token is an id, or a text that stands for each token with exactly this text:
    repetition_penalty  divides the positive logits of tokens in prompt and output, multiplies the others; 1 is off.
    frequency_penalty   taken off for each time that a token is in the output; 0 is off.
    presence_penalty    taken off once if it is; 0 is off.
    dry_multiplier      of DRY's penalty on tokens that would prolong a copy of earlier text; 0 is off.
    dry_base            the penalty grows by this factor with every token of the copy...
    dry_allowed_length  ...beyond this many.
    dry_breakers        strings; a token whose text contains one ends a copy.
    no_repeat_ngram     no run of n tokens comes twice; 0 is off.
    logit_bias          {token: number}, added to the logits; -inf bans the token.
    allowed_ids         only these tokens can be drawn.
    banned_ids          these cannot.
    bitmask             a function of the ids drawn so far that returns which tokens may follow, as int32
                        [vocabulary / 32], least significant bit first, 1 = allowed; or None for all.

    What a text is steered by, step by step (docs/strategies.md):
    mirostat           1 or 2 filters so that the tokens are as surprising as mirostat_tau says; 0 is off.
    mirostat_tau       the wanted mean surprise of a token, in bits.
    mirostat_eta       how fast the filter follows.
    guidance           how much more the prompt counts than negative_prompt does; 1 is off.
    negative_prompt    what the text is guided away from; None is the last token of the prompt.

    Guard rails (docs/guards.md):
    guide           what the text has to be: a JSON schema, a regular expression or a grammar, as `warpdraw.guides`
                    makes them. Each token is one that such a text can go on with; it ends where it is complete.
    ban_phrases     texts that the generated text never has: where one is complete, the text is taken back to the token
                    in which it begins, and that token cannot be drawn there.
    ban_case        whether the case of letters matters for them.
    prefix          a text that the generated text begins with, or several, of which it begins with one.
    stop_on_repeat  a `Repetition`: the text ends where its last tokens are one pattern so many times.

    When to stop:
    max_tokens   the most tokens to draw for a sample.
    min_tokens   before this many, end-of-text and stop ids cannot be drawn and stop strings do not count.
    stop         strings that end the text; the text ends before them.
    stop_ids     token ids that end the text, besides the checkpoint's end-of-text ids.
    ignore_eos   draw on after an end-of-text token.

    What to report:
    logprobs     None: none; 0: of the drawn token; n: also the n most probable tokens.
    logprobs_of  whether those are the n most probable of the model, "raw", or of the kept tokens, "filtered".
    kept         None: nothing; 0: how many tokens the filters kept; n: also the first n of their ids.

    Raises TypeError or ValueError; the message names the field, what is allowed and what it was.

    >>> SamplingParams(temperature=0.8, top_k=50, stop=["."]).stop
    ('.',)
    >>> SamplingParams(top_p=1.5)
    Traceback (most recent call last):
    ValueError: top_p: expected a number in [0, 1], got 1.5
    """

    temperature: float = _OP["temperature"].default
    dynatemp_range: float = _OP["dynatemp_range"].default
    dynatemp_exponent: float = _OP["dynatemp_exponent"].default
    top_k: int = _OP["top_k"].default
    top_p: float = _OP["top_p"].default
    min_p: float = _OP["min_p"].default
    top_n_sigma: float = _OP["top_n_sigma"].default
    typical_p: float = _OP["typical_p"].default
    epsilon: float = _OP["epsilon"].default
    eta: float = _OP["eta"].default
    xtc_probability: float = _OP["xtc_probability"].default
    xtc_threshold: float = _OP["xtc_threshold"].default
    order: str = _OP["order"].default
    seed: int | None = None
    n: int = 1

    repetition_penalty: float = _OP["repetition_penalty"].default
    frequency_penalty: float = _OP["frequency_penalty"].default
    presence_penalty: float = _OP["presence_penalty"].default
    dry_multiplier: float = _OP["dry_multiplier"].default
    dry_base: float = _OP["dry_base"].default
    dry_allowed_length: int = _OP["dry_allowed_length"].default
    dry_breakers: tuple[str, ...] = BREAKERS
    no_repeat_ngram: int = _OP["no_repeat_ngram"].default
    logit_bias: tuple[tuple[Token, float], ...] = ()
    allowed_ids: tuple[Token, ...] | None = None
    banned_ids: tuple[Token, ...] = ()
    bitmask: Bitmask | None = None

    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    guidance: float = 1.0
    negative_prompt: str | None = None

    guide: Guide | None = None
    ban_phrases: tuple[str, ...] = ()
    ban_case: bool = False
    prefix: tuple[str, ...] = ()
    stop_on_repeat: Repetition | None = None

    max_tokens: int = 64
    min_tokens: int = _OP["min_tokens"].default
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    logprobs: int | None = None
    logprobs_of: str = _OP["top_of"].default
    kept: int | None = None

    def __post_init__(self) -> None:
        for name in NUMBERS:
            _check_by_contract(name, getattr(self, name))
        _check_choice("order", self.order, ORDERS)
        _check_choice("logprobs_of", self.logprobs_of, LOGPROBS_OF)
        if self.seed is not None:
            _check_by_contract("seed", self.seed)
        _check_integer("n", self.n, 1, LARGEST_COUNT, "an integer >= 1")
        _check_integer("max_tokens", self.max_tokens, 1, LARGEST_COUNT, "an integer >= 1")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: expected at most max_tokens = {self.max_tokens}, got {self.min_tokens}")
        for name in ("logprobs", "kept"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 0, LARGEST_COUNT, "None or an integer >= 0")
        for name in ("ignore_eos", "ban_case"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        check_steering(self)
        if self.bitmask is not None and not callable(self.bitmask):
            raise TypeError(f"bitmask: expected a function of the token ids so far, or None, got {self.bitmask!r}")
        if self.guide is not None and not isinstance(self.guide, Guide):
            raise TypeError(f"guide: expected a guide of warpdraw.guides, or None, got {self.guide!r}")

        # Lists are welcome, and one string or id stands for itself; the frozen value holds tuples.
        self._hold("stop", _strings("stop", self.stop))
        if self.stop_on_repeat is not None and not isinstance(self.stop_on_repeat, Repetition):
            raise TypeError(f"stop_on_repeat: expected a Repetition, or None, got {self.stop_on_repeat!r}")
        self._hold("prefix", _strings("prefix", self.prefix))
        self._hold("ban_phrases", _strings("ban_phrases", self.ban_phrases))
        self._hold("dry_breakers", _strings("dry_breakers", self.dry_breakers))
        self._hold("stop_ids", _tokens("stop_ids", self.stop_ids, "token ids", int))
        self._hold("banned_ids", _tokens("banned_ids", self.banned_ids))
        self._hold("logit_bias", _biases(self.logit_bias))
        if self.allowed_ids is not None:
            self._hold("allowed_ids", _tokens("allowed_ids", self.allowed_ids))
            if not self.allowed_ids:
                raise ValueError("allowed_ids: expected at least one token, or None for all, got none")

    def _hold(self, name: str, value: tuple[Any, ...]) -> None:
        object.__setattr__(self, name, value)

    @property
    def reads_history(self) -> bool:
        """Whether the draw depends on the tokens before it by more than the logits."""
        return any(getattr(self, name) != _OP[name].default for name in HISTORY)


# The fields that are one number for the op, by its own names, and those of them that make it read the history.
NUMBERS = tuple(
    field.name
    for field in fields(SamplingParams)
    if field.name in _OP and isinstance(field.default, int | float) and not isinstance(field.default, bool)
)
HISTORY = (
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "dry_multiplier",
    "no_repeat_ngram",
    "min_tokens",
)


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


def end_ids(params: SamplingParams, eos_ids: Iterable[int]) -> tuple[int, ...]:
    """The ids that end the text of a request, ascending; `eos_ids` are the checkpoint's end-of-text ids.

    >>> end_ids(SamplingParams(stop_ids=[5, 2]), [9]), end_ids(SamplingParams(ignore_eos=True), [9])
    ((2, 5, 9), ())
    """
    return tuple(sorted({*params.stop_ids, *(() if params.ignore_eos else eos_ids)}))


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


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else _as_tuple(name, value, "strings")
    for text in strings:
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected strings, got {text!r} among them")
        if not text:
            raise ValueError(f"{name}: expected strings of at least one character, got '' among them")
    return strings


def _tokens(name: str, value: Any, holds: str = "token ids or texts", types: Any = int | str) -> tuple[Any, ...]:
    tokens = (value,) if isinstance(value, types) else _as_tuple(name, value, holds)
    for token in tokens:
        _check_token(name, token, holds, types)
    return tokens


def _check_token(name: str, token: Any, holds: str, types: Any) -> None:
    if isinstance(token, bool) or not isinstance(token, types):
        raise TypeError(f"{name}: expected {holds}, got {token!r} among them")
    if isinstance(token, int):
        _check_integer(name, token, 0, LARGEST_COUNT, "token ids >= 0")
    elif not token:
        raise ValueError(f"{name}: expected texts of at least one character, got '' among them")


def _biases(value: Any) -> tuple[tuple[Token, float], ...]:
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value
    holds = "a dictionary of token ids or texts and numbers"
    if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise TypeError(f"logit_bias: expected {holds}, got {value!r}")
    for token, bias in pairs:
        _check_token("logit_bias", token, "token ids or texts", int | str)
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise TypeError(f"logit_bias: expected a number for {token!r}, got {bias!r}")
        if math.isnan(bias) or (abs(bias) > LARGEST_BIAS and not math.isinf(bias)):
            raise ValueError(f"logit_bias: expected a number that float32 holds for {token!r}, got {bias!r}")
    return pairs


def _as_tuple(name: str, value: Any, holds: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}: expected a list of {holds}, got {value!r}")
    return tuple(value)
