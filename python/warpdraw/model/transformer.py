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
from .capped import capped_attention
from .config import ModelConfig
from .inputs import check_context, check_rows, check_tokens
from .mlp import Mlp
from .norms import make_norm
from .rotary import RotaryTables, rotate, rotate_part
from .rowwise import DECODE_TOKENS, linear_rows, map_rows

Mix = Callable[..., Tensor]  # with the arguments of scaled_dot_product_attention


@dataclass
class Step:
    """What one forward call hands to each layer: where its tokens stand, and how the rows are to be computed."""

    rows: Tensor  # [B] slots of the cache
    positions: Tensor  # [B, T]
    length: int  # of the longest row, with its new tokens
    cache: KVCache | None
    rowwise: bool
    rotary: tuple[tuple[Tensor, Tensor], ...] = ()  # cos, sin [B, T, 1, R / 2], by config.rotary_set
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
        self.layer, self.window, self.rotary_set = layer, config.window(layer), config.rotary_set(layer)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        width = config.head_dim * (config.heads + 2 * config.kv_heads)
        self.qkv = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.output = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=config.output_bias)
        self.norms_whole = config.qk_norm_span == "all"
        spans = (config.heads, config.kv_heads) if self.norms_whole else (1, 1)
        self.query_norm, self.key_norm = (
            make_norm(config, span * config.head_dim) if config.qk_norm else None for span in spans
        )
        self.rotate = rotate if config.rotary_size == config.head_dim else rotate_part
        self.scale, self.cap = config.attention_scale, config.attention_cap
        self.mix: Mix = F.scaled_dot_product_attention
        if self.cap is not None:
            self.mix = partial(capped_attention, cap=self.cap)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        packed = step.linear(x, self.qkv).view(*x.shape[:2], -1, self.head_dim)
        rotary = None if self.rotary_set is None else step.rotary[self.rotary_set]
        if self.query_norm is None and rotary is not None:
            turned, value = torch.split(packed, [self.heads + self.kv_heads, self.kv_heads], dim=2)
            query, key = torch.split(self.rotate(turned, *rotary), [self.heads, self.kv_heads], dim=2)
        else:
            query, key, value = torch.split(packed, [self.heads, self.kv_heads, self.kv_heads], dim=2)
            if self.query_norm is not None and self.key_norm is not None:
                query, key = self._norm(query, self.query_norm), self._norm(key, self.key_norm)
            if rotary is not None:
                query, key = self.rotate(query, *rotary), self.rotate(key, *rotary)
        if step.cache is None:
            mixed = self._attend(query, key, value, step.positions)
        else:
            mixed = self._attend_cache(query, key, value, step, step.cache)
        return step.linear(mixed.flatten(2), self.output)

    def _norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        normed: Tensor = norm(x.flatten(2)).view_as(x) if self.norms_whole else norm(x)
        return normed

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Tensor:
        """query [B, T, H, D] at `positions` [B, T] over keys and values [B, S, H, D] at positions 0 .. S - 1."""
        heads_first = (part.transpose(1, 2) for part in (query, key, value))
        if query.shape[1] == key.shape[1] and self.window is None:
            return self.mix(*heads_first, is_causal=True, enable_gqa=True, scale=self.scale).transpose(1, 2)
        # With a mask no fused kernel of a GPU takes unequal numbers of heads: those that read the same keys and values
        # stand side by side as one longer query.
        query, key, value = heads_first
        shared = self.heads // self.kv_heads
        mask = _visible(positions, key.shape[2], self.window).repeat(1, shared, 1).unsqueeze(1)
        side_by_side = query.reshape(len(query), self.kv_heads, -1, self.head_dim)
        mixed = self.mix(side_by_side, key, value, mask, scale=self.scale)
        return mixed.reshape(*query.shape[:3], -1).transpose(1, 2)

    def _attend_cache(self, query: Tensor, key: Tensor, value: Tensor, step: Step, cache: KVCache) -> Tensor:
        cache.append(self.layer, step.rows, step.positions, key, value)
        keys, values = cache.keys(self.layer), cache.values(self.layer)
        if step.rowwise:
            return attend_rows(query, keys, values, step.plan(self.window, keys), self.mix, self.scale)
        keys, values = (part[step.rows, :, : step.length].transpose(1, 2) for part in (keys, values))
        return self._attend(query, keys, values, step.positions)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.hidden_size)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config, config.hidden_size)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        x = x + self.attention(self.attention_norm(x), step)
        return x + self.mlp(self.mlp_norm(x), step)  # type: ignore[no-any-return]


