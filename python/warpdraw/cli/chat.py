"""`warpdraw chat`: a conversation in the terminal, or with standard input."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from typing import Annotated, Any

import torch
import typer

from ..chat import Chat, ChatTemplate
from ..chat.chat import default_max_tokens
from ..generation.params import SamplingParams
from ..generation.speculation import Speculation
from ..model import weights
from ..model.locate import SHIPPED
from . import options
from .device import device as device_of
from .dialogue import Dialogue
from .parameters import parameters_of, with_drawing_options
from .speculation import speculation_of
from .values import integer

EXAMPLES = """Examples:

warpdraw chat

warpdraw chat --model ./Qwen3-0.6B --system "Answer in one sentence." --temperature 0.7 --top-p 0.9

warpdraw chat --model ./Qwen3-0.6B --template-set enable_thinking=false

warpdraw chat --seed 7 --draft tiny-draft

cat questions.txt | warpdraw chat --seed 7 --json > answers.jsonl"""

_DEFAULT = SamplingParams()


def template_value(text: str | tuple[str, Any]) -> tuple[str, Any]:
    """A name and what a template finds under it: JSON, or else the text itself."""
    if isinstance(text, tuple):
        return text
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z]\w*", name):
        raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _about(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Conversation", **more)


System = Annotated[str | None, _about("The system prompt.", metavar="TEXT")]
Template = Annotated[str | None, _about("A file with the chat template; default: the checkpoint's.", metavar="FILE")]
TemplateSet = Annotated[
    list[Any] | None,
    _about("A name that the template reads, as JSON or text (repeat).", metavar="NAME=VALUE", parser=template_value),
]
AsJson = Annotated[bool, _about("Print one line of JSON for each answer.", "--json")]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="The most tokens of an answer; default 256, or half of a smaller context.",
        rich_help_panel="When to stop",
        parser=integer,
    ),
]


@with_drawing_options
def chat(
    model: options.Model = "tiny-target",
    system: System = None,
    template: Template = None,
    template_set: TemplateSet = None,
    as_json: AsJson = False,
    seed: options.Seed = None,
    max_tokens: MaxTokens = None,
    draft: options.Draft = None,
    draft_tokens: options.DraftTokens = Speculation.tokens,
    draft_method: options.DraftMethod = Speculation.method,
    fixed_draft_tokens: options.FixedDraftTokens = False,
    draft_ngram: options.DraftNgram = Speculation.ngram,
    mirostat: options.Mirostat = _DEFAULT.mirostat,
    mirostat_tau: options.MirostatTau = _DEFAULT.mirostat_tau,
    mirostat_eta: options.MirostatEta = _DEFAULT.mirostat_eta,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    no_graphs: options.NoGraphs = False,
    **drawing: Any,
) -> int:
    """Talk with a model: a message a line, and its answer as it comes.

    /help lists the commands for parameters, seeds, undoing and saving. Ctrl-C stops an answer, Ctrl-D ends.

    Where standard input is no terminal, each of its lines is a message or command, and only answers are printed.

    The shipped tiny-target is no chat model: it continues texts, such as "The sky is".
    """
    given = locals() | drawing
    place = device_of(device)
    chosen = parameters_of(given)
    if max_tokens is None:
        chosen["max_tokens"] = max(1, drawing["min_tokens"])
    params = SamplingParams(**chosen)
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = weights.load(model, device=place)
    if max_tokens is None:
        params = dataclasses.replace(params, max_tokens=max(drawing["min_tokens"], default_max_tokens(checkpoint)))
    conversation = Chat(
        checkpoint,
        params,
        system=system,
        draft=speculation_of(draft, draft_tokens, draft_method, not fixed_draft_tokens, draft_ngram, place),
        template=ChatTemplate.load(checkpoint, template),
        variables=dict(template_set or []),
        graphs=False if no_graphs else None,
    )
    if seed is None:
        print(f"seed {params.seed} (repeat with --seed {params.seed})", file=sys.stderr)
    dialogue = Dialogue(conversation, as_json)
    if dialogue.interactive:
        dialogue.note(f"{model}, context {checkpoint.config.max_positions}; /help lists what else there is")
        if model in SHIPPED:
            dialogue.note(f'{model} is no chat model: it continues texts about everyday things, such as "The sky is"')
    return dialogue.run()
