"""The transformer and its cache: the same bits in any batch and slot, the same logits with and without a cache."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from warpdraw.model import transformer as model_module
from warpdraw.model.cache import KVCache
from warpdraw.model.capped import capped_attention
from warpdraw.model.config import ModelConfig, RopeScaling
from warpdraw.model.rowwise import DECODE_TOKENS
from warpdraw.model.transformer import Transformer

# Sizes that no vector length divides are there on purpose: the tails of vector loops are where batches leak into rows.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 64, "heads": 4, "kv_heads": 2, "mlp_size": 176, "tied": True},
    "odd": {"hidden_size": 37, "heads": 3, "kv_heads": 1, "head_dim": 10, "mlp_size": 53, "qkv_bias": True},
    "window": {"hidden_size": 48, "heads": 6, "kv_heads": 3, "mlp_size": 90, "qk_norm": True, "sliding_window": 9},
    "gpt": {
        **{"hidden_size": 48, "heads": 3, "mlp_size": 150, "norm": "layer", "positions": "learned", "mlp": "plain"},
        **{"activation": "gelu_tanh", "qkv_bias": True, "output_bias": True, "mlp_bias": True, "tied": True},
    },
    "gemma": {
        **{"hidden_size": 40, "heads": 6, "kv_heads": 2, "head_dim": 14, "mlp_size": 75, "layers": 3, "qk_norm": True},
        **{"norm_placement": "both", "norm_offset": 1.0, "activation": "gelu_tanh", "tied": True},
        **{"embedding_scale": 6.3, "attention_scale": 0.3, "attention_cap": 2.5, "logit_cap": 4.0},
        **{"sliding_window": 9, "sliding_layers": (0, 2), "sliding_rope_theta": 50.0},
    },
    "olmo": {
        **{"hidden_size": 37, "heads": 3, "kv_heads": 1, "head_dim": 10, "mlp_size": 53, "rotary_layers": (1,)},
        **{"norm_placement": "after", "qk_norm": True, "qk_norm_span": "all"},
    },
    "neox": {
        **{"hidden_size": 48, "heads": 3, "mlp_size": 150, "norm": "layer", "parallel_residual": True, "mlp": "plain"},
        **{"activation": "gelu", "qkv_bias": True, "output_bias": True, "mlp_bias": True, "rotary_size": 6},
    },
    "wide": {"hidden_size": 320, "heads": 5, "mlp_size": 1000, "layers": 1, "vocab_size": 3001},
}


def build(name: str, **changes: Any) -> Transformer:
    config = ModelConfig(**{"vocab_size": 101, "layers": 2, "max_positions": 120} | CONFIGS[name] | changes)
    generator = torch.Generator().manual_seed(len(name))
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5 if parameter.ndim == 2 else parameter + 0.3 * noise)
    return model


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread, where a test does not ask for more: the models are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 1))
    yield
    torch.set_num_threads(before)


class Requests:
    """Requests, each a prompt and four more tokens, with the logits that each gives when it is alone."""

    def __init__(self, model: Transformer, count: int = 64, longest: int = 100) -> None:
        self.model, self.random = model, random.Random(count)
        generator = torch.Generator().manual_seed(count)
        vocabulary = model.config.vocab_size
        lengths = [self.random.choice((1, 2, 9, 16, 17, self.random.randint(1, longest))) for _ in range(count)]
        self.prompts = [torch.randint(vocabulary, (1, length), generator=generator) for length in lengths]
        self.tokens = torch.randint(vocabulary, (count, 4), generator=generator)
        self.alone = [self._run_alone(prompt, more) for prompt, more in zip(self.prompts, self.tokens, strict=True)]

    def _run_alone(self, prompt: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        cache = KVCache(self.model.config, slots=1, capacity=prompt.shape[1])
        self.model(prompt, cache)
        return torch.cat([self.model(token.view(1, 1), cache) for token in more], dim=1)

    def count_different(self, batch: int, together: int) -> int:
        """Requests of a random batch, in random slots, whose logits are not those of the request alone.

        `together` tokens are given in one call; prompts are given one by one.
        """
        chosen = self.random.sample(range(len(self.prompts)), batch)
        slots = batch + self.random.randrange(4)
        rows = torch.tensor(self.random.sample(range(slots), batch))
        cache = KVCache(self.model.config, slots, self.random.choice((1, 50, 120)))
        for request, row in zip(chosen, rows, strict=True):
            self.model(self.prompts[request], cache, row.view(1))
        pieces = torch.split(self.tokens[chosen], together, dim=1)
        logits = torch.cat([self.model(piece, cache, rows) for piece in pieces], dim=1)
        expected = torch.cat([self.alone[request] for request in chosen])
        return int((logits != expected).flatten(1).any(1).sum())


@pytest.mark.parametrize("name", CONFIGS)
def test_decode_gives_the_same_bits_in_any_batch(name: str) -> None:
    requests = Requests(build(name))
    for batch in (1, 2, 7, 8, 9, 16, 31, 64):
        assert requests.count_different(batch, together=1) == 0, f"batch {batch}"


@pytest.mark.parametrize("name", CONFIGS)
def test_several_tokens_give_the_bits_of_single_steps(name: str) -> None:
    requests = Requests(build(name))
    for batch, together in ((1, 4), (3, 2), (8, 4), (21, 3), (64, 4)):
        assert requests.count_different(batch, together) == 0, f"batch {batch}, {together} tokens at once"


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize("name", ["gpt", "wide"])
def test_the_same_bits_at_two_threads(name: str) -> None:
    requests = Requests(build(name, layers=1), count=10, longest=20)
    for batch, together in ((3, 2), (10, 1), (9, 4)):
        assert requests.count_different(batch, together) == 0, f"batch {batch}, {together} tokens at once"


@pytest.mark.parametrize("name", ["llama", "window", "wide", "gemma"])
def test_long_prompts_given_together_equal_those_given_alone(name: str) -> None:
    """Each behind a beginning of another length, as in a conversation."""
    model = build(name)
    prompts = torch.randint(101, (4, DECODE_TOKENS + 5), generator=torch.Generator().manual_seed(5))
    caches = [KVCache(model.config, 1, 40) for _ in prompts]
    shared = KVCache(model.config, 4, 40)
    for slot, (prompt, cache) in enumerate(zip(prompts, caches, strict=True)):
        beginning = prompt[None, : 3 * slot + 1]
        model(beginning, cache)
        model(beginning, shared, torch.tensor([slot]))
    alone = [model(prompt[None], cache) for prompt, cache in zip(prompts, caches, strict=True)]
    assert torch.equal(model(prompts, shared), torch.cat(alone))


@pytest.mark.parametrize(
    ("name", "form", "plain"),
    [
        ("llama", "linear_rows", F.linear),
        ("gpt", "map_rows", lambda function, x: function(x)),
        ("odd", "map_rows", lambda function, x: function(x.contiguous())),
        ("gemma", "map_rows", lambda function, x: function(x.contiguous())),
    ],
)
def test_the_plain_forms_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, form: str, plain: Callable[..., torch.Tensor]
) -> None:
    monkeypatch.setattr(model_module, form, plain)
    requests = Requests(build(name))
    if not sum(requests.count_different(batch, together=1) for batch in (7, 31, 64)):
        pytest.skip(f"on this machine the plain form of {form} does not depend on the batch either")


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float(((ours - reference).abs().max() / reference.abs().max()).detach())


@pytest.mark.parametrize("invariant", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_cached_logits_equal_uncached_ones(name: str, invariant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of unequal length in one call, on the CPU's path and on the one that other devices take."""
    monkeypatch.setattr(Transformer, "_invariant", lambda self, device: invariant)
    model = build(name)
    tokens = torch.randint(model.config.vocab_size, (3, 60), generator=torch.Generator().manual_seed(1))
    cache = KVCache(model.config, slots=5, capacity=4)
    rows, starts = torch.tensor([4, 0, 2]), (30, 1, 17)
    for row, start, line in zip(rows, starts, tokens, strict=True):
        model(line[None, :start], cache, row.view(1))
    for count in (1, 3, 20):
        held = cache.lengths[rows].tolist()
        piece = torch.stack([line[start : start + count] for line, start in zip(tokens, held, strict=True)])
        logits = model(piece, cache, rows)
        for line, start, ours in zip(tokens, held, logits, strict=True):
            assert relative(ours, model(line[None, : start + count])[0, start:]) < 2e-5
    assert cache.lengths.tolist() == [25, 0, 41, 0, 54]


