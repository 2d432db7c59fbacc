"""Drafts on the command line: the options made a Speculation, what became of the drafts, and a run without any."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..generation.loop import generate
from ..generation.params import SamplingParams
from ..generation.results import Completions, Throughput
from ..generation.speculation import LOOKUPS, Speculation
from ..model import CheckpointError, weights
from ..model.weights import Checkpoint
from .terminal import stderr

REPETITIONS = 5


def speculation_of(
    draft: str | None,
    tokens: int,
    method: str,
    adaptive: bool,
    ngram: int,
    device: torch.device,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> Speculation | None:
    """What the options say; errors name the option."""
    if draft is None:
        return None
    try:
        # The numbers first: a model may take long to load.
        checked = Speculation(draft if draft in LOOKUPS else LOOKUPS[0], tokens, adaptive=adaptive, ngram=ngram)
        drafts = draft if draft in LOOKUPS else weights.load(draft, dtype, device)
        return dataclasses.replace(checked, draft=drafts, method=method)
    except CheckpointError as error:
        raise ValueError(f"--draft: {error}") from None
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise ValueError(f"--draft-{name}:{rest}") from None


@dataclass(frozen=True)
class Comparison:
    """Runs with and without drafts, in turn, after one of each that does not count."""

    same_text: bool
    difference: str  # the first text that is another
    seconds: float  # of decoding, the median
    seconds_without: float
    speedup: float  # the median of the pairs

    @staticmethod
    def of(
        model: Checkpoint, prompts: list[str], params: SamplingParams, speculation: Speculation, options: dict[str, Any]
    ) -> Comparison:
        """Generate for prompts with both."""

        def run(draft: Speculation | None) -> Completions:
            return generate(model, prompts, params, draft=draft, **options)

        drafted, plain = run(speculation), run(None)
        pairs = []
        for _ in range(REPETITIONS):
            pairs.append([run(draft).throughput.decode_seconds for draft in (speculation, None)])
        difference = next(
            (
                f"--compare: the text of prompt {one.index + 1}, sample {one.sample + 1} is not the one without drafts"
                for one, other in zip(drafted, plain, strict=True)
                if (one.text, one.token_ids) != (other.text, other.token_ids)
            ),
            "",
        )
        return Comparison(
            not difference,
            difference,
            statistics.median(seconds for seconds, _ in pairs),
            statistics.median(seconds for _, seconds in pairs),
            statistics.median(without / seconds for seconds, without in pairs),
        )


def speculation_document(
    draft: str, speculation: Speculation, throughput: Throughput, compared: Comparison | None
) -> dict[str, Any]:
    """For --json."""
    assert throughput.speculation is not None
    stats = throughput.speculation
    document = {
        "draft": draft,
        "draft_tokens": speculation.tokens,
        "method": speculation.method,
        "adaptive": speculation.adaptive,
        **dataclasses.asdict(stats),
        "acceptance": stats.acceptance,
        "acceptance_by_place": stats.acceptance_by_place,
        "tokens_per_step": stats.tokens_per_step,
    }
    if compared is not None:
        record = dataclasses.asdict(compared)
        del record["difference"]
        document["compared"] = record
    return document


def print_speculation(throughput: Throughput, compared: Comparison | None) -> None:
    """For people, on standard error."""
    stats = throughput.speculation
    if stats is None:
        return
    places = " ".join(f"{100 * each:.0f}" for each in stats.acceptance_by_place)
    by_place = f", by place {places} %" if places else ""
    seconds = (("draft", stats.draft_seconds), ("model", stats.target_seconds), ("verify", stats.verify_seconds))
    times = ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in seconds)
    lines = [
        f"drafts: {sum(stats.accepted)} of {sum(stats.drafted)} accepted ({100 * stats.acceptance:.0f} %{by_place})",
        f"steps: {stats.steps}, {stats.tokens_per_step:.2f} tokens each; {times}",
    ]
    if compared is not None:
        text = "the same text" if compared.same_text else "another text"
        with_drafts, without = 1000 * compared.seconds, 1000 * compared.seconds_without
        lines.append(
            f"compared: {text}; {with_drafts:.1f} ms, without drafts {without:.1f} ms: "
            f"{compared.speedup:.2f} times as fast (median of {REPETITIONS} pairs)"
        )
    console = stderr()
    for line in lines:
        console.print(line, style="dim", markup=False)
