"""`warpdraw bench verify`: times the verification of drafts."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..bench.peers import Job
from ..bench.picture import Axis, picture
from ..bench.sample import DTYPES, SHAPES, NotVerified
from ..bench.speculation import Options, run
from ..bench.speculation_grid import SWEEP
from ..generation.params import SamplingParams
from .bench_output import (
    JsonPath,
    PicturePath,
    check_picture,
    check_place,
    figure,
    print_begin,
    print_end,
    print_sweep,
    print_tables,
    show,
    write_json,
    write_picture,
)
from .terminal import error_line, progress
from .values import count, integer, number

EXAMPLES = """Examples:

warpdraw bench verify

warpdraw bench verify --json verify.json --picture verify.svg

warpdraw bench verify --only rejection --batch 1 --drafts 8 --dtype bfloat16

warpdraw bench verify --quick"""

PICTURE = "Time to verify the drafts of one request"


def verify(
    vocab: Annotated[int, typer.Option(help="Vocabulary size.", parser=count)] = 128256,
    batch: Annotated[
        list[int] | None, typer.Option(help="Requests of a call (repeat); default 1 and 8.", parser=count)
    ] = None,
    drafts: Annotated[int, typer.Option(help="Drafts of each request.", parser=count)] = 5,
    dtype: Annotated[str, typer.Option(help=f"Of the logits: {', '.join(DTYPES)}.")] = "float32",
    logits: Annotated[str, typer.Option(help=f"Their distribution: {', '.join(SHAPES)}.")] = "peaked",
    noise: Annotated[
        float, typer.Option(help="Draft logits are the target's plus N(0, noise^2).", parser=number)
    ] = 0.5,
    temperature: Annotated[float, typer.Option(help="Divides target and draft logits.", parser=number)] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k best tokens of both; 0 is off.", parser=integer)] = 50,
    top_p: Annotated[float, typer.Option(help="Keep the best tokens up to this mass; 1 is off.", parser=number)] = 0.95,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, at a small vocabulary: try everything, measure nothing.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Time torch.compile of best eager too; it takes a minute.")
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of every method; 1 is the steadiest.", parser=count)] = 1,
    seconds: Annotated[float, typer.Option(help="Time for each size, filters and cache state.", parser=number)] = 3.0,
    json_path: JsonPath = None,
    picture_path: PicturePath = None,
) -> int:
    """Time speculative verification on the CPU by every rule, beside K+1 plain draws, eager PyTorch and one read.

    All from the same logits, once with the filters and once with the temperature alone; hot and cold rows. Checked
    first: ours against the scalar oracle, the others by the law of their tokens and by their acceptance.

    Jobs are named by rule and filters: rejection, block, coupled, point_mass, greedy. Close other programs before.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if logits not in SHAPES:
        raise ValueError(f"logits: expected one of {', '.join(SHAPES)}, got {logits!r}")
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    if temperature == 0:
        raise ValueError("temperature: expected more than 0, because the peers divide by it")
    for name, value in (("noise", noise), ("seconds", seconds)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: expected at least 0, got {value}")
    check_place("json", json_path)
    check_picture(picture_path)
    torch.set_num_threads(threads)
    jobs = dict.fromkeys((Job(temperature, top_k, top_p, 0.0), Job(temperature, 0, 1.0, 0.0)))
    batches = tuple(dict.fromkeys(batch or (1, 8)))
    options = Options(
        vocab=vocab,
        batches=batches,
        drafts=drafts,
        dtype=dtype,
        logits=logits,
        noise=noise,
        jobs=tuple(jobs),
        only=only,
        quick=quick,
        compile=compile,
        sweep=picture_path is not None,
        seconds=seconds,
    )
    with progress(1.0, "measuring") as bar:
        try:
            result = run(options, partial(show, bar))
        except NotVerified as error:
            error_line(str(error))
            return 1
    if picture_path is not None:
        write_picture(picture_path, verify_picture(result))
    if not write_json(json_path, result):
        print_verify(result)
    return 0


def verify_picture(result: dict[str, Any]) -> str:
    """Time against the number of drafts."""
    sizes = f"vocabulary {result['options']['vocab']}, {result['options']['dtype']}"
    return picture(result, Axis("drafts", PICTURE, "number of drafts", sizes))


def print_verify(result: dict[str, Any]) -> None:
    """The tables of `bench verify`."""
    console = print_begin(result, result["environment"]["cpu"])
    timed = [record for record in result["results"] if not record["series"]]
    for key in dict.fromkeys((r["job"], r["batch"], r["cache"]) for r in timed):
        first, *_ = records = [r for r in timed if (r["job"], r["batch"], r["cache"]) == key]
        sizes = f"{first['batch']} x {first['drafts']} drafts of {first['vocab']} {first['dtype']}"
        table = Table(box=SIMPLE_HEAD, title=f"{first['job']}, {sizes}, {first['cache']}", title_justify="left")
        table.add_column("method", no_wrap=True)
        for heading in ("median us", "p10", "p90", "MB", "accepted", "tokens"):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in records:
            times = [figure(record[name]) for name in ("median_us", "p10_us", "p90_us")]
            found = record["acceptance"]
            accepted = ["", ""] if found is None else [f"{found['of_drafts']:.3f}", f"{found['tokens']:.2f}"]
            table.add_row(record["method"], *times, figure(record["bytes"] * 1e-6), *accepted)
        console.print(table)
    print_tables(console, result["goals"])
    sweep = [record for record in result["results"] if record["series"]]
    for cache in dict.fromkeys(record["cache"] for record in sweep):
        print_sweep([record for record in sweep if record["cache"] == cache], f"{SWEEP}, {cache}", "drafts")
    print_end(console, result)
