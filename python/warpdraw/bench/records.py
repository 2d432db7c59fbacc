"""What every measurement's JSON holds beside its figures: all that one needs to judge or repeat them."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..environment import environment
from .harness import COLD_BYTES


def described(benchmark: str, cold_bytes: int = COLD_BYTES, **more: Any) -> dict[str, Any]:
    """The head of a document; `more` follows."""
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(sys.argv[1:]),
        "environment": environment(),
        "method": {
            "timing": "wall time, methods called in turn in one process",
            "cold": f"each call on the next of several inputs of together at least {cold_bytes} bytes",
            "hot": "each call on the same input",
            "verified": "kept sets and drawn tokens against the float64 reference, before timing",
        },
        **more,
    }


def command(arguments: list[str]) -> str:
    """What was typed; of an absolute path the name alone, because the folders of one machine say nothing on another."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in arguments)
    return shlex.join(["warpdraw", *words])