def test_attention_is_causal_and_every_weight_learns() -> None:
    for name in CONFIGS:
        model = build(name)
        tokens = torch.randint(101, (2, 30))
        changed = tokens.clone()
        changed[:, 20:] = (changed[:, 20:] + 1) % 101
        before, after = model(tokens), model(changed)
        assert relative(after[:, :20], before[:, :20]) < 1e-6
        assert (before[:, 20:] != after[:, 20:]).any(-1).all()
        F.cross_entropy(before.flatten(0, 1), changed.flatten()).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_window_reaches_exactly_that_far() -> None:
    """One layer, window 9: position 30 sees 22 .. 30, so that it feels a change at 22 and none at 21."""
    model = build("window", layers=1)
    tokens = torch.randint(101, (1, 31))
    before = model(tokens)[0, 30]
    for position, felt in ((21, False), (22, True)):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % 101
        assert (relative(model(changed)[0, 30], before) > 1e-6) == felt
    assert build("window", layers=3, sliding_layers=(1,)).blocks[0].attention.window is None


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("masked", ["causal", "mask", "numbers", "neither"])
def test_capped_attention_by_its_definition(heads: tuple[int, int], masked: str) -> None:
    """Against loops over float64; with a high cap it is attention."""
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, heads[0], 5, 6, generator=generator)
    key, value = torch.randn(2, 2, heads[1], 5, 6, generator=generator).unbind()
    mask = torch.rand(2, 1, 5, 5, generator=generator) < 0.5
    mask = mask | torch.eye(5).bool() if masked in ("mask", "numbers") else None
    if masked == "causal":
        mask = torch.ones(5, 5).tril().bool().expand(2, 1, 5, 5)
    added = None if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    given = {"is_causal": True} if masked == "causal" else {"mask": added if masked == "numbers" else mask}
    found = capped_attention(query, key, value, cap=1.5, scale=0.4, enable_gqa=True, **given)
    for row, head, token in itertools.product(range(2), range(heads[0]), range(5)):
        group = head // (heads[0] // heads[1])
        scores = [float(query[row, head, token].double() @ key[row, group, j].double()) for j in range(5)]
        seen = [mask is None or bool(mask[row, 0, token, j]) for j in range(5)]
        parts = [math.exp(1.5 * math.tanh(0.4 * s / 1.5)) if see else 0.0 for s, see in zip(scores, seen, strict=True)]
        expected = sum(part * value[row, group, j].double() for j, part in enumerate(parts)) / sum(parts)
        assert torch.allclose(found[row, head, token].double(), expected, atol=1e-5)
    plain = F.scaled_dot_product_attention(query, key, value, mask, scale=0.4, enable_gqa=True)
    high = capped_attention(query, key, value, cap=1e4, scale=0.4, enable_gqa=True, **given)
    assert torch.allclose(high, plain, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize(("group", "places"), [(1, 64), (3, 192), (7, 37)])
def test_capped_attention_of_many_rows_gives_the_bits_of_each(group: int, places: int) -> None:
    generator = torch.Generator().manual_seed(places)
    query = torch.randn(50, 2, group, 14, generator=generator)
    key, value = torch.randn(2, 50, 2, places, 16, generator=generator)[..., :14].unbind()
    mask = torch.zeros(50, 1, 1, places).masked_fill(torch.rand(50, 1, 1, places, generator=generator) < 0.3, -math.inf)
    together = capped_attention(query, key, value, mask, cap=2.0)
    for row in range(50):
        one = slice(row, row + 1)
        assert torch.equal(capped_attention(query[one], key[one], value[one], mask[one], cap=2.0), together[one])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["gemma", "olmo", "neox"])
