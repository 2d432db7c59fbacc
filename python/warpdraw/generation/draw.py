"""The draw of each step: running rows as one call of the op, with their parameters and history kept as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..history import TokenHistory
from .params import LOGPROBS_OF, NUMBERS, SamplingParams
from .results import Candidate, KeptTokens, Step, TokenLogprob
from .vocabulary import TokenLists, Vocabulary

_OP: dict[str, Any] = {spec.name: spec for spec in ops.sample.contract.inputs}


@dataclass(eq=False)
class Place:
    """Where a row draws: its request's parameters, its seed, its prompt and the tokens drawn so far, which grow."""

    name: str
    params: SamplingParams
    lists: TokenLists
    seed: int
    prompt: list[int]
    ends: tuple[int, ...]
    tokens: list[int]

    @property
    def position(self) -> int:
        """The index in the sequence of the next token."""
        return len(self.prompt) + len(self.tokens)

    @property
    def id_lists(self) -> dict[str, tuple[float, ...]]:
        """The lists of the row, by the op's names."""
        return {
            "allowed_ids": self.lists.allowed,
            "banned_ids": self.lists.banned,
            "stop_ids": self.ends if self.params.min_tokens else (),
            "bias_ids": tuple(token for token, _ in self.lists.bias),
            "bias": tuple(bias for _, bias in self.lists.bias),
            "dry_breakers": self.lists.breakers,
        }

    @property
    def call(self) -> tuple[str, str]:
        """What rows must have in common to share a call: the order, and which distribution is reported."""
        return self.params.order, self.params.logprobs_of if self.params.logprobs else LOGPROBS_OF[0]


@dataclass(frozen=True)
class Drawn:
    """The token of one row and what was asked about it; or None, and why the row has no candidate."""

    token: int | None
    problem: str | None = None
    logprob: TokenLogprob | None = None
    kept: KeptTokens | None = None
    step: Step | None = None


class Draws:
    """Draws the tokens of a run step by step. `explain` leading candidates are reported for each row."""

    def __init__(self, vocabulary: Vocabulary, explain: int = 0) -> None:
        self._vocabulary, self._explain = vocabulary, explain
        self._batches: dict[tuple[str, str], Batch] = {}

    @property
    def explains(self) -> bool:
        """Whether candidates are reported."""
        return self._explain > 0

    def batch_of(self, places: Sequence[Place]) -> Batch | None:
        """The rows of the last draw, if they were exactly these and all in one call."""
        batches = list(self._batches.values())
        return batches[0] if len(batches) == 1 and batches[0].places == list(places) else None

    def draw(self, logits: Tensor, places: Sequence[Place]) -> list[Drawn]:
        """One token for each row of logits [B, V], and nothing for the places that are no longer there."""
        rows_of: dict[tuple[str, str], list[int]] = {}
        for row, place in enumerate(places):
            rows_of.setdefault(place.call, []).append(row)

        drawn: dict[int, Drawn] = {}
        batches: dict[tuple[str, str], Batch] = {}
        for call, rows in rows_of.items():
            members = [places[row] for row in rows]
            batch = self._batches.get(call)
            if batch is None or batch.places != members:
                batch = Batch(members, batch, logits, self._vocabulary)
            batches[call] = batch
            part = logits if len(rows) == len(places) else logits[rows]
            drawn.update(zip(rows, batch.draw(part, self._explain), strict=True))
        self._batches = batches
        return [drawn[row] for row in range(len(places))]


