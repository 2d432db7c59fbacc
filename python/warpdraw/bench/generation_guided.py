"""JSON of a schema: how many texts are valid, and what the guide costs over texts of the same lengths without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from .. import guides
from ..generation.loop import generate
from ..generation.params import SamplingParams
from ..generation.results import Completion
from ..model.weights import Checkpoint
from .generation_jobs import DRAWN_WITH, Figure, Options, in_turn, part_of, ratio

JOB = "JSON of a schema"
VALID_TARGET, COST_TARGET = 100.0, 10.0
COLOURS = ("blue", "clear", "grey", "dark")
# Every part is bounded, so that no text is longer than this.
MOST_TOKENS = 256
PROMPT = "The sky is"
# Texts that are timed in a round; all are counted.
TIMED = 64
ROUNDS = 9
SCHEMA = {
    "type": "object",
    "properties": {
        "sky": {"enum": list(COLOURS)},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4},
        "warm": {"type": "boolean"},
        "hours": {"type": "integer", "minimum": 0, "maximum": 24},
    },
    "required": ["sky", "words", "warm", "hours"],
    "additionalProperties": False,
}


def valid(text: str) -> bool:
    """Whether a text is JSON of the schema, by a check that shares nothing with the guide.

    >>> valid('{"sky": "blue", "words": ["a"], "warm": true, "hours": 3}'), valid('{"sky": "red"}')
    (True, False)
    """
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if not isinstance(value, dict) or sorted(value) != ["hours", "sky", "warm", "words"]:
        return False
    words, hours = value["words"], value["hours"]
    return (
        value["sky"] in COLOURS
        and isinstance(words, list)
        and 1 <= len(words) <= 4
        and all(isinstance(word, str) and len(word) <= 12 for word in words)
        and type(value["warm"]) is bool
        and type(hours) is int
        and 0 <= hours <= 24
    )


def drawn(model: Checkpoint, count: int, rows: int, tell: Callable[[float], None] | None = None) -> list[Completion]:
    """Texts of the schema, one a seed, `rows` at a time."""
    guide = guides.json_schema(SCHEMA)
    found: list[Completion] = []
    for first in range(0, count, TIMED):
        params = [
            SamplingParams(seed=seed, max_tokens=MOST_TOKENS, guide=guide, **DRAWN_WITH)  # type: ignore[arg-type]
            for seed in range(first, min(first + TIMED, count))
        ]
        found += generate(model, [PROMPT] * len(params), params, max_rows=rows)
        if tell is not None:
            tell(len(found) / count)
    return found


def unguided(model: Checkpoint, lengths: list[int], rows: int) -> list[Completion]:
    """Texts of these lengths, without a guide."""
    params = [
        SamplingParams(seed=seed, max_tokens=length, ignore_eos=True, **DRAWN_WITH)  # type: ignore[arg-type]
        for seed, length in enumerate(lengths)
    ]
    return list(generate(model, [PROMPT] * len(params), params, max_rows=rows))


def guided(model: Checkpoint, options: Options, tell: Callable[[float], None]) -> tuple[list[Figure], dict[str, Any]]:
    """Counts the valid texts, then times some of them and the same number of tokens without a guide."""
    if find_spec("llguidance") is None:
        return [], {"absent": {"JSON of a schema": "llguidance is not installed; pip install 'warpdraw[guide]'"}}
    texts = drawn(model, options.texts, options.requests, part_of(tell, 0, 2))
    good = sum(valid(each.text) for each in texts)
    detail: dict[str, Any] = {
        "schema": SCHEMA,
        "texts": len(texts),
        "valid": good,
        "tokens": sum(each.completion_tokens for each in texts),
    }
    figures = [Figure(JOB, f"valid, of {len(texts)} texts", 100 * good / len(texts), "%", VALID_TARGET)]
    # One row at a time as many texts as take about as long.
    batches = {1: texts[:4], options.requests: texts[:TIMED]}
    for number, (rows, timed) in enumerate(batches.items()):
        lengths = [each.completion_tokens for each in timed]
        methods = {
            "guided": partial(drawn, model, len(lengths), rows),
            "free": partial(unguided, model, lengths, rows),
        }
        seconds = in_turn(dict(methods), 1 if options.quick else ROUNDS, part_of(tell, 2 + number, 4))
        cost = 100 * (ratio(seconds["guided"], seconds["free"]) - 1)
        what = f"more time than as many tokens without, {rows} {'row' if rows == 1 else 'rows'}"
        figures.append(Figure(JOB, what, cost, "%", COST_TARGET, False))
        detail[f"seconds, {rows}"] = {name: [round(each, 4) for each in taken] for name, taken in seconds.items()}
    return figures, detail