def test_a_decode_step_is_one_graph(name: str, count: int) -> None:
    """What a CUDA graph holds: torch.compile finds no break in it, and it gives the logits of other steps."""
    model = build(name)
    caches = [KVCache(model.config, 3, 40) for _ in range(2)]
    for cache in caches:
        for slot, length in enumerate((20, 3, 11)):
            model(torch.arange(length)[None], cache, torch.tensor([slot]))
    tokens, rows = torch.tensor([[5, 1, 7], [9, 3, 3], [2, 8, 4]])[:, :count], torch.tensor([2, 0, 1])
    positions = caches[0].lengths[rows][:, None] + torch.arange(count)
    step = torch.compile(model.decode, backend="eager", fullgraph=True)
    assert relative(step(tokens, caches[0], rows, positions, 32), model(tokens, caches[1], rows)) < 2e-5


def test_only_the_last_logits() -> None:
    model = build("llama")
    for count in (5, 40):
        tokens = torch.randint(101, (2, count))
        every = model(tokens, KVCache(model.config, 2, count))
        only = model(tokens, KVCache(model.config, 2, count), last=True)
        assert only.shape == (2, 1, 101)
        assert relative(only, every[:, -1:]) < 2e-5
        assert relative(model(tokens, last=True), every[:, -1:]) < 2e-5


