"""Strategies on the command line: the options made a search, what they exclude, and the texts that were found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

from rich.text import Text

from ..generation.beam import beam_search
from ..generation.best_of import best_of
from ..generation.contrastive import contrastive_search
from ..generation.params import SamplingParams
from ..generation.results import Completion, Completions
from ..generation.strategies import SEARCH_READS
from ..model.weights import Checkpoint
from .terminal import stderr, stdout

CONTRASTIVE_K = 4
# The options of parameters that have one of another name.
OPTIONS = {"guide": "--json-schema, --regex, --grammar", "ban_phrases": "--ban-phrase"}
EARLY_STOPPING: dict[str, bool | str] = {"no": False, "yes": True, "never": "never"}


@dataclass(frozen=True)
class Strategy:
    """A way to choose texts that is no draw, or more than one; `reads` are the parameters that it knows, None all."""

    option: str
    name: str
    function: Callable[..., Completions]
    values: dict[str, Any]
    reads: frozenset[str] | None

    def check(self, params: dict[str, Any], switches: dict[str, bool]) -> None:
        """ValueError, by both options, for parameters that it does not read and switches that are on."""
        for field in fields(SamplingParams):
            value = params.get(field.name, field.default)
            if self.reads is not None and field.name not in self.reads and value != field.default:
                option = OPTIONS.get(field.name, "--" + field.name.replace("_", "-"))
                raise ValueError(f"{option}: expected without {self.option}, which does not read it, got {value!r}")
        for option, on in switches.items():
            if on:
                raise ValueError(f"{option}: expected without {self.option}, got both")

    def run(
        self, model: Checkpoint, prompts: list[str], params: SamplingParams, options: dict[str, Any]
    ) -> Completions:
        """Find the texts; errors name the option."""
        console = stderr()
        with console.status(self.name) if console.is_terminal else nullcontext():
            try:
                return self.function(model, prompts, params, **self.values, **options)
            except ValueError as error:
                name, _, rest = str(error).partition(":")
                named = {"beams": self.option, "samples": self.option, "alpha": self.option, "k": "--contrastive-k"}
                named |= {"length_penalty": "--length-penalty", "params[0].n": "--n"}
                raise ValueError(f"{named.get(name, name)}:{rest}") from None

    @property
    def document(self) -> dict[str, Any]:
        """For --json."""
        return {"name": self.name, **self.values}


def strategy_of(
    beams: int | None,
    length_penalty: float | None,
    early_stopping: str | None,
    samples: int | None,
    alpha: float | None,
    k: int | None,
) -> Strategy | None:
    """What the options say, None being those that were not given."""
    chosen = [
        option
        for option, value in (("--beams", beams), ("--best-of", samples), ("--contrastive-alpha", alpha))
        if value is not None
    ]
    if len(chosen) > 1:
        raise ValueError(f"{chosen[1]}: expected without {chosen[0]}, got both")
    for option, value, needed, by in (
        ("--length-penalty", length_penalty, "--beams", beams),
        ("--early-stopping", early_stopping, "--beams", beams),
        ("--contrastive-k", k, "--contrastive-alpha", alpha),
    ):
        if value is not None and by is None:
            raise ValueError(f"{option}: expected together with {needed}, got no {needed}")
    if early_stopping not in (None, *EARLY_STOPPING):
        raise ValueError(f"--early-stopping: expected one of {', '.join(EARLY_STOPPING)}, got {early_stopping!r}")

    if beams is not None:
        values = {
            "beams": beams,
            "length_penalty": 1.0 if length_penalty is None else length_penalty,
            "early_stopping": EARLY_STOPPING[early_stopping or "no"],
        }
        return Strategy("--beams", "beam search", beam_search, values, SEARCH_READS | {"n"})
    if alpha is not None:
        values = {"alpha": alpha, "k": CONTRASTIVE_K if k is None else k}
        return Strategy("--contrastive-alpha", "contrastive search", contrastive_search, values, SEARCH_READS)
    if samples is not None:
        return Strategy("--best-of", "best of n", best_of, {"samples": samples}, None)
    return None


def print_completions(prompts: list[str], completions: list[Completion]) -> None:
    """The texts after their prompts, with their places and scores where there are several."""
    console, several = stdout(), len(completions) > 1
    for number, completion in enumerate(completions):
        head = f"[prompt {completion.index + 1}, sample {completion.sample + 1}"
        if completion.score is not None:
            head += f", score {completion.score:.4f}"
        for text, style in ((f"{head}]\n" if several else "", "bold"), (prompts[completion.index], "dim")):
            if console.is_terminal:
                console.print(Text(text, style=style), end="")
            else:
                console.file.write(text)
        console.file.write(completion.text + ("\n\n" if number + 1 < len(completions) else "\n"))
