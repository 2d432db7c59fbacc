"""`warpdraw bench tune`: which shape and launch plan of the CUDA kernels is the fastest where."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..bench.tune import Options, run
from .bench_output import JsonPath, Saver, check_gpu_run, figure, place, print_begin, print_copy, show, write_json
from .terminal import error_line, progress
from .values import number

EXAMPLES = """Examples:

warpdraw bench tune --json tune.json

warpdraw bench tune --stages --only greedy --seconds 60

warpdraw bench tune --device cpu --quick"""

THE_RULE = "the rule"


def tune(
    device: Annotated[str, typer.Option(help="cuda, cuda:1 and so on; cpu tries the code, with --quick.")] = "cuda",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, a few calls: try everything, measure nothing.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="First time kernels that stop early, to see where the time goes.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Time for the grid; what is left then is dropped.", parser=number)
    ] = 300,
    json_path: JsonPath = None,
) -> int:
    """Find the fastest shape and launch plan of the CUDA kernels for each job, batch, vocabulary and dtype.

    Every shape of this build (threads, blocks, loads), by every plan: split, or one launch with clusters of 1 to 16.
    A build with WARPDRAW_CUDA_SHAPES=ON has many shapes, the usual build one.

    Verified first, bit for bit; cold caches, slow ones dropped in rounds. The rule, which calls follow by themselves,
    is beaten only by more than the spread. What matters most comes first.
    """
    check_gpu_run(device, quick, seconds, json_path)
    with progress(1.0, "measuring") as bar:
        options = Options(device, quick, only, stages, seconds)
        result = run(options, partial(show, bar), Saver(json_path), stuck=partial(_give_up, json_path))
    return _finish(json_path, result)


def _give_up(json_path: str | None, result: dict[str, Any]) -> None:
    """End the process, which cannot be ended in an orderly way while a kernel does not end."""
    status = _finish(json_path, result)
    sys.stdout.flush()
    os._exit(status)


def _finish(json_path: str | None, result: dict[str, Any]) -> int:
    if not write_json(json_path, result):
        print_tune(result)
    for failed in result["failed"]:
        error_line(f"{failed['candidate']}, {place(failed)}: {failed['reason']}")
    return 1 if result["failed"] else 0


def print_tune(result: dict[str, Any]) -> None:
    device = result["device"]
    console = print_begin(result, device.get("name", device["type"]))
    _print_stages(console, result["stages"])
    for job in dict.fromkeys(record["job"] for record in result["results"]):
        table = _table(job, ("rows", "winner"), ("us", "the rule us", "faster", "of the floor"))
        for record in result["results"]:
            if record["job"] == job:
                table.add_row(
                    f"{record['batch']} x {record['vocab']} {record['dtype']}",
                    Text(record["winner"], "green") if record["clear"] else _kept(result, record),
                    figure(record["us"]),
                    figure(record["rule_us"]),
                    f"{record['ratio']:.2f}x" if record["clear"] else "",
                    f"{record['of_floor']:.2f}x",
                )
        console.print(table)
    _print_wins(console, result)
    print_copy(console, result)
    for text, key in (("candidate(s) failed", "failed"), ("place(s) dropped", "dropped")):
        if result[key]:
            console.print(f"{len(result[key])} {text}: {result[key][0]['reason']}")


def _kept(result: dict[str, Any], record: dict[str, Any]) -> str:
    """The rule, and whether it is the fastest."""
    return THE_RULE if record["fastest"] == result["candidates"][0]["name"] else f"{THE_RULE} (unclear)"


def _print_stages(console: Console, stages: list[dict[str, Any]]) -> None:
    """A line for each place: how much each stage adds."""
    if not stages:
        return
    names = list(dict.fromkeys(record["until"] for record in stages))
    title = "where the time goes: us that each stage adds (kernels that stop early: not verified)"
    table = _table(title, ("job", "rows"), (*names[:-1], "rest", "together"))
    for at in dict.fromkeys((r["job"], r["batch"], r["vocab"], r["dtype"]) for r in stages):
        found = {r["until"]: r for r in stages if (r["job"], r["batch"], r["vocab"], r["dtype"]) == at}
        added = [figure(found[name]["added_us"]) if name in found else "" for name in names]
        job, batch, vocab, dtype = at
        table.add_row(job, f"{batch} x {vocab} {dtype}", *added, figure(list(found.values())[-1]["median_us"]))
    console.print(table)


def _print_wins(console: Console, result: dict[str, Any]) -> None:
    table = _table("shapes", ("shape", "what it is"), ("won", "of the rule's time"))
    for each in result["wins"]:
        shape = result["shapes"].get(each["shape"], {})
        words = ", ".join(f"{value} {name}" for name, value in shape.items() if name != "until")
        of_rule = "" if each["of_rule"] is None else f"{each['of_rule']:.3f}x"
        table.add_row(each["shape"], words, f"{each['won']} of {len(result['results'])}", of_rule)
    console.print(table)


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
