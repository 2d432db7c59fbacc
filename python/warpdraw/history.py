"""TokenHistory: the tokens of each running sequence, as the tensors that penalties and bans read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# How many tokens fit after the longest prompt before the first growth, where no capacity is given.
FIRST_TOKENS = 64


class TokenHistory:
    """The tokens of B running sequences, prompt first, in tensors that grow in place by one token a step.

    They are what `sample` takes as ``history``, ``history_length`` and ``prompt_length``.

    Args:
        prompts: the token ids of each sequence so far; lengths may differ, and be 0.
        vocab_size: ids are in [0, vocab_size).
        capacity: the most tokens that a sequence may have. None starts with room for 64 after the longest prompt and
            doubles the room when it is full; `tokens` is another tensor then.
        device: where the tensors live.

    Attributes:
        tokens: int32 [B, capacity]; what lies beyond a sequence's length has no meaning.
        lengths: int32 [B], how many tokens each sequence has.
        prompt_lengths: int32 [B], how many of them are its prompt.
        inputs: the three as keyword arguments for one call of `sample`.

    Raises:
        TypeError, ValueError: the message names the argument, what it was and what is allowed.

    >>> import torch, warpdraw
    >>> history = warpdraw.TokenHistory([[0, 1, 0]], vocab_size=3)
    >>> logits = torch.tensor([[2.0, 2.0, 1.5]])
    >>> for _ in range(3):
    ...     tokens = warpdraw.sample(logits, temperature=0.0, no_repeat_ngram=2, **history.inputs).tokens
    ...     history.append(tokens)
    >>> history
    TokenHistory([[0, 1, 0 | 0, 2, 0]])
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        capacity: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_integer("vocab_size", vocab_size, 1)
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise TypeError(f"prompts: expected a list of lists of token ids, got {prompts!r}")
        self.vocab_size = vocab_size
        for row, prompt in enumerate(prompts):
            if isinstance(prompt, str) or not isinstance(prompt, Sequence):
                raise TypeError(f"prompts[{row}]: expected a list of token ids, got {prompt!r}")
            check_ids(f"prompts[{row}]", prompt, 0, vocab_size)
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths, default=0)
        if capacity is not None:
            check_integer("capacity", capacity, max(1, longest))

        self._grows = capacity is None
        # No sequence is longer than this: what the host knows of the lengths without waiting for the device.
        self._bound = longest
        self._storage = _room(len(prompts), longest + FIRST_TOKENS if capacity is None else capacity, device)
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=device)
        self.prompt_lengths = self.lengths.clone()
        if longest:
            padded = [[*prompt, *(-1,) * (longest - len(prompt))] for prompt in prompts]
            self._storage[:, :longest] = torch.tensor(padded, dtype=torch.int32, device=device)

    def __repr__(self) -> str:
        rows = []
        for row, (length, prompt) in enumerate(zip(self.lengths.tolist(), self.prompt_lengths.tolist(), strict=True)):
            ids = [str(token) for token in self.tokens[row, :length].tolist()]
            rows.append(f"[{', '.join(ids[:prompt])} | {', '.join(ids[prompt:])}]")
        return f"TokenHistory([{', '.join(rows)}])"

    @property
    def tokens(self) -> Tensor:
        """int32 [B, capacity]."""
        return self._storage[:, :-1]

    @property
    def capacity(self) -> int:
        """How many tokens of a sequence there is room for now."""
        return self._storage.shape[1] - 1

    @property
    def inputs(self) -> dict[str, Tensor]:
        """``history``, ``history_length`` and ``prompt_length`` for one call; read them anew for the next."""
        return {"history": self.tokens, "history_length": self.lengths, "prompt_length": self.prompt_lengths}

    def append(self, tokens: Tensor | Sequence[int]) -> None:
        """Add one token to each sequence, in place; a sequence whose token is -1 stays as it is.

        ``tokens`` is an integer tensor [B], such as `sample` returns, or a list. A tensor is not read by the host: an
        id outside the vocabulary makes its row invalid in the next call that reads it. (The host looks at the lengths
        only where a sequence may be as long as the capacity.)
        """
        if isinstance(tokens, Tensor):
            self._check_tensor(tokens)
            step = tokens.to(torch.int32)
        else:
            if isinstance(tokens, str) or not isinstance(tokens, Sequence):
                raise TypeError(f"tokens: expected an integer tensor or a list of token ids, got {tokens!r}")
            if len(tokens) != len(self.lengths):
                raise ValueError(f"tokens: expected one for each of {len(self.lengths)} sequences, got {len(tokens)}")
            check_ids("tokens", tokens, -1, self.vocab_size)
            step = torch.tensor(tokens, dtype=torch.int32, device=self.lengths.device)

        added = step != -1
        if self._bound == self.capacity:
            self._make_room(added)
        append(self._storage, self.lengths, step, added)
        self._bound = min(self._bound + 1, self.capacity)

    def rewind(self, lengths: Tensor) -> None:
        """Take back what was appended since `lengths` was a copy of the attribute, without waiting for the device.

        >>> from warpdraw import TokenHistory
        >>> history = TokenHistory([[5]], vocab_size=9)
        >>> before = history.lengths.clone()
        >>> history.append([7])
        >>> history.rewind(before)
        >>> history
        TokenHistory([[5 | ]])
        """
        self.lengths.copy_(lengths)

    def with_tokens(self, rows: Tensor, counts: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """`inputs` for the sequences ``rows`` [N], each and the first ``counts`` [N] of its ``tokens`` [B, K].

        The history stays as it is.
        """
        room = _room(len(rows), self.capacity + tokens.shape[1], self.lengths.device)[:, :-1]
        room[:, : self.capacity] = self.tokens[rows]
        lengths = self.lengths[rows]
        places = lengths.long()[:, None] + torch.arange(tokens.shape[1], device=lengths.device)
        room.scatter_(1, places, tokens[rows].to(torch.int32))
        return {
            "history": room,
            "history_length": lengths + counts.to(torch.int32),
            "prompt_length": self.prompt_lengths[rows],
        }

    def fork(self, rows: Sequence[int]) -> TokenHistory:
        """The sequences ``rows`` as a history of their own; a row may be named several times.

        >>> from warpdraw import TokenHistory
        >>> history = TokenHistory([[5], [6, 7]], vocab_size=9)
        >>> history.append([8, -1])
        >>> history.fork([0, 0, 1])
        TokenHistory([[5 | 8], [5 | 8], [6, 7 | ]])
        """
        for row in rows:
            self._check_row("rows", row)
        index = torch.tensor(list(rows), dtype=torch.int64, device=self.lengths.device)
        storage = self._storage.index_select(0, index)
        return self._like(storage, self.lengths[index], self.prompt_lengths[index], self._bound)

    def join(self, other: TokenHistory) -> TokenHistory:
        """The sequences of this history and then those of the other, as one.

        >>> from warpdraw import TokenHistory
        >>> TokenHistory([[5]], vocab_size=9).join(TokenHistory([[6, 7]], vocab_size=9))
        TokenHistory([[5 | ], [6, 7 | ]])
        """
        if other.vocab_size != self.vocab_size:
            raise ValueError(f"other: expected a history of vocabulary {self.vocab_size}, got {other.vocab_size}")
        if other.lengths.device != self.lengths.device:
            raise ValueError(f"other: expected a history on {self.lengths.device}, got {other.lengths.device}")
        if not self._grows and other._bound > self.capacity and (longest := int(other.lengths.max())) > self.capacity:
            raise ValueError(f"other: expected sequences of at most capacity = {self.capacity} tokens, got {longest}")
        parts, width = (self._storage, other._storage), self.capacity + 1
        if self._grows:
            width = max(part.shape[1] for part in parts)
        storage = _room(sum(len(part) for part in parts), width - 1, self.lengths.device)
        at = 0
        for part in parts:
            shared = min(width, part.shape[1])
            storage[at : at + len(part), :shared] = part[:, :shared]
            at += len(part)
        lengths = torch.cat([self.lengths, other.lengths])
        prompts = torch.cat([self.prompt_lengths, other.prompt_lengths])
        return self._like(storage, lengths, prompts, min(max(self._bound, other._bound), width - 1))

    def roomy(self, rows: int, capacity: int) -> TokenHistory:
        """A history of so many empty sequences with this capacity, for `move`."""
        lengths = torch.zeros(rows, dtype=torch.int32, device=self.lengths.device)
        return self._like(_room(rows, capacity, lengths.device), lengths, lengths.clone(), 0)

    def move(self, place: TokenHistory) -> None:
        """Keep the sequences in the first rows of a roomy history from now on, in the same memory."""
        count, width = self._storage.shape
        views = place._storage[:count, :width], place.lengths[:count], place.prompt_lengths[:count]
        for view, own in zip(views, (self._storage, self.lengths, self.prompt_lengths), strict=True):
            if view.data_ptr() != own.data_ptr():
                view.copy_(own)
        self._storage, self.lengths, self.prompt_lengths = views

    def truncate(self, row: int, length: int) -> None:
        """Take back the tokens of a sequence after the first ``length``, which has to include its prompt.

        Reads the length of the row, so it waits for the device.

        >>> from warpdraw import TokenHistory
        >>> history = TokenHistory([[5]], vocab_size=9)
        >>> history.append([7])
        >>> history.append([8])
        >>> history.truncate(0, 2)
        >>> history
        TokenHistory([[5 | 7]])
        """
        self._check_row("row", row)
        low, high = int(self.prompt_lengths[row]), int(self.lengths[row])
        if type(length) is not int:
            raise TypeError(f"length: expected an integer in [{low}, {high}] for row {row}, got {length!r}")
        if not low <= length <= high:
            raise ValueError(f"length: expected an integer in [{low}, {high}] for row {row}, got {length}")
        self.lengths[row] = length

    def _like(self, storage: Tensor, lengths: Tensor, prompt_lengths: Tensor, bound: int) -> TokenHistory:
        made = object.__new__(TokenHistory)
        made.vocab_size, made._grows, made._bound = self.vocab_size, self._grows, bound
        made._storage, made.lengths, made.prompt_lengths = storage, lengths, prompt_lengths
        return made

    def _make_room(self, added: Tensor) -> None:
        """Called where a sequence may be full: look whether one is, and grow, or say that it cannot."""
        self._bound = int(self.lengths.max()) if len(self.lengths) else 0
        if self._bound < self.capacity:
            return
        if self._grows:
            storage = _room(len(self.lengths), 2 * self.capacity, self.lengths.device)
            storage[:, : self.capacity] = self.tokens
            self._storage = storage
            return
        full = (added & (self.lengths == self.capacity)).nonzero().flatten().tolist()
        if full:
            raise ValueError(f"tokens: sequence {full[0]} has capacity = {self.capacity} tokens already, expected -1")

    def _check_tensor(self, tokens: Tensor) -> None:
        if tokens.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"tokens: expected int32 or int64, got {str(tokens.dtype).removeprefix('torch.')}")
        if tokens.shape != self.lengths.shape:
            raise ValueError(f"tokens: expected shape {list(self.lengths.shape)}, got {list(tokens.shape)}")
        if tokens.device != self.lengths.device:
            raise ValueError(f"tokens: expected a tensor on {self.lengths.device}, got {tokens.device}")

    def _check_row(self, name: str, row: int) -> None:
        if type(row) is not int:
            raise TypeError(f"{name}: expected integers in [0, {len(self.lengths)}), got {row!r}")
        if not 0 <= row < len(self.lengths):
            raise ValueError(f"{name}: expected integers in [0, {len(self.lengths)}), got {row}")


def append(storage: Tensor, lengths: Tensor, tokens: Tensor, added: Tensor) -> None:
    """Add one token to each sequence where `added`, in place, without waiting for the device.

    The others get theirs after their end, where it has no meaning: the storage needs a column for it.
    """
    storage.scatter_(1, lengths.long()[:, None], tokens.to(storage.dtype)[:, None])
    lengths.add_(added)


def check_ids(name: str, ids: Sequence[int], low: int, vocab_size: int) -> None:
    """Refuse what is no token id in [low, vocab_size)."""
    for token in ids:
        if type(token) is not int:
            raise TypeError(f"{name}: expected token ids in [{low}, {vocab_size}), got {token!r}")
        if not low <= token < vocab_size:
            raise ValueError(f"{name}: expected token ids in [{low}, {vocab_size}), got {token}")


def check_integer(name: str, value: int, least: int) -> None:
    """Refuse what is no integer of at least this."""
    if type(value) is not int:
        raise TypeError(f"{name}: expected an integer of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value}")


def _room(rows: int, capacity: int, device: torch.device | str) -> Tensor:
    return torch.full((rows, capacity + 1), -1, dtype=torch.int32, device=device)
