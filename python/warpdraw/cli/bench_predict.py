"""`warpdraw bench predict`: what the GPU kernels should take by their sources alone, beside the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..bench.gpu_devices import DEVICES
from ..bench.gpu_paths import TRITON
from ..bench.gpu_prediction import predictions
from .bench_output import WIDTH_OF_FILES, JsonPath, check_place, figure, write_json
from .terminal import stdout

EXAMPLES = """Examples:

warpdraw bench predict

warpdraw bench predict --gpu h100 --json predicted.json"""

LEGEND = (
    "* the path that `cuda` takes. Barriers: of the cluster + of the block, one after another. A row: blocks of its",
    "cluster. Blocks: of the kernel that reads, x those on a multiprocessor at once. Waves: rows that a place for them",
    "has in turn; where clusters wait for a place, that is in `reading`.",
)

Cells = Sequence[tuple[str, Callable[[dict[str, Any]], str]]]

DTYPES = {"bfloat16": "bf16", "float32": "fp32"}
VERDICTS = {True: "yes", False: "no", None: ""}


def predict(
    gpu: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "h200",
    json_path: JsonPath = None,
) -> int:
    """Predict each job with a target on a GPU: bytes, launches, barriers, occupancy, microseconds and what limits.

    By a model of the kernels' sources. Nothing is measured and no GPU is needed; bench gpu prints what it got wrong.
    """
    if gpu not in DEVICES:
        raise ValueError(f"gpu: expected one of {', '.join(DEVICES)}, got {gpu!r}")
    check_place("json", json_path)
    device = DEVICES[gpu]
    made = predictions(device)
    document = {"benchmark": "predict", "measured": False, "gpu": device.title, "predictions": made}
    if not write_json(json_path, document):
        print_predictions(f"{device.title}, {device.copied_as_words} of a copy: predicted, not measured", made)
    return 0


def print_predictions(title: str, made: list[dict[str, Any]]) -> None:
    """The times of every job, and what they are made of."""
    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(title)
    for job in dict.fromkeys(record["job"] for record in made):
        _print(console, f"{job}, microseconds", [record for record in made if record["job"] == job], TIMES)
    for job in dict.fromkeys(record["job"] for record in made):
        _print(console, f"{job}, what a call does", [record for record in made if record["job"] == job], COUNTS)
    console.print()
    for line in (*LEGEND, ""):
        console.print(line)
    counted = [record["holds"] for record in made if record["taken"] and record["holds"] is not None]
    console.print(f"By the paths taken, {sum(counted)} of {len(counted)} targets are predicted to hold.")
    for record in sorted(made, key=_over, reverse=True):
        if record["holds"] is False and (record["taken"] or record["path"] == TRITON):
            where = f"{record['job']}, {record['batch']} {DTYPES[record['dtype']]}, {record['path']}"
            console.print(f"{_over(record):.1f}x the target: {where}; limit: {record['limit']}")


def _print(console: Console, title: str, records: list[dict[str, Any]], cells: Cells) -> None:
    table = Table(box=None, title=title, title_justify="left", padding=(0, 2, 0, 0))
    for heading, _ in cells:
        table.add_column(heading, justify="left" if heading in ("rows", "path", "limit") else "right", no_wrap=True)
    for record in records:
        table.add_row(*(of(record) for _, of in cells))
    console.print()
    console.print(table)


def _over(record: dict[str, Any]) -> float:
    """How many times its target a prediction is."""
    return float(record["microseconds"] / record["target_us"]) if record["target_us"] else 0.0


def _target(record: dict[str, Any]) -> str:
    return "" if record["target_us"] is None else figure(record["target_us"])


WHERE: Cells = [
    ("rows", lambda r: f"{r['batch']} {DTYPES[r['dtype']]}"),
    ("path", lambda r: r["path"] + (" *" if r["taken"] else "")),
]
TIMES: Cells = [
    *WHERE,
    ("launch", lambda r: figure(r["launch_us"])),
    ("reading", lambda r: figure(r["reading_us"])),
    ("selection", lambda r: figure(r["selection_us"])),
    ("tail", lambda r: figure(r["tail_us"])),
    ("predicted", lambda r: figure(r["microseconds"])),
    ("floor", lambda r: figure(r["floor_us"])),
    ("target", _target),
    ("holds", lambda r: VERDICTS[r["holds"]]),
    ("limit", lambda r: r["limit"]),
]
COUNTS: Cells = [
    *WHERE,
    ("read MB", lambda r: figure(r["bytes_read"] * 1e-6)),
    ("written", lambda r: f"{r['bytes_written'] * 1e-6:.2f}"),
    ("launches", lambda r: str(r["launches"])),
    ("barriers", lambda r: f"{r['cluster_barriers']} + {r['block_barriers']}"),
    ("registers", lambda r: str(r["registers"])),
    ("shared KB", lambda r: f"{r['shared_bytes'] / 1024:.0f}"),
    ("a row", lambda r: str(r["cluster"])),
    ("blocks", lambda r: f"{r['blocks']} x {r['blocks_at_once']}"),
    ("waves", lambda r: str(r["waves"])),
]
