"""`warpdraw bench`: measurements, verified before they are timed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from ..bench.peers import Job
from ..bench.sample import DTYPES, OURS, SHAPES, Case, NotVerified, measure, report
from ..generation.params import SamplingParams
from .terminal import TASK, error_line, progress, stderr, stdout
from .values import count, integer, number

app = typer.Typer(help="Measure: verified first, then timed in turn in one process.", no_args_is_help=True)

EXAMPLES = """Examples:

warpdraw bench sample --vocab 128256 --batch 1 --batch 64

warpdraw bench sample --dtype bfloat16 --top-k 0 --top-p 0.9 --min-p 0 --json result.json"""


@app.callback()
def _group() -> None:
    pass


@app.command("sample", epilog=EXAMPLES)
def sample(
    vocab: Annotated[
        list[int] | None, typer.Option(help="Vocabulary size (repeat); default 128256.", parser=count)
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Rows of a call (repeat); default 1 and 64.", parser=count)
    ] = None,
    dtype: Annotated[str, typer.Option(help=f"Of the logits: {', '.join(DTYPES)}.")] = "float32",
    logits: Annotated[str, typer.Option(help=f"Their distribution: {', '.join(SHAPES)}.")] = "peaked",
    temperature: Annotated[float, typer.Option(help="Divides the logits.", parser=number)] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep the k best tokens; 0 is off.", parser=integer)] = 50,
    top_p: Annotated[float, typer.Option(help="Keep the best tokens up to this mass; 1 is off.", parser=number)] = 0.9,
    min_p: Annotated[float, typer.Option(help="Keep tokens this probable relative to the best.", parser=number)] = 0.05,
    threads: Annotated[int, typer.Option(help="CPU threads of every method; 1 is the steadiest.", parser=count)] = 1,
    seconds: Annotated[float, typer.Option(help="Time for each size and cache state.", parser=number)] = 3.0,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output, without a table.")
    ] = None,
) -> int:
    """Time the CPU sample op against eager PyTorch: the usual idiom, and the best form (top-k first).

    All do the same job (temperature, then top-k, top-p and min-p), verified first, timed in turn in one process.

    Cold: each call on other rows, 64 MiB in rotation. Hot: each call on the same rows. One read: of the same bytes.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if logits not in SHAPES:
        raise ValueError(f"logits: expected one of {', '.join(SHAPES)}, got {logits!r}")
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    if temperature == 0:
        raise ValueError("temperature: expected more than 0, because the peers divide by it")
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    if json_path not in (None, "-") and not (parent := Path(json_path).absolute().parent).is_dir():
        raise ValueError(f"json: expected a file in an existing folder, got {json_path!r} ({parent} is none)")
    torch.set_num_threads(threads)
    job = Job(temperature, top_k, top_p, min_p)
    cases = [Case(v, b, dtype, logits) for v in vocab or [128256] for b in batch or [1, 64]]
    records: list[dict[str, Any]] = []
    with progress(len(cases), "measuring") as bar:
        for number, case in enumerate(cases):
            bar.update(TASK, description=f"vocabulary {case.vocab}, batch {case.batch}", completed=number)
            try:
                records += measure(case, job, seconds, partial(_advance, bar, number))
            except NotVerified as error:
                error_line(f"vocabulary {case.vocab}, batch {case.batch}: {error}")
                return 1
    result = report(records, dtype, logits, job)
    if json_path == "-":
        print(json.dumps(result, indent=2))
        return 0
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        stderr().print(f"wrote {json_path}")
    _print(result)
    return 0


def _advance(bar: Progress, finished: int, part: float) -> None:
    bar.update(TASK, completed=finished + part)


def _print(result: dict[str, Any]) -> None:
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
                microseconds = [_number(r[key]) for key in ("median_us", "p10_us", "p90_us")]
                ratios = [_number(r[key]) + "x" for key in ("times_warpdraw", "times_one_read")]
                table.add_row(r["method"], *microseconds, *ratios, style="bold" if r["method"] == OURS else "")
        console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
