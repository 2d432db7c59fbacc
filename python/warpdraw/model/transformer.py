"""Transformer: a decoder-only transformer in plain PyTorch, batch-invariant on the CPU when it has a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention_rows import Plan, attend_rows, plan_of
from .cache import KVCache
from .config import ModelConfig
from .rotary import rotary_tables, rotate
from .rowwise import DECODE_TOKENS, linear_rows, map_rows

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


@dataclass
class Step:
    """What one forward call hands to each layer: where its tokens stand, and how the rows are to be computed."""

    rows: Tensor  # [B] slots of the cache
    positions: Tensor  # [B, T]
    length: int  # of the longest row, with its new tokens
    cache: KVCache | None
    rowwise: bool
    rotary: tuple[Tensor, Tensor] | None = None  # cos, sin [B, T, 1, D / 2]
    plans: dict[int | None, Plan] = field(default_factory=dict)  # of rows, by the window

    def plan(self, window: int | None, keys: Tensor) -> Plan:
        """How rows attend to keys [slots, kv_heads, places, D]."""
        if window not in self.plans:
            places = zip(self.rows.tolist(), self.positions.tolist(), strict=True)
            rows = [(slot, position) for slot, positions in places for position in positions]
            self.plans[window] = plan_of(rows, window, keys.shape[1] * keys.shape[3], keys.dtype)
        return self.plans[window]

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return self.project(x, layer.weight, layer.bias)

    def project(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear_rows(x, weight, bias) if self.rowwise else F.linear(x, weight, bias)

    def activate(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return map_rows(function, x) if self.rowwise else function(x)


def _norm(config: ModelConfig, size: int) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(size, eps=config.norm_eps)


def _visible(queries: Tensor, keys: int, window: int | None) -> Tensor:
    # visible(i, j) = j <= i and j > i - window, for query positions i [..., T] and key positions j = 0 .. keys - 1
    key = torch.arange(keys, device=queries.device)
    query = queries.unsqueeze(-1)
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v, where query head h reads the keys and values of head h // (heads / kv_heads)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, config.window(layer)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        width = config.head_dim * (config.heads + 2 * config.kv_heads)
        self.qkv = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.output = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=config.output_bias)
        self.query_norm = _norm(config, config.head_dim) if config.qk_norm else None
        self.key_norm = _norm(config, config.head_dim) if config.qk_norm else None

    def forward(self, x: Tensor, step: Step) -> Tensor:
        packed = step.linear(x, self.qkv).view(*x.shape[:2], -1, self.head_dim)
        if self.query_norm is None and step.rotary is not None:
            turned, value = torch.split(packed, [self.heads + self.kv_heads, self.kv_heads], dim=2)
            query, key = torch.split(rotate(turned, *step.rotary), [self.heads, self.kv_heads], dim=2)
        else:
            query, key, value = torch.split(packed, [self.heads, self.kv_heads, self.kv_heads], dim=2)
            if self.query_norm is not None and self.key_norm is not None:
                query, key = self.query_norm(query), self.key_norm(key)
            if step.rotary is not None:
                query, key = rotate(query, *step.rotary), rotate(key, *step.rotary)
        if step.cache is None:
            mixed = self._attend(query, key, value, step.positions)
        else:
            mixed = self._attend_cache(query, key, value, step, step.cache)
        return step.linear(mixed.flatten(2), self.output)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Tensor:
        """query [B, T, H, D] at `positions` [B, T] over keys and values [B, S, H, D] at positions 0 .. S - 1."""
        whole = query.shape[1] == key.shape[1] and self.window is None
        mask = None if whole else _visible(positions, key.shape[1], self.window).unsqueeze(1)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), mask, is_causal=whole, enable_gqa=True
        )
        return mixed.transpose(1, 2)

    def _attend_cache(self, query: Tensor, key: Tensor, value: Tensor, step: Step, cache: KVCache) -> Tensor:
        cache.append(self.layer, step.rows, step.positions, key, value)
        keys, values = cache.keys(self.layer), cache.values(self.layer)
        if step.rowwise:
            return attend_rows(query, keys, values, step.plan(self.window, keys))
        keys, values = (part[step.rows, :, : step.length].transpose(1, 2) for part in (keys, values))
        return self._attend(query, keys, values, step.positions)


class Mlp(nn.Module):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) where the mlp is plain."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "gated"
        self.activation = _ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.hidden_size, config.mlp_size * (2 if self.gated else 1), bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        x = step.linear(x, self.up)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return step.linear(step.activate(self.activation, gate) * up, self.down)
        return step.linear(step.activate(self.activation, x), self.down)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(config, config.hidden_size)
        self.attention = Attention(config, layer)
        self.mlp_norm = _norm(config, config.hidden_size)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        x = x + self.attention(self.attention_norm(x), step)
        return x + self.mlp(self.mlp_norm(x), step)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Maps tokens (int64 [B, T]) to the logits [B, T, V] of the token that follows each of them, in the model's dtype.

    With `last`, only those of the last position, [B, 1, V]: a long prompt's other logits are large and rarely wanted.
    To a list `states`, the hidden states of all positions are added, [rows, T, hidden_size], after the final norm.

    Without a cache the tokens stand at positions 0 .. T-1 and the call can be differentiated. With a cache, batch row
    b continues slot `rows[b]` (default: slots 0 .. B-1; all different): its tokens stand at `lengths[rows[b]]` onward,
    their keys and values are appended, the lengths advance by T, the cache grows as needed, and there is no gradient.

    On the CPU in float32 a row's logits with a cache are bit-identical whatever the other rows are, and whichever
    slot and batch row it has, at a given number of threads. Calls with at most DECODE_TOKENS tokens a row also equal
    the same tokens given one at a time.
    Raises ValueError for tokens outside the vocabulary, wrong shapes, and contexts beyond `config.max_positions`.

    >>> config = ModelConfig(
    ...     vocab_size=512, hidden_size=64, layers=2, heads=4, mlp_size=176, max_positions=128
    ... )
    >>> Transformer(config)(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding: nn.Embedding | None = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.max_positions, config.hidden_size)
        else:
            cos, sin = rotary_tables(config)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = _norm(config, config.hidden_size)
        self.head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(_initialise)

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
        *,
        last: bool = False,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        self._check_tokens(tokens)
        count = tokens.shape[1]
        if cache is None:
            if rows is not None:
                raise ValueError("rows was given without a cache; it names slots of a cache")
            self._check_context(count, 0)
            positions = torch.arange(count, device=tokens.device).expand(tokens.shape)
            return self._run(tokens, Step(positions[:, 0], positions, count, None, rowwise=False), last, states=states)
        rows = self._check_rows(tokens, cache, rows)
        held = int(cache.lengths[rows].max())
        self._check_context(held + count, held)
        cache.grow(held + count)
        with torch.no_grad():
            if not self._invariant(tokens.device) or count <= DECODE_TOKENS:
                return self._extend(tokens, cache, rows, last, states)
            # Long rows one by one, without padding: what each computes then depends on its own shape only.
            each = zip(torch.split(tokens, 1), torch.split(rows, 1), strict=True)
            return torch.cat([self._extend(row_tokens, cache, row, last, states) for row_tokens, row in each])

    def _invariant(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def _extend(
        self, tokens: Tensor, cache: KVCache, rows: Tensor, last: bool, states: list[Tensor] | None = None
    ) -> Tensor:
        count = tokens.shape[1]
        positions = cache.lengths[rows][:, None] + torch.arange(count)
        length = int(positions.max()) + 1
        rowwise = self._invariant(tokens.device) and count <= DECODE_TOKENS
        step = Step(rows.to(tokens.device), positions.to(tokens.device), length, cache, rowwise)
        logits = self._run(tokens, step, last, states=states)
        cache.advance(rows, count)
        return logits

    def decode(self, tokens: Tensor, cache: KVCache, rows: Tensor, positions: Tensor, places: int) -> Tensor:
        """Logits [B, V] after tokens [B, 1] at `positions` [B, 1] of slots `rows` [B]: a step that a graph can hold.

        All tensors are on the model's device. Attention looks at the first `places` places of each slot, those after
        the row's position masked. Nothing is checked, and `cache.lengths` is not moved.
        """
        with torch.no_grad():
            return self._run(tokens, Step(rows, positions, places, cache, rowwise=False), last=True)[:, -1]

    def read(self, ids: list[int], cache: KVCache, slot: int, part: int) -> Tensor:
        """Logits [1, 1, V] after a prompt that is read into a slot, `part` tokens at once."""
        device, rows = self.embedding.weight.device, torch.tensor([slot])
        for start in range(0, len(ids), part):
            logits: Tensor = self(torch.tensor([ids[start : start + part]], device=device), cache, rows, last=True)
        return logits

    def extend(
        self, tokens: Tensor, cache: KVCache, slots: list[int], positions: list[int], outputs: list[int] | None = None
    ) -> Tensor:
        """Logits [N, V] after tokens [N], each at its position of its slot; or only those of the tokens `outputs`.

        Several tokens may belong to one slot, and see each other as their positions say: a step in which rows have
        unequal numbers of tokens. The logits are those of one token at a time (on the CPU in the same bits). Nothing
        is checked, and `cache.lengths` is not moved: the caller says which tokens it keeps.
        """
        length = max(positions) + 1
        cache.grow(length)
        device = tokens.device
        rows, at = torch.tensor([slots, positions], device=device).unbind()
        step = Step(rows, at[:, None], length, cache, rowwise=self._invariant(device))
        with torch.no_grad():
            return self._run(tokens[:, None], step, last=False, outputs=outputs)[:, 0]

    def _run(
        self,
        tokens: Tensor,
        step: Step,
        last: bool,
        outputs: list[int] | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        x = self.embedding(tokens)
        if self.position_embedding is not None:
            x = x + self.position_embedding(step.positions)
        else:
            step.rotary = self.rope_cos[step.positions].unsqueeze(2), self.rope_sin[step.positions].unsqueeze(2)
        for block in self.blocks:
            x = block(x, step)
        if outputs is not None:
            x = x[outputs]
        if states is not None:
            states.append(self.norm(x))
        x = self.norm(x[:, -1:] if last else x)
        return step.project(x, self.embedding.weight if self.head is None else self.head.weight)

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.dtype != torch.int64 or tokens.ndim != 2 or not tokens.numel():
            raise ValueError(f"tokens is {tokens.dtype} {list(tokens.shape)}; it must be int64 [B >= 1, T >= 1]")
        if tokens.device.type == "cpu":  # elsewhere this would wait for the device
            least, most = int(tokens.min()), int(tokens.max())
            if least < 0 or most >= self.config.vocab_size:
                raise ValueError(
                    f"tokens has ids from {least} to {most}; they must be from 0 to {self.config.vocab_size - 1}"
                )

    def _check_context(self, length: int, held: int) -> None:
        if length > self.config.max_positions:
            before = f", {held} of them in the cache" if held else ""
            raise ValueError(
                f"tokens make a context of {length} tokens{before}; "
                f"the model allows at most config.max_positions = {self.config.max_positions}"
            )

    def _check_rows(self, tokens: Tensor, cache: KVCache, rows: Tensor | None) -> Tensor:
        batch = tokens.shape[0]
        if rows is None:
            if batch > cache.slots:
                raise ValueError(f"tokens has {batch} rows; the cache has {cache.slots} slots")
            return torch.arange(batch)
        rows = rows.cpu()
        if rows.dtype != torch.int64 or rows.shape != (batch,):
            raise ValueError(f"rows is {rows.dtype} {list(rows.shape)}; it must be int64 [{batch}], as tokens")
        named = rows.tolist()
        if len(set(named)) < batch or min(named) < 0 or max(named) >= cache.slots:
            raise ValueError(f"rows is {named}; it must be different slots between 0 and {cache.slots - 1}")
        return rows


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
