"""Measures rounds of speculation whose drafts are accepted as often as is wanted, against plain decode steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .. import ops
from ..model.cache import KVCache
from ..model.transformer import Transformer
from .decode_steps import bind_after, check_finite
from .gpu_clock import Clock, Run
from .gpu_jobs import COMBINED, DRAFTS, ROWS_OF
from .gpu_methods import OURS
from .gpu_work import VERIFIED_ROWS
from .peers import Speculator
from .speculation_cases import POSITION, SEED, Drafted, arguments
from .speculation_checks import check_verdicts
from .verify import NotVerified, check_equal

RULES, PEERS_RULE = ("coupled", "rejection"), "rejection"
RATES = (0.5, 0.7, 0.9)
PLAIN_STEP, MODELS = f"{OURS}, a plain step", "the models alone"
JOB = ROWS_OF[COMBINED][0]
FILTERS = {**asdict(JOB), "order": "hf"}
FLATTER = 0.7  # rows of drafts, times the target's


def lengths_of(rate: float, batch: int, drafts: int) -> Tensor:
    """How many drafts of each request are accepted, i64 [B]: quantiles of the law by which each is with `rate`."""
    parts = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
    return (parts[:, None] < rate ** torch.arange(1, drafts + 1, dtype=torch.float64)).sum(1)


def tokens_of(rate: float, drafts: int) -> float:
    """How many tokens a request gets of a round, on average: the accepted drafts and the one after them."""
    return sum(rate**place for place in range(drafts + 1))


@dataclass(frozen=True)
class Method:
    """What verifies drafts: `peer`, or we by a rule where there is none."""

    name: str
    rule: str
    rate: float
    peer: Speculator | None = None

    @property
    def title(self) -> str:
        """Names it among the others of a place."""
        return f"{self.name}, {self.rule}, {self.rate:g}"


@dataclass(frozen=True)
class Chosen:
    """Drafts of which as many are accepted as `lengths` [B] says, and the rows that they are drafts of."""

    tokens: Tensor  # [B, K+1]: the last token and the drafts
    draft: Tensor  # [B, K, V]
    lengths: Tensor


class Rounds:
    """K steps of a draft model, each with a draw, the target's rows of all places at once, and their verification.

    What the draft model draws is not what is verified: with random weights hardly a token would be accepted. Instead
    the drafts are chosen, and their rows made from the target's. The noise does not move on, so that all rounds are
    the same.
    """

    def __init__(
        self,
        target: tuple[Transformer, KVCache],
        drafter: tuple[Transformer, KVCache],
        batch: int,
        clock: Clock,
        peers: Mapping[str, Speculator],
    ) -> None:
        device = clock.device
        (self._target, self._cache), (self._drafter, self._draft_cache) = target, drafter
        self._clock, self._peers, self.batch = clock, peers, batch
        generator = torch.Generator(device).manual_seed(batch)
        size = (batch, DRAFTS + 1)
        self._first = torch.randint(self._target.config.vocab_size, size, generator=generator, device=device)
        self._slots = torch.arange(batch, device=device)
        self._places = self._cache.capacity
        self._positions = torch.arange(self._places - DRAFTS - 1, self._places, device=device).repeat(batch, 1)
        self._seed = SEED + self._slots
        self._position = torch.full_like(self._seed, POSITION)
        self._noise = [{"seed": self._seed, "position": self._position + place} for place in range(DRAFTS + 1)]
        self._drawn = torch.empty_like(self._seed)
        self.tokens = torch.empty_like(self._first)

    def _rows(self, tokens: Tensor) -> Tensor:
        """The target's logits [B, K+1, V] of a round whose last token and drafts are `tokens` [B, K+1]."""
        for place in range(DRAFTS):
            self._draw(self._last(self._drafter, self._draft_cache, tokens, place), place)
        return self._target.decode(tokens, self._cache, self._slots, self._positions, self._places)

    def _last(self, model: Transformer, cache: KVCache, tokens: Tensor, place: int) -> Tensor:
        """The logits [B, V] of a step of one token."""
        at = slice(place, place + 1)
        return model.decode(tokens[:, at], cache, self._slots, self._positions[:, at], self._places)[:, 0]

    def _draw(self, logits: Tensor, place: int) -> Tensor:
        return cast(Tensor, ops.sample(logits, **FILTERS, **self._noise[place], tokens=self._drawn).tokens)

    def choose(self, rule: str, lengths: Tensor) -> Chosen:
        """Drafts of which so many are accepted by a rule, whatever the noise of rejection.

        By the coupled rule these are the target's own draws. By rejection they are its best tokens: of flatter rows
        the filters keep at least as much, so that q of these is at most p. Those that are rejected have p = 0.
        """
        tokens = self._first.clone()
        drafted = []
        for place in range(DRAFTS):
            row = self._rows(tokens)[:, place]
            drafted.append(row * FLATTER)
            right = self._draw(row, place) if rule == "coupled" else row.argmax(-1)
            tokens[:, place + 1] = torch.where(lengths > place, right, row.argmin(-1))
        return Chosen(tokens, torch.stack(drafted, 1), lengths)

    def _given(self, chosen: Chosen, target: Tensor) -> Drafted:
        drafts = chosen.tokens[:, 1:]
        return Drafted(target, chosen.draft, drafts, drafts, self._seed, self._position)

    def _verify(self, method: Method, given: Drafted, tokens: Tensor) -> None:
        """Writes the tokens of the round."""
        if method.peer is not None:
            tokens.copy_(method.peer.verify(given.drawn, given.target, given.draft, JOB)[0])
        else:
            more = arguments(method.rule, JOB, given)
            ops.verify(given.drawn, given.target, **more, method=method.rule, tokens=tokens)

    def measure(self, seconds: float, fail: Callable[[str, Exception], None]) -> list[dict[str, Any]]:
        """A record for each method that is verified and what it is compared with; `fail` is told of the others."""
        check_finite(self._rows(self._first))
        runs = {
            PLAIN_STEP: self._clock.bind(lambda _: self._step(), 1),
            MODELS: self._clock.bind(lambda _: self._rows(self._first), 1),
        }
        methods = {each.title: each for rate in RATES for each in self._methods(rate)}
        chosen: dict[tuple[str, float], Chosen] = {}
        for title, method in methods.items():
            at = method.rule, method.rate
            try:
                if at not in chosen:
                    lengths = lengths_of(method.rate, self.batch, DRAFTS)
                    chosen[at] = self.choose(method.rule, lengths.to(self._clock.device))
                runs[title] = self._bind(method, chosen[at])
                self._check(method, runs[title], chosen[at])
            except Exception as error:  # whatever other people's code raises
                fail(title, error)
                runs.pop(title, None)
        times = self._clock.time_in_turn(runs, seconds)
        step, models = times[PLAIN_STEP].median, times[MODELS].median
        records = []
        for name, timing in times.items():
            made = {"batch": self.batch, "method": name, **timing.record(), "way": runs[name].way}
            if name in methods:
                method = methods[name]
                tokens = tokens_of(method.rate, DRAFTS)
                made |= {
                    "method": method.name,
                    "rule": method.rule,
                    "rate": method.rate,
                    "tokens": tokens,
                    "share": max(0.0, 1 - models / timing.median),
                    "speedup": tokens * step / timing.median,
                }
            records.append(made | {"reason": runs[name].reason})
        return records

    def _methods(self, rate: float) -> list[Method]:
        peers = [Method(name, PEERS_RULE, rate, peer) for name, peer in self._peers.items()]
        return [Method(OURS, rule, rate) for rule in RULES] + peers

    def _bind(self, method: Method, chosen: Chosen) -> Run:
        return bind_after(
            self._clock,
            lambda: self._rows(chosen.tokens),
            lambda rows: self._verify(method, self._given(chosen, rows), self.tokens),
        )

    def _step(self) -> Tensor:
        """A plain step of the target with our sampler."""
        return self._draw(self._last(self._target, self._cache, self._first, 0), 0)

    def _check(self, method: Method, run: Run, chosen: Chosen) -> None:
        """A timed round accepts what was chosen; our tokens are the CPU backend's, a peer's are possible."""
        self.tokens.fill_(-2)
        run.seconds()
        found = self.tokens.cpu()
        lengths = chosen.lengths.cpu()
        if not torch.equal((found >= 0).sum(1), lengths + 1):
            raise NotVerified(f"{method.name} does not accept the drafts that were chosen to be, and those alone")
        few = slice(VERIFIED_ROWS)
        given = self._given(chosen, self._rows(chosen.tokens)).first(VERIFIED_ROWS).to(torch.device("cpu"))
        check_verdicts(method.name, found[few], lengths[few], given, JOB)
        if method.peer is None:
            wanted = torch.empty_like(found[few])
            self._verify(method, given, wanted)
            check_equal(method.name, found[few], wanted, "the CPU backend")
