"""How long a call takes by the two launches of Triton, and why."""

from __future__ import annotations

from math import ceil

from . import gpu_devices as d
from .gpu_call import (
    LOAD_BYTES,
    TILE,
    Call,
    Reading,
    blocks_at_once,
    trip_us,
    worst,
)
from .gpu_chains import FILTERS, GATHERED, Chain
from .gpu_jobs import COMBINED
from .gpu_paths import TRITON, Prediction

# Triton (python/warpdraw/triton): warps and registers of its two kernels, registers where a row has k, p and min-p.
TRITON_TILES, TRITON_WARPS, TRITON_REGISTERS = 32, (4, 8), (19, 203)
# Its filters keep maxima and lists in memory, trips counted in triton/{filters,select,race}.py. Two thirds of cycles
# are the race's: two passes with noise for every tile, of which three words of four are thrown away.
TRITON_CHAIN = Chain(barriers=70, shuffles=120, shared=80, trips=36, cycles=12000)


def by_triton(call: Call, device: d.Device) -> Prediction:
    if call.kind != FILTERS or call.walks:
        raise ValueError(f"job: expected {COMBINED} for {TRITON}, got {call.point.job!r}")
    dtype, trip = call.point.dtype, trip_us(call.point, device)
    programs = -(-call.tiles // TRITON_TILES)
    threads = [warps * d.WARP for warps in TRITON_WARPS]
    reading = Reading(
        call.rows * programs,
        blocks_at_once(TRITON_REGISTERS[0], 0, threads[0]),
        TRITON_TILES * TILE * call.itemsize,
        threads[0],
        max(1, TRITON_TILES * TILE * call.itemsize // (threads[0] * LOAD_BYTES)),  # a program has its tiles in one go
    )
    at_once = blocks_at_once(TRITON_REGISTERS[1], 0, threads[1])
    waves = ceil(call.rows / (at_once * device.multiprocessors))
    first, maxima = call.rows * call.row_bytes, call.rows * call.tiles * 4
    bounds = {
        "memory": d.MEMORY_US + first / device.copied,
        "bytes in flight": reading.waves(device) * (d.TURN_US + reading.block_us(dtype)) - d.TURN_US,
    }
    limit = worst(bounds)
    # What a program writes and reads of its own stays in L2; the tiles that it reads again are what may not.
    selection = TRITON_CHAIN.microseconds(d.CACHE_US) + 3 * (trip - d.CACHE_US)
    launch, rest = 2 * (d.LAUNCH_US + d.START_US), waves * selection + (waves - 1) * d.TURN_US
    return Prediction(
        path=TRITON,
        taken=False,
        bytes_read=first + maxima + call.rows * GATHERED * TILE * call.itemsize,
        bytes_written=call.written + maxima,
        launches=2,
        cluster_barriers=0,
        block_barriers=round(TRITON_CHAIN.barriers),
        registers=TRITON_REGISTERS[1],
        shared_bytes=0,
        cluster=1,
        blocks=reading.blocks,
        blocks_at_once=reading.at_once,
        waves=waves,
        launch_us=launch,
        reading_us=bounds[limit],
        selection_us=rest,
        tail_us=0.0,
        microseconds=launch + bounds[limit] + rest,
        limit="selection" if rest > bounds[limit] else limit,
    )
