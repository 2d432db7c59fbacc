"""What the runs on a GPU have in common: options, the device, the choice of places, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from ..backends import BackendError
from .gpu_jobs import Point
from .harness import Timing
from .peers import COMPILED, COMPILED_EAGER
from .verify import NotVerified

DROPPED = "the time of the run was up: places are measured in the order of the grid, what matters most first"

Tell = Callable[[str, float], None]
Save = Callable[[dict[str, Any]], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Options:
    """What is asked of a run: `only` picks the jobs or models with that text in their name."""

    device: str = "cuda"
    quick: bool = False
    compile: bool = True
    only: str = ""
    seconds: float = 240.0

    @property
    def skip(self) -> dict[str, str]:
        """Peers that are not asked for, with the reason."""
        reason = "--quick" if self.quick else "" if self.compile else "--no-compile"
        return dict.fromkeys((COMPILED, COMPILED_EAGER), f"skipped: {reason}") if reason else {}


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Make it the current device; raises BackendError where there is none."""
    if device.type != "cuda":
        yield
        return
    if not torch.cuda.is_available():
        raise BackendError(f"device {device}: torch finds no CUDA device")
    with torch.cuda.device(device):
        yield


def chosen(items: Sequence[Item], only: str, point_of: Callable[[Item], Point]) -> list[Item]:
    """Those with a text in the name of their job; raises ValueError where no job has it."""
    found = [item for item in items if only in point_of(item).job]
    if not found:
        jobs = "; ".join(dict.fromkeys(point_of(item).job for item in items))
        raise ValueError(f"only: expected part of the name of a job ({jobs}), got {only!r}")
    return found


def title(point: Point) -> str:
    """A point in words."""
    return f"{point.job}, {point.batch} x {point.vocab} {point.dtype}, {point.logits}, {point.cache}"


def dropped(points: Sequence[Point], reason: str) -> list[dict[str, Any]]:
    """The record of points that were not measured."""
    return [asdict(point) | {"reason": reason} for point in points]


def failure(error: Exception) -> dict[str, str]:
    """The record of what went wrong."""
    kind = "not verified" if isinstance(error, NotVerified) else type(error).__name__
    return {"kind": kind, "reason": (str(error).strip() or kind).splitlines()[0][:300]}


def bandwidth_record(bandwidths: Sequence[float]) -> dict[str, Any]:
    """What was found of the bandwidth of a copy; nothing where it was not measured."""
    if not bandwidths:
        return {}
    found = Timing.of(bandwidths)
    figures = {name: getattr(found, name) * 1e-9 for name in ("median", "p10", "p90")}
    return {"copy_bandwidth": figures | {"unit": "GB/s, read and written"}}


def device_record(device: torch.device) -> dict[str, Any]:
    """What the device is."""
    if device.type != "cuda":
        return {"type": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": device.type,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
    }
