"""Small SVG pictures of lines in panels, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
WIDTH = 960
LEFT, TOP, PANEL, TALL, BETWEEN = 70, 82, 400, 320, 60
KEY_TOP, KEY_ROW, KEY_COLUMNS, LEAST_KEY_ROWS = TOP + TALL + 54, 24, 3, 3

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
class Line:
    """A line and its name in the key. `kind` is "ours", "peer" or "floor"; lines of one `style` look the same."""

    name: str
    kind: str
    style: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Scale:
    """An axis: values with a line across the panel, and the position of any value along a length in pixels."""

    places: Sequence[float]
    position: Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """Lines in a frame."""

    title: str
    x: Scale
    y: Scale
    lines: Sequence[Line]


def logarithmic(places: Sequence[float], length: float, margin: float = 12) -> Scale:
    """An axis of that length whose ends are the least and the largest of the places."""
    low, high = math.log(min(places)), math.log(max(places))
    scale = (length - 2 * margin) / ((high - low) or 1.0)
    return Scale(places, lambda value: margin + (math.log(value) - low) * scale)


def decades(values: Sequence[float]) -> Scale:
    """A logarithmic axis upwards, from the power of ten below the values to the one above."""
    span = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    return logarithmic([10.0**decade for decade in span], TALL, margin=0)


def linear(places: Sequence[float]) -> Scale:
    """An axis upwards from 0 to the last of the places."""
    return Scale(places, lambda value: value / places[-1] * TALL)


def page(title: str, heading: str, about: str, panels: Sequence[Panel], keys: Sequence[Sequence[Line]]) -> str:
    """The picture: `title` for readers that do not see it, two lines at the top, panels side by side, keys below.

    There is a list of `keys` for each panel, or one for all of them.
    """
    columns = KEY_COLUMNS // len(keys)
    rows = max(LEAST_KEY_ROWS, *(-(-len(lines) // columns) for lines in keys))
    height = KEY_TOP + rows * KEY_ROW + 12
    lefts = [LEFT + number * (PANEL + BETWEEN) for number in range(len(panels))]
    drawn = [each for left, panel in zip(lefts, panels, strict=True) for each in _panel(left, panel)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{_colours(0)}@media (prefers-color-scheme: dark) {{{DARK}{_colours(1)}}}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}"/>',
            _text(LEFT, 24, heading, size=16),
            _text(LEFT, 44, about, "faint"),
            *drawn,
            *(each for number, lines in enumerate(keys) for each in _key(lefts[number], columns, lines)),
            "</svg>",
            "",
        ]
    )


def _panel(left: float, panel: Panel) -> list[str]:
    made = [_text(left, TOP - 8, panel.title, "faint")]
    for value in panel.y.places:
        y = TOP + TALL - panel.y.position(value)
        made.append(f'<path class="grid" d="M{left} {y:.1f}h{PANEL}"/>')
        made.append(_text(left - 8, y + 4, f"{value:,g}", "faint", "end"))
    for at in panel.x.places:
        x = left + panel.x.position(at)
        made.append(f'<path class="grid" d="M{x:.1f} {TOP}v{TALL}"/>')
        short = f"{at / 1000:.0f}k" if at >= 1000 else str(at)
        made.append(_text(x, TOP + TALL + 18, short, "faint", "middle"))
    made.append(f'<rect class="frame" x="{left}" y="{TOP}" width="{PANEL}" height="{TALL}"/>')
    for line in panel.lines:
        points = [(left + panel.x.position(v), TOP + TALL - panel.y.position(t)) for v, t in line.points]
        made += _line(line, points, points)
    return made


def _line(line: Line, points: Sequence[Point], marked: Sequence[Point]) -> list[str]:
    if not points:
        return []
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    if line.kind == "floor":
        return [f'<path class="line floor dash{line.style % 2}" data-line="{line.style}" d="{path}"/>']
    # Where there are more lines than colours, the mark of the second with a colour is another one.
    turn, colour = divmod(line.style, len(COLOURS))
    marks = "".join(MARKS[(colour + turn) % len(MARKS)](x, y) for x, y in marked)
    return [
        f'<path class="line {line.kind} c{colour}" data-line="{line.style}" d="{path}"/>',
        f'<path class="mark f{colour}" d="{marks}"/>',
    ]


def _key(left: float, columns: int, lines: Sequence[Line]) -> list[str]:
    made, width = [], WIDTH - LEFT - 20
    for number, line in enumerate(lines):
        x, y = left + number % columns * width / columns, KEY_TOP + number // columns * KEY_ROW
        made += _line(line, [(x, y), (x + 32, y)], [(x + 16, y)])
        made.append(_text(x + 40, y + 4, line.name))
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
