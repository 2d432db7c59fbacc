"""KVCache: the keys and values of every layer for a number of requests, passed to the model explicitly."""

from __future__ import annotations

import torch

from .attention_rows import PLACES
from .config import ModelConfig


class KVCache:
    """Keys and values [layers, slots, kv_heads, capacity, head_dim], and how many positions of each slot are filled.

    `lengths` (int64 [slots]) lies on the host, so that a step knows its shapes without asking the device. The model
    appends and advances; the caller may truncate a slot (rejected drafts, a finished request), copy a slot (several
    samples from one prompt) and grow the capacity. Beyond a slot's length there are zeros.
    The capacity is at most `most`, or the model's own limit.
    Raises ValueError for slots, lengths and capacities out of range.

    >>> config = ModelConfig(
    ...     vocab_size=512, hidden_size=64, layers=2, heads=4, mlp_size=176, max_positions=128
    ... )
    >>> KVCache(config, slots=3, capacity=16).lengths
    tensor([0, 0, 0])
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        most: int | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}; it must be at least 1")
        if not 1 <= capacity <= config.max_positions:
            raise ValueError(
                f"capacity is {capacity}; it must be from 1 to config.max_positions = {config.max_positions}"
            )
        self.max_positions = config.max_positions if most is None else most
        self.head_dim = config.head_dim
        # Why padded: every vector then starts on a 64-byte boundary, so that no kernel can tell slots apart.
        padded = -(-config.head_dim // 16) * 16
        # Whole blocks of places: what a row's attention reads then follows from its position, not from the capacity.
        self.capacity = capacity
        shape = (config.layers, slots, config.kv_heads, _whole(capacity), padded)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._view()
        self.lengths = torch.zeros(slots, dtype=torch.int64)

    @property
    def slots(self) -> int:
        return self._keys.shape[1]

    def bytes_of(self, capacity: int) -> int:
        """What the cache takes when it has room for so many tokens in each slot."""
        return 2 * self._keys.nbytes // self._keys.shape[3] * _whole(capacity)

    def keys(self, layer: int) -> torch.Tensor:
        """One layer's keys, a view [slots, kv_heads, whole blocks of places, head_dim]."""
        return self._layers[layer][0]

    def values(self, layer: int) -> torch.Tensor:
        """One layer's values, of the same shape."""
        return self._layers[layer][1]

    def append(
        self, layer: int, rows: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write a layer's keys and values [B, T, kv_heads, head_dim] at slots `rows` [B], `positions` [B, T].

        `lengths` is not moved: the model calls `advance` once, after its last layer.
        """
        slots = rows[:, None]
        self.keys(layer)[slots, :, positions] = keys
        self.values(layer)[slots, :, positions] = values

    def advance(self, rows: torch.Tensor, count: int) -> None:
        """Declare `count` more positions of each slot in `rows` filled."""
        self.lengths[rows] += count

    def keep(self, rows: list[int], lengths: list[int], written: list[int]) -> None:
        """Declare the first `lengths` positions of slots `rows` filled, of `written` that were appended to.

        The others become zeros: attention reads them masked.
        """
        self.lengths[rows] = torch.tensor(lengths)
        ends = zip(rows, lengths, written, strict=True)
        stale = [(row, position) for row, length, end in ends for position in range(length, end)]
        if stale:
            slots, positions = torch.tensor(stale, device=self._keys.device).unbind(1)
            self._keys[:, slots, :, positions] = 0
            self._values[:, slots, :, positions] = 0

    def truncate(self, row: int, length: int) -> None:
        """Forget what slot `row` holds beyond its first `length` positions."""
        filled = int(self.lengths[row])
        if not 0 <= length <= filled:
            raise ValueError(f"length is {length}; slot {row} can be cut to between 0 and {filled}")
        # Why zeroed: a masked key has weight 0, and 0 times a NaN that another request left behind is NaN.
        self._keys[:, row, :, length:filled] = 0
        self._values[:, row, :, length:filled] = 0
        self.lengths[row] = length

    def copy(self, source: int, rows: torch.Tensor | list[int], start: int = 0) -> None:
        """Make each slot in `rows` hold what slot `source` holds; before position `start` they are known to do."""
        length = int(self.lengths[source])
        for row in rows.tolist() if isinstance(rows, torch.Tensor) else rows:
            if row == source:
                continue
            self.truncate(row, start)
            self._keys[:, row, :, start:length] = self._keys[:, source, :, start:length]
            self._values[:, row, :, start:length] = self._values[:, source, :, start:length]
            self.lengths[row] = length

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` positions in each slot, at least doubling, up to max_positions."""
        if capacity > self.max_positions:
            raise ValueError(f"capacity is {capacity}; at most max_positions = {self.max_positions} is allowed")
        if capacity <= self.capacity:
            return
        self.capacity = min(max(capacity, 2 * self.capacity), self.max_positions)
        extra = _whole(self.capacity) - self._keys.shape[3]
        self._keys = torch.nn.functional.pad(self._keys, (0, 0, 0, extra))
        self._values = torch.nn.functional.pad(self._values, (0, 0, 0, extra))
        self._view()

    def _view(self) -> None:
        """Make the views of each layer once: a step of a small model takes about as long as making views."""
        each = zip(self._keys, self._values, strict=True)
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = [
            (keys[..., : self.head_dim], values[..., : self.head_dim]) for keys, values in each
        ]


def _whole(capacity: int) -> int:
    return -(-capacity // PLACES) * PLACES
