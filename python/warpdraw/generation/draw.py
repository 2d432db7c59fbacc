"""The draw of each step: running rows as one call of the op, with their parameters and history kept as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..history import TokenHistory
from .mirostat import Mirostat
from .params import NUMBERS
from .place import Drawn, Place
from .reports import Reports, explained, problem
from .vocabulary import Vocabulary

# The lists of a request, of unequal lengths.
LISTS = ("allowed_ids", "banned_ids", "stop_ids", "bias_ids", "bias", "dry_breakers")

_OP: dict[str, Any] = {spec.name: spec for spec in ops.sample.contract.inputs}


class Draws:
    """Draws the tokens of a run step by step. `explain` leading candidates are reported for each row.

    A row whose bitmask function raises has no candidate, or, with `raises`, the draw raises the same.
    """

    def __init__(self, vocabulary: Vocabulary, explain: int = 0, raises: bool = True) -> None:
        self._vocabulary, self.explain, self._raises = vocabulary, explain, raises
        self._batches: dict[tuple[str, str], Batch] = {}

    @property
    def explains(self) -> bool:
        """Whether candidates are reported."""
        return self.explain > 0

    def batches(self, places: Sequence[Place], device: torch.device) -> list[tuple[list[int], Batch]]:
        """The calls that draw for these places, each with its rows, after those of the last time."""
        same = self._same(places)
        if same is not None:
            return [(list(range(len(places))), same)]
        rows_of: dict[tuple[str, str], list[int]] = {}
        for row, place in enumerate(places):
            rows_of.setdefault(place.call, []).append(row)

        batches: dict[tuple[str, str], Batch] = {}
        for call, rows in rows_of.items():
            members = [places[row] for row in rows]
            batch = self._batches.get(call)
            if batch is None or batch.places != members:
                batch = Batch(members, batch, self._vocabulary, self.explain, device, self._raises)
            batches[call] = batch
        self._batches = batches
        return list(zip(rows_of.values(), batches.values(), strict=True))

    def _same(self, places: Sequence[Place]) -> Batch | None:
        """The batch of the last time, if it was the only one and had these rows."""
        batch = next(iter(self._batches.values())) if len(self._batches) == 1 else None
        return batch if batch is not None and batch.places == places else None

    def rewind(self, place: Place) -> None:
        """Take note that the last tokens of a place were taken back."""
        for batch in self._batches.values():
            if place in batch.places:
                batch.rewind(batch.places.index(place))

    def draw(self, logits: Tensor, places: Sequence[Place]) -> list[Drawn]:
        """One token for each row of logits [B, V], and nothing for the places that are no longer there."""
        same = self._same(places)
        if same is not None:
            return same.draw(logits)
        drawn: dict[int, Drawn] = {}
        for rows, batch in self.batches(places, logits.device):
            part = logits if len(rows) == len(places) else logits[rows]
            drawn.update(zip(rows, batch.draw(part), strict=True))
        return [drawn[row] for row in range(len(places))]


class Batch:
    """The rows of one call: tensors that are made when a row comes or goes, and brought up to date by each draw."""

    def __init__(
        self,
        places: list[Place],
        before: Batch | None,
        vocabulary: Vocabulary,
        explain: int,
        device: torch.device,
        raises: bool = True,
    ) -> None:
        self._raises = raises
        self._failed: dict[int, str] = {}  # what the functions of rows raised
        self.places, self._vocabulary, self._explain, self._device = places, vocabulary, explain, device
        params = [place.params for place in places]
        self.history = self._history_after(before)
        self.position = self._column([place.position for place in places], torch.int64)
        self.arguments: dict[str, Any] = {
            "order": params[0].order,
            "seed": self._column([place.seed for place in places], torch.int64),
            "position": self.position,
        }
        for name in NUMBERS:  # left out where every row has the default
            values = [getattr(each, name) for each in params]
            if any(value != _OP[name].default for value in values):
                self.arguments[name] = self._column(values, _OP[name].dtypes[0])
        if vocabulary.size < vocabulary.padded:
            self.arguments["vocab_size"] = vocabulary.size

        lists = [place.id_lists for place in places]
        for name in lists[0]:
            self._add_list(name, [each[name] for each in lists])
        self.masked = [row for row, each in enumerate(places) if each.rules is not None]
        self._masks: list[Tensor] = []
        if self.masked:
            self.arguments["bitmask"] = words = self.all_allowed(len(places))
            self._masks = [words[row] for row in self.masked]
        self.mirostat: Mirostat | None = None
        if any(each.mirostat for each in params):
            self.mirostat = Mirostat(places, vocabulary.size)
        self.reports = Reports(places)

    def draw(self, logits: Tensor) -> list[Drawn]:
        """One token for each row."""
        self.read_bitmasks()
        if self.mirostat is not None:
            self.arguments |= self.mirostat.filters(logits, self.inputs())
        result = self.sample(logits)
        drawn = self.finish(logits, result)
        if self.mirostat is not None:
            self.mirostat.follow([each.token for each in drawn], result.raw_logprob.tolist())
        self.position += 1
        return drawn

    def rewind(self, row: int) -> None:
        """Go back to the tokens that the place of a row has left."""
        place = self.places[row]
        self.position[row] = place.position
        if self.history and place.params.reads_history:
            self.history.truncate(row, place.position)

    def sample(self, logits: Tensor) -> Any:
        """The call of the op: nothing in it waits for the device, and its tensors stay where they are."""
        return ops.sample(logits, **self.inputs(), **self.reports.arguments)

    def move(self, tensors: dict[str, Tensor], history: TokenHistory | None) -> None:
        """Use the first rows of these tensors from now on, with what this batch's own ones held."""
        count = len(self.places)
        for name, tensor in tensors.items():
            own, rows = self.arguments[name], tensor[:count]
            if own.data_ptr() == rows.data_ptr():
                continue
            if name in LISTS:
                rows.fill_(0 if name == "bias" else -1)
                rows = rows[:, : own.shape[1]]
            self.arguments[name] = rows.copy_(own)
        self.position = self.arguments["position"]
        if self.masked:
            self._masks = [self.arguments["bitmask"][row] for row in self.masked]
        if self.history is not None and history is not None:
            self.history.move(history)

    def storage(self) -> tuple[int, ...]:
        """Where the tensors of the history lie and how large they are: others need another graph."""
        inputs = self.history.inputs if self.history else {}
        return tuple(number for tensor in inputs.values() for number in (tensor.data_ptr(), tensor.shape[-1]))

    def inputs(self) -> dict[str, Any]:
        """The parameters of the rows, as the ops take them; read them anew for each call."""
        return self.arguments | (self.history.inputs if self.history else {})

    def finish(self, logits: Tensor, result: Any) -> list[Drawn]:
        """Read what was drawn for each row, and add it to the history."""
        # A token is -1 exactly where a row has no candidate.
        tokens = [token if token >= 0 else None for token in result.tokens.tolist()]
        drawn = self.drawn(self.places, self.inputs() if self._explain else {}, logits, tokens, result)
        if self.history:
            self.history.append(result.tokens)
        return drawn

    def follow(self, rows: list[int]) -> None:
        """After a search took a token for each place, to go on from the places `rows`, which may be other ones."""
        if self.history:
            if rows != list(range(len(rows))):
                self.history = self.history.fork(rows)
            self.history.append([place.tokens[-1] if place.tokens else -1 for place in self.places])
        self.position += 1

    def drawn(
        self, places: list[Place], arguments: dict[str, Any], logits: Tensor, tokens: list[int | None], result: Any
    ) -> list[Drawn]:
        """Tokens with what is reported of them, for rows that were drawn with `arguments`."""
        if None not in tokens and not (self._explain or self.reports.arguments):
            return [Drawn(token) for token in tokens]
        steps: list[Any] = [None] * len(tokens)
        if self._explain:
            positions = arguments["position"].tolist()
            steps = explained(logits, arguments, positions, tokens, self._explain, self._vocabulary)
        problems = [
            None if token is not None else self._failed.get(row) or problem(logits[row])
            for row, token in enumerate(tokens)
        ]
        logprobs = self.reports.logprobs_of(places, tokens, result)
        kept = self.reports.kept_of(places, tokens, result)
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
        staying = before.history or TokenHistory(
            [[]] * len(before.places), self._vocabulary.padded, device=self._device
        )
        return staying.fork(old).join(entering)

    def _column(self, values: list[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)

    def _add_list(self, name: str, lists: list[tuple[float, ...]]) -> None:
        """Lists of unequal length as one tensor."""
        longest = max(map(len, lists))
        if longest:
            self.arguments[name] = self._column([padded(name, each, longest) for each in lists], _OP[name].dtypes[0])

    def all_allowed(self, *rows: int) -> Tensor:
        """Words of a bitmask [*rows, W] in which every token may follow."""
        words = (self._vocabulary.padded + 31) // 32
        return torch.full((*rows, words), -1, dtype=torch.int32, device=self._device)

    def read_bitmasks(self) -> None:
        """Ask the rules of the rows that have some which tokens may follow."""
        for row, words in zip(self.masked, self._masks, strict=True):
            self.read_bitmask(row, self.places[row].tokens, words)

    def read_bitmask(self, row: int, tokens: list[int], words: Tensor) -> None:
        """Ask the rules of a row which tokens may follow `tokens`, and write it to `words` [W]."""
        rules = self.places[row].rules
        assert rules is not None
        try:
            rules.write(tokens, words)
        except Exception as error:
            if self._raises:
                raise
            self._failed[row] = f"its bitmask raised {type(error).__name__}: {error}"
            words.zero_()


def padded(name: str, values: Sequence[float], length: int) -> list[float]:
    """A list of a row, with what stands for nothing after it."""
    return [*values, *(0 if name == "bias" else -1,) * (length - len(values))]