class ParallelBlock(Block):
    """x + attention(norm(x)) + mlp(norm(x)), with a norm each."""

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return x + self.attention(self.attention_norm(x), step) + self.mlp(self.mlp_norm(x), step)  # type: ignore[no-any-return]


class AfterNormBlock(Block):
    """x + norm(attention(x)), then x + norm(mlp(x)); with norms before each part too, if the config has both."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        if config.norm_placement == "after":
            self.attention_norm, self.mlp_norm = nn.Identity(), nn.Identity()
        self.attention_after = make_norm(config, config.hidden_size)
        self.mlp_after = make_norm(config, config.hidden_size)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        x = x + self.attention_after(self.attention(self.attention_norm(x), step))
        return x + self.mlp_after(self.mlp(self.mlp_norm(x), step))  # type: ignore[no-any-return]


def _block(config: ModelConfig, layer: int) -> Block:
    if config.norm_placement != "before":
        return AfterNormBlock(config, layer)
    return ParallelBlock(config, layer) if config.parallel_residual else Block(config, layer)


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

    embedding_scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        # A buffer, so that it is rounded to the model's dtype as the embeddings are.
        scale = None if config.embedding_scale is None else torch.tensor(config.embedding_scale, device="cpu")
        self.register_buffer("embedding_scale", scale, persistent=False)
        learned = config.positions == "learned"
        self.position_embedding = nn.Embedding(config.max_positions, config.hidden_size) if learned else None
        self.rotary = None if learned else RotaryTables(config)
        self.blocks = nn.ModuleList(_block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config, config.hidden_size)
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
        check_tokens(tokens, self.config)
        count = tokens.shape[1]
        if cache is None:
            if rows is not None:
                raise ValueError("rows was given without a cache; it names slots of a cache")
            check_context(count, 0, self.config)
            positions = torch.arange(count, device=tokens.device).expand(tokens.shape)
            return self._run(tokens, Step(positions[:, 0], positions, count, None, rowwise=False), last, states=states)
        rows = check_rows(tokens, cache, rows)
        held = int(cache.lengths[rows].max())
        check_context(held + count, held, self.config)
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
        """Logits [B, T, V] after tokens [B, T] at `positions` [B, T] of slots `rows` [B]: a step that a graph can hold.

        All tensors are on the model's device. Attention looks at the first `places` places of each slot, those after
        the row's position masked. Nothing is checked, and `cache.lengths` is not moved.
        """
        with torch.no_grad():
            return self._run(tokens, Step(rows, positions, places, cache, rowwise=False), last=False)

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
        if self.config.embedding_scale is not None:
            x = x * self.embedding_scale
        if self.position_embedding is not None:
            x = x + self.position_embedding(step.positions)
        if self.rotary is not None:
            step.rotary = self.rotary.at(step.positions)
        for block in self.blocks:
            x = block(x, step)
        if outputs is not None:
            x = x[outputs]
        if states is not None:
            states.append(self.norm(x))
        x = self.norm(x[:, -1:] if last else x)
        logits = step.project(x, self.embedding.weight if self.head is None else self.head.weight)
        return logits if self.config.logit_cap is None else step.activate(self._cap, logits)

    def _cap(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_cap
        assert cap is not None
        return torch.tanh(logits / cap) * cap


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
