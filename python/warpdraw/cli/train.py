"""`warpdraw train`: a tokenizer and a model from a text."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.progress import Progress

from ..generation.loop import generate
from ..generation.params import SamplingParams
from ..training.config import DTYPES, TextConfig, TrainingConfig
from ..training.curve import check_matplotlib, draw_curve
from ..training.loop import Report, Result, Training, perplexity
from ..training.state import State
from ..training.train import training_of
from .device import device as device_of
from .options import Device, Threads
from .terminal import TASK, json_text, progress, stderr, stdout
from .values import count, integer, number

EXAMPLES = """Examples:

warpdraw train book.txt --out model

warpdraw train texts/ --out model --layers 6 --hidden 384 --heads 6 --context 256 --vocabulary 8192 --steps 5000

warpdraw train book.txt --out model --sample "It was" --minutes 10

warpdraw train book.txt --out model --resume

warpdraw train words.txt --out model --characters --lines --context 32

warpdraw train names --model mlp

warpdraw generate "It was" --model model"""

NAMES = "names"
CURVE = "loss.png"
SAMPLE_TOKENS = 40


_MODEL, _TEXT = TrainingConfig(), TextConfig()
Config = TypeVar("Config", TrainingConfig, TextConfig)


def _panel(panel: str, help: str, name: str, default: Any = None, **options: Any) -> Any:
    # Options that are not given are None: a run that goes on has its own values.
    shown = "" if default is None else f" Default {default}."
    return typer.Option(name, help=help + shown, rich_help_panel=panel, show_default=False, **options)


def _size(name: str, help: str, **options: Any) -> Any:
    return _panel("The model", help, *_named(name), **options)


def _way(name: str, help: str, **options: Any) -> Any:
    return _panel("How to train", help, *_named(name), **options)


def _text(name: str, help: str, **options: Any) -> Any:
    return _panel("The text", help, *_named(name), **options)


def _named(name: str) -> tuple[str, Any]:
    default = getattr(_MODEL, name, getattr(_TEXT, name, None))
    return f"--{name.replace('_', '-')}", None if isinstance(default, bool) else default


def train(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="A text file, a folder of them, or the word names: the shipped list.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the checkpoint; it has to be new or empty.", file_okay=True)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With names: mlp, mlp-2d or transformer. Default mlp.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out from its last save.")] = False,
    layers: Annotated[int | None, _size("layers", "Blocks.", parser=count)] = None,
    hidden: Annotated[int | None, _size("hidden", "Width.", parser=count)] = None,
    heads: Annotated[int | None, _size("heads", "Attention heads.", parser=count)] = None,
    kv_heads: Annotated[
        int | None, _panel("The model", "Heads of keys and values. Default: as --heads.", "--kv-heads", parser=count)
    ] = None,
    mlp: Annotated[
        int | None, _panel("The model", "Width inside an mlp. Default: 8/3 of --hidden.", "--mlp", parser=count)
    ] = None,
    context: Annotated[int | None, _size("context", "The most tokens it reads.", parser=count)] = None,
    vocabulary: Annotated[
        int | None, _text("vocabulary", "Tokens of the byte-level BPE that is trained on the text.", parser=count)
    ] = None,
    characters: Annotated[bool | None, _text("characters", "A token for each character instead.")] = None,
    lines: Annotated[bool | None, _text("lines", "Each line is a text of its own.")] = None,
    held_out: Annotated[
        float | None, _text("held_out", "Share at the end of the text that only measures.", parser=number)
    ] = None,
    steps: Annotated[int | None, _way("steps", "Steps.", parser=count)] = None,
    minutes: Annotated[
        float | None,
        _panel("How to train", "Stop and save after so long; --resume goes on.", "--minutes", parser=number),
    ] = None,
    batch: Annotated[int | None, _way("batch", "Rows of a step, each as long as the context.", parser=count)] = None,
    learning_rate: Annotated[float | None, _way("learning_rate", "Of AdamW, after the warm-up.", parser=number)] = None,
    warmup: Annotated[int | None, _way("warmup", "Steps in which the rate rises.", parser=integer)] = None,
    weight_decay: Annotated[float | None, _way("weight_decay", "Of the matrices.", parser=number)] = None,
    clip: Annotated[float | None, _way("clip", "Largest norm of the gradient.", parser=number)] = None,
    eval_every: Annotated[
        int | None, _way("eval_every", "Steps from one look at the held-out part to the next.", parser=count)
    ] = None,
    save_every: Annotated[int | None, _way("save_every", "Steps from one save to the next.", parser=count)] = None,
    seed: Annotated[int | None, _way("seed", "Of the first weights and the order of the data.", parser=integer)] = None,
    dtype: Annotated[
        str | None,
        _way("dtype", f"Of matrix products: {' or '.join(DTYPES)}, which wide models gain from (GPUs, CPUs with AMX)."),
    ] = None,
    sample: Annotated[
        str | None,
        _panel("What to print", "Continue this at every look at the held-out part.", "--sample", metavar="PROMPT"),
    ] = None,
    as_json: Annotated[bool, _panel("What to print", "Print the result as JSON.", "--json")] = False,
    no_plot: Annotated[bool, _panel("What to print", f"Draw no {CURVE}.", "--no-plot")] = False,
    device: Device = "cpu",
    threads: Threads = None,
) -> int:
    """Train a tokenizer and a model on TEXT, and write a checkpoint that `warpdraw generate` and transformers load.

    What was measured goes to standard error as it comes; a run that was stopped or killed goes on with --resume, to
    the same bits.
    """
    given = locals()
    if threads is not None:
        torch.set_num_threads(threads)
    if text == NAMES:
        return _train_names(given)
    if model is not None:
        raise ValueError(f"model: expected no --model but with the text {NAMES!r}, got {model!r}")
    if out is None:
        raise ValueError("out: expected a folder for the checkpoint (--out FOLDER), got none")
    if characters and vocabulary is not None:
        raise ValueError(f"vocabulary: expected none with --characters, got {vocabulary}")
    if not no_plot:
        check_matplotlib()
    place = device_of(device)
    state = State.read(out) if resume else None
    config = _chosen(given, TrainingConfig, None if state is None else state.config)
    text_config = _chosen(given, TextConfig, None if state is None else state.text)
    training = training_of(text, out, config, text_config, resume=state or False, device=place)
    if sample is not None:
        _check_sample(training, sample)
    result = _run(training, sample, minutes)
    if not no_plot:
        draw_curve(result, out / CURVE)
    if as_json:
        print(json_text(_document(training, result), indent=2))
    else:
        _print_result(result)
    return 0


def _chosen(given: dict[str, Any], kind: type[Config], before: Config | None) -> Config:
    """The configuration of the run before, or the default, with the values that were given."""
    values = {each.name: value for each in dataclasses.fields(kind) if (value := given.get(each.name)) is not None}
    return kind(**values) if before is None else dataclasses.replace(before, **values)


def _check_sample(training: Training, prompt: str) -> None:
    held, context = len(training.tokenizer.encode(prompt)), training.config.context
    if not 0 < held < context:
        raise ValueError(f"sample: expected a prompt of 1 to {context - 1} tokens, got {held}")


def _run(training: Training, sample: str | None, minutes: float | None) -> Result:
    config, size = training.config, sum(parameter.numel() for parameter in training.model.parameters())
    stderr().print(
        f"{size:,} parameters, {training.tokenizer.vocab_size:,} tokens in the vocabulary, {training.data.tokens:,} to "
        f"train on, from step {training.step} to {config.steps}",
        style="dim",
    )
    with progress(config.steps, "training", left=True) as bar:
        bar.update(TASK, completed=training.step)
        return training.run(lambda report: _show(bar, training, report, sample), minutes=minutes)


def _show(bar: Progress, training: Training, report: Report, sample: str | None) -> None:
    what = f"loss {report.loss:.3f}, {report.tokens_per_second:,.0f} tokens/s"
    bar.update(TASK, completed=report.step, description=what)
    looked = report.step % training.config.eval_every == 0 or report.step == report.steps
    if not looked:
        return
    print_line = bar.console.print
    held_out = ""
    if report.held_out is not None:
        held_out = f", held-out {report.held_out:.3f}, perplexity {perplexity(report.held_out):.2f}"
    left = f", {_duration(report.seconds_left)} left" if report.step < report.steps else ""
    print_line(f"step {report.step}/{report.steps}: {what}{held_out}{left}", markup=False)
    if sample is not None:
        print_line(sample + _continued(training, sample), style="dim", markup=False)


def _continued(training: Training, prompt: str) -> str:
    room = training.config.context - len(training.tokenizer.encode(prompt))
    params = SamplingParams(seed=training.config.seed, max_tokens=max(1, min(SAMPLE_TOKENS, room)))
    return generate(training.checkpoint(), prompt, params)[0].text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _print_result(result: Result) -> None:
    console = stdout()
    if result.held_out_loss is None:
        console.print(f"no held-out part; loss of the last step {result.losses[-1]:.4f} nats a token")
    else:
        console.print(f"held-out loss {result.held_out_loss:.4f} nats a token, perplexity {result.perplexity:.3f}")
        step, least = min(result.held_out, key=lambda look: look[1])
        if least < result.held_out_loss:
            console.print(f"it was least after step {step}: {least:.4f}; fewer steps or a smaller model may do better")
    if not result.finished:
        console.print(f"the time was up after step {result.steps}; --resume goes on")
    console.print(f"wrote {result.path}", markup=False)


def _document(training: Training, result: Result) -> dict[str, Any]:
    return {
        "config": dataclasses.asdict(training.config),
        "text": None if training.text is None else dataclasses.asdict(training.text),
        "held_out_loss": result.held_out_loss,
        "perplexity": result.perplexity,
        **dataclasses.asdict(result),
        "path": str(result.path),
    }


def _train_names(given: dict[str, Any]) -> int:
    """Hand over to `warpdraw.names`: its models have sizes of their own."""
    allowed = {"text", "out", "model", "seed", "steps", "threads", "as_json"}
    extra = [name for name, value in given.items() if name not in allowed and value not in (None, False)]
    if given["device"] == "cpu":
        extra.remove("device")
    if extra:
        raise ValueError(f"{extra[0]}: expected no --{extra[0].replace('_', '-')} with the text {NAMES!r}")
    if given["threads"] is None:
        torch.set_num_threads(1)  # matrices so small that several threads would wait longer than they compute
    names = import_module("warpdraw.names")  # nothing else needs it
    model = given["model"] or "mlp"
    out = given["out"] or Path(f"names-{model}")
    with progress(given["steps"] or 1, "training", left=True) as bar:

        def report(step: int, steps: int, loss: float) -> None:
            bar.update(TASK, completed=step, total=steps, description=f"loss {loss:.3f}")

        trained = names.train(model, out, seed=given["seed"] or 0, steps=given["steps"], report=report)
    if given["as_json"]:
        print(json_text(dataclasses.asdict(trained) | {"path": str(out)}, indent=2))
    else:
        stdout().print(f"held-out loss {trained.held_out_loss:.4f} nats a letter\nwrote {out}", markup=False)
    return 0
