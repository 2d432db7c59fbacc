"""The records of a trace: plain values, so that `dataclasses.asdict` of a Trace is a JSON document."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TracedToken:
    """One token of the text."""

    id: int
    text: str


@dataclass(frozen=True)
class Stage:
    """What one part of the model gives for the text.

    name        "embedding", "queries", "attention", "mlp", "head" and the like.
    block       of which block, from 0; None outside the blocks.
    shape       of its output; 1 is the batch, and the head gives the logits of the last token alone.
    parameters  of the part: those of all stages together are those of the model.
    """

    name: str
    block: int | None
    shape: tuple[int, ...]
    dtype: str
    parameters: int


@dataclass(frozen=True)
class HeadAttention:
    """What one head looks at: weights[i][j] is the share of token j in what token i reads, 0 for j > i."""

    layer: int
    head: int
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TokenScore:
    """A token that may come next, with its logit and its probability in the model's own distribution."""

    id: int
    text: str
    logit: float
    probability: float


@dataclass(frozen=True)
class LayerView:
    """What the model would say if it ended after this many blocks.

    leading_probability  of the token that leads at the end.
    id, text             the token that leads here, with its probability.
    """

    blocks: int
    leading_probability: float
    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Candidate:
    """One token before and after a strategy; `probability` is the one that it is drawn with, 0 where dropped."""

    id: int
    text: str
    kept: bool
    probability: float


@dataclass(frozen=True)
class StrategyDraw:
    """What a strategy keeps and draws.

    arguments   of `warpdraw.sample`, besides the logits.
    kept        how many tokens it may draw.
    drawn       the token; None where none can be drawn.
    candidates  the tokens of the distribution's top, and those that a strategy of the trace draws.
    """

    name: str
    arguments: dict[str, float | str]
    kept: int
    drawn: TracedToken | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Trace:
    """The way of a text to the next token.

    position   index of the next token in the sequence, which the draws use with their seed.
    top        the most probable next tokens; rest is the mass of all others, of `vocabulary` tokens together.
    layers     how the leading token came up, block by block (the logit lens).
    """

    text: str
    tokens: tuple[TracedToken, ...]
    stages: tuple[Stage, ...]
    attention: HeadAttention
    layers: tuple[LayerView, ...]
    position: int
    vocabulary: int
    top: tuple[TokenScore, ...]
    rest: float
    strategies: tuple[StrategyDraw, ...]


def shortened(name: str, most: int = 28) -> str:
    """A label for a table or a picture: some vocabularies have tokens of a hundred spaces.

    >>> shortened("a" * 30, most=8)
    'aaaaa...'
    """
    return name if len(name) <= most else name[: most - 3] + "..."
