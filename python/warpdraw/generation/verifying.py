"""Steps with drafts: the model reads the drafts of all rows at once, and `verify` says which of them stand."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .drafters import Drafts, drafter_of
from .draw import Batch, Draws
from .pace import SHARED_COST, TOKEN_COST, Pace
from .place import Drawn
from .reports import problem
from .results import Event, SpeculationStats, Throughput
from .row import Row
from .speculation import Speculation


class Speculative:
    """Draws one token or more for each running row in a step."""

    def __init__(
        self,
        model: Checkpoint,
        cache: KVCache,
        speculation: Speculation,
        draws: Draws,
        throughput: Throughput,
        part: int,
    ) -> None:
        self._model, self._cache, self._draws, self._speculation = model.model, cache, draws, speculation
        self._drafter = drafter_of(speculation, model, cache, part)
        self._cost, self._method = speculation.cost_beside(model), speculation.method
        self._device = self._model.embedding.weight.device
        self._stats = throughput.speculation = SpeculationStats()

    @property
    def memory_bytes(self) -> int:
        """What the cache of the draft model takes when it is full."""
        return self._drafter.memory_bytes

    def admit(self, rows: list[Row]) -> None:
        """Get ready to draft for the samples of a prompt."""
        for row in rows:
            row.pace = Pace(self._speculation.tokens, self._cost, self._speculation.adaptive)
        self._drafter.admit(rows[0].request.ids, [row.slot for row in rows])

    def events(self, running: list[Row], admitted: list[Row], first: list[Tensor]) -> list[Event]:
        """A step: the events of its tokens, those of a row side by side."""
        events = []
        for number, (row, drawn) in enumerate(
            zip(running + admitted, self.step(running, admitted, first), strict=True)
        ):
            for each in drawn:
                events += row.take(each)
                if number < len(running) and each.token is not None:
                    row.acceptance.tokens += 1
                    self._stats.tokens += 1
                if row.finished or row.rewound:
                    break
        return events

    def rewind(self, row: Row) -> None:
        """Take note that the last tokens of a row were taken back."""
        self._drafter.rewind(row)

    def step(self, running: list[Row], admitted: list[Row], first: list[Tensor]) -> list[list[Drawn]]:
        """The tokens of running rows, and the first ones of admitted rows from their logits."""
        started = perf_counter()
        rows = running + admitted
        cost = self._token_cost(len(running))
        wanted = [self._wanted(row, cost) for row in running] + [0] * len(admitted)
        groups = []
        counts = [0] * len(rows)
        for members, batch in self._draws.batches([row.place for row in rows], self._device):
            drafts = self._drafter.propose(batch, [rows[i] for i in members], [wanted[i] for i in members])
            groups.append((members, batch, drafts))
            for i, count in zip(members, drafts.counts, strict=True):
                counts[i] = count

        drafted = perf_counter()
        logits = [self._read(running, counts, groups)] if running else []
        flat = torch.cat(logits + first) if admitted else logits[0]

        read = perf_counter()
        drawn: list[list[Drawn]] = [[] for _ in rows]
        accepted = [0] * len(rows)
        starts = _starts(counts)
        for members, batch, drafts in groups:
            part = flat
            if len(groups) > 1:
                part = flat[[node for i in members for node in range(starts[i], starts[i] + counts[i] + 1)]]
            found, right = self._verify(batch, drafts, [rows[i] for i in members], part)
            for i, tokens, count in zip(members, found, right, strict=True):
                drawn[i], accepted[i] = tokens, count

        if running:
            self._settle(running, counts, accepted)

        self._stats.draft_seconds += drafted - started
        self._stats.target_seconds += read - drafted
        self._stats.verify_seconds += perf_counter() - read
        return drawn

    def _settle(self, running: list[Row], counts: list[int], accepted: list[int]) -> None:
        """Keep what the models have read of the drafts that stand, and learn from them how many to draft."""
        counts, accepted = counts[: len(running)], accepted[: len(running)]
        each = list(zip(running, counts, accepted, strict=True))
        slots = [row.slot for row in running]
        self._cache.keep(slots, [row.length + right for row, _, right in each], [row.length + n for row, n, _ in each])
        self._drafter.settle(running, counts, accepted)
        for row, count, right in each:
            row.acceptance.add(count, right)
            self._stats.add(count, right)
            if row.pace is not None:
                row.pace.learn(count, right)

    def _token_cost(self, rows: int) -> float:
        """What one more draft of a row costs the model: the batch counts only where no token depends on it."""
        if self._device.type == "cpu" and self._speculation.keeps_text:
            return TOKEN_COST + SHARED_COST * (rows - 1)
        return TOKEN_COST

    def _wanted(self, row: Row, token_cost: float) -> int:
        assert row.pace is not None
        left = row.limit - len(row.tokens) - 1
        return max(0, min(left, self._drafter.room(row), row.pace.drafts(token_cost) if left > 0 else 0))

    def _read(self, running: list[Row], counts: list[int], groups: list[tuple[list[int], Batch, Drafts]]) -> Tensor:
        """Logits [N, V] after the last token of each running row and after each of its drafts."""
        longest = max(counts)
        tokens = torch.tensor([[row.last] for row in running], device=self._device)
        counts = counts[: len(running)]
        if longest:
            if len(groups) == 1:
                drafts = groups[0][2].tokens[: len(running), :longest]
            else:
                drafts = tokens.new_full((len(counts), longest), -1)
                for members, _, made in groups:
                    own = [at for at, i in enumerate(members) if i < len(running)]
                    width = min(longest, made.tokens.shape[1])
                    drafts[[members[at] for at in own], :width] = made.tokens[own, :width]
            # A row of the draft model without a candidate gives -1.
            tokens = torch.cat([tokens, drafts], dim=1).clamp_(min=0)
        flat = tokens.view(-1)
        if min(counts) < longest:
            flat = flat[[i * (longest + 1) + node for i, count in enumerate(counts) for node in range(count + 1)]]
        slots = [row.slot for row, count in zip(running, counts, strict=True) for _ in range(count + 1)]
        positions = [
            row.length - 1 + node for row, count in zip(running, counts, strict=True) for node in range(count + 1)
        ]
        return self._model.extend(flat, self._cache, slots, positions)

    def _verify(
        self, batch: Batch, drafts: Drafts, rows: Sequence[Row], logits: Tensor
    ) -> tuple[list[list[Drawn]], list[int]]:
        """What each row of a batch draws, from logits [N, V] of its nodes, and how many drafts are accepted."""
        counts, longest = drafts.counts, max(drafts.counts)
        if longest == 0:
            return [[drawn] for drawn in batch.draw(logits)], [0] * len(rows)
        arguments = batch.inputs()
        given = arguments | drafts.drawn_with | batch.reports.of_verified
        target = logits
        nodes = [row * (longest + 1) + node for row, count in enumerate(counts) for node in range(count + 1)]
        uniform = min(counts) == longest
        masks = None if drafts.masks is None else drafts.masks[:, : longest + 1].flatten(0, 1)
        if masks is not None and not uniform:
            masks = masks[nodes]
        if uniform:
            target = logits.view(len(rows), longest + 1, -1)
            if masks is not None:
                given["bitmask"] = masks.view(len(rows), longest + 1, -1)
        else:
            given["offsets"] = torch.tensor([*_starts(counts), len(logits)], dtype=torch.int32, device=self._device)
            if masks is not None:
                given["bitmask"] = masks
        if self._method == "block":
            given["step"] = torch.tensor([row.acceptance.steps for row in rows], device=self._device)
        of_drafts = None if drafts.logits is None else drafts.logits[:, :longest]
        result = ops.verify(drafts.tokens[:, :longest], target, of_drafts, self._method, **given)

        accepted, valid, words = result.accepted.tolist(), result.valid.tolist(), result.tokens.tolist()
        tokens: list[list[int | None]] = [
            [*found[:count], found[count] if whole else None]
            for found, count, whole in zip(words, accepted, valid, strict=True)
        ]
        drawn = self._reported(batch, counts, tokens, logits, masks, result)
        batch.position += result.accepted
        batch.position += 1
        if batch.history:
            for place in range(max(accepted) + 1):
                batch.history.append(result.tokens[:, place])
        return drawn, accepted

    def _reported(
        self,
        batch: Batch,
        counts: list[int],
        tokens: list[list[int | None]],
        logits: Tensor,
        masks: Tensor | None,
        result: Any,
    ) -> list[list[Drawn]]:
        """The tokens of each row with what is reported of them."""
        starts = _starts(counts)
        if not (self._draws.explains or batch.reports.arguments):
            return [
                [
                    Drawn(token) if token is not None else Drawn(None, problem(logits[starts[row] + place]))
                    for place, token in enumerate(found)
                ]
                for row, found in enumerate(tokens)
            ]
        # The rows of the tokens once more, as if they were drawn one by one.
        each = [(row, place) for row, found in enumerate(tokens) for place in range(len(found))]
        owners, depths = torch.tensor(each, device=self._device).unbind(1)
        nodes = torch.tensor([starts[row] + place for row, place in each], device=self._device)
        inputs = batch.inputs()
        arguments = {name: value[owners] if isinstance(value, Tensor) else value for name, value in inputs.items()}
        arguments["position"] = arguments["position"] + depths
        if masks is not None:
            arguments["bitmask"] = masks[nodes]
        if batch.history:
            arguments |= batch.history.with_tokens(owners, depths, result.tokens)
        rows = logits[nodes]
        drawn = [token for found in tokens for token in found]
        again = ops.sample(rows, **arguments, **batch.reports.arguments)
        report = SimpleNamespace(**{name: getattr(again, name) for name in batch.reports.named})
        if batch.reports.logprobs:
            ids = torch.tensor([-1 if token is None else token for token in drawn], device=self._device)
            report.logprob, report.raw_logprob = result.logprob[owners, depths], result.raw_logprob[owners, depths]
            report.rank = _ranks(rows, ids)
        places = [batch.places[row] for row, _ in each]
        flat = iter(batch.drawn(places, arguments, rows, drawn, report))
        return [[next(flat) for _ in found] for found in tokens]


def _ranks(rows: Tensor, tokens: Tensor) -> Tensor:
    """The place of a token of each row in the order of logits, the largest first, of equals the lower id."""
    ids = tokens.clamp(min=0)[:, None]
    values = rows.gather(1, ids)
    before = (rows > values) | ((rows == values) & (torch.arange(rows.shape[1], device=rows.device) < ids))
    return before.sum(1) + 1


def _starts(counts: Sequence[int]) -> list[int]:
    """Where the nodes of each row begin, one more than its drafts each."""
    starts, at = [], 0
    for count in counts:
        starts.append(at)
        at += count + 1
    return starts
