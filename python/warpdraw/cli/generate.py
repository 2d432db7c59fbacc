"""`warpdraw generate`: text from prompts."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.text import Text

from ..generation.loop import stream as stream_events
from ..generation.params import ORDERS, SamplingParams, fresh_seed
from ..generation.results import Completion, Event, Throughput
from ..model import weights
from .explain import step_lines
from .terminal import TASK, error_line, json_text, progress, stderr, stdout
from .values import count, integer, number

EXAMPLES = """Examples:

warpdraw generate "The sky is" --seed 7

warpdraw generate "The sky is" "The grass is" --n 3 --temperature 0.7 --top-p 0.9 --stop .

warpdraw generate "The sky is" --explain --top-k 3 --max-tokens 1

cat prompts.txt | warpdraw generate - --json > completions.json"""


def _filter(help: str, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="How to draw", **options)


def _limit(help: str, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="When to stop", **options)


def _output(*names: str, help: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="What to print", **options)


Prompts = Annotated[
    list[str],
    typer.Argument(metavar="PROMPT", help="Text to continue; - reads prompts from standard input, one a line."),
]
Model = Annotated[str, typer.Option("--model", "-m", help="Shipped model, checkpoint folder or Hugging Face hub name.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: as torch decides.", parser=count)]
MaxRows = Annotated[int, typer.Option(help="The most samples in the batch at once.", parser=count)]

Temperature = Annotated[float, _filter("Divides the logits; 0 is greedy.", parser=number)]
TopK = Annotated[int, _filter("Keep the k best tokens; 0 is off.", parser=integer)]
TopP = Annotated[float, _filter("Keep the best tokens up to this mass; 1 is off.", parser=number)]
MinP = Annotated[float, _filter("Keep tokens this probable relative to the best; 0 is off.", parser=number)]
Order = Annotated[str, _filter(f"Order of the filters: {', '.join(ORDERS)}.")]
Seed = Annotated[int | None, _filter("Seed of every prompt; without it a random one, printed.", parser=integer)]
Samples = Annotated[
    int, typer.Option("--n", "-n", help="Samples for each prompt.", rich_help_panel="How to draw", parser=integer)
]

MaxTokens = Annotated[int, _limit("The most tokens to draw.", parser=integer)]
MinTokens = Annotated[int, _limit("No end before this many tokens.", parser=integer)]
Stop = Annotated[list[str] | None, _limit("End the text before this string (repeat).")]
StopId = Annotated[list[int] | None, _limit("End the text at this token id (repeat).", parser=integer)]
IgnoreEos = Annotated[
    bool, typer.Option("--ignore-eos", help="Draw on after the end of a text.", rich_help_panel="When to stop")
]

Stream = Annotated[bool, _output("--stream", help="Print as it comes; with --json one event a line.")]
AsJson = Annotated[bool, _output("--json", help="Print JSON.")]
Explain = Annotated[bool, _output("--explain", help="Show how each token was drawn, or could have been.")]
Candidates = Annotated[int, _output("--candidates", help="How many leading candidates --explain shows.", parser=count)]
Logprobs = Annotated[
    int | None,
    _output("--logprobs", help="With --json: log-probability of each token and of this many others.", parser=integer),
]


def generate(
    prompts: Prompts,
    model: Model = "tiny-target",
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    order: Order = "vllm",
    seed: Seed = None,
    n: Samples = 1,
    max_tokens: MaxTokens = 64,
    min_tokens: MinTokens = 0,
    stop: Stop = None,
    stop_id: StopId = None,
    ignore_eos: IgnoreEos = False,
    stream: Stream = False,
    as_json: AsJson = False,
    explain: Explain = False,
    candidates: Candidates = 8,
    logprobs: Logprobs = None,
    threads: Threads = None,
    max_rows: MaxRows = 64,
) -> int:
    """Continue each PROMPT, with the same text every time for the same seed.

    The text goes to standard output, the seed (if none was given) to standard error.
    """
    chosen = fresh_seed() if seed is None else seed
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        order=order,
        seed=chosen,
        n=n,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=tuple(stop or ()),
        stop_ids=tuple(stop_id or ()),
        logprobs=logprobs,
        ignore_eos=ignore_eos,
    )
    texts = _read_prompts(prompts)
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = weights.load(model)
    events = stream_events(checkpoint, texts, params, max_rows=max_rows, explain=candidates if explain else 0)
    if seed is None:
        print(f"seed {chosen} (repeat with --seed {chosen})", file=sys.stderr)

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
    if as_json and not stream:
        print(json_text(_document(model, params, completions, events.throughput), indent=2))
    elif not stream:
        for event in shown:
            printer.add(event)
    _print_summary(completions, events.throughput)

    failed = [completion for completion in completions if completion.error is not None]
    for completion in failed:
        error_line(f"prompt {completion.index + 1}, sample {completion.sample + 1}: {completion.error}")
    return 1 if failed else 0


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


def _print_summary(completions: list[Completion], throughput: Throughput) -> None:
    console = stderr()
    if console.is_terminal:
        reasons = ", ".join(dict.fromkeys(completion.finish_reason for completion in completions))
        tokens, rate = throughput.completion_tokens, throughput.tokens_per_second
        console.print(f"{tokens} tokens ({reasons}), {rate:,.0f} tokens/s", style="dim")
