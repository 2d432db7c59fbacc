"""`warpdraw bench`: measurements, verified before they are timed."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
import typer

from ..bench import gpu as bench_gpu
from ..bench.cpu import Options, run
from ..bench.gpu_jobs import COMBINED
from ..bench.gpu_methods import OURS as OURS_ON_GPU
from ..bench.gpu_picture import gpu_picture
from ..bench.gpu_run import Options as GpuOptions
from ..bench.grid import SWEEP
from ..bench.peers import Job
from ..bench.picture import picture
from ..bench.sample import DTYPES, SHAPES, Case, NotVerified, measure, report
from ..generation.params import SamplingParams
from . import bench_compare, bench_decode, bench_generate, bench_predict, bench_show, bench_tune, bench_verify
from .bench_output import (
    JsonPath,
    PicturePath,
    Saver,
    advance,
    check_gpu_run,
    check_picture,
    check_place,
    place,
    print_goals,
    print_gpu,
    print_sample,
    show,
    write_json,
    write_picture,
)
from .terminal import TASK, error_line, progress
from .values import count, integer, number

app = typer.Typer(help="Measure: verified first, then timed in turn in one process.", no_args_is_help=True)
app.command("verify", epilog=bench_verify.EXAMPLES)(bench_verify.verify)
app.command("generate", epilog=bench_generate.EXAMPLES)(bench_generate.generate)
app.command("show", epilog=bench_show.EXAMPLES)(bench_show.show)
app.command("compare", epilog=bench_compare.EXAMPLES)(bench_compare.compare)
app.command("tune", epilog=bench_tune.EXAMPLES)(bench_tune.tune)
app.command("decode", epilog=bench_decode.EXAMPLES)(bench_decode.decode)
app.command("predict", epilog=bench_predict.EXAMPLES)(bench_predict.predict)

SAMPLE_EXAMPLES = """Examples:

warpdraw bench sample --vocab 128256 --batch 1 --batch 64

warpdraw bench sample --dtype bfloat16 --top-k 0 --top-p 0.9 --min-p 0 --json result.json"""

CPU_EXAMPLES = """Examples:

warpdraw bench cpu

warpdraw bench cpu --json cpu.json --picture cpu.svg

warpdraw bench cpu --only "top-p 0.9" --no-compile"""

GPU_EXAMPLES = """Examples:

warpdraw bench gpu --json gpu.json --picture gpu.svg

warpdraw bench gpu --only greedy --seconds 20

warpdraw bench gpu --device cpu --quick"""


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
    check_place("json", json_path)
    torch.set_num_threads(threads)
    job = Job(temperature, top_k, top_p, min_p)
    cases = [Case(v, b, dtype, logits) for v in vocab or [128256] for b in batch or [1, 64]]
    records: list[dict[str, Any]] = []
    with progress(len(cases), "measuring") as bar:
        for number, case in enumerate(cases):
            bar.update(TASK, description=f"vocabulary {case.vocab}, batch {case.batch}", completed=number)
            try:
                records += measure(case, job, seconds, partial(advance, bar, number))
            except NotVerified as error:
                error_line(f"vocabulary {case.vocab}, batch {case.batch}: {error}")
                return 1
    result = report(records, dtype, logits, job)
    if not write_json(json_path, result):
        print_sample(result)
    return 0


@app.command("cpu", epilog=CPU_EXAMPLES)
def cpu(
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only jobs with this text in their name.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, at small sizes: try everything, measure nothing.")
    ] = False,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Leave torch.compile out; it takes 20 s.")] = False,
    json_path: JsonPath = None,
    picture_path: PicturePath = None,
) -> int:
    """Measure the CPU backend: each job beside its target, its peers and the time of one read of the logits.

    At vocabulary 128256, hot and cold rows, in under three minutes; one thread, and two for the last part.

    Peers are found by import: transformers, torch.compile, llama-cpp-python, NumPy. Close other programs before.
    """
    check_place("json", json_path)
    check_picture(picture_path)
    if picture_path is not None and only not in SWEEP:
        raise ValueError(f"picture: expected no --only, or a part of {SWEEP!r}, got --only {only!r}")
    with progress(1.0, "measuring") as bar:
        try:
            result = run(Options(quick, not no_compile, only), partial(show, bar))
        except NotVerified as error:
            error_line(str(error))
            return 1
    if picture_path is not None:
        write_picture(picture_path, picture(result))
    if not write_json(json_path, result):
        print_goals(result)
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
    picture_path: PicturePath = None,
) -> int:
    """Measure a GPU's backend: each job beside its target, its peers and the time that a copy takes for its bytes.

    Batches of 1 to 512, vocabularies of 32000 to 262144, bf16 and fp32; CUDA graphs, cold caches, medians.

    What has targets comes first. Peers are found by import: transformers, torch.compile, FlashInfer, sonic-sampler.
    """
    check_gpu_run(device, quick, seconds, json_path)
    check_picture(picture_path)
    if picture_path is not None and only not in COMBINED:
        raise ValueError(f"picture: expected no --only, or a part of {COMBINED!r}, got --only {only!r}")
    saver = Saver(json_path)
    with progress(1.0, "measuring") as bar:
        options = GpuOptions(device, quick, not no_compile, only, seconds)
        result = bench_gpu.run(options, partial(show, bar), saver)
    if not write_json(json_path, result):
        print_gpu(result)
    if picture_path is not None:  # last, because what it shows may not have been measured
        write_picture(picture_path, gpu_picture(result))
    ours = [failed for failed in result["failed"] if failed["method"].startswith(OURS_ON_GPU)]
    for failed in ours:
        error_line(f"{failed['method']}, {place(failed)}: {failed['reason']}")
    return 1 if ours else 0
