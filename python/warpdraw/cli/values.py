"""Numbers on the command line: parsers whose errors say what was given and what is allowed."""

from __future__ import annotations

import json
import re

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


def token(text: str | int) -> int | str:
    """A token: an id, or a text; in double quotes it is read as JSON, for digits, line ends and the like."""
    if isinstance(text, int) or re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if text.startswith('"'):
        try:
            named = json.loads(text)
        except ValueError:
            raise typer.BadParameter(f"expected a JSON string in double quotes, got {text!r}") from None
        return str(named)
    return text


def bias(text: str) -> tuple[int | str, float]:
    """A token and a number with = between them; the last = counts."""
    named, equals, value = text.rpartition("=")
    if not equals or not named:
        raise typer.BadParameter(f"expected ID=NUMBER or TEXT=NUMBER, got {text!r}")
    return token(named), number(value)
