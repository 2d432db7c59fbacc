"""What the predictions for GPUs know of the devices: sizes from data sheets, and times that are assumed."""

from __future__ import annotations

from dataclasses import dataclass

# Sizes of a multiprocessor of compute capability 9.0: CUDA programming guide, "technical specifications".
REGISTERS, THREADS_AT_ONCE, BLOCKS_AT_ONCE = 65536, 2048, 32
SHARED_OF_MULTIPROCESSOR, SHARED_OF_BLOCK = 228 * 1024, 227 * 1024
SHARED_RESERVED = 1024  # of each block, by the system
REGISTERS_TOGETHER = 8  # registers are given out to a thread in such steps
MOST_OF_CLUSTER = 16
WARP = 32
WARPS = 8  # of a block of ours: csrc/cuda/simt.h
WARPS_A_CYCLE = 4  # whose next instruction a multiprocessor issues

# Times. All are assumed: of the size that others publish, none measured on the devices of a run.
CYCLES_PER_US = 1755.0  # the clock under load
LAUNCH_US = 1.0  # from the end of a kernel to the start of the next in a graph
FOLLOWING_US = 0.5  # the same where the next was launched programmatically
START_US = 1.5  # of a kernel: its first block runs and has its parameters
TURN_US = 0.5  # from the end of a block to the loads of the next in its place
MEMORY_US, CACHE_US = 0.8, 0.35  # a load that the memory, or the L2 cache, answers under load
CLUSTER_BARRIER_US = 0.4
BLOCK_BARRIER, SHARED_TRIP, PEER_TRIP = 40, 30, 220  # cycles: a barrier, a read of own shared memory, of a peer's
SHUFFLE = 32  # cycles: exchange 64 bits and combine them
INSTRUCTION = 2.0  # cycles from one instruction of a warp to its next while it computes
CACHE_SHARE = 0.8  # of the L2 cache: what of a batch is found there again after it was read


@dataclass(frozen=True)
class Device:
    """A GPU; `copied` is what a copy on it moved, bytes read and written a microsecond."""

    title: str
    copied: float
    cache_bytes: int
    multiprocessors: int = 132

    @property
    def copied_as_words(self) -> str:
        """The copy's bandwidth."""
        return f"{self.copied * 1e-6:.1f} TB/s"


DEVICES = {
    "h200": Device("NVIDIA H200", 4.3e6, 60 * 10**6),
    "h100": Device("NVIDIA H100", 3.0e6, 50 * 10**6),
}


def device_named(name: str) -> Device | None:
    """The one that a driver calls so; None if nothing is known of it."""
    return next((device for device in DEVICES.values() if device.title.split()[-1] in name), None)
