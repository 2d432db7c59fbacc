"""The 27 classes of the models: the end of a name, which also begins it, and the letters from a to z."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

END = 0
LETTERS = ascii_lowercase
SIZE = 1 + len(LETTERS)
# The most letters of a name.
LONGEST = 20


def ids_of(letters: str) -> list[int]:
    """A class for each letter.

    >>> ids_of("abz")
    [1, 2, 26]
    """
    return [1 + LETTERS.index(letter) for letter in letters]


def text_of(ids: Sequence[int]) -> str:
    """The letters before the first end.

    >>> text_of([1, 2, 26, 0])
    'abz'
    """
    ended = ids.index(END) if END in ids else len(ids)
    return "".join(LETTERS[each - 1] for each in ids[:ended])


def check_letters(what: str, text: str, most: int = LONGEST) -> None:
    """Raise ValueError unless `text` is at most so many letters from a to z; `what` says what the text is.

    >>> check_letters("start", "Abi")
    Traceback (most recent call last):
    ValueError: start: expected letters from a to z, got 'Abi'
    """
    if not isinstance(text, str) or not set(text) <= set(LETTERS):
        raise ValueError(f"{what}: expected letters from a to z, got {text!r}")
    if len(text) > most:
        raise ValueError(f"{what}: expected at most {most} letters, because names have {LONGEST}, got {len(text)}")
