"""Where output goes: results to stdout, everything about the run to stderr, colour and progress to terminals only."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

TASK = TaskID(0)


def stdout() -> Console:
    """The console for results. (Made anew, because a test or a caller may have replaced sys.stdout.)"""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """The console for everything about the run."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def error_line(message: str) -> None:
    """Write one line about what was wrong."""
    print("warpdraw: error: " + " ".join(message.split()), file=sys.stderr)


def warning_line(message: Warning | str, *_: object, **__: object) -> None:
    """Write one line about what may be wrong; takes what `warnings.showwarning` does."""
    print("warpdraw: warning: " + " ".join(str(message).split()), file=sys.stderr)


def json_text(record: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: a log-probability of -inf becomes null."""
    return json.dumps(_finite(record), ensure_ascii=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress(total: float, description: str, wanted: bool = True, left: bool = False) -> Iterator[Progress]:
    """A bar with one TASK on stderr while the block runs; nothing where stderr is not a terminal.

    It ends with the time that has passed, or with the time `left`.
    """
    console = stderr()
    time = TimeRemainingColumn() if left else TimeElapsedColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), time)
    disabled = not (wanted and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=disabled) as bar:
        bar.add_task(description, total=total)
        yield bar
