"""What generation gives back: events while it runs, completions at the end, and how fast it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "context", "guard", "error", "cancelled", "deadline"]


@dataclass(frozen=True)
class TokenLogprob:
    """The natural log-probabilities of one drawn token.

    logprob      in the distribution that it was drawn from, after penalties, temperature and filters.
    raw_logprob  in the model's own distribution.
    rank         its place among the model's tokens, the most probable first, from 1.
    top          (token id, log-probability) of the most probable tokens, if asked for, of the model or of the kept
                 tokens, as the request's logprobs_of says.
    """

    token: int
    logprob: float
    raw_logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that one draw chose from: how many, and the first of their ids, ascending, as many as asked for."""

    count: int
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One token that a step could have drawn.

    probability           in the model's own distribution.
    filtered_probability  in the distribution that was drawn from; 0 where dropped.
    """

    token: str
    id: int
    probability: float
    filtered_probability: float
    kept: bool
    drawn: bool


@dataclass(frozen=True)
class Step:
    """How one token was drawn: the leading candidates, how many tokens were kept, and the mass not shown."""

    position: int
    kept: int
    candidates: tuple[Candidate, ...]
    rest: float


@dataclass
class Acceptance:
    """What became of drafts.

    steps            steps in which the model verified drafts and drew a token, or only drew one. (The first token of
                     a sample comes from its prompt, without a step.)
    tokens           tokens that the steps added to texts; those after the end of a text do not count.
    drafted          how many drafts there were at each place in a step, the first one first.
    accepted         how many of them were accepted.
    """

    steps: int = 0
    tokens: int = 0
    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def add(self, drafted: int, accepted: int) -> None:
        """Count a step."""
        self.steps += 1
        while len(self.drafted) < drafted:
            self.drafted.append(0)
            self.accepted.append(0)
        for place in range(drafted):
            self.drafted[place] += 1
            self.accepted[place] += place < accepted

    @property
    def acceptance(self) -> float:
        """Accepted drafts as a part of all drafts."""
        return sum(self.accepted) / sum(self.drafted) if self.drafted else 0.0

    @property
    def acceptance_by_place(self) -> list[float]:
        """The same at each place in a step: a draft is accepted only after those before it."""
        return [accepted / drafted for accepted, drafted in zip(self.accepted, self.drafted, strict=True)]

    @property
    def tokens_per_step(self) -> float:
        """1 without drafts."""
        return self.tokens / self.steps if self.steps else 0.0


@dataclass
class SpeculationStats(Acceptance):
    """What became of the drafts of a whole run, and the seconds in drafting, in the model and in verifying."""

    draft_seconds: float = 0.0
    target_seconds: float = 0.0
    verify_seconds: float = 0.0


@dataclass(frozen=True)
class GuardAction:
    """Something that a guard rail did to a sample.

    guard     which one: "ban_phrases", or the name of another.
    action    "rewind" (the text was taken back to a position, where a token is banned) or "stop".
    position  the index in the sample's tokens.
    token     the id that was banned there.
    detail    why: the phrase that the text would have had, for example.
    """

    guard: str
    action: str
    position: int | None = None
    token: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Completion:
    """One finished sample.

    prompt             as it was given, text or token ids.
    text               the generated text, without the stop string or stop token that ended it.
    token_ids          every token drawn, the one that ended the text included.
    finish_reason      "stop" (a stop string, a stop id or an end-of-text token; `stop` says which), "length"
                       (max_tokens), "context" (the context is full), "guard" (a guard rail ended the text, or left
                       nothing to say), "error" (`error` says what), or, in an `Engine`, "cancelled" or "deadline".
    seed               the seed of this sample: with it, and n = 1, the same text comes again.
    index, sample      which prompt, and which of its n samples.
    speculation        what became of its drafts, where there were any.
    guarded            what guard rails did to it, in order.
    score              what a strategy ranked it by, where there was one: see `beam_search` and `best_of`.
    """

    prompt: str | list[int]
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    stop: str | int | None
    seed: int
    prompt_tokens: int
    completion_tokens: int
    logprobs: list[TokenLogprob] | None
    kept: list[KeptTokens] | None = None
    index: int = 0
    sample: int = 0
    error: str | None = None
    steps: list[Step] | None = None
    speculation: Acceptance | None = None
    guarded: tuple[GuardAction, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class Event:
    """News of one sample: a token was drawn, or drawing failed.

    With ``ban_phrases`` tokens that may still be taken back have no events; several may follow at once.

    text           what the token adds to the text: whole characters, nothing of a stop string; often ''.
    token_ids      the tokens drawn since the last event of this sample.
    finish_reason  None until the last event of the sample, which also carries its completion.
    """

    index: int
    sample: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprob: TokenLogprob | None = None
    kept: KeptTokens | None = None
    step: Step | None = None
    completion: Completion | None = None


@dataclass
class Throughput:
    """Tokens and seconds of a whole run; the time between its events is not counted.

    Where CUDA graphs are on: how many were made, the decode steps that they ran, and the others by their reason.
    Where tokens are drafted: what became of the drafts.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    graphs: int = 0
    graph_steps: int = 0
    eager_steps: dict[str, int] = field(default_factory=dict)
    speculation: SpeculationStats | None = None

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens read per second of prefill."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens drawn per second of decoding (model, draw and text), all samples together."""
        return self.completion_tokens / self.decode_seconds if self.decode_seconds else 0.0


class Completions(list[Completion]):
    """The completions in the order of the prompts, the samples of a prompt side by side, and `throughput`."""

    def __init__(self, completions: list[Completion], throughput: Throughput) -> None:
        super().__init__(completions)
        self.throughput = throughput
