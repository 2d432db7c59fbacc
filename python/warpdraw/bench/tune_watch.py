"""Notices work that does not end: a kernel that waits forever cannot be stopped, but it can be named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watched(seconds: float, stuck: Callable[[], None]) -> Iterator[None]:
    """Call `stuck`, in a thread of its own, if the block takes longer than that."""
    timer = threading.Timer(seconds, stuck)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
