"""`warpdraw bench`: measurements, verified before they are timed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ..bench import gpu as bench_gpu
from ..bench.cpu import Options, run
from ..bench.goals import FASTER
from ..bench.gpu_methods import OURS as OURS_ON_GPU
from ..bench.grid import SWEEP
from ..bench.peers import Job
from ..bench.picture import picture
from ..bench.sample import DTYPES, OURS, SHAPES, Case, NotVerified, measure, report
from ..generation.params import SamplingParams
from .device import device as device_of
from .terminal import TASK, error_line, json_text, progress, stderr, stdout
from .values import count, integer, number

app = typer.Typer(help="Measure: verified first, then timed in turn in one process.", no_args_is_help=True)

SAMPLE_EXAMPLES = """Examples:

warpdraw bench sample --vocab 128256 --batch 1 --batch 64

warpdraw bench sample --dtype bfloat16 --top-k 0 --top-p 0.9 --min-p 0 --json result.json"""

CPU_EXAMPLES = """Examples:

warpdraw bench cpu

warpdraw bench cpu --json cpu.json --picture cpu.svg

warpdraw bench cpu --only "top-p 0.9" --no-compile"""

GPU_EXAMPLES = """Examples:

warpdraw bench gpu --json gpu.json

warpdraw bench gpu --only greedy --seconds 20

