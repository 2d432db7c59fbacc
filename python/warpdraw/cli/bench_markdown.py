"""A document of `warpdraw bench gpu` as the Markdown of README.md and docs/measured.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bench.goals import FASTER, RATIO, TIME
from ..bench.gpu_grid import COPY, FLOOR, methods_of
from ..bench.gpu_methods import OURS, TORCH_SOFTMAX
from ..bench.gpu_picture import machine
from ..bench.gpu_targets import SHOWN, Line, Target, places, tables, timings_at
from ..bench.peers import (
    ARGMAX,
    EAGER,
    FLASHINFER,
    FLASHINFER_CHAIN,
    FLASHINFER_FLOAT,
    IDIOM,
    SONIC,
    TRANSFORMERS,
    USUAL,
)
from .bench_output import figure, place

NOT_MEASURED = "not measured"
# Which peers share a column of the first page.
COLUMNS = {
    "what people write": (IDIOM, TRANSFORMERS, ARGMAX, TORCH_SOFTMAX, USUAL),
    "best eager": (EAGER,),
    "other kernels": (FLASHINFER, FLASHINFER_FLOAT, SONIC, FLASHINFER_CHAIN),
}


def markdown(document: Mapping[str, Any]) -> str:
    """The table of the first page, then those of the targets; every figure is the document's."""
    blocks = [_heading(document), _first_page(document)]
    for name, lines in tables().items():
        rows = [[_job(line), _targets(line), _measured(line, document)] for line in lines]
        blocks += [f"## {name}", _table(["job", "target", "measured"], rows)]
    missing = _missing(document)
    return "\n\n".join([*blocks, *(["\n".join(missing)] if missing else [])]) + "\n"


def _heading(document: Mapping[str, Any]) -> str:
    where = document["environment"]
    parts = [machine(document), f"torch {where['torch']}", f"warpdraw {where['warpdraw']}", document["date"][:10]]
    if "copy_bandwidth" in document:
        parts.append(f"a copy moves {document['copy_bandwidth']['median']:,.0f} GB/s, read and written")
    text = f"{', '.join(parts)}; medians, cold caches. `{document['command']}`"
    if document["options"]["quick"]:
        text += "\n\n**--quick: the figures mean nothing.**"
    return text


def _first_page(document: Mapping[str, Any]) -> str:
    known = places()
    rows = []
    for point in SHOWN:
        timings = timings_at(point, document["results"])
        ours, floor = timings.get(OURS), timings.get(FLOOR, timings.get(COPY))
        row = [f"{point.job}, {'fp32' if point.dtype == 'float32' else 'bf16'}, V = {point.vocab}", str(point.batch)]
        if ours is None or floor is None:
            row += [NOT_MEASURED, ""]
        else:
            row += [_us(ours.median), f"{_us(floor.median)} ({figure(ours.median / floor.median)}x)"]
        for names in COLUMNS.values():
            cells = []
            for name in names:
                if name in methods_of(known[point]):
                    other = timings.get(name)
                    if other is None or ours is None:
                        cells.append(f"{name}: {NOT_MEASURED}")
                    else:
                        cells.append(f"{name} {_us(other.median)} ({figure(other.median / ours.median)}x)")
            row.append(", ".join(cells))
        rows.append(row)
    return _table(["job", "rows", "warpdraw", "floor", *COLUMNS], rows)


def _us(seconds: float) -> str:
    return f"{figure(seconds * 1e6)} us"


def _job(line: Line) -> str:
    batches = dict.fromkeys(target.point.batch for target in line.targets)
    return f"{line.job}, B = {', '.join(map(str, batches))}" if batches else line.job


def _targets(line: Line) -> str:
    return ", ".join(dict.fromkeys(_target(target) for target in line.targets))


def _target(target: Target) -> str:
    goal, wanted = target.goal, target.goal.target
    if wanted is None:
        return ""
    if goal.against == COPY:
        return f">= {100 / wanted:.0f} % of copy bandwidth"
    if goal.kind == FASTER:
        return f">= {wanted:g}x"
    if goal.kind == TIME:
        return f"<= {wanted:g} us"
    return f"<= {wanted:g}x {'the floor' if goal.against == FLOOR else goal.against}"


def _measured(line: Line, document: Mapping[str, Any]) -> str:
    """A figure for each target, with what tells it from the others of the line."""
    found = [(target, target.figure_in(document)) for target in line.targets]
    if not any(record["figure"] is not None for _, record in found):
        return NOT_MEASURED
    several = {name: len({getattr(target.point, name) for target, _ in found}) > 1 for name in ("job", "batch")}
    cells = []
    for target, record in found:
        label = f"{target.point.job}: " if several["job"] else f"B = {target.point.batch}: " if several["batch"] else ""
        if record["figure"] is None:
            cells.append(label + NOT_MEASURED)
        else:
            cells.append(label + _figure(target, record) + (", met" if record["met"] else ", **missed**"))
    return "; ".join(cells)


def _figure(target: Target, record: Mapping[str, Any]) -> str:
    value, took = record["figure"], f"{figure(record['ours_us'])} us"
    if target.goal.kind == TIME:
        return took
    if target.goal.against == COPY:
        return f"{100 / value:.0f} % ({took})"
    return f"{value:.2f}x ({took})" if target.goal.kind == RATIO else f"{figure(value)}x"


def _missing(document: Mapping[str, Any]) -> list[str]:
    lines = [f"- {NOT_MEASURED}: {name} ({reason})" for name, reason in document["absent"].items()]
    lines += [f"- failed: {each['method']}, {place(each)}: {each['reason']}" for each in document["failed"]]
    if document["dropped"]:
        lines.append(f"- {len(document['dropped'])} places were dropped: {document['dropped'][0]['reason']}")
    return lines


def _table(headings: list[str], rows: list[list[str]]) -> str:
    made = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in made)
