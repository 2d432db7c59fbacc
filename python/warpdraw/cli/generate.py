"""`warpdraw generate`: text from prompts."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from ..generation.loop import stream as stream_events
from ..generation.params import SamplingParams
from ..generation.results import Completion, Event, Throughput
from ..generation.speculation import Speculation
from ..model import weights
from . import options
from .device import device as device_of
from .device import dtype as dtype_of
from .explain import step_lines
from .guards import CheckedEvents, guards_of, guide_of, print_actions
from .parameters import parameters_of, with_drawing_options
from .speculation import Comparison, print_speculation, speculation_document, speculation_of
from .strategies import print_completions, strategy_of
from .terminal import TASK, error_line, json_text, progress, stderr, stdout

EXAMPLES = """Examples:

warpdraw generate "The sky is" --seed 7

warpdraw generate "The sky is" "The grass is" --n 3 --temperature 0.7 --top-p 0.9 --stop .

warpdraw generate "The sky is" --explain --top-k 3 --max-tokens 1

warpdraw generate "The sky is" --ban " blue" --bias " grey=2" --no-repeat-ngram 3

warpdraw generate "The sky is" --json-schema schema.json --max-tokens 200

warpdraw generate "The sky is" --ban-phrase "blue and" --stop-on-repeat 3 --forbid "[0-9]" --retry 5

warpdraw generate "The sky is" --seed 7 --draft tiny-draft --stats

warpdraw generate "The sky is" --seed 7 --draft suffix --draft-tokens 8 --compare

warpdraw generate "The sky is" --seed 7 --dtype auto

warpdraw generate "The sky is" --beams 4 --n 2 --length-penalty 0.8

warpdraw generate "The sky is" --seed 7 --best-of 5

warpdraw generate "The sky is" --seed 7 --guidance 1.5 --negative-prompt "The grass is"