def test_truncated_slot_continues_as_if_nothing_had_been() -> None:
    model = build("llama")
    first, wrong, right = torch.randint(101, (3, 1, 12)).unbind()
    cache, fresh = KVCache(model.config, 2, 40), KVCache(model.config, 1, 40)
    model(first, cache, torch.tensor([1]))
    model(wrong, cache, torch.tensor([1]))
    cache.truncate(1, 12)
    model(first, fresh)
    assert torch.equal(model(right, cache, torch.tensor([1])), model(right, fresh))
    with pytest.raises(ValueError, match="length is 25; slot 1 can be cut to between 0 and 24"):
        cache.truncate(1, 25)


def test_copied_slots_continue_alike() -> None:
    model = build("llama")
    cache = KVCache(model.config, 4, 40)
    model(torch.randint(101, (1, 20)), cache, torch.tensor([2]))
    model(torch.randint(101, (1, 30)), cache, torch.tensor([0]))
    cache.copy(2, torch.tensor([0, 2, 3]))
    assert cache.lengths.tolist() == [20, 0, 20, 20]
    assert not cache.keys(0)[0, :, 20:].any()
    assert not cache.values(1)[0, :, 20:].any()
    logits = model(torch.full((3, 1), 7), cache, torch.tensor([3, 0, 2]))
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_cache_grows_and_is_zero_beyond_its_lengths() -> None:
    model = build("llama")
    cache = KVCache(model.config, 2, 3)
    model(torch.randint(101, (1, 50)), cache, torch.tensor([1]))
    assert cache.capacity == 50
    model(torch.randint(101, (1, 1)), cache, torch.tensor([1]))
    assert cache.capacity == 100
    cache.truncate(1, 10)
    assert cache.keys(0)[1, :, :10].all()
    assert not cache.keys(0)[1, :, 10:].any()
    assert not cache.values(1)[1, :, 10:].any()
    with pytest.raises(ValueError, match="capacity is 121; at most max_positions = 120 is allowed"):
        cache.grow(121)


