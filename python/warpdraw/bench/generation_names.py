"""Names that a character model draws: how many are new, and how many repeat another of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..model.weights import Checkpoint
from ..names import novelty
from .generation_jobs import Figure, Options

MODELS = ("mlp", "transformer")
NEW_TARGET, REPEATED_TARGET = 60.0, 5.0


def names(model: Checkpoint, options: Options, tell: Callable[[float], None]) -> tuple[list[Figure], dict[str, Any]]:
    """By both shipped models of names, at temperature 1; `model` has no part in it."""
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    for number, each in enumerate(MODELS):
        found = novelty(options.texts, each)
        job = f"names by the {each}, of {found.count}"
        figures += [
            Figure(job, "new, not in the list", 100 * found.share_new, "%", NEW_TARGET),
            Figure(job, "repeat one drawn before", 100 * found.share_repeated, "%", REPEATED_TARGET, False),
        ]
        detail[each] = asdict(found)
        tell((number + 1) / len(MODELS))
    return figures, detail
