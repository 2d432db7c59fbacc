"""The guard rails of `warpdraw generate`: guides and checks from options, and a line for what they did."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import guides
from ..generation.params import SamplingParams
from ..generation.results import Completion, Event, GuardAction, Throughput
from ..guards import Guard, forbid, guarded, personal_data, require
from ..model.weights import Checkpoint

# So many different actions of a kind are named in a line.
NAMED = 3


def guide_of(schema: str | None, regex: str | None, grammar: str | None) -> guides.Guide | None:
    """The guide that one of the options asks for."""
    given = {"--json-schema": schema, "--regex": regex, "--grammar": grammar}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{names[1]}: expected at most one of {', '.join(given)}, got also {names[0]}")
    if schema is not None:
        text = schema.lstrip()
        return guides.json_schema(schema if text.startswith("{") or text == "true" else _read("--json-schema", schema))
    if regex is not None:
        return guides.regex(regex)
    return None if grammar is None else guides.grammar(_read("--grammar", grammar))


def guards_of(
    forbidden: list[str] | None, required: list[str] | None, personal: bool, retry: int | None
) -> list[Guard]:
    """The checks that the options ask for."""
    checks = [forbid(each) for each in forbidden or ()] + [require(each) for each in required or ()]
    if retry is not None and not checks and not personal:
        raise ValueError("--retry: expected together with --forbid, --require or --refuse-personal-data, got none")
    again: dict[str, Any] = {} if retry is None else {"action": "retry", "tries": retry}
    guards = [Guard(check, **again) for check in checks]
    if personal:
        guards += [Guard(personal_data(), on="prompt"), Guard(personal_data(), **again)]
    return guards


class CheckedEvents(Iterator[Event]):
    """The events of a run with checks: one for each text, because a text is checked when it is whole."""

    def __init__(
        self, model: Checkpoint, prompts: list[str], params: SamplingParams, guards: list[Guard], run: dict[str, Any]
    ) -> None:
        self.throughput = Throughput()
        self._events = self._run(model, prompts, params, guards, run)

    def __next__(self) -> Event:
        return next(self._events)

    def _run(
        self, model: Checkpoint, prompts: list[str], params: SamplingParams, guards: list[Guard], run: dict[str, Any]
    ) -> Iterator[Event]:
        completions = guarded(model, prompts, params, guards=guards, **run)
        self.throughput = completions.throughput
        for each in completions:
            yield Event(each.index, each.sample, each.text, tuple(each.token_ids), each.finish_reason, completion=each)


def print_actions(completions: list[Completion]) -> None:
    """What guard rails did, a line for each text, to standard error."""
    for each in completions:
        if each.guarded:
            print(f"prompt {each.index + 1}, sample {each.sample + 1}: {_summary(each.guarded)}", file=sys.stderr)


def _summary(actions: tuple[GuardAction, ...]) -> str:
    kinds: dict[tuple[str, str], Counter[str]] = {}
    for each in actions:
        kinds.setdefault((each.guard, each.action), Counter())[each.detail] += 1
    parts = []
    for (guard, action), details in kinds.items():
        named = [f"{detail} x{count}" if count > 1 else detail for detail, count in details.most_common(NAMED)]
        more = len(details) - len(named)
        parts.append(f"{guard}: {action} ({', '.join(named)}{f', and {more} more' if more else ''})")
    return "; ".join(parts)


def _read(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option}: expected a file of UTF-8 text, got {path}: {error}") from None
