"""How long a call takes by each path of the CUDA kernels, one launch by clusters or two, and why."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from . import gpu_devices as d
from .gpu_call import (
    SCRATCH_BYTES,
    TILE,
    Call,
    Reading,
    blocks_at_once,
    issue_us,
    maxima_bytes,
    shared_of,
    tiles_for_each,
    trip_us,
    worst,
)
from .gpu_chains import GATHERED, READING, TEMPERATURE, TOGETHER, Work, work_of

CLUSTER, SPLIT, TRITON = "cluster", "split", "triton"


@dataclass(frozen=True)
class Prediction:
    """One job by one path. The parts of the time add up to `microseconds`."""

    path: str
    taken: bool  # whether this is the path of `cuda` for the job
    bytes_read: int
    bytes_written: int
    launches: int
    cluster_barriers: int
    block_barriers: int  # one after another, for one row
    registers: int  # of the kernel that selects, and the rest of it too
    shared_bytes: int
    cluster: int  # blocks of a row that wait for each other
    blocks: int  # of the kernel that reads
    blocks_at_once: int  # on a multiprocessor
    waves: int  # rows that a place for them has in turn
    launch_us: float
    reading_us: float
    selection_us: float
    tail_us: float
    microseconds: float
    limit: str


def _walk_us(call: Call) -> tuple[float, float]:
    """Launch and work of the kernel that goes over the outcomes of a request: a few reads, one after the other."""
    return (d.FOLLOWING_US + d.TURN_US, 4 * d.CACHE_US) if call.walks else (0.0, 0.0)


def _passes_us(work: Work, tiles: int, blocks: int) -> float:
    """The passes over a row of tokens that are on chip, by its blocks alone."""
    of_warp = tiles_for_each(tiles, blocks) * TILE / d.WARP / d.WARPS
    return sum(work.passes) * of_warp * d.INSTRUCTION / d.CYCLES_PER_US


def _memory_passes_us(passes: tuple[float, ...], tiles: int, blocks: int, trip: float) -> float:
    """Passes over a row in memory: a warp has four tiles on their way, waits for them, and works on them."""
    turns = tiles_for_each(tiles, blocks) / (d.WARPS * TOGETHER)
    tokens = TOGETHER * TILE / d.WARP
    return sum(turns * (trip + tokens * each * d.INSTRUCTION / d.CYCLES_PER_US) for each in passes)


def by_clusters(call: Call, device: d.Device, blocks: int) -> Prediction:
    dtype, trip = call.point.dtype, trip_us(call.point, device)
    work = work_of(call.kind, True, call.tiles)
    shared = shared_of(call.tiles, blocks, call.at_once, call.itemsize)
    at_once = blocks_at_once(call.registers[0], shared)
    drafted = 1 if call.at_once == 2 else 0
    reading = Reading(
        call.rows * blocks, at_once, tiles_for_each(call.tiles, blocks) * TILE * call.itemsize * (1 + drafted)
    )
    places = at_once * device.multiprocessors // blocks
    waves = ceil(call.rows / places)
    passes = _passes_us(work, call.tiles, blocks) + _memory_passes_us(work.from_memory, call.tiles, blocks, trip)
    selection = work.chain.microseconds(trip) + passes
    read = call.rows * call.row_bytes + int(call.passes_of_drafts * call.draft_bytes)
    instructions = READING[dtype] * (1 + drafted) + sum(work.passes) + sum(work.from_memory)
    alone = reading.block_us(dtype)
    flight, waiting = waves * alone, (waves - 1) * (selection + d.TURN_US)
    bounds = {
        "memory": d.MEMORY_US + (read + call.written) / device.copied,
        "instructions": issue_us(instructions, call.rows, call.point.vocab, device) - passes,  # they are counted in it
        "bytes in flight" if flight > waiting else "selection": flight + waiting,
    }
    limit = worst(bounds)
    walk_launch, walk = _walk_us(call)
    launch = d.LAUNCH_US + d.START_US + walk_launch
    total = launch + bounds[limit] + selection + walk
    return Prediction(
        path=CLUSTER,
        taken=False,
        bytes_read=read,
        bytes_written=call.written,
        launches=1 + call.walks,
        cluster_barriers=int(work.chain.cluster),
        block_barriers=round(work.chain.barriers),
        registers=call.registers[0],
        shared_bytes=shared,
        cluster=blocks,
        blocks=reading.blocks,
        blocks_at_once=at_once,
        waves=waves,
        launch_us=launch,
        reading_us=bounds[limit],
        selection_us=selection,
        tail_us=walk,
        microseconds=total,
        limit="selection" if selection > bounds[limit] else limit,
    )


def by_split(call: Call, device: d.Device) -> Prediction:
    dtype, trip = call.point.dtype, trip_us(call.point, device)
    work = work_of(call.kind, False, call.tiles)
    # As many blocks as the device holds, but no more than a row has groups of 32 tiles: rows.cuh.
    wanted = max(1, 4 * device.multiprocessors // call.rows)
    each = tiles_for_each(call.tiles, min(wanted, -(-call.tiles // 32)))
    drafted = 1 if call.at_once == 2 else 0
    reading = Reading(
        call.rows * -(-call.tiles // each),
        blocks_at_once(call.registers[1], SCRATCH_BYTES),
        each * TILE * call.itemsize * (1 + drafted),
    )
    room = SCRATCH_BYTES + call.at_once * maxima_bytes(call.tiles)
    room = room if room <= d.SHARED_OF_BLOCK else SCRATCH_BYTES  # the maxima stay in memory then
    at_once = blocks_at_once(call.registers[2], room)
    waves = ceil(call.rows / (at_once * device.multiprocessors))
    again = work.passes + work.from_memory if call.kind != TEMPERATURE else ()
    selection = work.chain.microseconds(trip) + _memory_passes_us(again, call.tiles, 1, trip)
    maxima = call.rows * call.tiles * 4 * call.at_once
    first = call.rows * call.row_bytes + drafted * call.draft_bytes
    # The tiles that are read again; all of them where rows are summed.
    later = maxima + call.rows * (len(work.passes) if again else 1) * (
        call.row_bytes if again else GATHERED * TILE * call.itemsize
    )
    later += int((call.passes_of_drafts - drafted) * call.draft_bytes)
    bounds = {
        "memory": d.MEMORY_US + first / device.copied,
        "instructions": issue_us(READING[dtype] * (1 + drafted), call.rows, call.point.vocab, device),
        "bytes in flight": reading.waves(device) * (d.TURN_US + reading.block_us(dtype)) - d.TURN_US,
    }
    limit = worst(bounds)
    rest = {
        "selection": waves * selection + (waves - 1) * d.TURN_US,
        "memory": (later + call.written) / device.copied,
        "instructions": issue_us(sum(work.passes) + sum(work.from_memory), call.rows, call.point.vocab, device),
    }
    longest = worst(rest)
    walk_launch, walk = _walk_us(call)
    # The second kernel is launched, and has its parameters, while the first runs.
    launch = d.LAUNCH_US + d.START_US + d.FOLLOWING_US + walk_launch
    return Prediction(
        path=SPLIT,
        taken=False,
        bytes_read=first + later,
        bytes_written=call.written + maxima,
        launches=2 + call.walks,
        cluster_barriers=0,
        block_barriers=round(work.chain.barriers),
        registers=call.registers[2],
        shared_bytes=room,
        cluster=1,
        blocks=reading.blocks,
        blocks_at_once=reading.at_once,
        waves=waves,
        launch_us=launch,
        reading_us=bounds[limit],
        selection_us=rest[longest],
        tail_us=walk,
        microseconds=launch + bounds[limit] + rest[longest] + walk,
        limit=longest if rest[longest] > bounds[limit] else limit,
    )
