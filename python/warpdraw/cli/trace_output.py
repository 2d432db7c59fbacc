"""A trace as lines: tokens, shapes, attention in shades, the distribution, and a table of strategies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from ..tracing.records import Stage, StrategyDraw, Trace, shortened
from .explain import bar

# A table of attention with more tokens would not fit a terminal; a text may have hundreds.
TABLE_TOKENS = 24
LISTED_LAYERS = 12
# Weights from these on, in a shade each.
STEPS = (0.0, 0.05, 0.25, 0.5, 0.75)
SHADES, ASCII_SHADES = ("·", "░", "▒", "▓", "█"), (".", "-", "+", "*", "#")

Name = Callable[[str], str]


PARTS = ("tokens", "shapes", "attention", "layers", "next", "strategies")


def trace_lines(trace: Trace, unicode: bool = True, parts: Sequence[str] = PARTS) -> list[Text]:
    """Parts of a trace, in their order, with an empty line between two."""

    def name(text: str) -> str:
        return shortened(json.dumps(text, ensure_ascii=not unicode))

    lines_of: dict[str, Callable[[], Iterator[Text]]] = {
        "tokens": lambda: _tokens(trace, name),
        "shapes": lambda: _shapes(trace.stages),
        "attention": lambda: _attention(trace, name, SHADES if unicode else ASCII_SHADES),
        "layers": lambda: _layers(trace, name),
        "next": lambda: _distribution(trace, name, unicode),
        "strategies": lambda: _strategies(trace, name),
    }
    lines: list[Text] = []
    for part in PARTS:
        if part in parts:
            lines += [*lines_of[part](), Text()]
    return lines[:-1]


def _tokens(trace: Trace, name: Name) -> Iterator[Text]:
    yield _title(f"tokens ({len(trace.tokens)})")
    names = _columns([name(token.text) for token in trace.tokens])
    hidden = len(trace.tokens) - TABLE_TOKENS
    for index, (token, text) in enumerate(zip(trace.tokens, names, strict=True)):
        if index >= hidden:
            yield Text(f"  {index:>4}  {text}  {token.id:>7}")
        elif index == 0:
            yield Text(f"        ... {hidden} before", style="dim")


def _shapes(stages: Sequence[Stage]) -> Iterator[Text]:
    width = max(len(_shape(stage)) for stage in stages)
    yield _title(f"{'shapes':<32}{'output':<{width}}  {'type':<8}  {'parameters':>13}")
    for head, part in _folded(stages):
        if head:
            yield Text(f"  {head}")
        for stage in part:
            label = ("    " if head else "  ") + stage.name
            count = f"{stage.parameters:,}" if stage.parameters else ""
            yield Text(f"{label:<32}{_shape(stage):<{width}}  {stage.dtype:<8}  {count:>13}".rstrip())
    total = sum(stage.parameters for stage in stages)
    yield Text(f"{'  model':<32}{'':{width}}  {'':8}  {total:>13,}")


def _folded(stages: Sequence[Stage]) -> list[tuple[str, list[Stage]]]:
    """The stages by block, under a title; those of blocks that are like the one before them are left out."""
    groups: list[tuple[int | None, int | None, list[Stage]]] = []
    for block, several in groupby(stages, key=lambda stage: stage.block):
        part = list(several)
        if block and groups and [replace(stage, block=groups[-1][0]) for stage in part] == groups[-1][2]:
            groups[-1] = groups[-1][0], block, groups[-1][2]
        else:
            groups.append((block, block, part))
    return [
        ("" if first is None else f"block {first}" if first == last else f"blocks {first} to {last}, each", part)
        for first, last, part in groups
    ]


def _shape(stage: Stage) -> str:
    return " x ".join(map(str, stage.shape))


def _attention(trace: Trace, name: Name, shades: tuple[str, ...]) -> Iterator[Text]:
    count = len(trace.tokens)
    first = max(0, count - TABLE_TOKENS)
    yield _title(f"attention, block {trace.attention.layer}, head {trace.attention.head}")
    if first:
        yield Text(f"  of the last {TABLE_TOKENS} tokens among themselves; there are {first} before", style="dim")
    names = _columns([name(token.text) for token in trace.tokens[first:]])
    indent = " " * (10 + cell_len(names[0]))
    yield Text(indent + "".join(f"{index:<4}" for index in range(first, count, 2)) + "mostly at", style="dim")
    for index, text in enumerate(names, first):
        weights = trace.attention.weights[index]
        cells = "".join(2 * _shade(weight, shades) for weight in weights[first : index + 1])
        most = max(range(index + 1), key=lambda at: weights[at])
        target = f"{weights[most]:6.1%} {most:>4} {name(trace.tokens[most].text)}"
        yield Text(f"  {index:>4}  {text}  {cells:<{2 * (count - first) + (count - first) % 2 * 2}}{target}")
    key = ", ".join(f"{shade} {step:.0%}" for shade, step in zip(shades[1:], STEPS[1:], strict=True))
    yield Text(f"{indent}{key} and more", style="dim")


def _shade(weight: float, shades: tuple[str, ...]) -> str:
    return shades[max((at for at, step in enumerate(STEPS) if weight >= step), default=0)]


def _layers(trace: Trace, name: Name) -> Iterator[Text]:
    yield _title("the leading token, if the model ended after")
    step = -(-len(trace.layers) // LISTED_LAYERS)
    leading = name(trace.top[0].text)
    for view in trace.layers[::-1][::step][::-1]:
        line = Text(f"  block {view.blocks - 1:<4}  {leading} {view.leading_probability:6.1%}")
        if view.id != trace.top[0].id:
            line.append(f", behind {name(view.text)} {view.probability:.1%}", style="dim")
        yield line


def _distribution(trace: Trace, name: Name, unicode: bool) -> Iterator[Text]:
    names = _columns([*(name(score.text) for score in trace.top), "others"])
    width = cell_len(names[0])
    yield _title(f"{f'next token, at {trace.position}':<{width + 2}}  {'logit':>8}  probability")
    for score, text in zip(trace.top, names, strict=False):
        yield Text(f"  {text}  {score.logit:8.2f}  {bar(score.probability, unicode)} {score.probability:6.1%}")
    yield Text(f"  {names[-1]}  {'':8}  {bar(trace.rest, unicode)} {trace.rest:6.1%}", style="dim")


def _strategies(trace: Trace, name: Name) -> Iterator[Text]:
    labels = _columns([_label(strategy) for strategy in trace.strategies])
    yield _title(f"{'strategies':<{len(labels[0]) + 5}}    kept  drawn")
    for number, (strategy, label) in enumerate(zip(trace.strategies, labels, strict=True), 1):
        drawn = "nothing" if strategy.drawn is None else name(strategy.drawn.text)
        yield Text(f"  {number:<2} {label}  {strategy.kept:>6}  {drawn}")
    yield Text()
    tokens = [each.text for each in trace.strategies[0].candidates]
    names = _columns([name(text) for text in tokens])
    heads = "".join(f"{number:>8} " for number, _ in enumerate(labels, 1))
    yield _title(f"{'':{cell_len(names[0]) + 2}}{heads} * is drawn, - dropped")
    for row, text in enumerate(names):
        line = Text.assemble(f"  {text}", *(_cell(strategy, row) for strategy in trace.strategies))
        line.rstrip()
        yield line


def _cell(strategy: StrategyDraw, row: int) -> tuple[str, str]:
    candidate = strategy.candidates[row]
    if not candidate.kept:
        return f"{'-':>8} ", "dim"
    if strategy.drawn is not None and strategy.drawn.id == candidate.id:
        return f"{candidate.probability:8.1%}*", "bold green"
    return f"{candidate.probability:8.1%} ", ""


def _label(strategy: StrategyDraw) -> str:
    arguments = spelled(strategy.arguments)
    return arguments if strategy.name == arguments else f"{strategy.name}: {arguments}"


def spelled(arguments: Mapping[str, float | str]) -> str:
    """The arguments of a strategy as --strategy takes them."""
    return ",".join(
        f"{name}={value if isinstance(value, str) else format(value, '.9g')}" for name, value in arguments.items()
    )


def _title(text: str) -> Text:
    return Text(text.rstrip(), style="bold")


def _columns(names: list[str]) -> list[str]:
    """The names, all as wide as the widest on a terminal."""
    width = max(map(cell_len, names))
    return [name + " " * (width - cell_len(name)) for name in names]