def test_a_finished_row_of_nan_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "_invariant", lambda self, device: False)
    model = build("llama")
    cache = KVCache(model.config, 2, 40)
    rows = torch.tensor([[0], [1]])
    model(torch.randint(101, (1, 30)), cache, rows[0])
    cache.values(0)[0, :, :30] = float("nan")
    cache.truncate(0, 0)
    model(torch.randint(101, (1, 3)), cache, rows[0])
    model(torch.randint(101, (1, 25)), cache, rows[1])
    assert model(torch.tensor([[1], [2]]), cache).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, c: m(torch.zeros(3, dtype=torch.int64)), r"tokens is torch\.int64 \[3\]; it must be int64 \[B >= 1"),
        (lambda m, c: m(torch.zeros(1, 3)), r"tokens is torch\.float32"),
        (lambda m, c: m(torch.zeros(1, 0, dtype=torch.int64)), r"tokens is torch\.int64 \[1, 0\]"),
        (lambda m, c: m(torch.tensor([[5, 101]])), "tokens has ids from 5 to 101; they must be from 0 to 100"),
        (lambda m, c: m(torch.tensor([[-1, 5]])), "tokens has ids from -1 to 5"),
        (lambda m, c: m(torch.zeros(1, 121, dtype=torch.int64)), r"121 tokens; .* at most config.max_positions = 120"),
        (
            lambda m, c: m(torch.zeros(1, 121, dtype=torch.int64), c),
            "121 tokens; .* at most config.max_positions = 120",
        ),
        (lambda m, c: m(torch.zeros(4, 1, dtype=torch.int64), c), "tokens has 4 rows; the cache has 3 slots"),
        (lambda m, c: m(torch.tensor([[1]]), rows=torch.tensor([0])), "rows was given without a cache"),
        (lambda m, c: m(torch.tensor([[1], [2]]), c, torch.tensor([1, 1])), r"rows is \[1, 1\]; it must be different"),
        (lambda m, c: m(torch.tensor([[1]]), c, torch.tensor([3])), r"rows is \[3\]; .* between 0 and 2"),
        (lambda m, c: m(torch.tensor([[1]]), c, torch.tensor([0, 1])), r"rows is torch\.int64 \[2\]; .* int64 \[1\]"),
    ],
)
def test_wrong_calls_name_the_argument(call: Callable[..., Any], message: str) -> None:
    model = build("llama")
    cache = KVCache(model.config, 3, 10)
    with pytest.raises(ValueError, match=message):
        call(model, cache)
    assert not cache.lengths.any()


def test_context_too_long_counts_what_the_cache_holds() -> None:
    model = build("llama")
    cache = KVCache(model.config, 1, 10)
    model(torch.zeros(1, 100, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="a context of 121 tokens, 100 of them in the cache; the model allows at most"):
        model(torch.zeros(1, 21, dtype=torch.int64), cache)
    assert cache.lengths.tolist() == [100]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers is 0; it must be a positive integer"),
        ({"vocab_size": 2.5}, r"vocab_size is 2\.5"),
        ({"heads": 5, "kv_heads": 5}, "heads is 5; it must divide hidden_size 64"),
        ({"kv_heads": 3}, "kv_heads is 3; it must divide heads 4"),
        ({"head_dim": 5}, "head_dim is 5; rotary positions need an even one"),
        ({"norm": "batch"}, "norm is 'batch'; it must be one of rms, layer"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"sliding_window": 0}, "sliding_window is 0"),
        ({"norm_placement": "around"}, "norm_placement is 'around'; it must be one of before, after, both"),
        ({"norm_placement": "both", "parallel_residual": True}, "a parallel residual needs 'before'"),
        ({"norm": "layer", "norm_offset": 1.0}, r"norm_offset is 1\.0; it must be 0 where norm is layer"),
        ({"rotary_size": 3}, "rotary_size is 3; it must be even and at most head_dim 16"),
        ({"rotary_size": 18}, "rotary_size is 18"),
        ({"logit_cap": 0.0}, r"logit_cap is 0\.0; it must be a positive number"),
        ({"rope_scaling": RopeScaling("longrope", factors=(1.0,))}, "rope_scaling has 1 factors; it must have 8"),
    ],
)
def test_configs_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("llama", **changes)


@pytest.mark.parametrize(
    ("slots", "capacity", "message"), [(0, 5, "slots is 0"), (1, 0, "capacity is 0"), (1, 999, "120")]
)
def test_caches_out_of_range(slots: int, capacity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KVCache(build("llama").config, slots, capacity)
