"""One running sample: what was asked for, what it has drawn so far, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..model.weights import Checkpoint
from .holding import MOST_REWINDS, Holding
from .pace import Pace
from .params import end_ids, sample_seed
from .phrases import Phrases
from .place import Drawn, Place
from .reports import NOTHING_LEFT
from .request import Request
from .results import Acceptance, Completion, Event, FinishReason, GuardAction, KeptTokens, Step, TokenLogprob
from .rules import RulesOf
from .streaming import TextStream

NO_SLOT = -1


@dataclass(frozen=True)
class Ending:
    """How a sample ends."""

    reason: FinishReason
    stop: str | int | None = None
    error: str | None = None
    action: GuardAction | None = None


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
        phrases = Phrases(params.ban_phrases, params.ban_case) if params.ban_phrases else None
        self.holding = None if phrases is None else Holding(phrases)  # what may be taken back
        bans = None if self.holding is None else self.holding.bans
        self.rules = RulesOf(model).of(request.name, params, self.ends, bans)
        self.place = Place(
            request.name, params, request.lists, self.seed, request.ids, self.ends, self.tokens, self.rules
        )
        self.text = TextStream(model.tokenizer.decode, request.ids, params.stop)
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.kept: list[KeptTokens] = []
        self.steps: list[Step] = []
        self.guarded: list[GuardAction] = []
        self.finished = False
        self.rewound = False  # whether tokens were taken back that the engine does not know of yet
        self.pace: Pace | None = None  # where tokens are drafted
        self.acceptance = Acceptance()

    @property
    def length(self) -> int:
        """How many tokens the sequence has, prompt included."""
        return len(self.request.ids) + len(self.tokens)

    @property
    def last(self) -> int:
        """The last token of the sequence."""
        return self.tokens[-1] if self.tokens else self.request.ids[-1]

    def tokens_from(self, position: int) -> list[int]:
        """The tokens of the sequence from a position on."""
        drawn = position - len(self.request.ids)
        return self.tokens[drawn:] if drawn >= 0 else self.request.ids[position:] + self.tokens

    def take(self, drawn: Drawn) -> list[Event]:
        """Take what was drawn, and report what is certain of it; `rewound` says whether tokens were taken back."""
        return [self.advance(drawn)] if self.holding is None else self._hold(drawn, self.holding)

    def advance(self, drawn: Drawn) -> Event:
        """Take the token, decide whether it ends the sample, and report."""
        piece, ending = self._read(drawn)
        return self._event(drawn, piece, ending)

    def end(self, reason: FinishReason) -> Event:
        """End the sample before its next token, with the text so far."""
        piece = self.text.finish(len(self.tokens) >= self.params.min_tokens)
        tokens: list[int] = []
        if self.holding is not None:
            self.holding.add_text(piece, self.text)
            if (found := self.holding.banned()) is not None:
                self.text = self.holding.take_back(*found, self.tokens)
            released = list(self.holding.release(everything=True))
            events = [self._event(drawn, piece, None) for drawn, piece in released]
            piece, tokens = "".join(event.text for event in events), [i for event in events for i in event.token_ids]
            self.pieces = self.pieces[: len(self.pieces) - len(events)]
        event = self._event(Drawn(None), piece, Ending(reason))
        return replace(event, token_ids=tuple(tokens))

    def _read(self, drawn: Drawn) -> tuple[str, Ending | None]:
        """Take the token: what it adds to the text, and whether and how it ends it."""
        ending: Ending | None = None
        piece = ""
        if drawn.token is None:
            ending = self._without_token(drawn)
        else:
            self.tokens.append(drawn.token)
        armed = len(self.tokens) >= self.params.min_tokens
        if drawn.token in self.ends:
            ending = Ending("stop", drawn.token)
        elif drawn.token is not None:
            piece = self.text.push(drawn.token, armed)
            if len(self.tokens) == self.limit:
                ending = Ending("length" if self.limit == self.params.max_tokens else "context")
            # Where nothing can follow but an end that cannot be drawn, the text ends without it.
            if self.rules and not (self.ends and armed) and self.rules.complete(self.tokens):
                ending = Ending("stop")
            repeats = self.params.stop_on_repeat
            if ending is None and armed and repeats is not None and (size := repeats.found(self.tokens)) is not None:
                why = f"the last {size} tokens came {repeats.count} times"
                ending = Ending("guard", action=GuardAction("stop_on_repeat", "stop", len(self.tokens), None, why))
        if self.text.stop is None and ending is not None:
            piece += self.text.finish(armed)
        if self.text.stop is not None:
            ending = Ending("stop", self.text.stop)
        return piece, ending

    def _without_token(self, drawn: Drawn) -> Ending:
        """How the text ends where no token can be drawn."""
        problem = (self.rules.problem if self.rules else "") or drawn.problem
        banned = self.holding.bans.get(len(self.tokens)) if self.holding else None
        if banned:
            problem = f"banned phrases begin in all that is left, {len(banned)} tokens"
        error = f"no token can be drawn at position {self.place.position}: {problem}"
        guards = [name for name in ("guide", "prefix") if getattr(self.params, name)] + ["ban_phrases"] * bool(banned)
        if not guards or drawn.problem != NOTHING_LEFT:
            return Ending("error", None, error)
        action = GuardAction(guards[-1], "stop", len(self.tokens), None, "nothing is left to say")
        return Ending("guard", None, error, action)

    def _hold(self, drawn: Drawn, holding: Holding) -> list[Event]:
        """Take the token as one that may be taken back, and report those that no longer may."""
        banned = len(self.tokens) in holding.bans
        if drawn.token is None and drawn.problem == NOTHING_LEFT and banned and holding.count:
            return self._rewind(holding.count - 1, f"nothing is left to say at {len(self.tokens)}", holding)
        before = self.text.fork()
        piece, ending = self._read(drawn)
        if drawn.token is None:
            holding.add_text(piece, self.text)
        else:
            holding.add(drawn, before, piece, self.text)
        found = holding.banned()
        if found is not None:
            return self._rewind(*found, holding)
        return self._released(drawn, ending, holding)

    def _rewind(self, at: int, why: str, holding: Holding) -> list[Event]:
        """Take back held tokens from one of them on."""
        self.text = holding.take_back(at, why, self.tokens)
        self.guarded.append(holding.actions[-1])
        self.rewound = True
        if holding.rewinds < MOST_REWINDS:
            return []
        error = f"ban_phrases: gave up after {MOST_REWINDS} rewinds, the last at {len(self.tokens)} for {why!r}"
        return self._released(Drawn(None), Ending("guard", None, error), holding)

    def _released(self, drawn: Drawn, ending: Ending | None, holding: Holding) -> list[Event]:
        released = list(holding.release(everything=ending is not None))
        if ending is not None and (drawn.token is None or not released):
            released.append((Drawn(None), ""))
        last = len(released) - 1
        return [self._event(*each, ending if at == last else None) for at, each in enumerate(released)]

    def _event(self, drawn: Drawn, piece: str, ending: Ending | None) -> Event:
        """Report a token and its text."""
        self.pieces.append(piece)
        if drawn.logprob is not None:
            self.logprobs.append(drawn.logprob)
        if drawn.kept is not None:
            self.kept.append(drawn.kept)
        if drawn.step is not None:
            self.steps.append(drawn.step)
        if ending is not None and ending.action is not None:
            self.guarded.append(ending.action)
        self.finished = ending is not None
        return Event(
            index=self.request.index,
            sample=self.sample,
            text=piece,
            token_ids=() if drawn.token is None else (drawn.token,),
            finish_reason=None if ending is None else ending.reason,
            logprob=drawn.logprob,
            kept=drawn.kept,
            step=drawn.step,
            completion=None if ending is None else self._completion(ending),
        )

    def _completion(self, ending: Ending) -> Completion:
        return Completion(
            prompt=self.request.prompt,
            text="".join(self.pieces),
            token_ids=self.tokens,
            finish_reason=ending.reason,
            stop=ending.stop,
            seed=self.seed,
            prompt_tokens=len(self.request.ids),
            completion_tokens=len(self.tokens),
            logprobs=None if self.params.logprobs is None else self.logprobs,
            kept=None if self.params.kept is None else self.kept,
            index=self.request.index,
            sample=self.sample,
            error=ending.error,
            steps=self.steps or None,
            speculation=None if self.pace is None else self.acceptance,
            guarded=tuple(self.guarded),
        )
