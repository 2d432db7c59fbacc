"""Tokenizer: text to token ids and back, as a checkpoint's tokenizer.json says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from .config import CheckpointError


class Tokenizer:
    """A checkpoint's tokenizer. Its tokenizer.json alone decides how text is split and which special tokens are added
    (the beginning-of-text token is the post-processor's matter, as it is in transformers); truncation and padding that
    the file may ask for are switched off.

    >>> from tokenizers import Tokenizer as Backend, models, decoders
    >>> tokenizer = Tokenizer(Backend(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])))
    >>> tokenizer.encode("aba"), tokenizer.decode([2, 1])
    ([2, 0], 'ab b')
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json; CheckpointError where it is missing or not one."""
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: missing; a checkpoint needs this file")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises no narrower class
            raise CheckpointError(f"{path}: not a readable tokenizer ({error})") from None

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, special ones included; a model's vocabulary may be padded beyond that."""
        return self.backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` with the special tokens that the tokenizer adds.

        Raises ValueError for lone surrogates, and for characters that the tokenizer has no token for.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text is not valid Unicode: {error}") from None
        try:
            return self.backend.encode(text).ids
        except Exception as error:  # the library raises no narrower class
            unknown = "".join(sorted({each for each in text if self.backend.token_to_id(each) is None}))
            raise ValueError(
                f"text: expected characters that the tokenizer has a token for, got {unknown!r} ({error})"
            ) from None

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids` as one sequence; bytes that are not UTF-8, or not complete yet, become U+FFFD.

        Special tokens have no text unless `skip_special` is False; ids that are no token have none at all.
        Sentencepiece-style tokenizers drop the space before the first word.
        """
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def token_text(self, token: int) -> str:
        """The text of one token for display, with the space before it; `<id>` for an id that is no token."""
        piece = self.backend.id_to_token(token)
        if piece is None:
            return f"<{token}>"
        text = self.decode([token], skip_special=False)
        stripped = piece.startswith("\N{LOWER ONE EIGHTH BLOCK}") and not text.startswith(" ")
        return f" {text}" if stripped else text

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json."""
        self.backend.save(str(path))
