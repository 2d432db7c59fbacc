"""Draws a document of `warpdraw bench gpu`: time against batch beside the floor, and the part of copy bandwidth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .drawing import PANEL, Line, Panel, decades, linear, logarithmic, page
from .gpu_jobs import COMBINED, SOFTMAX
from .gpu_methods import OURS

TITLE = "Time to draw one token for each row of a batch, on a GPU"
FLOOR = "floor: the bytes over the bandwidth of a copy"
# The other rows, dtypes and caches are in the JSON.
ROWS, CACHE, HALF, FULL = "peaked", "cold", "bfloat16", "float32"


def gpu_picture(document: Mapping[str, Any]) -> str:
    """Two panels as SVG: the combined job by us and the peers, in microseconds, and every job by us, in percent."""
    shown = [record for record in document["results"] if (record["logits"], record["cache"]) == (ROWS, CACHE)]
    combined = [record for record in shown if (record["job"], record["dtype"]) == (COMBINED, HALF)]
    if not combined:
        raise ValueError(f"picture: expected a measurement of {COMBINED!r} in {HALF}, got a document without one")
    vocab = combined[0]["vocab"]
    combined = [record for record in combined if record["vocab"] == vocab]
    ours = [
        record
        for record in shown
        if (record["method"], record["vocab"]) == (OURS, vocab)
        and record["dtype"] == (FULL if record["job"] == SOFTMAX else HALF)
    ]
    batches = sorted({record["batch"] for record in (*combined, *ours)})
    x = logarithmic(batches, PANEL)
    times = _times(combined)
    parts = [
        Line(job, "peer", style, [(record["batch"], 100 * record["of_copy_bandwidth"]) for record in of_job])
        for style, (job, of_job) in enumerate(_by(ours, "job").items())
    ]
    microseconds = [microsecond for line in times for _, microsecond in line.points]
    most = max((percent for line in parts for _, percent in line.points), default=0)
    upwards = linear([20 * step for step in range(max(5, math.ceil(most / 20)) + 1)])
    panels = [
        Panel(f"{COMBINED}: microseconds by batch", x, decades(microseconds), times),
        Panel("warpdraw: percent of copy bandwidth by batch", x, upwards, parts),
    ]
    about = f"{machine(document)}, vocabulary {vocab}, {HALF} (softmax {FULL}), {CACHE} caches, medians of "
    return page(TITLE, TITLE, about + document["date"][:10], panels, [times, parts])


def machine(document: Mapping[str, Any]) -> str:
    """What the document was measured on."""
    device = document["device"]
    return str(device.get("name", device["type"]))


def floor_us(record: Mapping[str, Any]) -> float:
    """The microseconds that a copy takes to move the bytes of a call, at the bandwidth it had at that place."""
    return float(record["median_us"] * record["of_copy_bandwidth"])


def _times(combined: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The floor, ours and the peers; our forced paths are measured at few batches and left out."""
    methods = _by([record for record in combined if not record["method"].startswith(f"{OURS},")], "method")
    floors = {record["batch"]: floor_us(record) for record in combined}
    return [
        *(
            Line(method, "ours" if method == OURS else "peer", style, [(r["batch"], r["median_us"]) for r in of_method])
            for style, (method, of_method) in enumerate(methods.items())
        ),
        Line(FLOOR, "floor", len(methods), sorted(floors.items())),
    ]


def _by(records: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Records by what they have under a key, from small to large batches."""
    ordered = sorted(records, key=lambda record: int(record["batch"]))
    names = dict.fromkeys(record[key] for record in records)
    return {name: [record for record in ordered if record[key] == name] for name in names}