class Batch:
    """The rows of one call: tensors that are made when a row comes or goes, and brought up to date by each draw."""

    def __init__(self, places: list[Place], before: Batch | None, logits: Tensor, vocabulary: Vocabulary) -> None:
        self.places, self._vocabulary, self._device = places, vocabulary, logits.device
        params = [place.params for place in places]
        self._history = self._history_after(before)
        self.position = self._column([place.position for place in places], torch.int64)
        self._arguments: dict[str, Any] = {
            "order": params[0].order,
            "seed": self._column([place.seed for place in places], torch.int64),
            "position": self.position,
        }
        for name in NUMBERS:  # left out where every row has the default
            values = [getattr(each, name) for each in params]
            if any(value != _OP[name].default for value in values):
                self._arguments[name] = self._column(values, _OP[name].dtypes[0])
        if vocabulary.size < vocabulary.padded:
            self._arguments["vocab_size"] = vocabulary.size

        lists = [place.id_lists for place in places]
        for name in lists[0]:
            self._add_list(name, [each[name] for each in lists])
        if any(each.bitmask for each in params):
            words = (logits.shape[1] + 31) // 32
            self._arguments["bitmask"] = torch.full((len(places), words), -1, dtype=torch.int32, device=self._device)

        # What is reported of every row, because one of them asked for it.
        self._logprobs = any(each.logprobs is not None for each in params)
        self._kept = any(each.kept is not None for each in params)
        self._reports: dict[str, Any] = {}
        if self._logprobs:
            top = {"top_n": max(each.logprobs or 0 for each in params), "top_of": places[0].call[1]}
            self._reports |= {"logprob": True, "raw_logprob": True, "rank": True, **top}
        if self._kept:
            self._reports |= {"kept_count": True, "max_kept": max(each.kept or 0 for each in params)}

    def draw(self, logits: Tensor, explain: int) -> list[Drawn]:
        """One token for each row."""
        self.read_bitmasks()
        result = self.sample(logits)
        drawn = self.finish(logits, result, explain)
        self.position += 1
        return drawn

    def sample(self, logits: Tensor) -> Any:
        """The call of the op: nothing in it waits for the device, and its tensors stay where they are."""
        return ops.sample(logits, **self._inputs(), **self._reports)

    def storage(self) -> tuple[int, ...]:
        """Where the tensors of the history lie and how large they are: others need another graph."""
        inputs = self._history.inputs if self._history else {}
        return tuple(number for tensor in inputs.values() for number in (tensor.data_ptr(), tensor.shape[-1]))

    def _inputs(self) -> dict[str, Any]:
        return self._arguments | (self._history.inputs if self._history else {})

    def finish(self, logits: Tensor, result: Any, explain: int = 0) -> list[Drawn]:
        """Read what was drawn for each row, and add it to the history."""
        valid = result.valid.tolist()
        tokens = [token if valid[row] else None for row, token in enumerate(result.tokens.tolist())]
        nothing = [None] * len(tokens)
        logprobs = self._logprobs_of(tokens, result) if self._logprobs else nothing
        kept = self._kept_of(tokens, result) if self._kept else nothing
        steps = self._steps(logits, self._inputs(), tokens, explain) if explain else nothing
        problems = [None if token is not None else _problem(logits[row]) for row, token in enumerate(tokens)]

        if self._history:
            self._history.append(result.tokens)
        return [Drawn(*row) for row in zip(tokens, problems, logprobs, kept, steps, strict=True)]

    def _history_after(self, before: Batch | None) -> TokenHistory | None:
        """The history of the rows that stay, in place so far, and of those that come; None where nothing reads it."""
        if not any(place.params.reads_history for place in self.places):
            return None
        stay = {id(place): row for row, place in enumerate(before.places)} if before else {}
        old = [stay[id(place)] for place in self.places if id(place) in stay]
        # Rows that come stand after those that stay, the samples of a prompt side by side: it is copied on the device.
        # A row that reads nothing needs no prompt.
        prompts: list[list[int]] = []
        new: list[int] = []
        for place in self.places[len(old) :]:
            prompt = place.prompt if place.params.reads_history else []
            if not prompts or prompts[-1] is not prompt:
                prompts.append(prompt)
            new.append(len(prompts) - 1)
        entering = TokenHistory(prompts, self._vocabulary.padded, device=self._device).fork(new)
        if before is None or not old:
            return entering
        staying = before._history or TokenHistory(
            [[]] * len(before.places), self._vocabulary.padded, device=self._device
        )
        return staying.fork(old).join(entering)

    def _column(self, values: list[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)

    def _add_list(self, name: str, lists: list[tuple[float, ...]]) -> None:
        """Lists of unequal length as one tensor."""
        longest = max(map(len, lists))
        if longest:
            self._arguments[name] = self._column([padded(name, each, longest) for each in lists], _OP[name].dtypes[0])

    def read_bitmasks(self) -> None:
        """Ask the functions of the rows that have one which tokens may follow."""
        for row, place in enumerate(self.places):
            if place.params.bitmask is None:
                continue
            mask, words = place.params.bitmask(list(place.tokens)), self._arguments["bitmask"][row]
            words.fill_(-1)
            if mask is None:
                continue
            if not isinstance(mask, Tensor) or mask.dtype != torch.int32 or mask.ndim != 1:
                got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
                raise TypeError(f"{place.name}.bitmask: expected None or an int32 tensor of one dimension, got {got}")
            least = (self._vocabulary.size + 31) // 32
            if not least <= len(mask) <= len(words):
                sizes = f"{least} words of 32 bits" if least == len(words) else f"{least} to {len(words)} words"
                raise ValueError(f"{place.name}.bitmask: expected {sizes}, got {len(mask)}")
            words[: len(mask)] = mask

    def _logprobs_of(self, tokens: list[int | None], result: Any) -> list[TokenLogprob | None]:
        logprob, raw, rank = result.logprob.tolist(), result.raw_logprob.tolist(), result.rank.tolist()
        has_top = result.top_ids is not None
        ids, values = (result.top_ids.tolist(), result.top_logprobs.tolist()) if has_top else ([], [])

        logprobs: list[TokenLogprob | None] = []
        for row, (token, place) in enumerate(zip(tokens, self.places, strict=True)):
            count = place.params.logprobs
            if token is None or count is None:
                logprobs.append(None)
                continue
            pairs = zip(ids[row][:count], values[row][:count], strict=True) if count else ()
            top = tuple((i, value) for i, value in pairs if i >= 0)
            logprobs.append(TokenLogprob(token, logprob[row], raw[row], rank[row], top))
        return logprobs

    def _kept_of(self, tokens: list[int | None], result: Any) -> list[KeptTokens | None]:
        counts = result.kept_count.tolist()
        ids = result.kept_ids.tolist() if result.kept_ids is not None else [[]] * len(counts)
        kept: list[KeptTokens | None] = []
        for row, (token, place) in enumerate(zip(tokens, self.places, strict=True)):
            wanted = place.params.kept
            if token is None or wanted is None:
                kept.append(None)
            else:
                kept.append(KeptTokens(counts[row], tuple(ids[row][: min(wanted, counts[row])])))
        return kept

    def _steps(
        self, logits: Tensor, arguments: dict[str, Any], tokens: list[int | None], explain: int
    ) -> list[Step | None]:
        before = ops.softmax(logits)
        after = ops.filter_probs(logits, **arguments)
        kept = ops.filter_logits(logits, **arguments) > -torch.inf

        steps: list[Step | None] = []
        for row, (place, token) in enumerate(zip(self.places, tokens, strict=True)):
            if token is None:
                steps.append(None)
                continue
            leading = before[row].topk(min(explain, logits.shape[1])).indices.tolist()
            candidates = tuple(
                Candidate(
                    token=self._vocabulary.tokenizer.token_text(i),
                    id=i,
                    probability=float(before[row, i]),
                    filtered_probability=float(after[row, i]),
                    kept=bool(kept[row, i]),
                    drawn=i == token,
                )
                for i in (leading if token in leading else [*leading, token])
            )
            rest = max(0.0, 1.0 - sum(candidate.probability for candidate in candidates))
            steps.append(Step(place.position, int(kept[row].sum()), candidates, rest))
        return steps


def padded(name: str, values: Sequence[float], length: int) -> list[float]:
    """A list of a row, with what stands for nothing after it."""
    return [*values, *(0 if name == "bias" else -1,) * (length - len(values))]


def _problem(logits: Tensor) -> str:
    """Why a row has no candidate."""
    if bool((logits > -torch.inf).any()):
        return "its parameters leave no token that has a logit"
    return "its logits are all NaN or -inf"
