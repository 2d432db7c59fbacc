"""Rules: which tokens may come next in a text, by what came before: masks that a row asks for at each position."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ..guides.matcher import Matcher, Matchers
from ..model.weights import Checkpoint
from .params import Bitmask, SamplingParams
from .prefix import Prefix, token_bytes
from .vocabulary import Vocabulary

# The tokens that may not follow the first so many tokens of a text.
Bans = Mapping[int, Collection[int]]
# Each bit of a word, as int32.
_BITS = [*(1 << bit for bit in range(31)), -(2**31)]


class Rules:
    """The rules of one row: what all of them allow may follow.

    They are asked for tokens drawn so far and, where tokens are drafted, for those and drafts that they allowed.
    """

    def __init__(
        self, guide: Matcher | None, function: Function | None, prefix: Prefix | None, bans: Bans | None
    ) -> None:
        self.guide, self._bans = guide, bans
        self._masks = [each for each in (function, prefix) if each is not None]

    def write(self, tokens: list[int], words: Tensor) -> None:
        """Write the tokens that may follow to `words`, int32 [W], least significant bit first."""
        if self.guide is None:
            words.fill_(-1)
        elif words.device.type == "cpu":
            self.guide.write(tokens, words)
        else:
            words.copy_(self.guide.words(tokens))
        for mask in self._masks:
            allowed = mask.words(tokens)
            if allowed is not None:
                words &= allowed.to(words.device)
        if self._bans:
            # Drafts come after all tokens that there are bans for.
            for token in self._bans.get(len(tokens), ()):
                words[token // 32] &= ~_BITS[token % 32]

    @property
    def problem(self) -> str:
        """What the rules say of a position where nothing may follow, or ''."""
        return self.guide.problem if self.guide is not None else ""

    def complete(self, tokens: list[int]) -> bool:
        """Whether nothing but an end can follow."""
        return self.guide is not None and self.guide.complete(tokens)


class RulesOf:
    """Makes the rules of a checkpoint's requests, and checks beforehand that they can be made."""

    def __init__(self, model: Checkpoint) -> None:
        self._vocabulary, self._matchers = Vocabulary(model), Matchers(model)

    def check(self, name: str, params: SamplingParams) -> None:
        """ValueError for rules that no text can follow; `name` is what messages call the parameters."""
        if params.guide is not None:
            self._matchers.check(f"{name}.guide", params.guide)
        if params.prefix and (text := self._prefix(params).unspellable()) is not None:
            raise ValueError(f"{name}.prefix: expected texts that tokens of the model can spell, got {text!r}")

    def of(self, name: str, params: SamplingParams, ends: Sequence[int], bans: Bans | None = None) -> Rules | None:
        """The rules of one sample; None where there are none. `bans` may grow and shrink."""
        if params.bitmask is None and params.guide is None and bans is None and not params.prefix:
            return None
        sizes = self._vocabulary.size, self._vocabulary.padded
        function = None if params.bitmask is None else Function(name, params.bitmask, *sizes)
        guide = None if params.guide is None else self._matchers.matcher(params.guide, ends)
        return Rules(guide, function, self._prefix(params) if params.prefix else None, bans)

    def _prefix(self, params: SamplingParams) -> Prefix:
        tokens = token_bytes(self._vocabulary.tokenizer, self._vocabulary.size)
        return Prefix(params.prefix, tokens, (self._vocabulary.padded + 31) // 32)


class Function:
    """The bitmask function of a request, whose answers are checked."""

    def __init__(self, name: str, function: Bitmask, size: int, padded: int) -> None:
        self._name, self._function = name, function
        self._least, self._words = (size + 31) // 32, (padded + 31) // 32

    def words(self, tokens: list[int]) -> Tensor | None:
        """What the function answers, int32 [W]; words that it leaves out allow everything."""
        mask = self._function(list(tokens))
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.dtype != torch.int32 or mask.ndim != 1:
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            raise TypeError(f"{self._name}.bitmask: expected None or an int32 tensor of one dimension, got {got}")
        least, most = self._least, self._words
        if not least <= len(mask) <= most:
            sizes = f"{least} words of 32 bits" if least == most else f"{least} to {most} words"
            raise ValueError(f"{self._name}.bitmask: expected {sizes}, got {len(mask)}")
        return mask if len(mask) == most else torch.nn.functional.pad(mask, (0, most - len(mask)), value=-1)