cat prompts.txt | warpdraw generate - --json > completions.json"""


# The same as those of the op: no number stands here twice.
_DEFAULT = SamplingParams()


@with_drawing_options
def generate(
    prompts: options.Prompts,
    model: options.Model = "tiny-target",
    seed: options.Seed = None,
    n: options.Samples = _DEFAULT.n,
    max_tokens: options.MaxTokens = _DEFAULT.max_tokens,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    grammar: options.Grammar = None,
    prefix: options.Prefix = None,
    stop_on_repeat: options.StopOnRepeat = None,
    forbid: options.Forbid = None,
    require: options.Require = None,
    refuse_personal_data: options.RefusePersonalData = False,
    retry: options.Retry = None,
    draft: options.Draft = None,
    draft_tokens: options.DraftTokens = Speculation.tokens,
    draft_method: options.DraftMethod = Speculation.method,
    fixed_draft_tokens: options.FixedDraftTokens = False,
    draft_ngram: options.DraftNgram = Speculation.ngram,
    compare: options.Compare = False,
    beams: options.Beams = None,
    length_penalty: options.LengthPenalty = None,
    early_stopping: options.EarlyStopping = None,
    best_of: options.BestOf = None,
    contrastive_alpha: options.ContrastiveAlpha = None,
    contrastive_k: options.ContrastiveK = None,
    guidance: options.Guidance = _DEFAULT.guidance,
    negative_prompt: options.NegativePrompt = None,
    mirostat: options.Mirostat = _DEFAULT.mirostat,
    mirostat_tau: options.MirostatTau = _DEFAULT.mirostat_tau,
    mirostat_eta: options.MirostatEta = _DEFAULT.mirostat_eta,
    stream: options.Stream = False,
    as_json: options.AsJson = False,
    explain: options.Explain = False,
    candidates: options.Candidates = 8,
    logprobs: options.Logprobs = _DEFAULT.logprobs,
    logprobs_of: options.LogprobsOf = _DEFAULT.logprobs_of,
    kept: options.Kept = _DEFAULT.kept,
    stats: options.Stats = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    threads: options.Threads = None,
    max_rows: options.MaxRows = 64,
    no_graphs: options.NoGraphs = False,
    **drawing: Any,
) -> int:
    """Continue each PROMPT, with the same text every time for the same seed.

    The text goes to standard output, the seed (if none was given) to standard error.

    A TOKEN is an id, or a text as --explain prints it, with or without its quotes.
    """
    given = locals() | drawing
    strategy = strategy_of(beams, length_penalty, early_stopping, best_of, contrastive_alpha, contrastive_k)
    chosen = parameters_of(given) | {"guide": guide_of(json_schema, regex, grammar)}
    guards = guards_of(forbid, require, refuse_personal_data, retry)
    if guards and (stream or explain or compare):
        raise ValueError("--forbid, --require, --refuse-personal-data: expected without --stream, --explain, --compare")
    if strategy is not None:
        searches = strategy.reads is not None
        chosen["seed"] = seed if searches else chosen["seed"]
        switches = {"--stream": stream, "--explain": explain, "--compare": compare, "--draft": draft is not None}
        switches["--forbid, --require, --refuse-personal-data"] = bool(guards)
        strategy.check(chosen, {option: on and (searches or option != "--draft") for option, on in switches.items()})
    for option, on in (("--mirostat", mirostat), ("--guidance", guidance != _DEFAULT.guidance)):
        if on and draft is not None:
            raise ValueError(f"{option}: expected without --draft, got both")
    params = SamplingParams(**chosen)
    place, precision = device_of(device), dtype_of(dtype)
    texts = _read_prompts(prompts)
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = weights.load(model, precision, place)
    speculation = speculation_of(
        draft, draft_tokens, draft_method, not fixed_draft_tokens, draft_ngram, place, precision
    )
    if compare and speculation is None:
        raise ValueError("--compare: expected together with --draft, got no --draft")
    chosen_run: dict[str, Any] = {"max_rows": max_rows, "graphs": False if no_graphs else None}
    if strategy is not None:
        run = {"max_rows": max_rows} if strategy.reads is not None else {**chosen_run, "draft": speculation}
        found = strategy.run(checkpoint, texts, params, run)
        if seed is None and params.seed is not None:
            print(f"seed {params.seed} (repeat with --seed {params.seed})", file=sys.stderr)
        if as_json:
            print(json_text(_document(model, params, found, found.throughput) | {"strategy": strategy.document}, 2))
        else:
            print_completions(texts, found)
        if stats or stderr().is_terminal:
            print_speculation(found.throughput, None)
        return _failures(found)
    events = (
        CheckedEvents(checkpoint, texts, params, guards, chosen_run | {"draft": speculation})
        if guards
        else stream_events(
            checkpoint, texts, params, explain=candidates if explain else 0, draft=speculation, **chosen_run
        )
    )
    if seed is None:
        print(f"seed {params.seed} (repeat with --seed {params.seed})", file=sys.stderr)

    shown: list[Event] = []
    printer = TextPrinter(texts, n, explain)
    with progress(len(texts) * n * max_tokens, "generating", wanted=not stream) as bar:
        for event in events:
            shown.append(event)
            if stream and as_json:
                print(json_text(dataclasses.asdict(event)), flush=True)
            elif stream:
                printer.add(event)
            saved = max_tokens - event.completion.completion_tokens if event.completion else 0
            bar.advance(TASK, len(event.token_ids) + saved)

    completions = [event.completion for event in shown if event.completion is not None]
    completions.sort(key=lambda completion: (completion.index, completion.sample))
    compared = None
    if compare and speculation is not None:
        compared = Comparison.of(checkpoint, texts, params, speculation, chosen_run)
    if as_json and not stream:
        document = _document(model, params, completions, events.throughput)
        if speculation is not None:
            document["speculation"] = speculation_document(str(draft), speculation, events.throughput, compared)
        print(json_text(document, indent=2))
    elif not stream:
        for event in shown:
            printer.add(event)
    print_actions(completions)
    _print_summary(completions, events.throughput)
    if stats or compare or stderr().is_terminal:
        print_speculation(events.throughput, compared)
    if compared is not None and not compared.same_text and speculation is not None and speculation.keeps_text:
        error_line(compared.difference)
        return 1

    return _failures(completions)


class TextPrinter:
    """Prints samples one after the other, in order, each as far as its events have come."""

    def __init__(self, prompts: list[str], n: int, explain: bool) -> None:
        self._prompts, self._explain = prompts, explain
        self._console = stdout()
        self._order = [(index, sample) for index in range(len(prompts)) for sample in range(n)]
        self._heads = len(self._order) > 1
        self._events: dict[tuple[int, int], list[Event]] = {key: [] for key in self._order}
        self._begun = False

    def add(self, event: Event) -> None:
        """Take one event, and print what can be printed now."""
        self._events[event.index, event.sample].append(event)
        while self._order and self._events[self._order[0]]:
            index, sample = self._order[0]
            if not self._begun:
                self._begin(index, sample)
                self._begun = True
            for waiting in self._events[index, sample]:
                self._print(waiting)
            if waiting.completion is None:
                self._events[index, sample].clear()
                break
            self._order.pop(0)
            self._begun = False
        self._console.file.flush()

    def _begin(self, index: int, sample: int) -> None:
        if self._heads:
            self._write(f"[prompt {index + 1}, sample {sample + 1}]\n", "bold")
        if not self._explain:
            self._write(self._prompts[index], "dim")

    def _print(self, event: Event) -> None:
        if self._explain:
            if event.step is not None:
                self._console.print(*step_lines(event.step, unicode=_draws_blocks(self._console)), sep="\n")
            if event.completion is not None:
                self._write(self._prompts[event.index], "dim")
                self._write(event.completion.text)
        else:
            self._write(event.text)
        if event.completion is not None:
            self._write("\n\n" if self._heads and len(self._order) > 1 else "\n")

    def _write(self, text: str, style: str = "") -> None:
        # Text goes out as it is: a console would drop control characters and wrap.
        if style and self._console.is_terminal:
            self._console.print(Text(text, style=style), end="")
        else:
            self._console.file.write(text)


def _draws_blocks(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _read_prompts(prompts: list[str]) -> list[str]:
    if "-" not in prompts:
        return prompts
    try:
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input: expected UTF-8 text: {error}") from error
    if not lines:
        raise ValueError("standard input: expected at least one prompt, one a line, got none")
    at = prompts.index("-")
    return [*prompts[:at], *lines, *(prompt for prompt in prompts[at:] if prompt != "-")]


def _document(
    model: str, params: SamplingParams, completions: list[Completion], throughput: Throughput
) -> dict[str, Any]:
    rates = {
        "prefill_tokens_per_second": throughput.prefill_tokens_per_second,
        "tokens_per_second": throughput.tokens_per_second,
    }
    return {
        "model": model,
        "params": dataclasses.asdict(params),
        "completions": [dataclasses.asdict(completion) for completion in completions],
        "throughput": dataclasses.asdict(throughput) | rates,
    }


def _failures(completions: list[Completion]) -> int:
    """Say what failed; the exit code."""
    failed = [completion for completion in completions if completion.error is not None]
    for completion in failed:
        error_line(f"prompt {completion.index + 1}, sample {completion.sample + 1}: {completion.error}")
    return 1 if failed else 0


def _print_summary(completions: list[Completion], throughput: Throughput) -> None:
    console = stderr()
    if console.is_terminal:
        reasons = ", ".join(dict.fromkeys(completion.finish_reason for completion in completions))
        tokens, rate = throughput.completion_tokens, throughput.tokens_per_second
        console.print(f"{tokens} tokens ({reasons}), {rate:,.0f} tokens/s", style="dim")
