"""What a GPU kernel does with a row once it is read, counted from the sources: the longest chain of dependent steps."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from . import gpu_devices as d

GREEDY, TEMPERATURE, FILTERS, EVERYTHING, SOFTMAX = "greedy", "temperature", "k, p, min-p", "everything", "softmax"
REJECTION, REJECTION_ALONE = "rejection, k and p", "rejection, temperature"

# Barriers of the cluster for one row: decision 0013; the last four counted in csrc/cuda/{sample,report,softmax,verify}.
CLUSTER_BARRIERS = {
    GREEDY: 3,
    TEMPERATURE: 4,
    FILTERS: 3,
    EVERYTHING: 11,
    SOFTMAX: 3,
    REJECTION: 12,
    REJECTION_ALONE: 8,
}

# Of peaked rows of the benchmark, V = 128256, k = 50; tests/test_prediction.py counts them again.
GATHERED = 53  # tokens and tiles that reach the pivot, which the histogram of the maxima gives without a search
RACED = 30  # tokens that top-p leaves, about: assumed

# Instructions of a warp for 32 logits. The reading of bf16 is disassembled for sm_90 (docs/measured.md, "What the
# compiler says"); all the others are counted in the source, so assumed.
TOGETHER = 4  # tiles of a warp on their way (over_tokens)
READING = {"bfloat16": 200 / 32, "float32": 130 / 16}
SUMMING, WRITING, EDITING, RESIDUAL = 45, 30, 40, 120
REJECTED = 0.3  # of the nodes: assumed, they alone go over what is left
TILE_NOISE = 350 / 256  # a lane works for four tiles at once: noise that they share, exponentials, bounds


@dataclass(frozen=True)
class Chain:
    """Steps that wait for each other, of each kind; `cycles` are those of arithmetic."""

    cluster: float = 0  # barriers
    barriers: float = 0  # of the block
    shuffles: float = 0  # of 64 bits
    shared: float = 0  # reads of shared memory
    peers: float = 0  # reads of another block's
    trips: float = 0  # to memory or L2
    cycles: float = 0

    def __add__(self, other: Chain) -> Chain:
        return Chain(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, count: float) -> Chain:
        """So many of it, one after another."""
        return Chain(*(count * value for value in astuple(self)))

    def microseconds(self, trip: float) -> float:
        """How long it takes where a trip takes so long."""
        cycles = self.barriers * d.BLOCK_BARRIER + self.shuffles * d.SHUFFLE + self.shared * d.SHARED_TRIP
        cycles += self.peers * d.PEER_TRIP + self.cycles
        return self.cluster * d.CLUSTER_BARRIER_US + self.trips * trip + cycles / d.CYCLES_PER_US


@dataclass(frozen=True)
class Work:
    """All that follows the reading of a row: a chain, and passes over all of its tokens.

    `from_memory` are the instructions of the passes that read memory by any path: draft rows.
    """

    chain: Chain
    passes: tuple[float, ...] = ()  # instructions of a warp for 32 tokens
    from_memory: tuple[float, ...] = ()


def work_of(kind: str, clusters: bool, tiles: int) -> Work:
    """The work on one row: by a cluster, or by one block."""
    steps = _Steps(clusters, tiles)
    chain = Chain(cluster=CLUSTER_BARRIERS[kind] if clusters else 0)
    passes: tuple[float, ...] = ()
    from_memory: tuple[float, ...] = ()
    chain += steps.share()
    if kind == GREEDY:
        chain += steps.first_token()
    elif kind == TEMPERATURE:
        passes = (TILE_NOISE, TILE_NOISE)
        chain += steps.race()
    elif kind == FILTERS:
        chain += steps.filters() + steps.race_listed()
    elif kind == SOFTMAX:
        passes = (SUMMING, WRITING)
        chain += steps.team()
    elif kind == EVERYTHING:
        # The overlay and the maxima with it; after the draw the row as it was: maxima, rank, mass, the first 20.
        passes = (EDITING, READING["float32"], SUMMING)
        chain += steps.overlay() + steps.filters() + steps.race_listed() + steps.share() + steps.first()
        chain += steps.team().times(5)
    elif kind == REJECTION:
        # Both rows are filtered and summed over what is kept; a draft is tried, and the residual swept in its tiles.
        chain += steps.filters() + steps.share() + _Steps(False, tiles).filters() + steps.team().times(5)
        chain += steps.draw() + Chain(trips=4, cycles=1200)
    elif kind == REJECTION_ALONE:
        passes, from_memory = (SUMMING,), (SUMMING, RESIDUAL * REJECTED)
        chain += steps.share() + steps.team().times(5) + steps.draw() + Chain(trips=2)
    else:
        raise ValueError(f"kind: expected one of {', '.join(CLUSTER_BARRIERS)}, got {kind!r}")
    return Work(chain, passes, from_memory)


# A value of each thread, combined for the block (team.cuh, in_block): shuffles, then the values of all warps.
REDUCTION = Chain(barriers=1, shuffles=5, shared=2, cycles=50)
# Where a sum crosses a target (select.cuh, crossing).
CROSSING = Chain(barriers=2, shuffles=5, shared=4, cycles=60)
NOISE = 450  # cycles: Philox, four exponentials, four masses and keys


@dataclass(frozen=True)
class _Steps:
    """The parts, by a cluster that has the row on chip, or by one block that reads it from memory."""

    clusters: bool
    tiles: int

    def team(self) -> Chain:
        """A value of each thread, combined for all (its cluster barrier is in the table)."""
        return REDUCTION + (Chain(shared=1, peers=1, shuffles=5) if self.clusters else Chain())

    def share(self) -> Chain:
        """The maxima of all tiles for every block: eight a thread, four at a time."""
        seen = Chain(peers=2, cycles=400) if self.clusters else Chain(trips=2, barriers=1)
        return seen + REDUCTION

    def first_token(self) -> Chain:
        """The lowest id of the largest logit: the tiles that reach it."""
        return self.team() + (Chain(shared=2, cycles=150) if self.clusters else Chain(trips=1, cycles=150))

    def first(self) -> Chain:
        """The first k tokens: the pivot, the gathering, the ranking."""
        # Two sums, a histogram, where it crosses, the ends of its bin.
        pivot = (REDUCTION + Chain(shared=1, cycles=80)).times(3) + Chain(barriers=2, shared=1, cycles=200) + CROSSING
        gather = Chain(barriers=2, cycles=300, shared=4)
        if self.clusters:
            gather += Chain(peers=2, shuffles=8)
        else:
            gather += Chain(trips=self.trips_of_gathering())
        rank = Chain(barriers=2, shared=3, cycles=10 * GATHERED)
        return pivot + gather + rank

    def trips_of_gathering(self) -> float:
        """A warp has four of the tiles that it wants on their way, from whatever groups; trips of the slowest warp."""
        return max(1.0, 1.3 * GATHERED / d.WARPS / TOGETHER)

    def filters(self) -> Chain:
        """Top-k, then top-p of its list, then min-p's threshold by seven ballots."""
        top_p = REDUCTION + CROSSING + Chain(cycles=300)
        return self.first() + top_p + Chain(cycles=7 * 170)

    def race(self) -> Chain:
        """What is certain, the tiles that could win, the token of the one that does."""
        quads = -(-self.tiles // 4)
        turns = 1 if self.clusters else -(-quads // (d.WARPS * d.WARP))
        one_tile = Chain(shuffles=5, cycles=190) + (Chain(shared=1) if self.clusters else Chain(trips=1))
        return Chain(cycles=2 * NOISE * turns) + self.team().times(2) + one_tile.times(turns) + self.draw()

    def race_listed(self) -> Chain:
        """The same among tokens that are listed: each sums up its tile, by comparing with all."""
        return Chain(barriers=2, shared=4, cycles=2 * NOISE + 12 * RACED) + REDUCTION.times(2)

    def draw(self) -> Chain:
        """A token of the tile that won."""
        return Chain(shuffles=5, cycles=400) + (Chain(shared=2) if self.clusters else Chain(trips=2))

    def overlay(self) -> Chain:
        """Bits of the tokens concerned, an entry for each, all in memory (overlay.cuh)."""
        return Chain(barriers=10, shuffles=10, shared=6, trips=15, cycles=800) + REDUCTION
