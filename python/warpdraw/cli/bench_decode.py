"""`warpdraw bench decode`: decode steps and rounds of speculation of models with random weights."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..bench.decode import run
from ..bench.gpu_jobs import DRAFTS
from ..bench.gpu_methods import OURS
from ..bench.gpu_run import Options
from .bench_output import JsonPath, Saver, check_gpu_run, figure, print_begin, show, write_json
from .terminal import error_line, progress
from .values import number

EXAMPLES = """Examples:

warpdraw bench decode --json decode.json

warpdraw bench decode --only 8B

warpdraw bench decode --device cpu --quick"""


def decode(
    device: Annotated[str, typer.Option(help="cuda, cuda:1 and so on; cpu tries the code, with --quick.")] = "cuda",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only models with this text in their name.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Tiny models: try everything, measure nothing.")] = False,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave torch.compile out.")] = False,
    seconds: Annotated[float, typer.Option(help="Time; what is left then is dropped.", parser=number)] = 240,
    json_path: JsonPath = None,
) -> int:
    """Time decode steps of 0.5B, 8B and 1.5B models with random weights: the model alone, and with each sampler.

    And rounds of speculation of the 8B and the 1.5B model, with drafts that are made to be accepted at given rates.
    """
    check_gpu_run(device, quick, seconds, json_path)
    with progress(1.0, "measuring") as bar:
        result = run(Options(device, quick, not no_compile, only, seconds), partial(show, bar), Saver(json_path))
    if not write_json(json_path, result):
        print_decode(result)
    for failed in result["failed"]:
        if failed["method"].startswith(OURS):
            error_line(f"{failed['method']}, {failed['model']}, {failed['batch']} rows: {failed['reason']}")
    return 1 if any(failed["method"].startswith(OURS) for failed in result["failed"]) else 0


def print_decode(result: dict[str, Any]) -> None:
    gpu = result["environment"]["gpu"]
    console = print_begin(result, gpu.get("name", result["environment"]["cpu"]))
    for model, batch in dict.fromkeys((record["model"], record["batch"]) for record in result["steps"]):
        table = Table(box=SIMPLE_HEAD, title=f"{model}, {batch} rows", title_justify="left")
        table.add_column("step", no_wrap=True)
        for heading in ("us", "sampling", "tokens/s", "sampler alone us"):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in result["steps"]:
            if (record["model"], record["batch"]) == (model, batch):
                alone = "" if record["sampler"] is None else figure(record["sampler"]["median_us"])
                share = "" if record["sampler"] is None else f"{record['share']:.1%}"
                table.add_row(
                    record["method"], figure(record["median_us"]), share, figure(record["tokens_per_second"]), alone
                )
        console.print(table)
    _print_rounds(console, result["rounds"])
    for failed in result["failed"]:
        reason = f"{failed['method']}, {failed['model']}, {failed['batch']} rows: {failed['reason']}"
        console.print(f"failed: {reason}", style="red")
    if result["dropped"]:
        console.print(f"{len(result['dropped'])} places dropped: {result['dropped'][0]['reason']}")


def _print_rounds(console: Console, rounds: list[dict[str, Any]]) -> None:
    """A table for each place: what a round takes, and how much faster it is than plain steps."""
    for model, drafter, batch in dict.fromkeys((r["model"], r["drafter"], r["batch"]) for r in rounds):
        title = f"{model} with drafts of {drafter}, {batch} rows: rounds with {DRAFTS} drafts"
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
        table.add_column("verified by")
        for heading in ("accepted", "us", "verification", "tokens", "faster"):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in rounds:
            if (record["model"], record["batch"]) == (model, batch):
                cells = [record["method"], "", figure(record["median_us"])]
                if "rule" in record:
                    cells = [f"{record['method']}, {record['rule']}", f"{record['rate']:.0%}", cells[2]]
                    cells += [f"{record['share']:.1%}", f"{record['tokens']:.2f}", f"{record['speedup']:.2f}x"]
                table.add_row(*cells)
        console.print(table)
