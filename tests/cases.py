"""Inputs that follow from contracts alone: rows of every kind, mixed parameters, lists, masks and histories.

An op or an argument added later is covered without a line here, as long as its kind is known.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from warpdraw.contract import ChoiceSpec, SizeSpec, TensorSpec, letters_in, size_of

ORDERS = ("vllm", "hf", "flashinfer-joint", "llama.cpp")
TILE = 64
INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max

# --------------------------------------------------------------------------------------------------------------------
# Rows of logits. Every kind maps (generator, V) to float32 [V].


def _pick(choices: list[Any], dtype: torch.dtype, count: int, g: torch.Generator) -> Tensor:
    return torch.tensor(choices, dtype=dtype)[torch.randint(0, len(choices), (count,), generator=g)]


def _normal(g: torch.Generator, V: int) -> Tensor:
    return torch.randn(V, generator=g)


def _uniform(g: torch.Generator, V: int) -> Tensor:
    return torch.rand(V, generator=g)


def _lumpy(g: torch.Generator, V: int) -> Tensor:
    """Tiles of equal logits beside tiles that one token rules, of similar mass: hard for bounds in the race."""
    tiles = (V + TILE - 1) // TILE
    single = _uniform(g, tiles) < 0.5
    x = torch.where(single[:, None], -20.0, torch.zeros(tiles, TILE))
    x[:, 7] = torch.where(single, math.log(TILE), 0.0)
    return (x + 0.3 * torch.randn(tiles, 1, generator=g)).flatten()[:V]


def _set(x: Tensor, where: Tensor, value: float) -> Tensor:
    return x.masked_fill(where, value)


KINDS = {
    "random": lambda g, V: 3 * _normal(g, V),
    "peaked": lambda g, V: _normal(g, V) + 20 * torch.nn.functional.one_hot(torch.tensor(V // 3), V),
    "flat": lambda g, V: 1e-3 * _normal(g, V),
    "rising": lambda g, V: (4 * _normal(g, V)).sort().values,
    "falling": lambda g, V: (4 * _normal(g, V)).sort(descending=True).values,
    "tied": lambda g, V: torch.randint(0, 5, (V,), generator=g).float(),
    "equal": lambda g, V: torch.full((V,), 1.25),
    "masked": lambda g, V: _set(3 * _normal(g, V), _uniform(g, V) < 0.9, -INF),
    "quantised": lambda g, V: (4 * _normal(g, V)).bfloat16().float(),
    "lumpy": _lumpy,
    "adjacent": lambda g, V: 10000 + torch.randint(0, 4, (V,), generator=g) * 2.0**-10,
    "two levels": lambda g, V: torch.where(_uniform(g, V) < 0.5, 0.0, -12.0),
    "one huge": lambda g, V: _normal(g, V) + 3e38 * torch.nn.functional.one_hot(torch.tensor(V // 2), V),
    "extreme": lambda g, V: _pick([LARGEST / 4, -LARGEST / 4, 1e30, 0.0, -0.0, 1e-45], torch.float32, V, g),
    "overflow": lambda g, V: _pick([LARGEST, LARGEST / 2, 0.0, -LARGEST], torch.float32, V, g),
    "subnormal": lambda g, V: 1e-40 * _normal(g, V),
    "+inf": lambda g, V: _set(_normal(g, V), _uniform(g, V) < 0.2, INF),
    "NaN": lambda g, V: _set(_set(3 * _normal(g, V), _uniform(g, V) < 0.2, NAN), _uniform(g, V) < 0.2, -INF),
    "NaN and +inf": lambda g, V: _set(_set(_normal(g, V), _uniform(g, V) < 0.3, NAN), _uniform(g, V) < 0.1, INF),
    "no candidate": lambda g, V: torch.where(_uniform(g, V) < 0.5, NAN, -INF),
}
EXACT_KINDS = tuple(kind for kind in KINDS if kind != "overflow")  # differences of logits that fp32 can hold
USUAL = ("random", "peaked", "flat", "tied", "masked", "quantised", "lumpy", "two levels")


def rows_of(kinds: list[str] | tuple[str, ...], V: int, seed: int) -> Tensor:
    """[len(kinds), V] in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([KINDS[kind](generator, V) for kind in kinds])


