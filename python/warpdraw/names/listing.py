"""The list: given names of India by origin, one a line, and the part of them that models are only measured on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from zlib import crc32

FILE = Path(__file__).with_name("names.txt")
# One name in so many is held out.
HELD_OUT = 10


@cache
def names_by_origin() -> dict[str, tuple[str, ...]]:
    """The names of each origin, as the lines `# origin` of the file part them; a name stands under one of its origins.

    >>> "abhay" in names_by_origin()["Sanskrit and Hindi"]
    True
    """
    found: dict[str, list[str]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            members = found.setdefault(line.removeprefix("# "), [])
        elif line:
            members.append(line)
    return {origin: tuple(names) for origin, names in found.items()}


@cache
def all_names() -> tuple[str, ...]:
    """Every name, in the order of the alphabet.

    >>> len(all_names()) > 1500
    True
    """
    return tuple(sorted(name for names in names_by_origin().values() for name in names))


@cache
def known_names() -> frozenset[str]:
    """The same as a set: a name is new if it is not in it."""
    return frozenset(all_names())


def split() -> tuple[list[str], list[str]]:
    """The names to train on, and those held out: which is a function of the name alone.

    >>> training, held_out = split()
    >>> 0.08 < len(held_out) / len(all_names()) < 0.12
    True
    """
    parts: tuple[list[str], list[str]] = [], []
    for name in all_names():
        parts[crc32(name.encode()) % HELD_OUT == 0].append(name)
    return parts
