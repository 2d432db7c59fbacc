"""The logits of a measurement: sizes, dtype and distribution, and the inputs that are hot or cold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .harness import COLD_BYTES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = ("peaked", "normal")
CACHES = ("hot", "cold")

# Rows are made in multiples of this, so that cases of several batch sizes measure the same ones.
ROWS = 64


@dataclass(frozen=True)
class Case:
    """The logits of one measurement: their sizes, their dtype (of DTYPES) and their distribution (of SHAPES)."""

    vocab: int
    batch: int
    dtype: str = "float32"
    logits: str = "peaked"

    @property
    def bytes(self) -> int:
        """How many bytes one call must read."""
        return self.batch * self.vocab * DTYPES[self.dtype].itemsize

    def make(self, count: int) -> list[Tensor]:
        """Logits [batch, vocab], `count` of them.

        "normal" is N(0, 3); "peaked" is N(-4, 2) with 40 tokens that decay from 16 like Zipf's law.
        """
        rows = self.rows(count * self.batch)
        return list(rows.view(count, self.batch, self.vocab).unbind())

    def rows(self, count: int) -> Tensor:
        """The first `count` rows of this vocabulary, dtype and distribution."""
        return _rows(self.vocab, self.dtype, self.logits, -(-count // ROWS) * ROWS)[:count]

    def inputs(self, cache: str, cold_bytes: int = COLD_BYTES) -> list[Tensor]:
        """One input for "hot", as many as are together `cold_bytes` large for "cold"."""
        return self.make(1 if cache == "hot" else max(2, -(-cold_bytes // self.bytes)))


@lru_cache(maxsize=2)
def _rows(vocab: int, dtype: str, logits: str, count: int) -> Tensor:
    """Blocks of ROWS rows, each from a seed of its own: a row does not depend on how many are made."""
    made = torch.empty(count, vocab, dtype=DTYPES[dtype])
    for number, block in enumerate(made.view(-1, ROWS, vocab)):
        block.copy_(_block(vocab, logits, torch.Generator().manual_seed(2024 + number)))
    return made


def _block(vocab: int, logits: str, generator: torch.Generator) -> Tensor:
    rows = torch.randn(ROWS, vocab, generator=generator)
    if logits == "normal":
        return rows.mul_(3)
    heavy = min(40, vocab)
    places = torch.randint(vocab, (ROWS, heavy), generator=generator)
    decay = 16 - 2 * torch.log(torch.arange(1, heavy + 1, dtype=torch.float32))
    return rows.mul_(2).sub_(4).scatter_(1, places, decay.expand(ROWS, heavy))
