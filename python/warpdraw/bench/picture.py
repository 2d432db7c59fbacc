"""Draws time against a size as a small SVG file, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

# Light and dark variants of each colour differ in lightness only; marks differ too, for those who see few colours.
COLOURS = (
    ("#0060a8", "#5eb3f5"),
    ("#00805c", "#3fd0a4"),
    ("#8c4fa8", "#cf9be8"),
    ("#c24a00", "#ff9a5c"),
    ("#8a6d00", "#e2c244"),
    ("#a8324a", "#ff8fa3"),
)
MARKS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    lambda x, y: f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7Z",
    lambda x, y: f"M{x:.1f} {y - 5:.1f}l4.5 8h-9Z",
    lambda x, y: f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z",
    lambda x, y: f"M{x:.1f} {y + 5:.1f}l4.5 -8h-9Z",
    lambda x, y: f"M{x - 4:.1f} {y - 2:.1f}h8v4h-8Z",
)
WIDTH, HEIGHT = 960, 540
LEFT, TOP, PANEL, TALL, BETWEEN = 70, 82, 400, 320, 60
KEY_TOP, KEY_COLUMNS, KEY_ROW = TOP + TALL + 54, 3, 24

STYLE = """
svg { font: 13px system-ui, sans-serif; } .page { fill: #ffffff; }
text { fill: #1f2328; } .faint { fill: #59636e; } .grid { stroke: #d8dee4; } .frame { stroke: #8c959f; fill: none; }
.floor { stroke: #59636e; } path.line { fill: none; stroke-width: 1.8; } path.ours { stroke-width: 2.8; }
path.dash0 { stroke-dasharray: 8 4; } path.dash1 { stroke-dasharray: 2 4; }
"""
DARK = """
.page { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9da7b3; } .grid { stroke: #2a313a; }
.frame { stroke: #6e7681; } .floor { stroke: #9da7b3; }
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What the times are shown against: a key of the records, and words for what was timed, the axis and the sizes."""

    key: str
    title: str
    name: str
    sizes: str


VOCABULARY = Axis("vocab", "Time to draw one token", "vocabulary size", "fp32")


def picture(document: Mapping[str, Any], axis: Axis = VOCABULARY) -> str:
    """The sweep of a document of `warpdraw bench` as SVG: a panel for each cache state, both axes logarithmic."""
    records = [record for record in document["results"] if record["series"]]
    lines: dict[str, str] = {record["method"]: record["series"] for record in records}
    panels = list(dict.fromkeys(record["cache"] for record in records))
    x_of = _axis([record[axis.key] for record in records], PANEL)
    times = [record["median_us"] for record in records]
    decades = range(math.floor(math.log10(min(times))), math.ceil(math.log10(max(times))) + 1)
    y_of = _axis([10.0**decade for decade in decades], TALL, margin=0)

    drawn = []
    for number, cache in enumerate(panels):
        left = LEFT + number * (PANEL + BETWEEN)
        of_panel = [record for record in records if record["cache"] == cache]
        drawn += _frame(
            left,
            f"{cache} rows, microseconds by {axis.name}",
            sorted({record[axis.key] for record in records}),
            decades,
            x_of,
            y_of,
        )
        for index, name in enumerate(lines):
            points = sorted((record[axis.key], record["median_us"]) for record in of_panel if record["method"] == name)
            drawn += _line(index, lines[name], [(left + x_of(v), TOP + TALL - y_of(t)) for v, t in points])
    where = document["environment"]
    threads = "one thread" if where.get("threads", 1) == 1 else f"{where['threads']} threads"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{axis.title} against the {axis.name}</title>",
            f"<style>{STYLE}{_colours(0)}@media (prefers-color-scheme: dark) {{{DARK}{_colours(1)}}}</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
            _text(LEFT, 24, axis.title, size=16),
            _text(LEFT, 44, f"{where['cpu']}, {threads}, {axis.sizes}, medians of {document['date'][:10]}", "faint"),
            *drawn,
            *_key(lines),
            "</svg>",
            "",
        ]
    )


def _axis(values: Sequence[float], length: float, margin: float = 12) -> Callable[[float], float]:
    """Logarithmic position of a value along an axis of that length."""
    low, high = math.log(min(values)), math.log(max(values))
    scale = (length - 2 * margin) / ((high - low) or 1.0)
    return lambda value: margin + (math.log(value) - low) * scale


def _frame(
    left: float,
    title: str,
    places: Sequence[int],
    decades: range,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
) -> list[str]:
    made = [_text(left, TOP - 8, title, "faint")]
    for decade in decades:
        y = TOP + TALL - y_of(10.0**decade)
        made.append(f'<path class="grid" d="M{left} {y:.1f}h{PANEL}"/>')
        made.append(_text(left - 8, y + 4, f"{10.0**decade:,g}", "faint", "end"))
    for at in places:
        x = left + x_of(at)
        made.append(f'<path class="grid" d="M{x:.1f} {TOP}v{TALL}"/>')
        short = f"{at / 1000:.0f}k" if at >= 1000 else str(at)
        made.append(_text(x, TOP + TALL + 18, short, "faint", "middle"))
    made.append(f'<rect class="frame" x="{left}" y="{TOP}" width="{PANEL}" height="{TALL}"/>')
    return made


def _line(index: int, kind: str, points: Sequence[Point], marked: Sequence[Point] | None = None) -> list[str]:
    if not points:
        return []
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    if kind == "floor":
        return [f'<path class="line floor dash{index % 2}" data-line="{index}" d="{path}"/>']
    marks = "".join(MARKS[index % len(MARKS)](x, y) for x, y in (points if marked is None else marked))
    return [
        f'<path class="line {kind} c{index}" data-line="{index}" d="{path}"/>',
        f'<path class="mark f{index}" d="{marks}"/>',
    ]


def _key(lines: Mapping[str, str]) -> list[str]:
    made, width = [], (WIDTH - LEFT - 20) / KEY_COLUMNS
    for index, (name, kind) in enumerate(lines.items()):
        x, y = LEFT + index % KEY_COLUMNS * width, KEY_TOP + index // KEY_COLUMNS * KEY_ROW
        made += _line(index, kind, [(x, y), (x + 32, y)], marked=[(x + 16, y)])
        made.append(_text(x + 40, y + 4, f"warpdraw: {name}" if kind == "ours" else name))
    return made


def _colours(which: int) -> str:
    each = [(index, pair[which]) for index, pair in enumerate(COLOURS)]
    return "".join(
        f" path.c{index} {{ stroke: {colour}; }} path.f{index} {{ fill: {colour}; }}" for index, colour in each
    )


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
    )
