"""Prefix: what a text has to begin with, whichever tokens it is written in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..model.tokenizer import Tokenizer

# What sentencepiece writes for a space.
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class Prefix:
    """The tokens that a text can go on with until it has one of its prefixes; after that all of them.

    A token fits where its bytes begin with what is left of a prefix, or are the beginning of that. Tokens without bytes
    (special ones, the end of a text) fit nowhere.
    """

    def __init__(self, alternatives: Sequence[str], tokens: Sequence[bytes], words: int) -> None:
        self._alternatives = [text.encode() for text in alternatives]
        self._tokens, self._words = tokens, words
        self._masks: dict[bytes, Tensor | None] = {}

    def words(self, tokens: list[int]) -> Tensor | None:
        """The tokens that may follow, int32 [words] on the CPU; None for all."""
        written = b""
        longest = max(map(len, self._alternatives))
        for token in tokens:
            written += self._tokens[token]
            if len(written) >= longest:
                break
        if any(written.startswith(each) for each in self._alternatives):
            return None
        if written not in self._masks:
            self._masks[written] = self._mask(written)
        return self._masks[written]

    def unspellable(self) -> str | None:
        """A prefix that no tokens can spell; None where there is none."""
        for each in self._alternatives:
            reached = [0]
            for at in reached:
                rest = each[at:]
                ends = {at + min(len(text), len(rest)) for text in self._tokens if text and _fits(text, rest)}
                reached += sorted(ends.difference(reached))
            if len(each) not in reached:
                return each.decode()
        return None

    def _mask(self, written: bytes) -> Tensor:
        rest = [each[len(written) :] for each in self._alternatives if each.startswith(written)]
        allowed = torch.zeros(32 * self._words, dtype=torch.bool)
        for token, text in enumerate(self._tokens):
            allowed[token] = bool(text) and any(_fits(text, each) for each in rest)
        bits = allowed.view(-1, 32).long() << torch.arange(32)
        return bits.sum(1).to(torch.int32)


def token_bytes(tokenizer: Tokenizer, size: int) -> list[bytes]:
    """The bytes of each token below `size`: b"" for special tokens and for ids that are no token.

    >>> from warpdraw import load
    >>> tokenizer = load("tiny-target").tokenizer
    >>> token_bytes(tokenizer, 1264)[tokenizer.encode(" blue")[-1]]
    b' blue'
    """
    known = _BYTES.setdefault(tokenizer, [])
    if len(known) < size:
        backend = tokenizer.backend
        special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
        byte_level = '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])
        for i in range(len(known), size):
            piece = None if i in special else backend.id_to_token(i)
            known.append(b"" if piece is None else _bytes_of(piece, byte_level))
    return known[:size]


def _fits(text: bytes, rest: bytes) -> bool:
    return text.startswith(rest) or rest.startswith(text)


def _bytes_of(piece: str, byte_level: bool) -> bytes:
    if byte_level and all(letter in _LETTERS for letter in piece):
        return bytes(_LETTERS[letter] for letter in piece)
    if piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6:
        return bytes.fromhex(piece[3:5])
    return piece.replace(SPACE, " ").encode()


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies: itself if it can be seen, else a later one."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + at): byte for at, byte in enumerate(hidden)}


_LETTERS = _byte_letters()
_BYTES: WeakKeyDictionary[Tokenizer, list[bytes]] = WeakKeyDictionary()
