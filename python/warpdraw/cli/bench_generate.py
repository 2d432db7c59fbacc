"""`warpdraw bench generate`: times whole generation."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..bench.generation import run
from ..bench.generation_jobs import Options, Unusable
from .bench_output import JsonPath, check_place, figure, print_begin, show, write_json
from .terminal import error_line, progress
from .values import count

EXAMPLES = """Examples:

warpdraw bench generate

warpdraw bench generate --json generate.json

warpdraw bench generate --only batching --rounds 3

warpdraw bench generate --quick"""


def generate(
    model: Annotated[str, typer.Option(help="A checkpoint: shipped, a folder, or a name on the hub.")] = "tiny-target",
    requests: Annotated[int, typer.Option(help="Requests of a batch.", parser=count)] = 32,
    rounds: Annotated[int, typer.Option(help="How often each method is timed.", parser=count)] = 5,
    texts: Annotated[int, typer.Option(help="Texts that are drawn where they are counted.", parser=count)] = 1000,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Seconds: try everything, measure nothing.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of every method; 1 is the steadiest.", parser=count)] = 1,
    json_path: JsonPath = None,
) -> int:
    """Time whole generation on the CPU, each job beside its target; checked first, methods in turn in one process.

    Sampling's share of a decode step. Continuous batching against requests one by one, and against transformers'
    generate with the same checkpoint: one by one, and as a static batch. Uniform: one prompt, equal lengths. Mixed:
    unequal prompts and lengths, as many users have them.
    JSON of a schema: valid texts, and what the guide costs. Names: how many are new.

    Without transformers or llguidance their part is left out. Close other programs before.
    """
    check_place("json", json_path)
    torch.set_num_threads(threads)
    if quick:
        requests, rounds, texts = min(requests, 4), 1, min(texts, 5)
    options = Options(model=model, requests=requests, rounds=rounds, texts=texts, only=only, quick=quick)
    with progress(1.0, "measuring") as bar:
        try:
            result = run(options, partial(show, bar))
        except Unusable as error:
            error_line(str(error))
            return 1
    if not write_json(json_path, result):
        print_generate(result)
    return 0


def print_generate(result: dict[str, Any]) -> None:
    """The tables of `bench generate`."""
    console = print_begin(result, f"{result['environment']['cpu']}, {result['environment']['threads']} thread(s)")
    figures = result["figures"]
    for job in dict.fromkeys(each["job"] for each in figures):
        table = Table(box=SIMPLE_HEAD, title=job, title_justify="left")
        table.add_column("figure", min_width=40, no_wrap=True)
        for heading in ("", "target", ""):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in figures:
            if each["job"] == job:
                sign = ">=" if each["at_least"] else "<="
                target = "" if each["target"] is None else f"{sign} {each['target']:g}{each['unit']}"
                met = {True: Text("met", "green"), False: Text("missed", "red"), None: Text("")}[each["met"]]
                table.add_row(each["what"], f"{figure(each['value'])}{each['unit']}", target, met)
        console.print(table)
    counted = [each["met"] for each in figures if each["met"] is not None]
    if counted:
        console.print(f"{sum(counted)} of {len(counted)} targets met")
    for name, reason in result["absent"].items():
        console.print(Text.assemble("not measured: ", (name, "bold"), f" ({reason})"))
