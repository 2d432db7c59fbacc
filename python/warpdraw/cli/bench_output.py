"""What `warpdraw bench` shows and writes: progress, tables, files."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ..bench.goals import FASTER
from ..bench.grid import SWEEP
from ..bench.sample import OURS
from .device import device as device_of
from .terminal import TASK, json_text, stderr, stdout

WIDTH_OF_FILES = 110
# Predictions that are off by more than this, either way, are named.
SURPRISE = 1.3
# A run that ends early leaves what it had: the file is written again after so many seconds.
SAVE_SECONDS = 10.0

JsonPath = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output, without a table.")
]
PicturePath = Annotated[str | None, typer.Option("--picture", metavar="FILE.svg", help="Draw the times as a picture.")]


class Saver:
    """Writes what there is of a document from time to time."""

    def __init__(self, path: str | None) -> None:
        self._path, self._saved = path, perf_counter()

    def __call__(self, document: dict[str, Any]) -> None:
        if self._path not in (None, "-") and perf_counter() - self._saved > SAVE_SECONDS:
            _write(self._path, document)
            self._saved = perf_counter()


def show(bar: Progress, what: str, part: float) -> None:
    """What is being done, and the finished part."""
    bar.update(TASK, description=what, completed=part)


def check_place(name: str, path: str | None) -> None:
    """Raise ValueError unless a file may be written there."""
    if path not in (None, "-") and not (parent := Path(path).absolute().parent).is_dir():
        raise ValueError(f"{name}: expected a file in an existing folder, got {path!r} ({parent} is none)")


def check_gpu_run(device: str, quick: bool, seconds: float, json_path: str | None) -> None:
    """Raise ValueError unless these are options of a run on a GPU, or of a trial on the CPU."""
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    if device_of(device).type == "cpu" and not quick:
        raise ValueError("device: expected a GPU, or cpu with --quick; warpdraw bench cpu measures a CPU")
    check_place("json", json_path)


def check_picture(path: str | None) -> None:
    """Raise ValueError unless a picture may be written there."""
    check_place("picture", path)
    if path is not None and not path.endswith(".svg"):
        raise ValueError(f"picture: expected a name that ends in .svg, got {path!r}")


def write_json(path: str | None, result: dict[str, Any]) -> bool:
    """Write the document where it is wanted; True if that was standard output."""
    if path == "-":
        print(json_text(result, indent=2))
    elif path is not None:
        _write(path, result)
        stderr().print(f"wrote {path}")
    return path == "-"


def _write(path: str, document: dict[str, Any]) -> None:
    """All or nothing: a run that is stopped while it writes leaves what it had written before."""
    target, text = Path(path).resolve(), json_text(document, indent=2) + "\n"
    if target.exists() and not target.is_file():  # a device or a pipe
        target.write_text(text, encoding="utf-8")
        return
    written = target.with_name(f"{target.name}.part")
    written.write_text(text, encoding="utf-8")
    written.replace(target)


def write_picture(path: str, drawn: str) -> None:
    """Write a picture."""
    Path(path).write_text(drawn, encoding="utf-8")
    stderr().print(f"wrote {path}")


def advance(bar: Progress, finished: int, part: float) -> None:
    """The finished parts and a part of the next."""
    bar.update(TASK, completed=finished + part)


def print_sample(result: dict[str, Any]) -> None:
    """The tables of `bench sample`."""
    console, job, where = stdout(), result["job"], result["environment"]
    filters = ", ".join(f"{name.replace('_', '-')} {job[name]}" for name in ("temperature", "top_k", "top_p", "min_p"))
    console.print(f"{job['dtype']} logits ({job['logits']}), {filters}")
    console.print(f"{where['cpu']}, {where['threads']} thread(s), torch {where['torch']}")
    for vocab, batch, cache in dict.fromkeys((r["vocab"], r["batch"], r["cache"]) for r in result["results"]):
        table = Table(box=SIMPLE_HEAD, title=f"vocabulary {vocab}, batch {batch}, {cache}", title_justify="left")
        table.add_column("method", no_wrap=True)
        for heading in ("median us", "p10", "p90", "of ours", "of a read"):
            table.add_column(heading, justify="right", no_wrap=True)
        for r in result["results"]:
            if (r["vocab"], r["batch"], r["cache"]) == (vocab, batch, cache):
                microseconds = [figure(r[key]) for key in ("median_us", "p10_us", "p90_us")]
                ratios = [figure(r[key]) + "x" for key in ("times_warpdraw", "times_one_read")]
                table.add_row(r["method"], *microseconds, *ratios, style="bold" if r["method"] == OURS else "")
        console.print(table)


def figure(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def print_begin(result: dict[str, Any], machine: str) -> Console:
    """What was measured on what; the console for the rest."""
    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(f"{machine}, torch {result['environment']['torch']}, {result['backend']}")
    if result["options"]["quick"]:
        console.print("--quick: small sizes and few calls, so the figures mean nothing", style="yellow")
    return console


def print_goals(result: dict[str, Any]) -> None:
    """The tables of `bench cpu`."""
    console = print_begin(result, result["environment"]["cpu"])
    print_tables(console, result["goals"])
    sweep = [record for record in result["results"] if record["series"]]
    for cache in dict.fromkeys(record["cache"] for record in sweep):
        print_sweep([record for record in sweep if record["cache"] == cache], f"{SWEEP}, {cache}", "vocab")
    print_end(console, result)


def print_gpu(result: dict[str, Any]) -> None:
    """The tables of `bench gpu`."""
    device = result["device"]
    console = print_begin(result, device.get("name", device["type"]))
    # The rest is in the JSON.
    print_tables(console, [goal for goal in result["goals"] if goal["target"] is not None])
    print_copy(console, result)
    print_end(console, result)
    print_surprises(console, result["results"])
    for failed in result["failed"]:
        console.print(f"failed: {failed['method']}, {place(failed)}: {failed['reason']}", style="red")
    if result["dropped"]:
        console.print(f"{len(result['dropped'])} places dropped: {result['dropped'][0]['reason']}")


def print_copy(console: Console, result: dict[str, Any]) -> None:
    """The bandwidth of a copy, if it was measured."""
    if "copy_bandwidth" in result:
        copied = result["copy_bandwidth"]
        console.print(f"a copy moves {copied['median']:,.0f} {copied['unit']} (p10 {copied['p10']:,.0f})")


def print_surprises(console: Console, records: list[dict[str, Any]]) -> None:
    """Where a measurement is far from its prediction, the worst first."""
    known = [record for record in records if record["measured_over_predicted"] is not None]
    off = {id(record): max(ratio := record["measured_over_predicted"], 1 / ratio) for record in known}
    far = sorted((record for record in known if off[id(record)] > SURPRISE), key=lambda record: -off[id(record)])
    if known:
        console.print(f"{len(far)} of {len(known)} predictions are off by more than {SURPRISE}x (docs/predictions.md)")
    for record in far:
        console.print(
            f"{record['measured_over_predicted']:.2f}x the prediction: {record['method']}, {place(record)}: "
            f"{figure(record['median_us'])} us, predicted {figure(record['predicted_us'])} us"
        )


def place(record: dict[str, Any]) -> str:
    """Where a record was taken, in words."""
    return ", ".join(str(record[key]) for key in ("job", "batch", "vocab", "dtype", "logits", "cache"))


def print_tables(console: Console, goals: list[dict[str, Any]]) -> None:
    """A table for each job, with a line for each goal."""
    for job in dict.fromkeys(goal["job"] for goal in goals):
        table = Table(box=SIMPLE_HEAD, title=job, title_justify="left")
        table.add_column("rows", no_wrap=True)
        table.add_column("against", min_width=16)
        for heading in ("ours us", "other us", "it is", "target", ""):
            table.add_column(heading, justify="right", no_wrap=True)
        for goal in goals:
            if goal["job"] == job:
                table.add_row(*_cells(goal))
        console.print(table)


def print_end(console: Console, result: dict[str, Any]) -> None:
    """How many targets were met, and what was not measured."""
    counted = [goal["met"] for goal in result["goals"] if goal["met"] is not None]
    if counted:
        console.print(f"{sum(counted)} of {len(counted)} targets met")
    for name, reason in result["absent"].items():
        console.print(Text.assemble("not measured: ", (name, "bold"), f" ({reason})"))


def print_sweep(records: list[dict[str, Any]], title: str, axis: str) -> None:
    """A table of the medians of each method along an axis."""
    times = {(record["method"], record[axis]): record["median_us"] for record in records}
    places = sorted({at for _, at in times})
    table = Table(box=SIMPLE_HEAD, title=f"{title}, microseconds", title_justify="left")
    table.add_column("kernels and peers")
    for at in places:
        table.add_column(f"{at:,}", justify="right", no_wrap=True)
    for method in dict.fromkeys(method for method, _ in times):
        table.add_row(method, *(figure(times[method, at]) for at in places))
    stdout().print(table)


def _cells(goal: dict[str, Any]) -> list[str | Text]:
    rows = f"{goal['batch']} {goal['cache']}"
    rows += "".join(
        f" {goal[key]}" for key, usual in (("dtype", "float32"), ("logits", "peaked")) if goal[key] != usual
    )
    space = "" if goal["kind"].startswith("x") else " "
    target = "" if goal["target"] is None else f"{'>=' if goal['kind'] == FASTER else '<='} {goal['target']:g}"
    if goal["figure"] is None:
        return [rows, goal["against"], "", "", "absent", target, ""]
    met = {True: Text("met", "green"), False: Text("missed", "red"), None: Text("")}[goal["met"]]
    other = "" if goal["other_us"] is None else figure(goal["other_us"])
    size = abs(goal["figure"])
    ratio = f"{goal['figure']:,.{2 if size < 10 else 1 if size < 100 else 0}f}"
    return [rows, goal["against"], figure(goal["ours_us"]), other, f"{ratio}{space}{goal['kind']}", target, met]
