"""TrainingConfig and TextConfig: the size of the model, how it is trained and how a text becomes tokens, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..model.config import ModelConfig

DTYPES = ("float32", "bfloat16")
# The bytes, and the token that ends a text.
LEAST_VOCABULARY = 257

Check = tuple[str, Callable[[Any], bool]]


def _at_least(least: int) -> Check:
    return f"an integer of at least {least}", lambda value: type(value) is int and value >= least


def _number(allowed: str, inside: Callable[[float], bool]) -> Check:
    return allowed, lambda value: type(value) in (int, float) and math.isfinite(value) and inside(value)


_FLAG: Check = "True or False", lambda value: type(value) is bool
_CHECKS: dict[str, Check] = {
    **{name: _at_least(1) for name in ("layers", "hidden", "heads", "context", "steps", "batch")},
    **{name: _at_least(1) for name in ("eval_every", "save_every")},
    **{name: _at_least(0) for name in ("kv_heads", "mlp", "warmup")},
    "seed": ("an integer from 0 to 2**63 - 1", lambda value: type(value) is int and 0 <= value < 2**63),
    "learning_rate": _number("a number greater than 0", lambda value: value > 0),
    "weight_decay": _number("a number of at least 0", lambda value: value >= 0),
    "clip": _number("a number greater than 0", lambda value: value > 0),
    "tied": _FLAG,
    "dtype": (f"one of {', '.join(DTYPES)}", lambda value: value in DTYPES),
    "vocabulary": _at_least(LEAST_VOCABULARY),
    "characters": _FLAG,
    "lines": _FLAG,
    "held_out": _number("a number of at least 0 and less than 1", lambda value: 0 <= value < 1),
}


def _check(config: TrainingConfig | TextConfig) -> None:
    for field in fields(config):
        allowed, holds = _CHECKS[field.name]
        value = getattr(config, field.name)
        if not holds(value):
            raise ValueError(f"{field.name}: expected {allowed}, got {value!r}")


@dataclass(frozen=True)
class TrainingConfig:
    """The size of a model and how it is trained. A run is a function of this, its data and the number of threads.

    The model is a Llama (RMSNorm, rotary positions, SwiGLU):
    layers, hidden, heads   as they say; `heads` divides `hidden`.
    kv_heads                heads of keys and values; 0 is `heads`, which it divides.
    mlp                     width of the hidden layer of an mlp; 0 is 8/3 of `hidden`, rounded up to a multiple of 32.
    context                 the most tokens that the model reads, and the tokens of a training row.
    tied                    whether the output layer is the embedding.

    The training is AdamW with a warm-up and half a cosine (`learning_rate`):
    steps, batch            steps, and rows in each.
    learning_rate           its largest value.
    warmup                  steps in which it rises, before it falls.
    weight_decay            of the matrices; vectors have none.
    clip                    the largest norm of the gradient.
    eval_every, save_every  steps from one look at the held-out part, or one save, to the next.
    seed                    of the first weights and of the order of the data.
    dtype                   "float32", or "bfloat16" for matrix products in it; the weights are float32.

    Raises ValueError for values out of range and sizes that do not fit together.

    >>> config = TrainingConfig(hidden=64, heads=4)
    >>> config.mlp, config.kv_heads
    (192, 4)
    """

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 0
    mlp: int = 0
    context: int = 128
    tied: bool = True
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    eval_every: int = 100
    save_every: int = 100
    seed: int = 0
    dtype: str = "float32"

    # A run may go on with other values of these.
    FREE: ClassVar[frozenset[str]] = frozenset({"save_every"})

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "mlp", self.mlp or -(-8 * self.hidden // (3 * 32)) * 32)
        if self.hidden % (2 * self.heads):
            raise ValueError(f"heads: expected half a divisor of hidden ({self.hidden}), got {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: expected a divisor of heads ({self.heads}), got {self.kv_heads}")

    def model(self, vocabulary: int) -> ModelConfig:
        """The model of this size for so many tokens."""
        return ModelConfig(
            vocab_size=vocabulary, hidden_size=self.hidden, layers=self.layers, heads=self.heads,
            kv_heads=self.kv_heads, mlp_size=self.mlp, max_positions=self.context, tied=self.tied,
        )  # fmt: skip


@dataclass(frozen=True)
class TextConfig:
    """How a text becomes tokens, and which part of it is held out.

    vocabulary  tokens of the byte-level BPE that is trained on the text, its 256 bytes and the end of a text included.
    characters  a token for each character of the text instead.
    lines       each line is a text of its own, and a row of the training; otherwise each file is a text, and a row
                is any part of all texts together.
    held_out    the share at the end of the characters, or of the lines, that only measures; 0 is none.

    Raises ValueError for values out of range.

    >>> TextConfig(held_out=0.1).vocabulary
    2048
    """

    vocabulary: int = 2048
    characters: bool = False
    lines: bool = False
    held_out: float = 0.05

    def __post_init__(self) -> None:
        _check(self)


def differing(expected: TrainingConfig | TextConfig, got: TrainingConfig | TextConfig) -> str | None:
    """The first entry in which two configurations differ, but for those that are free; None where there is none."""
    free: frozenset[str] = getattr(expected, "FREE", frozenset())
    theirs = asdict(got)
    return next((name for name, value in asdict(expected).items() if name not in free and theirs[name] != value), None)
