"""Prompts: those that are being read into the cache, part by part beside the steps of the samples that run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.rowwise import DECODE_TOKENS
from ..model.transformer import Transformer
from .row import Row


@dataclass
class Reading:
    """A prompt for the samples that start from it; `read` of its tokens are in the slot of the first of them."""

    rows: list[Row]
    read: int = 0

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return self.rows[0].request.ids

    @property
    def slot(self) -> int:
        """Where it is read to."""
        return self.rows[0].slot


class Prompts:
    """Reads prompts in parts of `part` tokens, in the order in which they came, at most `budget` tokens a step.

    The parts of a prompt do not depend on the others.
    """

    def __init__(self, model: Transformer, cache: KVCache, part: int, budget: float) -> None:
        self._model, self._cache, self._part, self._budget = model, cache, part, budget
        self._device = model.embedding.weight.device
        self._readings: list[Reading] = []

    @property
    def rows(self) -> list[Row]:
        """The samples that wait for their prompts to be read."""
        return [row for reading in self._readings for row in reading.rows]

    def add(self, rows: list[Row]) -> None:
        """Read the prompt of these samples, after those that came before."""
        self._readings.append(Reading(rows))

    def drop_finished(self) -> None:
        """Forget prompts whose samples have ended."""
        self._readings = [reading for reading in self._readings if not reading.rows[0].finished]

    def read(self) -> list[tuple[list[Row], Tensor]]:
        """Read what a step reads; the samples of each prompt that has been read, and logits [1, V] after it."""
        last: dict[int, Tensor] = {}  # by slot
        parts = self._parts()
        short = [part for part in parts if part[1] <= DECODE_TOKENS] if self._device.type == "cpu" else []
        for reading, count in parts if len(short) < 2 else [part for part in parts if part[1] > DECODE_TOKENS]:
            part = torch.tensor([reading.ids[reading.read : reading.read + count]], device=self._device)
            last[reading.slot] = self._model(part, self._cache, torch.tensor([reading.slot]), last=True)[0]
            reading.read += count
        if len(short) > 1:
            self._read_together(short, last)
        if parts and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        done = [(each.rows, last[each.slot]) for each in self._readings if each.read == len(each.ids)]
        self._readings = [each for each in self._readings if each.read < len(each.ids)]
        return done

    def _parts(self) -> list[tuple[Reading, int]]:
        """The parts of prompts, and how long they are, that the next step reads: in turn, as far as its budget goes."""
        parts: list[tuple[Reading, int]] = []
        budget = self._budget
        for reading in self._readings:
            start = reading.read
            while start < len(reading.ids):
                count = min(self._part, len(reading.ids) - start)
                if count > budget:
                    return parts
                parts.append((reading, count))
                start, budget = start + count, budget - count
        return parts

    def _read_together(self, parts: list[tuple[Reading, int]], last: dict[int, Tensor]) -> None:
        """Read short parts as if they were tokens of running rows: in the same bits as one by one."""
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        for reading, count in parts:
            tokens += reading.ids[reading.read : reading.read + count]
            slots += [reading.slot] * count
            positions += range(reading.read, reading.read + count)
            ends.append(len(tokens) - 1)
            reading.read += count
            self._cache.advance(torch.tensor([reading.slot]), count)
        logits = self._model.extend(torch.tensor(tokens), self._cache, slots, positions, ends)
        for (reading, _), row in zip(parts, logits.unsqueeze(1).unbind(), strict=True):
            last[reading.slot] = row
