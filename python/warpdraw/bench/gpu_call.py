"""What a call is to the kernels of a GPU: rows, tiles, blocks, occupancy, and how fast blocks read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from . import gpu_devices as d
from .cases import DTYPES
from .gpu_chains import EVERYTHING as EVERY_FEATURE
from .gpu_chains import FILTERS, READING, REJECTED, REJECTION_ALONE, TEMPERATURE, work_of
from .gpu_chains import GREEDY as FIRST_TOKEN
from .gpu_chains import REJECTION as REJECTING
from .gpu_chains import SOFTMAX as WHOLE_ROWS
from .gpu_jobs import ALONE, COMBINED, EVERYTHING, GREEDY, REJECTION, SOFTMAX, SPECULATIVE, TEMPERED, Point

# csrc/cuda/row.cuh, simt.h: sizes that the kernels are compiled with.
TILE, LEAST_BLOCKS, LIST = 64, 2, 512
THREADS = d.WARPS * d.WARP
LOADS, LOAD_BYTES = 4, 16  # of a thread on their way (stream_tiles)
SCRATCH_BYTES = 2 * d.WARPS * 3 * 8 + 2 * 3 * 8 + 2 * LIST * 8 + 16

# Registers of (cluster, maxima, rest), bf16, sm_90: docs/measured.md, "What the compiler says". Not in that table, so
# assumed: verify that compares (as sample). Verify that rejects has 128 by decision 0015.
LEAN, COMPLETE, ONLY_SUMS, REJECTS = (128, 53, 113), (128, 96, 128), (72, 48, 46), (128, 96, 128)


def tiles_of(vocab: int) -> int:
    """Tiles of a row."""
    return -(-vocab // TILE)


def tiles_for_each(tiles: int, blocks: int) -> int:
    """Tiles of each block: row.cuh."""
    return (tiles + 4 * blocks - 1) // (4 * blocks) * 4


def cluster_for(device: d.Device, rows: int, tiles: int, at_once: int, itemsize: int) -> int:
    """Blocks of a cluster, 0 if a row does not fit: rows.cuh."""

    def smallest(room: int) -> int:
        blocks = 1
        while blocks <= d.MOST_OF_CLUSTER and shared_of(tiles, blocks, at_once, itemsize) > room:
            blocks *= 2
        return blocks if blocks <= d.MOST_OF_CLUSTER else 0

    blocks = smallest(d.SHARED_OF_MULTIPROCESSOR // LEAST_BLOCKS - d.SHARED_RESERVED) or smallest(d.SHARED_OF_BLOCK)
    while 0 < blocks < 8 and rows * blocks * 2 <= device.multiprocessors and tiles >= 8 * blocks:
        blocks *= 2
    return blocks


def blocks_at_once(registers: int, shared: int, threads: int = THREADS) -> int:
    """Blocks of a kernel on a multiprocessor."""
    each = -(-registers // d.REGISTERS_TOGETHER) * d.REGISTERS_TOGETHER * threads
    by_shared = d.SHARED_OF_MULTIPROCESSOR // (shared + d.SHARED_RESERVED)
    return min(d.REGISTERS // each, by_shared, d.THREADS_AT_ONCE // threads, d.BLOCKS_AT_ONCE)


@dataclass(frozen=True)
class Call:
    """What a call is to its kernels."""

    point: Point
    kind: str
    rows: int
    tiles: int
    itemsize: int
    registers: tuple[int, int, int]
    reads_again: bool  # may go through whole rows a second time: `cuda` takes clusters then
    at_once: int = 1  # rows whose maxima are in shared memory
    walks: bool = False  # a kernel follows that looks at the outcomes

    @staticmethod
    def of(point: Point) -> Call:
        kinds: Mapping[str, tuple[str, tuple[int, int, int], bool]] = {
            COMBINED: (FILTERS, LEAN, False),
            TEMPERED: (TEMPERATURE, LEAN, False),
            GREEDY: (FIRST_TOKEN, LEAN, False),
            SOFTMAX: (WHOLE_ROWS, ONLY_SUMS, True),
            EVERYTHING: (EVERY_FEATURE, COMPLETE, True),
        }
        verifies = point.job in SPECULATIVE
        if verifies:
            alone, rejects = point.job.endswith(ALONE), point.job.startswith(REJECTION)
            kind = (REJECTION_ALONE if alone else REJECTING) if rejects else (TEMPERATURE if alone else FILTERS)
            about = (kind, REJECTS if rejects else LEAN, rejects)
        elif point.job in kinds:
            rejects, about = False, kinds[point.job]
        else:
            raise ValueError(f"job: expected one of {', '.join([*kinds, *SPECULATIVE])}, got {point.job!r}")
        itemsize = DTYPES[point.dtype].itemsize
        return Call(point, about[0], point.rows, tiles_of(point.vocab), itemsize, *about[1:], 1 + rejects, verifies)

    @property
    def row_bytes(self) -> int:
        return self.point.vocab * self.itemsize

    @property
    def written(self) -> int:
        """Tokens, flags and reports; or the probabilities."""
        if self.kind == WHOLE_ROWS:
            return self.rows * self.point.vocab * 4
        return self.rows * (16 + (20 * 8 + 16 if self.kind == EVERY_FEATURE else 0))

    @property
    def passes_of_drafts(self) -> float:
        """How often the rows of the drafts are read: for their maxima, for their sum, and where a draft is rejected."""
        if self.at_once == 1:
            return 0
        return 2 + REJECTED if work_of(self.kind, True, self.tiles).from_memory else 1

    @property
    def draft_bytes(self) -> int:
        """Of all rows that drafts were drawn from, read once."""
        return self.point.bytes - self.rows * self.row_bytes if self.at_once == 2 else 0


@dataclass(frozen=True)
class Reading:
    """A kernel that reads rows with several loads of each thread on their way."""

    blocks: int
    at_once: int
    bytes_of_block: float
    threads: int = THREADS
    loads: int = LOADS

    def round_us(self, dtype: str) -> float:
        """Loads are asked for, come, and their maxima are found."""
        instructions = READING[dtype] * self.loads * LOAD_BYTES / DTYPES[dtype].itemsize
        return d.MEMORY_US + instructions * d.INSTRUCTION / d.CYCLES_PER_US

    def block_us(self, dtype: str) -> float:
        """A block with nothing in its way."""
        return ceil(self.bytes_of_block / (self.threads * self.loads * LOAD_BYTES)) * self.round_us(dtype)

    def waves(self, device: d.Device) -> int:
        return ceil(self.blocks / (self.at_once * device.multiprocessors))


def shared_of(tiles: int, blocks: int, at_once: int, itemsize: int) -> int:
    return SCRATCH_BYTES + at_once * maxima_bytes(tiles) + tiles_for_each(tiles, blocks) * TILE * itemsize


def maxima_bytes(tiles: int) -> int:
    return -(-tiles * 4 // 16) * 16


def issue_us(instructions: float, rows: float, vocab: int, device: d.Device) -> float:
    """Instructions of a warp for 32 tokens, of all tokens of so many rows, on the whole device."""
    return instructions * rows * vocab / d.WARP / (device.multiprocessors * d.WARPS_A_CYCLE * d.CYCLES_PER_US)


def trip_us(point: Point, device: d.Device) -> float:
    return d.CACHE_US if point.bytes <= d.CACHE_SHARE * device.cache_bytes else d.MEMORY_US


def worst(bounds: Mapping[str, float]) -> str:
    return max(bounds, key=lambda name: bounds[name])
