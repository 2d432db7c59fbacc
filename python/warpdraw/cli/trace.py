"""`warpdraw trace`: a text on its way through a model to the next token."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import torch
import typer

from ..generation.params import HISTORY, NUMBERS, SamplingParams
from ..model import weights
from ..tracing.picture import save_picture
from ..tracing.trace import STRATEGIES
from ..tracing.trace import trace as follow
from . import options
from .device import device as device_of
from .terminal import json_text, progress, stderr, stdout
from .trace_output import PARTS, spelled, trace_lines
from .values import count, integer

EXAMPLES = """Examples:

warpdraw trace "The sun is shining and the sky is"

warpdraw trace "The sky is" --layer 1 --head 3 --picture attention.png

warpdraw trace "The sky is" --strategy temperature=2,top_p=0.5 --strategy typical_p=0.4 --seed 7

warpdraw trace "The sky is" --json > trace.json"""

# The arguments of a strategy: those that need no text before them.
_ARGUMENTS = {name: type(getattr(SamplingParams(), name)) for name in NUMBERS if name not in HISTORY}


def _strategy(text: str) -> dict[str, float]:
    """Names and numbers with = between them, and commas between the pairs."""
    arguments: dict[str, float] = {}
    for pair in text.split(","):
        name, _, number = pair.partition("=")
        if name in arguments:
            raise typer.BadParameter(f"expected each NAME once, got {text!r}")
        try:
            arguments[name] = _ARGUMENTS[name](number)
        except (KeyError, ValueError):
            raise typer.BadParameter(
                f"expected NAME=NUMBER,... with a NAME of {', '.join(_ARGUMENTS)}, got {pair!r}"
            ) from None
    try:
        SamplingParams(**arguments)  # type: ignore[arg-type]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return arguments


def trace(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the model reads.")],
    model: options.Model = "tiny-target",
    layer: Annotated[int | None, typer.Option(help="Block whose attention is shown, from 0.", parser=integer)] = None,
    head: Annotated[
        int | None,
        typer.Option(
            help="Head in it, from 0; default: that with the sharpest view of the last token.", parser=integer
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="How many leading tokens are shown.", parser=count)] = 8,
    strategy: Annotated[
        list[Any] | None,
        typer.Option(
            help="Instead of greedy, top-k, top-p and min-p: a way to draw (repeat).",
            metavar="NAME=NUMBER,...",
            parser=_strategy,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", parser=integer)] = 0,
    picture: Annotated[str | None, typer.Option(help="Write the attention as a picture.", metavar="FILE.png")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Print this part alone (repeat): {', '.join(PARTS)}.", metavar="PART")
    ] = None,
    as_json: options.AsJson = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
) -> None:
    """Show what a model makes of TEXT, and what becomes of that.

    Its tokens, the shapes in the model, where a head looks, the distribution of the next token, and what is drawn.
    """
    for part in only or ():
        if part not in PARTS:
            raise ValueError(f"only: expected one of {', '.join(PARTS)}, got {part!r}")
    place = device_of(device)
    if threads is not None:
        torch.set_num_threads(threads)
    SamplingParams(seed=seed)
    strategies = STRATEGIES if strategy is None else {spelled(arguments): arguments for arguments in strategy}
    checkpoint = weights.load(model, device=place)
    with progress(1, "tracing"):
        traced = follow(
            checkpoint, text, layer=layer, head=head, candidates=candidates, strategies=strategies, seed=seed
        )
    if picture is not None:
        save_picture(traced, picture)
        if stderr().is_terminal:
            stderr().print(f"{picture}: block {traced.attention.layer}, head {traced.attention.head}", style="dim")
    if as_json:
        print(json_text({"model": model, **dataclasses.asdict(traced)}, indent=2))
        return
    console = stdout()
    unicode = console.encoding.lower().startswith("utf")
    console.print(*trace_lines(traced, unicode, PARTS if only is None else only), sep="\n")
