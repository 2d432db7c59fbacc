"""Numbers on the command line: parsers whose errors say what was given and what is allowed."""

from __future__ import annotations

import typer


def integer(text: str | int) -> int:
    """Any integer."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected an integer, got {text!r}") from None


def count(text: str | int) -> int:
    """An integer of at least 1."""
    value = integer(text)
    if value < 1:
        raise typer.BadParameter(f"expected an integer of at least 1, got {value}")
    return value


def number(text: str | float) -> float:
    """Any number; ranges are the matter of what takes it."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number, got {text!r}") from None
