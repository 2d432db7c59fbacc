"""Checks of a text: how long it is, which scripts its letters are of, which patterns it has or lacks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..model.weights import Checkpoint

UNITS = ("characters", "words", "tokens")


@dataclass(frozen=True)
class Finding:
    """What a check found: what it is, and the part of the text, if it is one, where it stands."""

    what: str
    begin: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Check:
    """A named function of a text that returns what is wrong with it; nothing where all is well.

    >>> Check("shouting", lambda text: [Finding("capitals")] if text.isupper() else []).find("HELP")
    [Finding(what='capitals', begin=None, end=None)]
    """

    name: str
    function: Callable[[str], Iterable[Finding]]

    def find(self, text: str) -> list[Finding]:
        """The findings in a text, in the order of their places."""
        findings = list(self.function(text))
        for each in findings:
            if not isinstance(each, Finding):
                raise TypeError(f"{self.name}: expected a function that returns findings, got {each!r} among them")
        return sorted(findings, key=lambda each: -1 if each.begin is None else each.begin)


def length(most: int | None = None, least: int = 0, unit: str = "characters", model: Checkpoint | None = None) -> Check:
    """A text of `least` to `most` characters, words or tokens (of `model`).

    >>> length(most=2, unit="words").find("the sky is")
    [Finding(what='3 words, more than 2', begin=None, end=None)]
    """
    if unit not in UNITS:
        raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    if (unit == "tokens") != (model is not None):
        raise ValueError(f"model: expected one where the unit is tokens, and only there, got {model!r}")
    for name, value in (("least", least), ("most", most)):
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")
    if most is not None and most < least:
        raise ValueError(f"most: expected at least least = {least}, got {most}")

    def find(text: str) -> list[Finding]:
        if model is not None:
            count = len(model.tokenizer.backend.encode(text, add_special_tokens=False).ids)
        else:
            count = len(text.split()) if unit == "words" else len(text)
        if count < least:
            return [Finding(f"{count} {unit}, fewer than {least}")]
        return [Finding(f"{count} {unit}, more than {most}")] if most is not None and count > most else []

    return Check("length", find)


def scripts(*allowed: str) -> Check:
    """A text whose letters are all of these scripts: "Latin", "Devanagari", "Cyrillic", "Han", "Arabic", ...

    The script is the first word of a letter's Unicode name, with "Han" for "CJK"; digits, signs and blanks belong to
    every script. It says which letters a text is written in, not which language.

    >>> scripts("Latin").find("ça va, мир")
    [Finding(what='Cyrillic', begin=7, end=10)]
    """
    if not allowed or not all(isinstance(each, str) and each.strip() for each in allowed):
        raise ValueError(f"scripts: expected at least one name such as 'Latin', got {allowed!r}")
    known = {each.casefold() for each in allowed}

    def find(text: str) -> list[Finding]:
        findings: list[Finding] = []
        for at, letter in enumerate(text):
            script = _script(letter)
            if script is None or script.casefold() in known:
                continue
            last = findings[-1] if findings else None
            if last is not None and last.end == at and last.what == script:
                findings[-1] = Finding(script, last.begin, at + 1)
            else:
                findings.append(Finding(script, at, at + 1))
        return findings

    return Check("scripts", find)


def forbid(pattern: str | re.Pattern[str]) -> Check:
    """A text in which a regular expression matches nothing.

    >>> forbid("[0-9]+").find("room 12")
    [Finding(what="'[0-9]+'", begin=5, end=7)]
    """
    compiled = _compiled("forbid", pattern)

    def find(text: str) -> list[Finding]:
        return [Finding(repr(compiled.pattern), *match.span()) for match in compiled.finditer(text)]

    return Check("forbid", find)


def require(pattern: str | re.Pattern[str]) -> Check:
    """A text in which a regular expression matches something.

    >>> require("[.!?]$").find("no end")
    [Finding(what="nothing that '[.!?]$' matches", begin=None, end=None)]
    """
    compiled = _compiled("require", pattern)

    def find(text: str) -> list[Finding]:
        return [] if compiled.search(text) else [Finding(f"nothing that {compiled.pattern!r} matches")]

    return Check("require", find)


def _compiled(name: str, pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    if not isinstance(pattern, str | re.Pattern):
        raise TypeError(f"{name}: expected a regular expression, got {pattern!r}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: expected a regular expression, got {pattern!r}: {error}") from None
    if not isinstance(compiled.pattern, str):
        raise TypeError(f"{name}: expected a regular expression of text, got one of bytes")
    return compiled


def _script(letter: str) -> str | None:
    """The script of a letter; None for what is no letter."""
    if not unicodedata.category(letter).startswith("L"):
        return None
    first = unicodedata.name(letter, "UNNAMED").split()[0]
    return "Han" if first == "CJK" else first.capitalize()
