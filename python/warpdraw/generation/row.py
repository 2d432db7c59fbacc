"""One running sample: what was asked for, what it has drawn so far, and when it ends."""

from __future__ import annotations

from ..model.weights import Checkpoint
from .pace import Pace
from .params import end_ids, sample_seed
from .place import Drawn, Place
from .request import Request
from .results import Acceptance, Completion, Event, FinishReason, KeptTokens, Step, TokenLogprob
from .streaming import TextStream

NO_SLOT = -1


class Row:
    """One running sample: its slot in the cache and what has come of it so far."""

    def __init__(self, model: Checkpoint, request: Request, sample: int, slot: int, context: int) -> None:
        params = request.params
        self.request, self.params, self.sample, self.slot = request, params, sample, slot
        self.negative_slot = NO_SLOT  # where the row is guided
        self.seed = sample_seed(request.seed, sample)
        self.ends = end_ids(params, model.eos_ids)
        self.limit = min(params.max_tokens, context - request.longest)
        self.tokens: list[int] = []
        self.place = Place(request.name, params, request.lists, self.seed, request.ids, self.ends, self.tokens)
        self.text = TextStream(model.tokenizer.decode, request.ids, params.stop)
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.kept: list[KeptTokens] = []
        self.steps: list[Step] = []
        self.finished = False
        self.pace: Pace | None = None  # where tokens are drafted
        self.acceptance = Acceptance()

    @property
    def length(self) -> int:
        """How many tokens the sequence has, prompt included."""
        return len(self.request.ids) + len(self.tokens)

    def tokens_from(self, position: int) -> list[int]:
        """The tokens of the sequence from a position on."""
        drawn = position - len(self.request.ids)
        return self.tokens[drawn:] if drawn >= 0 else self.request.ids[position:] + self.tokens

    def advance(self, drawn: Drawn) -> Event:
        """Take the token, decide whether it ends the sample, and report."""
        reason: FinishReason | None = None
        stop: str | int | None = None
        error, piece = None, ""
        if drawn.token is None:
            reason = "error"
            error = f"no token can be drawn at position {self.place.position}: {drawn.problem}"
        else:
            self.tokens.append(drawn.token)
        armed = len(self.tokens) >= self.params.min_tokens
        if drawn.token in self.ends:
            reason, stop = "stop", drawn.token
        elif drawn.token is not None:
            piece = self.text.push(drawn.token, armed)
            if len(self.tokens) == self.limit:
                reason = "length" if self.limit == self.params.max_tokens else "context"
        if self.text.stop is None and reason is not None:
            piece += self.text.finish(armed)
        if self.text.stop is not None:
            reason, stop = "stop", self.text.stop

        self.pieces.append(piece)
        if drawn.logprob is not None:
            self.logprobs.append(drawn.logprob)
        if drawn.kept is not None:
            self.kept.append(drawn.kept)
        if drawn.step is not None:
            self.steps.append(drawn.step)
        self.finished = reason is not None
        return Event(
            index=self.request.index,
            sample=self.sample,
            text=piece,
            token_ids=() if drawn.token is None else (drawn.token,),
            finish_reason=reason,
            logprob=drawn.logprob,
            kept=drawn.kept,
            step=drawn.step,
            completion=None if reason is None else self._completion(reason, stop, error),
        )

    def end(self, reason: FinishReason) -> Event:
        """End the sample before its next token, with the text so far."""
        piece = self.text.finish(len(self.tokens) >= self.params.min_tokens)
        self.pieces.append(piece)
        self.finished = True
        return Event(
            index=self.request.index,
            sample=self.sample,
            text=piece,
            token_ids=(),
            finish_reason=reason,
            completion=self._completion(reason, None, None),
        )

    def _completion(self, reason: FinishReason, stop: str | int | None, error: str | None) -> Completion:
        return Completion(
            prompt=self.request.prompt,
            text="".join(self.pieces),
            token_ids=self.tokens,
            finish_reason=reason,
            stop=stop,
            seed=self.seed,
            prompt_tokens=len(self.request.ids),
            completion_tokens=len(self.tokens),
            logprobs=None if self.params.logprobs is None else self.logprobs,
            kept=None if self.params.kept is None else self.kept,
            index=self.request.index,
            sample=self.sample,
            error=error,
            steps=self.steps or None,
            speculation=None if self.pace is None else self.acceptance,
        )
