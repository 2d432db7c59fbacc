"""Draws the sweep of a document of `warpdraw bench`: time against a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .drawing import PANEL, Line, Panel, decades, logarithmic, page


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
    if not records:
        raise ValueError(f"picture: expected a measurement by {axis.name}, got a document without one")
    kinds: dict[str, str] = {record["method"]: record["series"] for record in records}
    x = logarithmic(sorted({record[axis.key] for record in records}), PANEL)
    y = decades([record["median_us"] for record in records])

    def lines(cache: str) -> list[Line]:
        return [
            Line(
                f"warpdraw: {name}" if kind == "ours" else name,
                kind,
                style,
                sorted(
                    (record[axis.key], record["median_us"])
                    for record in records
                    if (record["cache"], record["method"]) == (cache, name)
                ),
            )
            for style, (name, kind) in enumerate(kinds.items())
        ]

    panels = [
        Panel(f"{cache} rows, microseconds by {axis.name}", x, y, lines(cache))
        for cache in dict.fromkeys(record["cache"] for record in records)
    ]
    where = document["environment"]
    threads = "one thread" if where.get("threads", 1) == 1 else f"{where['threads']} threads"
    about = f"{where['cpu']}, {threads}, {axis.sizes}, medians of {document['date'][:10]}"
    return page(f"{axis.title} against the {axis.name}", axis.title, about, panels, [panels[0].lines])
