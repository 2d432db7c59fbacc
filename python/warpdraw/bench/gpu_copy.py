"""A copy on the device, timed beside what is measured: its bandwidth is the floor that times are compared with."""

from __future__ import annotations

import torch

from .gpu_clock import Clock, Run
from .harness import Timing


class Copy:
    """A copy of so many bytes; its bandwidth counts what is read and what is written."""

    def __init__(self, clock: Clock, size: int) -> None:
        source, target = (torch.empty(size, dtype=torch.uint8, device=clock.device) for _ in range(2))
        source.random_(255)
        self._moved = 2 * size
        self.run = Run(lambda: clock.once(lambda: target.copy_(source)), "events around one copy", 1)

    def bandwidth(self, timing: Timing) -> float:
        """What its timing says."""
        return self._moved / timing.median
