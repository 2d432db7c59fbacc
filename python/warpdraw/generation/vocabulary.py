"""The vocabulary that a request draws from: how large it is, and which ids the texts in its parameters stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

from ..model.tokenizer import Tokenizer
from ..model.weights import Checkpoint
from .params import BREAKERS, SamplingParams, Token


@dataclass(frozen=True)
class TokenLists:
    """The token lists of one request, as ids."""

    allowed: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    breakers: tuple[int, ...] = ()


class Ids:
    """Token ids below `size` that have no texts; the logits have `padded` columns."""

    def __init__(self, size: int, padded: int) -> None:
        self.size, self.padded = size, padded

    def lists(self, name: str, params: SamplingParams) -> TokenLists:
        """The lists of a request, called `name` in messages; ValueError for what is no token here."""
        for field in ("logprobs", "kept"):
            if (getattr(params, field) or 0) > self.padded:
                raise ValueError(f"{name}.{field}: expected at most {self.padded}, got {getattr(params, field)}")
        self._ids(f"{name}.stop_ids", params.stop_ids)
        return TokenLists(
            self._ids(f"{name}.allowed_ids", params.allowed_ids or ()),
            self._ids(f"{name}.banned_ids", params.banned_ids),
            tuple(
                (token, bias)
                for named, bias in params.logit_bias
                for token in self._ids(f"{name}.logit_bias", (named,))
            ),
            self._breakers(f"{name}.dry_breakers", params.dry_breakers) if params.dry_multiplier else (),
        )

    def _ids(self, name: str, tokens: tuple[Token, ...]) -> tuple[int, ...]:
        """The ids meant: an id stands for itself, a text for every token that has exactly this text."""
        ids: dict[int, None] = {}
        for token in tokens:
            if isinstance(token, int):
                if token >= self.size:
                    raise ValueError(f"{name}: expected ids below {self.size}, got {token}")
                ids[token] = None
            else:
                ids.update(dict.fromkeys(self._ids_of_text(name, token)))
        return tuple(ids)

    def _ids_of_text(self, name: str, text: str) -> list[int]:
        raise ValueError(f"{name}: expected token ids, because without a tokenizer nothing has a text, got {text!r}")

    def _breakers(self, name: str, strings: tuple[str, ...]) -> tuple[int, ...]:
        if strings:
            raise ValueError(f"{name}: expected none, because without a tokenizer nothing has a text, got {strings!r}")
        return ()


class Vocabulary(Ids):
    """The tokens of a checkpoint.

    `size` is one more than the largest id of the tokenizer: a model's head may be padded beyond it, to `padded`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tokenizer, padded = checkpoint.tokenizer, checkpoint.config.vocab_size
        name_of = self.tokenizer.backend.id_to_token
        super().__init__(next((i + 1 for i in reversed(range(padded)) if name_of(i) is not None), padded), padded)

    def _ids_of_text(self, name: str, text: str) -> list[int]:
        found = self._ids_of.get(text)
        if not found:
            raise ValueError(f"{name}: expected the text of one token, got {text!r}{self._spelled(text)}")
        return found

    def _spelled(self, text: str) -> str:
        """For a message: the tokens that a text is."""
        try:
            pieces = self.tokenizer.backend.encode(text, add_special_tokens=False).ids
        except (TypeError, ValueError):  # no text at all: lone surrogates
            return ""
        return ", which is " + ", ".join(repr(self.tokenizer.token_text(i)) for i in pieces) if pieces else ""

    def _breakers(self, name: str, strings: tuple[str, ...]) -> tuple[int, ...]:
        """The ids of all tokens whose text contains one of the strings."""
        ids: set[int] = set()
        for string in strings:
            found = [i for text, several in self._ids_of.items() if string in text for i in several]
            # A vocabulary without line ends or quotes has nothing to break at; that is no mistake of the request.
            if not found and string not in BREAKERS:
                raise ValueError(f"{name}: expected strings that some token's text contains, got {string!r}")
            ids.update(found)
        return tuple(sorted(ids))

    @cached_property
    def _ids_of(self) -> dict[str, list[int]]:
        """The tokens of each text."""
        texts = _TEXTS.setdefault(self.tokenizer, [])
        texts += (self.tokenizer.token_text(i) for i in range(len(texts), self.size))
        ids_of: dict[str, list[int]] = {}
        for i, text in enumerate(texts[: self.size]):
            ids_of.setdefault(text, []).append(i)
        return ids_of


# Reading the texts of 128,256 tokens takes a good part of a second: once for each tokenizer is enough.
_TEXTS: WeakKeyDictionary[Tokenizer, list[str]] = WeakKeyDictionary()
