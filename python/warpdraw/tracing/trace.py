"""trace: what a model makes of a text, from its tokens to the distribution of the next one, and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..generation.engine import PREFILL_TOKENS
from ..generation.vocabulary import Vocabulary
from ..model.cache import KVCache
from ..model.recording import logits_from
from ..model.weights import Checkpoint
from .records import Candidate, LayerView, StrategyDraw, TokenScore, Trace, TracedToken
from .stages import Recorded, record

# Attention has a weight for each pair of tokens.
MOST_TOKENS = 1024

STRATEGIES: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "top-k": {"top_k": 5, "temperature": 0.8},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.05},
}


def trace(
    model: Checkpoint,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    candidates: int = 8,
    strategies: Mapping[str, Mapping[str, float | str]] = STRATEGIES,
    seed: int = 0,
) -> Trace:
    """Follow a text through a model: tokens, shapes, attention of one head, the next token's distribution, and draws.

    layer, head  whose attention, from 0. Of those that are not named, the head in which the last token looks hardest at
                 one token between the first one and itself.
    candidates   how many of the most probable next tokens are reported.
    strategies   names, each with arguments of `warpdraw.sample`: temperature, filters, order.
    seed         of all draws. A strategy draws what `generate` draws with the same seed and parameters.

    Raises TypeError or ValueError for an empty text, one with more than 1024 tokens or too long for the model's
    context, a layer or head that is not there, and arguments that `warpdraw.sample` does not take.

    >>> from warpdraw import load, trace
    >>> traced = trace(load("tiny-target"), "The sky is")
    >>> [token.text for token in traced.tokens], traced.top[0].text
    (['<|endoftext|>', 'The', ' sky', ' is'], ' blue')
    >>> [(each.name, each.kept, each.drawn.text) for each in traced.strategies][:2]
    [('greedy', 1, ' blue'), ('top-k', 5, ' blue')]
    """
    _check_integer("candidates", candidates, 1, model.config.vocab_size)
    for name, value, count in (("layer", layer, model.config.layers), ("head", head, model.config.heads)):
        if value is not None:
            _check_integer(name, value, 0, count - 1)
    if not strategies:
        raise ValueError("strategies: expected at least one, got none")
    ids = _ids(model, text)
    name_of = model.tokenizer.token_text
    recorded = record(model.model, ids, layer, head)
    logits = _logits(model, ids)
    vocabulary = Vocabulary(model)

    # What a head is padded with is never drawn, but has its part in the model's own distribution.
    padding = {"vocab_size": vocabulary.size} if vocabulary.size < vocabulary.padded else {}
    ranked = ops.sample(logits, **padding, top_n=min(candidates, vocabulary.size), top_of="filtered")
    leading = [token for token in ranked.top_ids[0].tolist() if token >= 0]
    if not leading:
        raise ValueError("text: expected one after which the model prefers some token, got logits all NaN or -inf")
    before = ops.softmax(logits)[0]
    top = tuple(TokenScore(i, name_of(i), float(logits[0, i]), float(before[i])) for i in leading)
    draw = {**padding, "seed": seed, "position": len(ids)}
    return Trace(
        text=text,
        tokens=tuple(TracedToken(i, name_of(i)) for i in ids),
        stages=recorded.stages,
        attention=recorded.attention,
        layers=_layers(model, ids, recorded, leading[0]),
        position=len(ids),
        vocabulary=vocabulary.size,
        top=top,
        rest=max(0.0, 1.0 - sum(score.probability for score in top)),
        strategies=_strategies(model, strategies, logits, leading, draw),
    )


def _ids(model: Checkpoint, text: str) -> list[int]:
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {text!r}")
    ids = model.tokenizer.encode(text) if text else []
    if not ids:
        raise ValueError("text: expected at least one token, got none")
    context = model.config.max_positions
    if len(ids) >= context:
        raise ValueError(f"text: expected fewer tokens than the context of {context}, got {len(ids)}")
    if len(ids) > MOST_TOKENS:
        raise ValueError(f"text: expected at most {MOST_TOKENS} tokens, got {len(ids)}")
    return ids


def _logits(model: Checkpoint, ids: list[int]) -> Tensor:
    """Logits [1, V] after the text, in the same bits as generation has them."""
    weight = model.model.embedding.weight
    cache = KVCache(model.config, 1, len(ids), weight.dtype, weight.device)
    # In parts as generation reads a prompt: with others the logits would differ in their last bits.
    return model.model.read(ids, cache, 0, PREFILL_TOKENS)[:, -1]


def _layers(model: Checkpoint, ids: list[int], recorded: Recorded, leading: int) -> tuple[LayerView, ...]:
    views = []
    last = torch.tensor([ids[-1:]], device=model.model.embedding.weight.device)
    for blocks, hidden in enumerate(recorded.hidden, 1):
        with torch.no_grad():
            logits = logits_from(model.model, hidden, last)[:, -1]
        here = ops.softmax(logits)[0]
        best = int(here.argmax())
        name = model.tokenizer.token_text(best)
        views.append(LayerView(blocks, float(here[leading]), best, name, float(here[best])))
    return tuple(views)


def _strategies(
    model: Checkpoint,
    strategies: Mapping[str, Mapping[str, Any]],
    logits: Tensor,
    leading: list[int],
    draw: dict[str, int],
) -> tuple[StrategyDraw, ...]:
    settings = [{**draw, **arguments} for arguments in strategies.values()]
    results = [ops.sample(logits, **each, kept_count=True) for each in settings]
    tokens = [int(result.tokens[0]) for result in results]
    shown = list(dict.fromkeys([*leading, *(token for token in tokens if token >= 0)]))
    name_of = model.tokenizer.token_text

    draws = []
    for (name, arguments), each, result, token in zip(strategies.items(), settings, results, tokens, strict=True):
        after = ops.filter_probs(logits, **each)[0]
        kept = ops.filter_logits(logits, **each)[0] > -torch.inf
        draws.append(
            StrategyDraw(
                name=name,
                arguments=dict(arguments),
                kept=int(result.kept_count[0]),
                drawn=TracedToken(token, name_of(token)) if token >= 0 else None,
                candidates=tuple(Candidate(i, name_of(i), bool(kept[i]), float(after[i])) for i in shown),
            )
        )
    return tuple(draws)


def _check_integer(name: str, value: Any, low: int, high: int) -> None:
    allowed = f"an integer in [{low}, {high}]"
    if type(value) is not int:
        raise TypeError(f"{name}: expected {allowed}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {allowed}, got {value}")