def slice_like(values: Tensor, outside: float) -> Tensor:
    """The values as a slice of a larger tensor: odd storage offset, row stride above V, other values all around."""
    if values.dim() == 1:
        larger = values.new_full((2 * len(values) + 3,), outside)
        inside = larger[3::2][: len(values)]
    else:
        larger = values.new_full((*(size + 2 for size in values.shape[:-1]), values.shape[-1] + 5), outside)
        inside = larger[(*[slice(1, -1)] * (values.dim() - 1), slice(3, -2))]
    inside.copy_(values)
    return inside


# --------------------------------------------------------------------------------------------------------------------
# Parameters: a value for each row, most of them the default where an op has many.

FRACTIONS = (0.003, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.9999)
POSITIVES = (1e-30, 0.05, 0.3, 0.7, 1.3, 2.0, 10.0, 1e4)
COUNTS = (2, 3, 7, 20, 50, 63, 64, 65, 200, 1000, 20000)
FEW = (1, 2, 3, 4, 6, 10, 25)  # of tokens of a history
MANY_PARAMETERS = 6


def usual_values(spec: TensorSpec, V: int) -> list[Any]:
    """Values inside the range of a parameter."""
    dtype = spec.dtypes[0]
    if dtype.is_floating_point:
        if spec.high <= 1:
            return [*FRACTIONS, spec.low, spec.high]
        signed = [*POSITIVES, 0.0, *[-value for value in POSITIVES]]
        return [value for value in signed if spec.low <= value <= spec.high]
    if spec.high_size:
        return [0, 1, V, *[V - V // count for count in (2, 5, 10, 50)]]
    if spec.name == "top_k":
        return [*COUNTS, 0, 1, int(spec.high)]
    return [*FEW, int(spec.low), int(spec.high)]


def wild_values(spec: TensorSpec, V: int) -> list[Any]:
    """Values outside the range, and absurd ones inside."""
    if not spec.dtypes[0].is_floating_point:
        return [int(spec.low) - 1, V + 1 if spec.high_size else -(2**31)]
    if spec.high <= 1:
        return [NAN, -1.0, 1e-45]
    return [NAN, INF, -INF, math.nextafter(spec.low, -INF) - 1e-3, 0.0, 1e-45, 1e-40, 1e-37, LARGEST]


def _parameter(spec: TensorSpec, B: int, V: int, g: torch.Generator, share_on: float) -> Tensor:
    dtype = spec.dtypes[0]
    if dtype == torch.int64:
        return torch.randint(int(spec.low), int(spec.high), (B,), generator=g)
    values = _pick(list(range(len(spec.words))) if spec.words else usual_values(spec, V), dtype, B, g)
    return torch.where(_uniform(g, B) < share_on, values, torch.tensor(spec.default, dtype=dtype))


# --------------------------------------------------------------------------------------------------------------------
# What any op must be given.


def is_required(spec: Any) -> bool:
    return isinstance(spec, TensorSpec) and not spec.optional and spec.default is None


def rows_spec(op: Any) -> TensorSpec:
    """The input whose rows tokens are drawn from: [B, V], or several for each of B requests."""
    spec: TensorSpec = next(spec for spec in op.contract.inputs if is_required(spec) and spec.sizes[-1] == "V")
    return spec


def least(op: Any, rows: Tensor) -> dict[str, Tensor]:
    """All that an op must be given to work on rows of logits [B, V]."""
    made = {}
    for spec in filter(is_required, op.contract.inputs):
        shape = [size_of(size, {"B": rows.shape[0], "V": rows.shape[1], "K": 1}) for size in spec.sizes]
        if spec.sizes[-1] == "V":
            made[spec.name] = rows if len(shape) == 2 else rows[:, None].expand(-1, shape[1], -1)
        else:
            made[spec.name] = torch.zeros(shape, dtype=spec.dtypes[0], device=rows.device)
    return made


def batch_of(inputs: dict[str, Any]) -> int:
    """How many rows or requests there are."""
    first: Tensor = next(iter(inputs.values()))
    return first.shape[0]


def sizes_of(op: Any, inputs: dict[str, Any]) -> dict[str, int]:
    """The sizes of a call by their letters."""
    sizes: dict[str, int] = {}
    for spec in op.contract.inputs:
        value = inputs.get(spec.name, getattr(spec, "default", None))
        if isinstance(spec, SizeSpec):
            sizes[spec.letter] = value
        elif isinstance(value, Tensor):
            shape = spec.other_sizes if value.dim() == len(spec.other_sizes) else spec.sizes
            sizes = letters_in(shape, value.shape) | sizes
    return sizes


# --------------------------------------------------------------------------------------------------------------------
# Tensors that an op takes on request.


def _likely(logits: Tensor, shape: list[int], g: torch.Generator) -> Tensor:
    """Ids of which half are among the row's largest logits, so that lists and histories bite."""
    B, V = logits.shape
    first = logits.float().nan_to_num(nan=-INF).topk(min(V, 8), -1).indices
    chosen = first.gather(-1, torch.randint(0, first.shape[1], (B, shape[1]), generator=g))
    return torch.where(_uniform(g, B * shape[1]).view(shape) < 0.5, chosen, torch.randint(0, V, shape, generator=g))


def _history(logits: Tensor, shape: list[int], g: torch.Generator) -> Tensor:
    """A motif of a few ids over and over, a tenth of it disturbed: rich in n-grams and in copies of its end."""
    B, H = shape
    motif = _likely(logits, [B, 5], g)
    repeated = motif[:, torch.arange(H) % 5]
    return torch.where(_uniform(g, B * H).view(shape) < 0.1, _likely(logits, shape, g), repeated)


def _ids(name: str, logits: Tensor, shape: list[int], g: torch.Generator) -> Tensor:
    """A list of ids: -1 anywhere in it; most rows of a list of what is allowed are -1 alone."""
    ids = _likely(logits, shape, g)
    padding = 0.3 if logits.shape[1] > 20 else 0.9
    share = torch.where(_uniform(g, shape[0]) < 0.7, 1.0 if name == "allowed_ids" else padding, padding)
    return ids.masked_fill(_uniform(g, shape[0] * shape[1]).view(shape) < share[:, None], -1)


def _bits(shape: list[int], g: torch.Generator) -> Tensor:
    """Nine of ten bits are one, those beyond the vocabulary at random like the others."""
    ones = _uniform(g, math.prod(shape) * 32).view(*shape, 32) < 0.9
    words = (ones * 2 ** torch.arange(32)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words)


def _rows(kinds: tuple[str, ...], shape: list[int], seed: int) -> Tensor:
    """Rows of logits [B, V], the kinds in turn; of several for a request the others are of other kinds."""
    if len(shape) == 2:
        return rows_of(kinds, shape[-1], seed)
    turned = [tuple(kinds[(b + 7 * i) % len(kinds)] for b in range(len(kinds))) for i in range(shape[1])]
    return torch.stack([rows_of(each, shape[-1], seed + 1000 * i) for i, each in enumerate(turned)], 1)


def _drafts(rows: Tensor, K: int, dtype: torch.dtype, g: torch.Generator) -> Tensor:
    """Drafts [B, K] that are often what is drawn from a row; a few are none."""
    drafts = torch.stack([_likely(rows[:, i], [len(rows), 1], g)[:, 0] for i in range(K)], 1)
    best = rows[:, :K].float().nan_to_num(nan=-INF).argmax(-1)
    drafts = torch.where(_uniform(g, drafts.numel()).view(drafts.shape) < 0.5, best, drafts)
    return drafts.masked_fill(_uniform(g, drafts.numel()).view(drafts.shape) < 0.07, -1).to(dtype)


def _links(made: dict[str, Any], B: int, K: int, g: torch.Generator) -> None:
    """A tree for each request: every draft follows an earlier node."""
    made["first_child"], made["next_sibling"] = (torch.full((B, K + 1), -1, dtype=torch.int32) for _ in range(2))
    for b in range(B):
        for node in range(K, 0, -1):
            parent = int(torch.randint(0, min(node, 3), (), generator=g))
            made["next_sibling"][b, node] = made["first_child"][b, parent]
            made["first_child"][b, parent] = node


def _make_ragged(made: dict[str, Any], specs: list[TensorSpec], seed: int) -> None:
    """Rows one after the other, as many as each request has, instead of as many for each."""
    target = next(spec.name for spec in specs if spec.other_sizes and is_required(spec))
    B, most = made[target].shape[:2]
    counts = [1 + (5 * b + seed) % most for b in range(B)]
    made["offsets"] = torch.tensor([0, *counts]).cumsum(0).to(torch.int32)
    for spec in specs:
        if spec.other_sizes and spec.name in made:
            made[spec.name] = torch.cat([rows[:count] for rows, count in zip(made[spec.name], counts, strict=True)])
    for drafts, count in zip(made["draft_tokens"], counts, strict=True):
        drafts[count - 1 :] = -1


def _tensor(spec: TensorSpec, sizes: dict[str, int], made: dict[str, Any], g: torch.Generator) -> Tensor:
    """A good tensor for an input without a default, from its name, dtype and sizes."""
    rows = next(value for value in made.values() if isinstance(value, Tensor) and value.shape[-1] == sizes["V"])
    logits = rows if rows.dim() == 2 else rows[:, 0]
    B, V = logits.shape
    sizes |= {"vocab_size/32": (V + 31) // 32}
    for size in spec.sizes:
        sizes.setdefault(size.partition("+")[0], {"A": 24, "H": 37}.get(size, 5))
    shape = [size_of(size, sizes) for size in spec.sizes]
    if spec.name == "draft_tokens":
        return _drafts(rows, sizes["K"], spec.dtypes[int(torch.randint(0, len(spec.dtypes), (), generator=g))], g)
    if spec.sizes[-1] == "V":
        return (rows[:, : shape[1]].float() + torch.randn(shape, generator=g)).to(logits.dtype)
    if spec.dtypes[0].is_floating_point:
        values = 2 * torch.randn(shape, generator=g)
        return _set(values, _uniform(g, values.numel()).view(shape) < 0.05, -INF)
    if len(shape) == 1:
        lengths_of = torch.randint(0, sizes["H"] + 1, shape, generator=g)
        return torch.where(_uniform(g, B) < 0.5, sizes["H"], lengths_of).to(torch.int32)
    if spec.sizes[-1] == "vocab_size/32":
        return _bits(shape, g).to(torch.int32)
    if spec.sizes[1] == "H":
        return _history(logits, shape, g).to(torch.int32)
    return _ids(spec.name, logits, shape, g).to(torch.int32)


def _spoil(made: dict[str, Any], specs: list[TensorSpec], rows: str, sizes: dict[str, int], g: torch.Generator) -> None:
    """One value of a third of the rows becomes absurd or invalid."""
    B, V = sizes["B"], sizes["V"]
    for row in (_uniform(g, B) < 0.35).nonzero().flatten().tolist():
        spec = specs[int(torch.randint(0, len(specs), (), generator=g))]
        tensor = made.get(spec.name)
        if tensor is None or spec.name == rows or (tensor.dtype == torch.int64 and spec.default is not None):
            continue
        if spec.default is not None:
            values = wild_values(spec, V)
        elif tensor.dtype.is_floating_point:
            values = [NAN, INF, LARGEST]
        elif spec.sizes[-1] == "vocab_size/32":
            values = [0, -1]
        else:
            values = [-2, V, 2**31 - 1, -(2**31)]
        value = _pick(values, tensor.dtype, 1, g)[0]
        if tensor.dim() == 1:
            tensor[row] = value
        else:
            place = [int(torch.randint(0, size, (), generator=g)) for size in tensor.shape[1:]]
            tensor[(row, *place)] = value


def _hide_what_does_not_count(made: dict[str, Any]) -> None:
    """Ids beyond a history's length are never read, so they may be anything; prompts lie inside it."""
    history, length = made.get("history"), made.get("history_length")
    if history is None:
        made.pop("prompt_length", None)
        return
    counts = torch.full_like(history[:, 0], history.shape[1]) if length is None else length
    if length is not None:
        beyond = torch.arange(history.shape[1]) >= length[:, None]
        history[beyond] = 2**30
    if "prompt_length" in made:
        made["prompt_length"] = torch.minimum(made["prompt_length"], counts)


def inputs_of(
    op: Any,
    V: int,
    dtype: torch.dtype,
    seed: int,
    kinds: tuple[str, ...] = tuple(KINDS),
    repeats: int = 1,
    wild: bool = False,
    only: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Arguments for an op, by name: all the kinds of rows, mixed parameters, every tensor a slice of a larger one.

    Choices, sizes and which of the optional tensors are given follow from the seed; `only` names the inputs to make.
    """
    generator = torch.Generator().manual_seed(seed)
    B = len(kinds) * repeats
    sizes = {"B": B, "V": V, "K": 1 + seed % 4}
    specs = [spec for spec in op.contract.inputs if only is None or is_required(spec) or spec.name in only]
    tensors = [spec for spec in specs if isinstance(spec, TensorSpec)]
    share_on = 2 / 3 if len(tensors) <= MANY_PARAMETERS else 0.3
    given = _given(seed, tensors)
    rows = rows_spec(op)
    made: dict[str, Any] = {rows.name: _rows(kinds * repeats, [size_of(size, sizes) for size in rows.sizes], seed)}
    made[rows.name] = made[rows.name].to(dtype)
    combinations = 1
    for spec in specs:
        if isinstance(spec, ChoiceSpec):
            made[spec.name] = spec.choices[seed // combinations % len(spec.choices)]
            combinations *= len(spec.choices)
        elif isinstance(spec, SizeSpec):
            made[spec.name] = (min(V, 5), 1, min(V, 20), V if V <= 1000 else 40)[seed % 4]
        elif spec.default is not None:
            made[spec.name] = _parameter(spec, B, V, generator, share_on)
        elif spec.name in ("first_child", "next_sibling"):
            if spec.name in given and spec.name not in made:
                _links(made, B, sizes["K"], generator)
        elif spec is not rows and (is_required(spec) or spec.name in given):
            made[spec.name] = _tensor(spec, sizes, made, generator)
    _hide_what_does_not_count(made)
    if rows.other_sizes and seed % 5 == 3:
        _make_ragged(made, tensors, seed)
    if wild:
        _spoil(made, tensors, rows.name, sizes, generator)
    order = [spec.name for spec in specs if spec.name in made]
    return {name: _sliced(made[name]) if isinstance(made[name], Tensor) else made[name] for name in order}


def inputs_on(device: torch.device, inputs: dict[str, Any]) -> dict[str, Any]:
    """The same arguments on a device, slices of larger tensors there."""
    return {name: _sliced(value.to(device)) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def _sliced(values: Tensor) -> Tensor:
    """Among values that would change every result if they were read."""
    if values.dim() == 1:
        return slice_like(values, 7)
    return slice_like(values, 3e4 if values.dtype.is_floating_point else 2**30)


def _given(seed: int, tensors: list[TensorSpec]) -> set[str]:
    """Which of the optional tensors a seed asks for; none without its partner, or what says where rows begin."""
    optional = [spec for spec in tensors if spec.optional and spec.name != "offsets"]
    asked = torch.rand(len(optional), generator=torch.Generator().manual_seed(seed + 1000)) < 0.7
    names = {spec.name for spec, yes in zip(optional, asked.tolist(), strict=True) if yes}
    return {spec.name for spec in optional if spec.name in names and spec.partner in (None, "offsets", *names)}
