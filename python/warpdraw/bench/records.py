"""What every measurement's JSON holds beside its figures: all that one needs to judge or repeat them."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from typing import Any

from ..environment import environment
from .harness import COLD_BYTES


def described(benchmark: str, cold_bytes: int = COLD_BYTES, **more: Any) -> dict[str, Any]:
    """The head of a document; `more` follows."""
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["warpdraw", *sys.argv[1:]]),
        "environment": environment(),
        "method": {
            "timing": "wall time, methods called in turn in one process",
            "cold": f"each call on the next of several inputs of together at least {cold_bytes} bytes",
            "hot": "each call on the same input",
            "verified": "kept sets and drawn tokens against the float64 reference, before timing",
        },
        **more,
    }