warpdraw bench gpu --device cpu --quick"""

WIDTH_OF_FILES = 110
# A run that ends early leaves what it had: the file is written again after so many seconds.
SAVE_SECONDS = 10.0

JsonPath = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output, without a table.")
]


@app.callback()
def _group() -> None:
    pass


@app.command("sample", epilog=SAMPLE_EXAMPLES)
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
    json_path: JsonPath = None,
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
    _check_place("json", json_path)
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
    if not _write_json(json_path, result):
        _print(result)
    return 0


@app.command("cpu", epilog=CPU_EXAMPLES)
def cpu(
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, at small sizes: try everything, measure nothing.")
    ] = False,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave torch.compile out; it takes 20 s.")] = False,
    json_path: JsonPath = None,
    picture_path: Annotated[
        str | None, typer.Option("--picture", metavar="FILE.svg", help="Draw time against the vocabulary size.")
    ] = None,
) -> int:
    """Measure the CPU backend: each job beside its target, its peers and the time of one read of the logits.

    At vocabulary 128256, hot and cold rows, in under three minutes; one thread, and two for the last part.

    Peers are found by import: transformers, torch.compile, llama-cpp-python, NumPy. Close other programs before.
    """
    _check_place("json", json_path)
    _check_place("picture", picture_path)
    if picture_path is not None and not picture_path.endswith(".svg"):
        raise ValueError(f"picture: expected a name that ends in .svg, got {picture_path!r}")
    if picture_path is not None and only not in SWEEP:
        raise ValueError(f"picture: expected no --only, or a part of {SWEEP!r}, got --only {only!r}")
    with progress(1.0, "measuring") as bar:
        try:
            result = run(Options(quick, not no_compile, only), partial(_show, bar))
        except NotVerified as error:
            error_line(str(error))
            return 1
    if picture_path is not None:
        Path(picture_path).write_text(picture(result), encoding="utf-8")
        stderr().print(f"wrote {picture_path}")
    if not _write_json(json_path, result):
        _print_goals(result)
    return 0


@app.command("gpu", epilog=GPU_EXAMPLES)
def gpu(
    device: Annotated[str, typer.Option(help="cuda, cuda:1 and so on; cpu tries the code, with --quick.")] = "cuda",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, a few calls: try everything, measure nothing.")
    ] = False,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave torch.compile out.")] = False,
    seconds: Annotated[
        float, typer.Option(help="Time for the grid; what is left then is dropped.", parser=number)
    ] = 240,
    json_path: JsonPath = None,
) -> int:
    """Measure a GPU's backend: each job beside its target, its peers and the time that a copy takes for its bytes.

    Batches of 1 to 512, vocabularies of 32000 to 262144, bf16 and fp32; CUDA graphs, cold caches, medians.

    What has targets comes first. Peers are found by import: transformers, torch.compile, FlashInfer, sonic-sampler.
    """
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    if device_of(device).type == "cpu" and not quick:
        raise ValueError("device: expected a GPU, or cpu with --quick; warpdraw bench cpu measures a CPU")
    _check_place("json", json_path)
    saver = _Saver(json_path)
    with progress(1.0, "measuring") as bar:
        options = bench_gpu.Options(device, quick, not no_compile, only, seconds)
        result = bench_gpu.run(options, partial(_show, bar), saver)
    if not _write_json(json_path, result):
        _print_gpu(result)
    ours = [failed for failed in result["failed"] if failed["method"].startswith(OURS_ON_GPU)]
    for failed in ours:
        error_line(f"{failed['method']}, {_place(failed)}: {failed['reason']}")
    return 1 if ours else 0


class _Saver:
    """Writes what there is of a document from time to time."""

    def __init__(self, path: str | None) -> None:
        self._path, self._saved = path, perf_counter()

    def __call__(self, document: dict[str, Any]) -> None:
        if self._path not in (None, "-") and perf_counter() - self._saved > SAVE_SECONDS:
            Path(self._path).write_text(json_text(document, indent=2) + "\n", encoding="utf-8")
            self._saved = perf_counter()


def _show(bar: Progress, what: str, part: float) -> None:
    bar.update(TASK, description=what, completed=part)


def _check_place(name: str, path: str | None) -> None:
    if path not in (None, "-") and not (parent := Path(path).absolute().parent).is_dir():
        raise ValueError(f"{name}: expected a file in an existing folder, got {path!r} ({parent} is none)")


def _write_json(path: str | None, result: dict[str, Any]) -> bool:
    """Write the document where it is wanted; True if that was standard output."""
    if path == "-":
        print(json_text(result, indent=2))
    elif path is not None:
        Path(path).write_text(json_text(result, indent=2) + "\n", encoding="utf-8")
        stderr().print(f"wrote {path}")
    return path == "-"


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
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _print_begin(result: dict[str, Any], machine: str) -> Console:
    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(f"{machine}, torch {result['environment']['torch']}, {result['backend']}")
    if result["options"]["quick"]:
        console.print("--quick: small sizes and few calls, so the figures mean nothing", style="yellow")
    return console


def _print_goals(result: dict[str, Any]) -> None:
    console = _print_begin(result, result["environment"]["cpu"])
    _print_tables(console, result["goals"])
    sweep = [record for record in result["results"] if record["series"]]
    for cache in dict.fromkeys(record["cache"] for record in sweep):
        _print_sweep([record for record in sweep if record["cache"] == cache], f"{SWEEP}, {cache}, microseconds")
    _print_end(console, result)


def _print_gpu(result: dict[str, Any]) -> None:
    device = result["device"]
    console = _print_begin(result, device.get("name", device["type"]))
    # The rest is in the JSON.
    _print_tables(console, [goal for goal in result["goals"] if goal["target"] is not None])
    if "copy_bandwidth" in result:
        copied = result["copy_bandwidth"]
        console.print(f"a copy moves {copied['median']:,.0f} {copied['unit']} (p10 {copied['p10']:,.0f})")
    _print_end(console, result)
    for failed in result["failed"]:
        console.print(f"failed: {failed['method']}, {_place(failed)}: {failed['reason']}", style="red")
    if result["dropped"]:
        console.print(f"{len(result['dropped'])} places dropped: {result['dropped'][0]['reason']}")


def _place(record: dict[str, Any]) -> str:
    return ", ".join(str(record[key]) for key in ("job", "batch", "vocab", "dtype", "logits", "cache"))


def _print_tables(console: Console, goals: list[dict[str, Any]]) -> None:
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


def _print_end(console: Console, result: dict[str, Any]) -> None:
    counted = [goal["met"] for goal in result["goals"] if goal["met"] is not None]
    if counted:
        console.print(f"{sum(counted)} of {len(counted)} targets met")
    for name, reason in result["absent"].items():
        console.print(Text.assemble("not measured: ", (name, "bold"), f" ({reason})"))


def _print_sweep(records: list[dict[str, Any]], title: str) -> None:
    times = {(record["method"], record["vocab"]): record["median_us"] for record in records}
    vocabularies = sorted({vocab for _, vocab in times})
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("kernels and peers")
    for vocab in vocabularies:
        table.add_column(f"{vocab:,}", justify="right", no_wrap=True)
    for method in dict.fromkeys(method for method, _ in times):
        table.add_row(method, *(_number(times[method, vocab]) for vocab in vocabularies))
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
    other = "" if goal["other_us"] is None else _number(goal["other_us"])
    size = abs(goal["figure"])
    figure = f"{goal['figure']:,.{2 if size < 10 else 1 if size < 100 else 0}f}"
    return [rows, goal["against"], _number(goal["ours_us"]), other, f"{figure}{space}{goal['kind']}", target, met]
