"""The options of `warpdraw generate`, in the groups that its help shows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..generation.params import LOGPROBS_OF, ORDERS
from ..generation.speculation import LOOKUPS, METHODS
from .values import bias, count, integer, number, token


def _draw(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="How to draw", **options)


def _filter(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="More filters", **options)


def _penalty(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Penalties and bans", **options)


def _limit(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="When to stop", **options)


def _guard(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Guard rails", **options)


def _draft(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Drafts", **options)


def _strategy(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Strategies", **options)


def _output(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="What to print", **options)


Prompts = Annotated[
    list[str],
    typer.Argument(metavar="PROMPT", help="Text to continue; - reads prompts from standard input, one a line."),
]
Model = Annotated[str, typer.Option("--model", "-m", help="Shipped model, checkpoint folder or Hugging Face hub name.")]
Device = Annotated[str, typer.Option(help="Where the model and the draw run: cpu, cuda or cuda:N.")]
Dtype = Annotated[
    str, typer.Option(help="What the weights are kept in: float32, bfloat16, float16, or auto, as they are stored.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: as torch decides.", parser=count)]
NoGraphs = Annotated[bool, typer.Option("--no-graphs", help="On a GPU, decode without CUDA graphs.")]
MaxRows = Annotated[int, typer.Option(help="The most samples in the batch at once.", parser=count)]

Temperature = Annotated[float, _draw("Divides the logits; 0 is greedy.", parser=number)]
TopK = Annotated[int, _draw("Keep the k best tokens; 0 is off.", parser=integer)]
TopP = Annotated[float, _draw("Keep the best tokens up to this mass; 1 is off.", parser=number)]
MinP = Annotated[float, _draw("Keep tokens this probable relative to the best; 0 is off.", parser=number)]
Order = Annotated[str, _draw(f"Order of the filters: {', '.join(ORDERS)}.")]
Seed = Annotated[int | None, _draw("Seed of every prompt; without it a random one, printed.", parser=integer)]
Samples = Annotated[int, _draw("Samples for each prompt.", "--n", "-n", parser=integer)]

DynatempRange = Annotated[
    float, _filter("Temperature up or down by as much, with the entropy; 0 is off.", parser=number)
]
DynatempExponent = Annotated[float, _filter("Of the entropy, for --dynatemp-range.", parser=number)]
TopNSigma = Annotated[
    float, _filter("Keep logits this many standard deviations below the best; 0 is off.", parser=number)
]
TypicalP = Annotated[float, _filter("Keep the tokens nearest to the entropy up to this mass; 1 is off.", parser=number)]
Epsilon = Annotated[float, _filter("Keep tokens at least this probable; 0 is off.", parser=number)]
Eta = Annotated[float, _filter("The same, less strict where the entropy is high; 0 is off.", parser=number)]
XtcProbability = Annotated[
    float, _filter("How often to drop all but the last probable token; 0 is off.", parser=number)
]
XtcThreshold = Annotated[float, _filter("What is probable, for --xtc-probability.", parser=number)]

RepetitionPenalty = Annotated[
    float, _penalty("Divides the logits of tokens in prompt and text; 1 is off.", parser=number)
]
FrequencyPenalty = Annotated[
    float, _penalty("Taken off for each time a token is in the text; 0 is off.", parser=number)
]
PresencePenalty = Annotated[float, _penalty("Taken off once if a token is in the text; 0 is off.", parser=number)]
DryMultiplier = Annotated[float, _penalty("Of DRY's penalty on prolonging a copy; 0 is off.", parser=number)]
DryBase = Annotated[float, _penalty("Its growth with each token of the copy...", parser=number)]
DryAllowedLength = Annotated[int, _penalty("...beyond this many.", parser=integer)]
DryBreaker = Annotated[
    list[str] | None, _penalty('A token with this text in it ends a copy (repeat); default: line end, :, " and *.')
]
NoRepeatNgram = Annotated[int, _penalty("No run of this many tokens twice; 0 is off.", parser=integer)]
Bias = Annotated[
    list[Any] | None,
    _penalty("Add NUMBER to the logit of a token (repeat).", metavar="TOKEN=NUMBER", parser=bias),
]
Ban = Annotated[
    list[Any] | None,
    _penalty("Never draw this token (repeat); --ban-phrase is for longer texts.", metavar="TOKEN", parser=token),
]
Allow = Annotated[list[Any] | None, _penalty("Draw no other token than this (repeat).", metavar="TOKEN", parser=token)]

MaxTokens = Annotated[int, _limit("The most tokens to draw.", parser=integer)]
MinTokens = Annotated[int, _limit("No end before this many tokens.", parser=integer)]
Stop = Annotated[list[str] | None, _limit("End the text before this string (repeat).")]
StopId = Annotated[list[int] | None, _limit("End the text at this token id (repeat).", parser=integer)]
IgnoreEos = Annotated[bool, _limit("Draw on after the end of a text.", "--ignore-eos")]

JsonSchema = Annotated[
    str | None, _guard("The text is JSON of this schema: a file, or the schema itself.", metavar="SCHEMA")
]
Regex = Annotated[str | None, _guard("The text matches this regular expression, as a whole.")]
Grammar = Annotated[str | None, _guard("The text is derived by the grammar in this file (Lark).", metavar="FILE")]
BanPhrase = Annotated[
    list[str] | None, _guard("The text never has this phrase (repeat), in capitals or not.", metavar="TEXT")
]
BanCase = Annotated[bool, _guard("--ban-phrase: capitals matter.", "--ban-case")]
Prefix = Annotated[list[str] | None, _guard("The text begins with this (repeat: with one of them).", metavar="TEXT")]
StopOnRepeat = Annotated[
    int | None, _guard("End the text where its last tokens are one pattern so many times.", parser=integer)
]
Forbid = Annotated[list[str] | None, _guard("Refuse a text in which this matches (repeat).", metavar="REGEX")]
Require = Annotated[list[str] | None, _guard("Refuse a text in which this matches nothing (repeat).", metavar="REGEX")]
RefusePersonalData = Annotated[
    bool, _guard("Refuse prompts and texts with e-mail addresses, phone numbers and such.", "--refuse-personal-data")
]
Retry = Annotated[
    int | None, _guard("Draw a text that is refused again, so many times at most, with other seeds.", parser=count)
]

Draft = Annotated[
    str | None,
    _draft(
        "What drafts tokens, which the model verifies several at once: a model (as --model), "
        f"or {' or '.join(LOOKUPS)}, which look into the text itself.",
        metavar="MODEL",
    ),
]
DraftTokens = Annotated[int, _draft("The most drafts in a step.", parser=integer)]
DraftMethod = Annotated[str, _draft(f"How drafts are accepted: {', '.join(METHODS)}.")]
FixedDraftTokens = Annotated[
    bool, _draft("Draft as many in each step, however many were accepted.", "--fixed-draft-tokens")
]
DraftNgram = Annotated[int, _draft("The longest n-gram that --draft ngram looks up.", parser=integer)]
Compare = Annotated[
    bool, _draft("Also run without drafts: is the text the same, and how much faster was it?", "--compare")
]

Beams = Annotated[int | None, _strategy("Search with so many beams instead of drawing; --n are shown.", parser=integer)]
LengthPenalty = Annotated[
    float | None, _strategy("With --beams: above 0 favours long texts; default 1.", parser=number)
]
EarlyStopping = Annotated[
    str | None, _strategy("With --beams: end with as many texts as beams: no (default), yes, never.")
]
BestOf = Annotated[
    int | None, _strategy("Draw so many samples, show the --n that the model finds best.", parser=integer)
]
ContrastiveAlpha = Annotated[
    float | None, _strategy("Contrastive search: the cost of resembling what was said, 0 to 1.", parser=number)
]
ContrastiveK = Annotated[
    int | None, _strategy("With --contrastive-alpha: how many tokens are compared; default 4.", parser=integer)
]
Guidance = Annotated[
    float, _strategy("How much more the prompt counts than the negative one; 1 is off.", parser=number)
]
NegativePrompt = Annotated[
    str | None, _strategy("What --guidance leads away from; default: the last token of the prompt.")
]
Mirostat = Annotated[int, _strategy("1 or 2: a filter that keeps the surprise constant; 0 is off.", parser=integer)]
MirostatTau = Annotated[float, _strategy("The mean surprise that --mirostat aims at, in bits.", parser=number)]
MirostatEta = Annotated[float, _strategy("How fast its filter follows.", parser=number)]

Stats = Annotated[bool, _output("Print what became of the drafts to standard error, on a terminal or not.", "--stats")]
Stream = Annotated[bool, _output("Print as it comes; with --json one event a line.", "--stream")]
AsJson = Annotated[bool, _output("Print JSON.", "--json")]
Explain = Annotated[bool, _output("Show how each token was drawn, or could have been.", "--explain")]
Candidates = Annotated[int, _output("How many leading candidates --explain shows.", parser=count)]
Logprobs = Annotated[
    int | None, _output("With --json: log-probability of each token and of this many others.", parser=integer)
]
LogprobsOf = Annotated[str, _output(f"Of which distribution the others are: {', '.join(LOGPROBS_OF)}.")]
Kept = Annotated[int | None, _output("With --json: how many tokens were kept, and this many ids.", parser=integer)]
