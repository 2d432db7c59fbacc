"""Where candidates are tried, the most important first."""

from __future__ import annotations

from dataclasses import dataclass

from .gpu_grid import BATCHES, VOCABULARIES
from .gpu_jobs import COMBINED, GREEDY, SOFTMAX, TEMPERED, TOP_P, Point

# With what has targets at every batch size first.
KINDS = (
    (COMBINED, "bfloat16"),
    (GREEDY, "bfloat16"),
    (TEMPERED, "bfloat16"),
    (COMBINED, "float32"),
    (SOFTMAX, "float32"),
    (TOP_P, "bfloat16"),
    (GREEDY, "float32"),
    (TEMPERED, "float32"),
    (TOP_P, "float32"),
    (SOFTMAX, "bfloat16"),
)
STAGED = (COMBINED, GREEDY, TEMPERED, TOP_P)


@dataclass(frozen=True)
class Sizes:
    """How large the grid is, and how much is done at each place.

    `inputs` at most are gone through. A candidate has at least so many samples in each of the `rounds`: in the first,
    of all candidates, they are rough; in the second, of the best quarter, and the last, of the best few, they are not.
    """

    vocabularies: tuple[int, ...] = VOCABULARIES
    batches: tuple[int, ...] = BATCHES
    staged: tuple[int, ...] = (1, 32, 128, 512)
    inputs: int = 64
    rounds: tuple[int, int, int] = (3, 9, 30)


QUICK = Sizes((2000, 300), (1, 3), (3,), 2, (1, 2, 3))


def grid(sizes: Sizes) -> list[Point]:
    """All places, in the order in which candidates are tried there: when the time is up, the rest is dropped."""
    first, *others = sizes.vocabularies
    made = [Point(job, first, batch, dtype) for job, dtype in KINDS for batch in sizes.batches]
    for job, dtype in KINDS:
        made += [Point(job, vocab, batch, dtype) for vocab in others for batch in sizes.batches]
    return made


def staged(sizes: Sizes) -> list[Point]:
    """The places where kernels that stop early are timed."""
    return [Point(job, sizes.vocabularies[0], batch) for job in STAGED for batch in sizes.staged]
