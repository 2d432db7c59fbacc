"""Drafters: they propose the next tokens of running rows, by a smaller model or from the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import ops
from ..model.cache import KVCache
from ..model.transformer import Transformer
from ..model.weights import Checkpoint
from .draw import Batch
from .lookup import Lookup, Ngrams, Suffixes
from .masks import Masks
from .row import Row
from .speculation import NEEDS_DISTRIBUTION, Speculation

# What drafts are drawn with where the model's own restrictions and penalties are not, by the names of the ops.
_FILTERS = ("temperature", "top_k", "top_p", "min_p")
# Odd, so that the steps of a request have different seeds: 2^64 divided by the golden ratio, as int64.
_SEED_STEP = 0x9E3779B97F4A7C15 - 2**64


@dataclass
class Drafts:
    """Drafts for the rows of a batch."""

    tokens: Tensor  # int64 [B, K], -1 after those of a row
    counts: list[int]  # of each row
    masks: Tensor | None  # [B, K+1, W], the bitmask before each draft and after the last one
    logits: Tensor | None = None  # [B, K, V] that they were drawn from, where the method reads them
    drawn_with: dict[str, Any] = field(default_factory=dict)


class Drafter(Protocol):
    """What proposes tokens."""

    @property
    def memory_bytes(self) -> int:
        """What its cache takes when it is full."""

    def admit(self, ids: list[int], slots: list[int]) -> None:
        """Read a prompt for the rows that start from it."""

    def room(self, row: Row) -> int:
        """The most tokens that can be drafted for a row."""

    def propose(self, batch: Batch, rows: Sequence[Row], wanted: list[int]) -> Drafts:
        """At most so many drafts for each row of a batch."""

    def settle(self, rows: Sequence[Row], drafted: list[int], accepted: list[int]) -> None:
        """Take what became of the last drafts, before the rows grow."""

    def rewind(self, row: Row) -> None:
        """Forget what the row has no longer."""


def drafter_of(speculation: Speculation, model: Checkpoint, cache: KVCache, part: int) -> ModelDrafter | LookupDrafter:
    """A drafter beside a model with this cache. Prompts are read in parts of `part` tokens."""
    if isinstance(speculation.draft, Checkpoint):
        return ModelDrafter(speculation.draft, speculation.method, cache, part)
    return LookupDrafter(speculation, model.model.embedding.weight.device)


class LookupDrafter:
    """Proposes what an index of the row's own tokens finds."""

    def __init__(self, speculation: Speculation, device: torch.device) -> None:
        self._speculation, self._device = speculation, device
        self._indexes: dict[int, Lookup] = {}

    def admit(self, ids: list[int], slots: list[int]) -> None:
        for slot in slots:
            self._indexes[slot] = self._index(ids)

    def rewind(self, row: Row) -> None:
        # An index only grows.
        self._indexes[row.slot] = self._index(row.tokens_from(0))

    def _index(self, ids: list[int]) -> Lookup:
        made: Lookup = Ngrams(self._speculation.ngram) if self._speculation.draft == "ngram" else Suffixes()
        made.extend(ids)
        return made

    @property
    def memory_bytes(self) -> int:
        return 0

    def room(self, row: Row) -> int:
        return row.limit

    def propose(self, batch: Batch, rows: Sequence[Row], wanted: list[int]) -> Drafts:
        proposed: list[list[int]] = []
        for row, count in zip(rows, wanted, strict=True):
            found: list[int] = []
            if count:
                index = self._indexes[row.slot]
                index.extend(row.tokens[index.length - len(row.request.ids) :])
                found = index.propose(count)
            proposed.append(found)
        masks = Masks(batch, max(map(len, proposed))) if batch.masked else None
        if masks is not None:
            proposed = [masks.follow(row, drafts) for row, drafts in enumerate(proposed)]
        counts = [len(drafts) for drafts in proposed]
        longest = max(counts)
        padded = [drafts + [-1] * (longest - len(drafts)) for drafts in proposed]
        tokens = torch.tensor(padded, dtype=torch.int64, device=self._device).view(len(rows), longest)
        return Drafts(tokens, counts, masks.words[:, : longest + 1] if masks else None)

    def settle(self, rows: Sequence[Row], drafted: list[int], accepted: list[int]) -> None:
        pass


