"""Fields: the entries of a checkpoint's JSON file, each read with a check that names what it was and may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .config import CheckpointError


def read_json(file: Path) -> Fields:
    """The object in a JSON file; CheckpointError where the file is missing, not JSON, or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing; a checkpoint needs this file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds {type(content).__name__}; it must hold a JSON object")
    return Fields(str(file), content)


class Fields:
    """Entries of one JSON object. One that is absent or null has the default; those never asked for are `unread`."""

    def __init__(self, where: str, content: dict[str, Any]) -> None:
        self.where = where
        self.content = content
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        value = self.content.get(key)
        return default if value is None else value

    def size(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if not _is_number(value) or not 0 < value < float("inf"):
            raise self.error(key, "a positive number")
        return float(value)

    def number_or_null(self, key: str, absent: float | None) -> float | None:
        """A number, or None where the entry is null, which is not the same as absent."""
        if key not in self.content:
            return absent
        return None if self.get(key) is None else self.number(key)

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self.get(key)
        if not isinstance(value, list) or not value or not all(_is_number(one) and one > 0 for one in value):
            raise self.error(key, "a list of positive numbers")
        return tuple(map(float, value))

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def choice(self, key: str, default: str | None, allowed: dict[str, Any]) -> Any:
        """What `allowed` gives for the entry."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise self.error(key, f"one of {', '.join(allowed)}")
        return allowed[value]

    def fields(self, key: str) -> Fields:
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return Fields(f"{self.where}: {key}", value)

    def only(self, key: str, value: Any) -> None:
        """Refuse every value but one, where only that one is implemented."""
        if self.get(key, value) != value:
            raise self.error(key, f"{json.dumps(value)}, the only value that is supported")

    def unread(self, neutral: frozenset[str] = frozenset()) -> list[str]:
        """Entries that have a value, that nobody asked for, and that are not `neutral`."""
        known = self._read | neutral
        return sorted(key for key, value in self.content.items() if value is not None and key not in known)

    def error(self, key: str, allowed: str) -> CheckpointError:
        value = self.content.get(key)
        what = "is missing" if value is None else f"is {json.dumps(value)[:200]}"
        return CheckpointError(f"{self.where}: {key} {what}; it must be {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
