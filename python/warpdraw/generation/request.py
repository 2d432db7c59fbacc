"""Request: one prompt and how to draw from it, checked against the model before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.weights import Checkpoint
from .params import SamplingParams, fresh_seed
from .vocabulary import TokenLists, Vocabulary

Prompt = str | list[int]


@dataclass(frozen=True)
class Request:
    """One prompt, as text or ids and as the ids that the model reads, and how to draw from it.

    `name` is what messages call its parameters.
    """

    index: int
    prompt: Prompt
    ids: list[int]
    params: SamplingParams
    lists: TokenLists
    seed: int
    name: str


def request_of(
    model: Checkpoint,
    vocabulary: Vocabulary,
    index: int,
    prompt: Prompt,
    params: SamplingParams,
    names: tuple[str, str] = ("prompt", "params"),
) -> Request:
    """A request; ValueError or TypeError, by the names of prompt and parameters, for what the model cannot read."""
    if not isinstance(params, SamplingParams):
        raise TypeError(f"{names[1]}: expected a SamplingParams, got {params!r}")
    seed = fresh_seed() if params.seed is None else params.seed
    ids = _prompt_ids(model, names[0], prompt)
    return Request(index, prompt, ids, params, vocabulary.lists(names[1], params), seed, names[1])


def _prompt_ids(model: Checkpoint, name: str, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError(f"{name}: expected text without lone surrogates, got {prompt!r}")
        ids = model.tokenizer.encode(prompt) if prompt else []
    elif isinstance(prompt, list | tuple) and all(type(token) is int for token in prompt):
        ids = list(prompt)
    else:
        raise TypeError(f"{name}: expected text or a list of token ids, got {prompt!r}")
    if not ids:
        raise ValueError(f"{name}: expected at least one token, got none")
    vocabulary, context = model.config.vocab_size, model.config.max_positions
    for token in ids:
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name}: expected token ids in [0, {vocabulary}), got {token}")
    if len(ids) >= context:
        raise ValueError(f"{name}: expected fewer tokens than the context of {context}, got {len(ids)}")
    return ids