class ModelDrafter:
    """Draws drafts from a smaller model, with a cache of its own in the same slots."""

    def __init__(self, draft: Checkpoint, method: str, beside: KVCache, part: int) -> None:
        self._model: Transformer = draft.model
        self._context, self._part = min(draft.config.max_positions, beside.max_positions), part
        self._with_logits, self._seeds_by_step = method in NEEDS_DISTRIBUTION, method == "block"
        self._device = self._model.embedding.weight.device
        dtype = self._model.embedding.weight.dtype
        capacity = min(beside.capacity, self._context)
        self._cache = KVCache(draft.config, beside.slots, capacity, dtype, self._device, self._context)
        self._seen = [0] * beside.slots  # how many tokens of its row each slot holds

    def admit(self, ids: list[int], slots: list[int]) -> None:
        for slot in slots:
            self._cache.truncate(slot, 0)
            self._seen[slot] = 0
        if len(ids) < self._context:
            self._model.read(ids, self._cache, slots[0], self._part)
            self._cache.copy(slots[0], slots[1:])
            for slot in slots:
                self._seen[slot] = len(ids)

    @property
    def memory_bytes(self) -> int:
        return self._cache.bytes_of(self._context)

    def room(self, row: Row) -> int:
        return self._context - len(row.request.ids) - len(row.tokens) + 1

    def propose(self, batch: Batch, rows: Sequence[Row], wanted: list[int]) -> Drafts:
        counts, longest = list(wanted), max(wanted)
        masks = Masks(batch, longest) if batch.masked else None
        made = Drafts(torch.full((len(rows), longest), -1, device=self._device), counts, None)
        if longest == 0:
            return made
        arguments = batch.inputs()
        if self._with_logits:
            arguments = self._arguments(arguments, rows)
            made.drawn_with = {f"draft_{name}": arguments[name] for name in _FILTERS if name in arguments}
        lengths = batch.history.lengths.clone() if batch.history else None
        prefixes: dict[int, list[int]] = {row: [] for row in batch.masked}

        active = [row for row, count in enumerate(counts) if count]
        logits = self._read_new(rows, active)
        steps = 0
        while True:
            everyone = len(active) == len(rows)
            place = slice(None) if everyone else active
            if made.logits is None and self._with_logits:
                made.logits = logits.new_zeros(len(rows), longest, logits.shape[-1])
            if made.logits is not None:
                made.logits[place, steps] = logits
            elif masks is not None:
                arguments["bitmask"] = masks.words[:, steps]
            given = arguments if everyone else _rows_of(arguments, active)
            tokens: Tensor = ops.sample(logits, **given).tokens
            made.tokens[place, steps] = tokens
            if masks is not None:
                self._follow(masks, active, tokens.tolist(), prefixes, made, steps)

            steps += 1
            ahead = [at for at, row in enumerate(active) if counts[row] > steps]
            if not ahead:
                break
            batch.position += 1
            if batch.history and not self._with_logits:
                batch.history.append(made.tokens[:, steps - 1])
                arguments |= batch.history.inputs
            if len(ahead) < len(active):
                active, tokens = [active[at] for at in ahead], tokens[ahead]
            slots = [rows[row].slot for row in active]
            positions = [rows[row].length + steps - 1 for row in active]
            logits = self._model.extend(tokens.clamp(min=0), self._cache, slots, positions)
        batch.position -= steps - 1
        if batch.history and lengths is not None:
            batch.history.rewind(lengths)
        made.masks = masks.words[:, : longest + 1] if masks else None
        return made

    def settle(self, rows: Sequence[Row], drafted: list[int], accepted: list[int]) -> None:
        slots, kept, written = [], [], []
        for row, count, right in zip(rows, drafted, accepted, strict=True):
            if count:
                slots.append(row.slot)
                # The last draft was not given to the model.
                kept.append(row.length + min(right, count - 1))
                written.append(row.length + count - 1)
                self._seen[row.slot] = kept[-1]
        if slots:
            self._cache.keep(slots, kept, written)

    def rewind(self, row: Row) -> None:
        if self._seen[row.slot] >= row.length:
            # The last token is read once more, for what follows it.
            self._seen[row.slot] = row.length - 1
            self._cache.truncate(row.slot, row.length - 1)

    def _read_new(self, rows: Sequence[Row], active: list[int]) -> Tensor:
        """The logits after the last token of each active row, whose tokens since the last drafts are read."""
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        for row in (rows[at] for at in active):
            seen = self._seen[row.slot]
            new = row.tokens_from(seen)
            tokens += new
            slots += [row.slot] * len(new)
            positions += range(seen, seen + len(new))
            ends.append(len(tokens) - 1)
        read = torch.tensor(tokens, device=self._device)
        return self._model.extend(read, self._cache, slots, positions, None if len(ends) == len(tokens) else ends)

    def _arguments(self, arguments: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
        """How drafts are drawn that are accepted by their distribution: with noise that nothing else reads."""
        own = {name: arguments[name] for name in (*_FILTERS, "seed", "position", "order") if name in arguments}
        if self._seeds_by_step:
            steps = torch.tensor([row.acceptance.steps + 1 for row in rows], device=self._device)
            own["seed"] = own["seed"] + steps * _SEED_STEP
        return own

    def _follow(
        self,
        masks: Masks,
        active: list[int],
        tokens: list[int],
        prefixes: dict[int, list[int]],
        drafts: Drafts,
        step: int,
    ) -> None:
        """Read the masks after the drafts of a step; rows whose draft leads nowhere draft no more."""
        for row, token in zip(active, tokens, strict=True):
            if row not in prefixes:
                continue
            goes_on = masks.step(row, prefixes[row], token)
            if len(prefixes[row]) == step:  # not allowed
                drafts.tokens[row, step] = -1
                drafts.counts[row] = step
            elif not goes_on:
                drafts.counts[row] = step + 1


def _rows_of(arguments: dict[str, Any], rows: Sequence[int] | Tensor) -> dict[str, Any]:
    """The parameters of some of the rows."""
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in arguments.items()}
