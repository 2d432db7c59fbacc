"""Matcher: the guide of one text, which goes from one beginning of it to another and says what may follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..model.tokenizer import Tokenizer
from ..model.weights import Checkpoint
from .guide import Guide, library

# So many guides are kept for each tokenizer, those that were asked for last.
MOST_KEPT = 64


class Matcher:
    """Says which tokens may follow the ids drawn so far of one text.

    ends    the ids that end the text: they are allowed where it is complete. Other end-of-text ids never are.
    words   how many words of 32 bits the mask has.
    """

    def __init__(self, compiled: Any, vocabulary: Any, ends: Sequence[int], words: int) -> None:
        self._matcher, eos_ids = compiled.deep_copy(), vocabulary.eos_tokens
        # The vocabulary of llguidance may be larger than the logits are wide.
        self._buffer = torch.zeros((vocabulary.vocab_size + 31) // 32, dtype=torch.int32)
        self._fits, self._shown = len(self._buffer) == words, self._buffer[:words]
        self._bytes = self._buffer.nbytes  # asking a tensor for its length takes a tenth of what a mask does
        self._consumed: list[int] = []
        # llguidance allows its own end-of-text ids where a text is complete.
        self._never = [token for token in eos_ids if token not in ends]
        self._also = [token for token in ends if token not in eos_ids]
        self._other_ends = bool(self._never or self._also)

    @property
    def problem(self) -> str:
        """Why nothing may follow, where the guide itself broke off: a grammar that became too large, say."""
        error = str(self._matcher.get_error()) if self._matcher.is_error() else ""
        return " ".join(error.partition("<state>")[0].split())

    def words(self, tokens: list[int]) -> Tensor:
        """The tokens that may follow, int32 [words] on the CPU, valid until the next call."""
        self._fill(tokens, self._buffer)
        return self._shown

    def write(self, tokens: list[int], words: Tensor) -> None:
        """The same, written to `words` on the CPU."""
        if self._fits:
            self._fill(tokens, words)
        else:
            words.copy_(self.words(tokens))

    def _fill(self, tokens: list[int], words: Tensor) -> None:
        self._go_to(tokens)
        matcher = self._matcher
        if matcher.is_error():
            words.zero_()
            return
        matcher.unsafe_compute_mask_ptr(words.data_ptr(), self._bytes)
        if self._other_ends:
            self._set_ends(words)

    def _set_ends(self, words: Tensor) -> None:
        for token in self._never:
            _set(words, token, False)
        if self._also and self._matcher.is_accepting():
            for token in self._also:
                _set(words, token, True)

    def complete(self, tokens: list[int]) -> bool:
        """Whether nothing but an end can follow."""
        self._go_to(tokens)
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def _go_to(self, tokens: list[int]) -> None:
        """Take back what is not in `tokens`, and take the rest of them."""
        consumed, matcher = self._consumed, self._matcher
        kept = len(consumed)
        if tokens[:kept] != consumed:
            pairs = zip(consumed, tokens, strict=False)
            kept = next((at for at, (old, new) in enumerate(pairs) if old != new), min(kept, len(tokens)))
            matcher.rollback(len(consumed) - kept)
            del consumed[kept:]
        if len(tokens) == kept + 1:
            matcher.consume_token(tokens[kept])
            consumed.append(tokens[kept])
        elif len(tokens) > kept:
            matcher.consume_tokens(tokens[kept:])
            consumed += tokens[kept:]


class Matchers:
    """The guides of a checkpoint's requests, compiled once for its tokenizer."""

    def __init__(self, model: Checkpoint) -> None:
        self._tokenizer, self._eos_ids = model.tokenizer, tuple(model.eos_ids)
        self._padded = model.config.vocab_size

    def check(self, name: str, guide: Guide) -> None:
        """ValueError where no text of this tokenizer can be what the guide wants."""
        self._compiled(name, guide)

    def matcher(self, guide: Guide, ends: Sequence[int]) -> Matcher:
        """A matcher for one text."""
        compiled = self._compiled("guide", guide)
        return Matcher(compiled, self._vocabulary(), ends, (self._padded + 31) // 32)

    def _compiled(self, name: str, guide: Guide) -> Any:
        kept = _COMPILED.setdefault(self._tokenizer, {})
        key = (guide, self._padded, self._eos_ids)
        if key not in kept:
            made = library().LLMatcher(self._vocabulary(), guide.compiled, log_level=0)
            if not made.is_error():
                # A guide that contradicts itself may show it only where a first token is looked for.
                mask = made.deep_copy()
                mask.compute_bitmask()
                if mask.is_error():
                    made = mask
            if made.is_error():
                raise guide.refused(f"{made.get_error()}", name)
            if len(kept) >= MOST_KEPT:
                del kept[next(iter(kept))]
            kept[key] = made
        return kept[key]

    def _vocabulary(self) -> Any:
        """The tokenizer as llguidance reads it; its vocabulary is as large as the logits are wide, or larger."""
        kept = _VOCABULARIES.setdefault(self._tokenizer, {})
        key = (self._padded, self._eos_ids)
        if key not in kept:
            size = max(self._padded, self._tokenizer.vocab_size)
            eos = list(self._eos_ids) or None
            kept[key] = library().LLTokenizer(self._tokenizer.backend.to_str(), n_vocab=size, eos_token=eos)
        return kept[key]


def _set(words: Tensor, token: int, allowed: bool) -> None:
    bit = 1 << (token % 32)
    word = int(words[token // 32]) & 0xFFFFFFFF
    word = word | bit if allowed else word & ~bit
    words[token // 32] = word - 2**32 if word >= 2**31 else word


_COMPILED: WeakKeyDictionary[Tokenizer, dict[Any, Any]] = WeakKeyDictionary()
_VOCABULARIES: WeakKeyDictionary[Tokenizer, dict[Any, Any]] = WeakKeyDictionary()
