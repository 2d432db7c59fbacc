"""`warpdraw names`: new given names, what follows a few letters, and the table of embeddings as a picture."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.text import Text

from .. import names as of_names
from .. import ops
from ..generation.params import SamplingParams
from ..generation.results import Candidate, Step
from ..names.alphabet import LETTERS, LONGEST, check_letters
from ..names.models import SHIPPED
from . import options
from .bench_output import check_place
from .explain import step_lines
from .terminal import TASK, json_text, progress, stderr, stdout
from .values import integer

EXAMPLES = """Examples:

warpdraw names --count 20 --start abi

warpdraw names --count 1000 --model transformer --json > names.json

warpdraw names --next abi --top-p 0.9

warpdraw names --picture letters.png

warpdraw train names --model mlp --out mine && warpdraw names --model mine"""

COUNT = 20
END = "<end>"
# What --picture shows without --model: a table that has two numbers a letter.
PICTURED = "mlp-2d"
_DEFAULT = SamplingParams()
_FILTERS = ("temperature", "top_k", "top_p", "min_p")


def names(
    count: Annotated[int | None, typer.Option(help=f"How many; default {COUNT}.", parser=integer)] = None,
    start: Annotated[str | None, typer.Option(metavar="LETTERS", help="What each begins with.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"{', '.join(SHIPPED)} or a folder of warpdraw train names; default {SHIPPED[0]}.",
        ),
    ] = None,
    temperature: options.Temperature = _DEFAULT.temperature,
    top_k: options.TopK = _DEFAULT.top_k,
    top_p: options.TopP = _DEFAULT.top_p,
    min_p: options.MinP = _DEFAULT.min_p,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the names; without it a random one, printed.", parser=integer, rich_help_panel="How to draw"
        ),
    ] = None,
    following: Annotated[
        str | None,
        typer.Option("--next", metavar="LETTERS", help="Instead of names: how probable each letter is after these."),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help=f"Instead of names: the table of embeddings as a picture, of {PICTURED} unless --model is given.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Draw given names letter by letter, with the log-probability of each, and say which are not in the list.

    Log-probabilities are the model's own, end of the name included, whatever temperature and filters say.

    The same names come for the same seed, whatever the count is.
    """
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    if following is not None or picture is not None:
        other = "next" if following is not None else "picture"
        for name, value in (("count", count), ("start", start), ("seed", seed)):
            if value is not None:
                raise ValueError(f"{name}: expected none with --{other}, got {value!r}")
        if following is not None and picture is not None:
            raise ValueError(f"picture: expected none with --next, got {picture!r}")
    if picture is not None:
        return _picture(picture, model or PICTURED, as_json)
    chosen = model or SHIPPED[0]
    if following is not None:
        return _next(following, chosen, params, as_json)
    wanted = COUNT if count is None else count
    with progress(wanted, "drawing") as bar:
        drawn = of_names.generate(wanted, start or "", chosen, params, lambda done: bar.update(TASK, completed=done))
    if as_json:
        print(json_text(_document(drawn), indent=2))
        return 0
    if seed is None:
        print(f"seed {drawn.params.seed} (repeat with --seed {drawn.params.seed})", file=sys.stderr)
    _print(drawn)
    return 0


def _print(drawn: of_names.Names) -> None:
    console = stdout()
    width = max(len("name"), *(len(each.name) for each in drawn.names))
    console.print(Text(f"{'name':<{width}}  log-probability  per letter", style="bold"))
    for each in drawn.names:
        line = f"{each.name:<{width}}  {each.logprob:15.2f}  {each.per_letter:10.2f}  "
        fate = ("new", "green") if each.new else ("in the list", "dim")
        console.print(Text.assemble(line, fate, "" if each.ended else ", cut"))
    console.print(f"{len(drawn.names)} names, {drawn.share_new:.1%} new, {drawn.share_repeated:.1%} repeats")


def _document(drawn: of_names.Names) -> dict[str, Any]:
    return {
        "model": drawn.model,
        "start": drawn.start,
        "params": {name: getattr(drawn.params, name) for name in (*_FILTERS, "seed")},
        "names": [asdict(each) for each in drawn.names],
        "share_new": drawn.share_new,
        "share_repeated": drawn.share_repeated,
    }


def _next(letters: str, chosen: str, params: SamplingParams, as_json: bool) -> int:
    """What the model says and the filters leave of each letter after `letters`, the most probable first."""
    check_letters("next", letters, LONGEST - 1)
    logits = of_names.load(chosen).logits([letters])[0][-1:]
    before = ops.softmax(logits)[0]
    filters = {name: getattr(params, name) for name in _FILTERS}
    after = ops.filter_probs(logits, **filters)[0]
    kept = (ops.filter_logits(logits, **filters) > -torch.inf)[0]
    order = torch.argsort(before, descending=True, stable=True).tolist()
    texts = (END, *LETTERS)
    candidates = tuple(
        Candidate(texts[i], i, float(before[i]), float(after[i]), bool(kept[i]), drawn=False) for i in order
    )
    if as_json:
        print(json_text({"model": chosen, "letters": letters, "next": [asdict(each) for each in candidates]}, indent=2))
        return 0
    console = stdout()
    step = Step(1 + len(letters), int(kept.sum()), candidates, rest=0.0)
    lines = step_lines(step, unicode=console.encoding.lower().startswith("utf"))
    console.print(*lines[:-1], sep="\n")
    return 0


def _picture(path: str, chosen: str, as_json: bool) -> int:
    if as_json:
        raise ValueError("json: expected none with --picture, got --json")
    if not path.endswith(".png"):
        raise ValueError(f"picture: expected a name that ends in .png, got {path!r}")
    check_place("picture", path)
    of_names.draw_table(of_names.load(chosen), Path(path))
    stderr().print(f"wrote {path}", markup=False)
    return 0
