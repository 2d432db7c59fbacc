"""Checkpoints: every family against transformers, both config spellings, shards, and every refusal by name."""

import dataclasses
import doctest
import json
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from warpdraw.model import weights
from warpdraw.model.cache import KVCache
from warpdraw.model.config import CheckpointError, ModelConfig, RopeScaling
from warpdraw.model.families import FAMILIES, read_config
from warpdraw.model.json_fields import read_json
from warpdraw.model.locate import locate
from warpdraw.model.rotary import rotate
from warpdraw.model.tensor_names import Part
from warpdraw.model.tokenizer import Tokenizer
from warpdraw.model.transformer import Transformer

transformers = pytest.importorskip("transformers")
zoo = pytest.importorskip("families_zoo")

# Both sides round in float32, in different orders: they differ by up to 3e-6 of the largest logit, and each differs
# from float64 by up to 4e-6.
CLOSE = 2e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The two models of a name, made once."""

    @cache
    def pair_of(name: str) -> Any:
        folder = tmp_path_factory.mktemp(name)
        theirs = zoo.write(name, folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*longrope is supported for contexts of up to")
            return theirs, weights.load(folder)

    return pair_of


@pytest.fixture(scope="module", params=zoo.ZOO)
def pair(request: pytest.FixtureRequest, shelf: Any) -> Any:
    return shelf(request.param)


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


# As long as the models allow: beyond windows, and beyond the original context of those that are stretched.
TEXT = torch.randint(zoo.VOCABULARY, (3, 80), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_logits_equal_transformers(pair: Any) -> None:
    theirs, ours = pair
    reference = theirs(TEXT).logits
    assert reference.std() > 1, "the logits must be far from constant for the bound to mean anything"
    assert difference(ours.model(TEXT), reference) < CLOSE
    cache = KVCache(ours.config, slots=3, capacity=8)
    pieces = [TEXT[:, :33], TEXT[:, 33:55], TEXT[:, 55:60], *torch.split(TEXT[:, 60:], 1, dim=1)]
    assert difference(torch.cat([ours.model(piece, cache) for piece in pieces], 1), reference) < CLOSE


# Bugs that a family's test has to see, as changes of what its checkpoint says.
BUGS = {
    "llama3 not stretched": ("llama-llama3", {"rope_scaling": None}),
    "yarn not stretched": ("qwen2-yarn", {"rope_scaling": None}),
    "yarn without amplitude": ("qwen2-yarn", {"amplitude": 1.0}),
    "yarn with the usual fast turns": ("qwen2-yarn", {"high_factor": 32.0}),
    "yarn from whole indices": ("qwen3-yarn-mscale", {"whole_indices": True}),
    "longrope without factors": ("phi3-longrope", {"factors": (1.0,) * 8}),
    "longrope without amplitude": ("phi3-longrope", {"amplitude": 1.0}),
    "no cap of the scores": ("gemma2", {"attention_cap": None}),
    "no cap of the logits": ("gemma2", {"logit_cap": None}),
    "slides in the other layers": ("gemma2", {"sliding_layers": (1,)}),
    "slides in no layer": ("gemma2", {"sliding_window": None}),
    "a window too long by one": ("gemma2", {"sliding_window": 8}),
    "embeddings as they are": ("gemma2", {"embedding_scale": None}),
    "scores by the root of head_dim": ("gemma2", {"attention_scale": None}),
    "norms as they are": ("gemma2", {"norm_offset": 0.0}),
    "silu": ("gemma2", {"activation": "silu"}),
    "gelu without tanh": ("gemma2", {"activation": "gelu"}),
    "one base for both kinds of layers": ("gemma3", {"sliding_rope_theta": None}),
    "full layers not stretched": ("gemma3", {"rope_scaling": None}),
    "full layers at another place": ("gemma3", {"sliding_layers": (0, 2, 3)}),
    "all of a head turns": ("phi3-partial", {"rotary_size": 16}),
    "every layer turns": ("smollm3", {"rotary_layers": None}),
    "the other layers turn": ("smollm3", {"rotary_layers": (1,)}),
    "the window in every layer": ("smollm3-window", {"sliding_layers": None}),
    "in turn, not in parallel": ("neox", {"parallel_residual": False}),
    "in parallel, not in turn": ("neox-in-turn", {"parallel_residual": True}),
    "half of a head turns": ("neox", {"rotary_size": 8}),
}


@torch.no_grad()
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(shelf: Any, bug: str) -> None:
    name, changes = BUGS[bug]
    theirs, ours = shelf(name)
    if ours.config.rope_scaling is not None and not hasattr(ours.config, next(iter(changes))):
        changes = {"rope_scaling": dataclasses.replace(ours.config.rope_scaling, **changes)}
    wrong = Transformer(dataclasses.replace(ours.config, **changes))
    wrong.load_state_dict(ours.model.state_dict())
    assert difference(wrong(TEXT), theirs(TEXT).logits) > 5 * CLOSE


@torch.no_grad()
@pytest.mark.parametrize("name", ["phi3-partial", "neox"])
def test_turning_the_wrong_part_of_a_head_is_seen(shelf: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = shelf(name)

    def turn_the_end(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        still = x.shape[-1] - 2 * cos.shape[-1]
        return torch.cat([x[..., :still], rotate(x[..., still:], cos, sin)], dim=-1)

    for block in ours.model.blocks:
        monkeypatch.setattr(block.attention, "rotate", turn_the_end)
    assert difference(ours.model(TEXT), theirs(TEXT).logits) > 20 * CLOSE


@torch.no_grad()
def test_reading_neox_heads_as_if_they_were_stacked_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = zoo.write("neox", tmp_path)
    monkeypatch.setattr(Part, "copy", lambda part, tensor, rows: rows.copy_(tensor))
    assert difference(weights.load(tmp_path).model(TEXT), theirs(TEXT).logits) > 20 * CLOSE


@torch.no_grad()
def test_greedy_text_equals_transformers(pair: Any) -> None:
    theirs, ours = pair
    prompt = torch.randint(zoo.VOCABULARY, (1, 19), generator=torch.Generator().manual_seed(4))
    expected = theirs.generate(prompt, do_sample=False, max_new_tokens=20)[0, 19:].tolist()
    cache = KVCache(ours.config, slots=1, capacity=64)
    token, greedy = ours.model(prompt, cache)[:, -1].argmax(-1), []
    for _ in range(20):
        greedy.append(int(token))
        token = ours.model(token[:, None], cache)[:, -1].argmax(-1)
    assert greedy == expected


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.06), (torch.float16, 0.008), (torch.float64, 1e-5)])
def test_other_dtypes(tmp_path: Path, dtype: torch.dtype, bound: float) -> None:
    theirs = zoo.write("qwen3-head-dim", tmp_path)
    ours = weights.load(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in ours.model.parameters()} == {dtype}
    tokens = torch.arange(40)[None]
    assert ours.model(tokens).dtype == dtype
    assert difference(ours.model(tokens).float(), theirs(tokens).logits) < bound


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2-tied"])
def test_shards_read_as_one_file_does(tmp_path: Path, name: str) -> None:
    zoo.write(name, tmp_path / "one")
    zoo.write(name, tmp_path / "many", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (weights.load(tmp_path / kind).model.state_dict() for kind in ("one", "many"))
    assert all(torch.equal(one[key], many[key]) for key in one)


def edit(folder: Path, file: str = "config.json", drop: tuple[str, ...] = (), **entries: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({k: v for k, v in content.items() if k not in drop} | entries))


@pytest.mark.parametrize(
    "name",
    ["llama-gqa", "llama-linear", "llama-llama3", "mistral-window", "qwen2-gqa", "qwen2-yarn", "gemma2", "smollm3"],
)
def test_old_spelling_reads_as_the_new(tmp_path: Path, name: str) -> None:
    zoo.write(name, tmp_path)
    new = weights.load(tmp_path).config
    rope = dict(json.loads((tmp_path / "config.json").read_text())["rope_parameters"])
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    scaling = None if kind == "default" else rope | {"type" if kind in ("linear", "yarn") else "rope_type": kind}
    edit(tmp_path, drop=("rope_parameters", "dtype"), rope_theta=theta, rope_scaling=scaling, torch_dtype="float32")
    assert weights.load(tmp_path).config == new


# What the first configs of these families say, and what they do not say.
OLDER = {
    "gemma2": ({"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}, ("layer_types",)),
    "gemma3": (
        {
            **{"rope_theta": 4000.0, "rope_local_base_freq": 50.0, "sliding_window_pattern": 3},
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        ("layer_types", "rope_parameters", "_sliding_window_pattern"),
    ),
    "phi3-partial": ({"rope_scaling": None, "partial_rotary_factor": 0.75, "auto_map": {}}, ("rope_parameters",)),
    "phi3-longrope": (
        {
            "rope_theta": 300.0,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
                "long_factor": [4.0] * 8,
            },
        },
        ("rope_parameters",),
    ),
    "smollm3": ({"max_window_layers": 28}, ("layer_types", "no_rope_layers")),
    "neox": ({"rotary_pct": 0.25, "rotary_emb_base": 20, "hidden_dropout_prob": 0}, ("rope_parameters", "is_decoder")),
}


@pytest.mark.filterwarnings("ignore:.*longrope is supported for contexts of up to")
@pytest.mark.parametrize("name", OLDER)
def test_older_configs_read_as_the_new_by_both(tmp_path: Path, name: str) -> None:
    theirs = zoo.write(name, tmp_path)
    new = weights.load(tmp_path).config
    entries, dropped = OLDER[name]
    edit(tmp_path, drop=(*dropped, "dtype"), torch_dtype="float32", **entries)
    assert weights.load(tmp_path).config == new
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    read.rope_parameters.pop("type", None)
    assert read.rope_parameters == theirs.config.rope_parameters
    assert getattr(read, "layer_types", None) == getattr(theirs.config, "layer_types", None)


DEFAULTS = {
    "gemma2": ("head_dim", "query_pre_attn_scalar", "sliding_window", "attn_logit_softcapping", "hidden_activation"),
    "gemma3": ("head_dim", "query_pre_attn_scalar", "sliding_window", "rope_parameters", "tie_word_embeddings"),
    "phi3": ("sliding_window", "rope_parameters", "rms_norm_eps", "tie_word_embeddings"),
    "olmo2": ("rms_norm_eps", "rope_parameters", "attention_bias"),
    "smollm3": ("rope_parameters", "no_rope_layers", "no_rope_layer_interval", "layer_types", "tie_word_embeddings"),
    "neox": ("rope_parameters", "use_parallel_residual", "attention_bias", "layer_norm_eps", "tie_word_embeddings"),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_absent_entries_are_those_of_a_default_config(tmp_path: Path, name: str) -> None:
    """Where an entry is absent, both take the same value: that of a config which transformers made without it."""
    zoo.write(name, tmp_path)
    edit(tmp_path, drop=DEFAULTS[name])
    read_config_of = lambda: read_config(read_json(tmp_path / "config.json"))[0]  # noqa: E731
    ours = read_config_of()
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert read_config_of() == ours


def test_longrope_is_refused_beyond_the_original_length(tmp_path: Path) -> None:
    zoo.write("phi3-longrope", tmp_path)
    with pytest.warns(UserWarning, match=r"max_position_embeddings is 160; rope_type longrope .* of up to .* = 80 tok"):
        model = weights.load(tmp_path).model
    with pytest.raises(
        ValueError, match=r"a context of 81 tokens; the model allows at most config\.max_positions = 80"
    ):
        model(torch.zeros(1, 81, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gemma_scales_embeddings_as_transformers_rounds(tmp_path: Path, dtype: torch.dtype) -> None:
    """The root of 72 is another number in every dtype."""
    theirs = zoo.write("gemma2", tmp_path, hidden_size=72).to(dtype)
    ours = weights.load(tmp_path, dtype=dtype).model
    tokens = torch.arange(zoo.VOCABULARY)
    assert torch.equal(ours.embedding(tokens) * ours.embedding_scale, theirs.model.embed_tokens(tokens))
    assert difference(ours(TEXT).float(), theirs(TEXT).logits.float()) < {torch.float32: CLOSE}.get(dtype, 0.05)


def test_neox_head_by_both_its_names(tmp_path: Path) -> None:
    zoo.write("neox", tmp_path)
    one = weights.load(tmp_path).model.state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 80, 80)
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "model.safetensors")
    other = weights.load(tmp_path).model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one["head.weight"], one["embedding.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_auto_is_the_dtype_of_the_checkpoint(tmp_path: Path, dtype: torch.dtype) -> None:
    zoo.write("llama-mha-tied", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    model = weights.load(tmp_path, dtype="auto").model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert torch.equal(model.embedding.weight, tensors["model.embed_tokens.weight"].to(dtype))
    assert weights.load(tmp_path).model.embedding.weight.dtype == torch.float32
    assert model.head is None, "a tied head is the embedding itself"


def test_parameters_stay_when_the_file_is_written_anew(tmp_path: Path) -> None:
    zoo.write("llama-gqa", tmp_path)
    model = weights.load(tmp_path).model
    before = model.embedding.weight.clone()
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(model.embedding.weight, before)


MEASURE = """
import gc, sys
import torch
from warpdraw.model import weights

def status(entry):
    return int(next(line for line in open("/proc/self/status") if line.startswith(entry)).split()[1])

torch.set_num_threads(1)
weights.load("tiny-draft")
for dtype in (torch.float32, torch.bfloat16):
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    model = weights.load(sys.argv[1], dtype=dtype).model
    print(status("VmHWM") - before, sum(each.numel() * each.element_size() for each in model.parameters()) // 1024)
    del model
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads what Linux says about memory")
def test_memory_is_the_parameters_and_about_a_tensor(tmp_path: Path) -> None:
    """The largest of the file's tensors has 4 MiB, the file 64: all of it beside the parameters would be seen."""
    shape = {"vocab_size": 96, "hidden_size": 512, "heads": 8, "mlp_size": 2048, "layers": 4, "max_positions": 64}
    weights.save(tmp_path, Transformer(ModelConfig(**shape)), Tokenizer(zoo.byte_tokenizer()))
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        grown, parameters = map(int, line.split())
        assert 0.9 * parameters < grown < parameters + 12 * 1024
    assert len(lines) == 2


def test_absent_entries_have_the_values_of_transformers(tmp_path: Path) -> None:
    theirs = zoo.write("llama-mha-tied", tmp_path)
    optional = ("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_parameters", "hidden_act", "architectures")
    expected = weights.load(tmp_path).config
    assert theirs.config.rope_parameters["rope_theta"] == 10000.0
    edit(tmp_path, drop=optional)
    assert weights.load(tmp_path).config == expected


def test_qwen_window_without_layer_types(tmp_path: Path) -> None:
    zoo.write("qwen2-window", tmp_path)
    new = weights.load(tmp_path).config
    assert new.sliding_layers == (1, 2)
    edit(tmp_path, drop=("layer_types",))
    assert weights.load(tmp_path).config == new


def test_mistral_window_absent_is_4096_and_null_is_none(tmp_path: Path) -> None:
    zoo.write("mistral-full", tmp_path)
    assert weights.load(tmp_path).config.sliding_window is None
    edit(tmp_path, drop=("sliding_window",))
    assert weights.load(tmp_path).config.sliding_window == 4096


def test_older_gpt2_files(tmp_path: Path) -> None:
    """The first GPT-2 checkpoints have no prefix, carry the causal mask, and n_ctx; a tied head may be stored twice."""
    zoo.write("gpt2-tied", tmp_path)
    new = weights.load(tmp_path).model.state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old["h.0.attn.bias"], old["h.0.attn.masked_bias"] = torch.ones(1, 1, 80, 80), torch.tensor(-1e4)
    old["lm_head.weight"] = old["wte.weight"].clone()
    save_file(old, tmp_path / "model.safetensors")
    edit(tmp_path, n_ctx=80)
    state = weights.load(tmp_path).model.state_dict()
    assert all(torch.equal(new[key], state[key]) for key in new)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (2, None, (2,)),
        ([2, 3, 2], None, (2, 3)),
        (None, None, ()),
        (2, {"eos_token_id": [5, 6]}, (5, 6)),
        (2, {"eos_token_id": 7}, (7,)),
        (2, {"temperature": 0.6}, (2,)),
    ],
)
def test_eos_ids(tmp_path: Path, config: Any, generation: Any, expected: tuple[int, ...]) -> None:
    zoo.write("llama-gqa", tmp_path)
    edit(tmp_path, eos_token_id=config)
    (tmp_path / "generation_config.json").unlink()
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert weights.load(tmp_path).eos_ids == expected


def test_warnings_name_what_is_not_used(tmp_path: Path) -> None:
    zoo.write("llama-gqa", tmp_path)
    edit(tmp_path, mystery_factor=3)
    with pytest.warns(UserWarning, match=r"config\.json: unknown entries, not used: mystery_factor"):
        weights.load(tmp_path)
    edit(tmp_path, drop=("mystery_factor",))
    edit(tmp_path, "generation_config.json", eos_token_id=[1, 5000])
    with pytest.warns(UserWarning, match=r"eos_token_id \[1, 5000\] is not within vocab_size 96"):
        assert weights.load(tmp_path).eos_ids == (1,)


REFUSED_ENTRIES = [
    (
        "llama-gqa",
        {"model_type": "mamba"},
        r'model_type is "mamba"; it must be one of llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, olmo2, sm',
    ),
    ("llama-gqa", {"model_type": None}, "model_type is missing"),
    ("llama-gqa", {"architectures": ["LlamaForSequenceClassification"]}, r'architectures is \["LlamaForSeq'),
    ("llama-gqa", {"hidden_act": "relu"}, r'hidden_act is "relu"; it must be one of silu'),
    ("llama-gqa", {"quantization_config": {"bits": 4}}, "quantization_config is"),
    ("llama-gqa", {"hidden_size": None}, "hidden_size is missing; it must be a positive integer"),
    ("llama-gqa", {"hidden_size": "64"}, 'hidden_size is "64"'),
    ("llama-gqa", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ("llama-gqa", {"num_key_value_heads": 3}, "kv_heads is 3; it must divide heads 4"),
    ("llama-gqa", {"head_dim": 7}, "head_dim is 7; rotary positions need an even one"),
    ("llama-gqa", {"rms_norm_eps": "tiny"}, 'rms_norm_eps is "tiny"; it must be a positive number'),
    ("llama-gqa", {"tie_word_embeddings": "yes"}, 'tie_word_embeddings is "yes"; it must be true or false'),
    ("llama-gqa", {"rope_parameters": {"rope_type": "longrope"}}, 'rope_parameters: rope_type is "longrope"'),
    ("llama-gqa", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: factor is missing"),
    ("llama-gqa", {"rope_parameters": {"rope_type": "yarn", "factor": 4, "beta": 1}}, "beta not supported for .* yarn"),
    ("llama-gqa", {"num_local_experts": 8}, "num_local_experts is 8; it must be null"),
    ("llama-gqa", {"model_type": "gemma3", "vision_config": {"depth": 1}}, "vision_config is .*; it must be null"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0; it must be a positive number"),
    ("gemma2", {"attn_logit_softcapping": -1}, "attn_logit_softcapping is -1; it must be a positive number"),
    ("gemma2", {"hidden_activation": "relu"}, 'hidden_activation is "relu"; it must be one of'),
    ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types is .*; it must be a list of 3"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0; it must be null"),
    ("gemma3", {"rope_parameters": {"rope_theta": 5.0}}, "rope_theta not supported for gemma3_text"),
    (
        "gemma3",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2}}},
        'sliding_attention: rope_type is "linear"; it must be "default"',
    ),
    ("phi3", {"attention_bias": True}, "attention_bias is true"),
    ("phi3", {"rope_parameters": {"rope_type": "yarn", "factor": 2}}, 'rope_type is "yarn"; it must be one of default'),
    ("phi3", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1]}}, "short_factor is missing"),
    (
        "phi3",
        {"rope_parameters": {"rope_type": "longrope", "long_factor": [1], "short_factor": [1, 2]}},
        "rope_scaling has 2 factors; it must have 8",
    ),
    ("phi3-partial", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; it must be 0.75, as in"),
    ("smollm3", {"no_rope_layers": [1, 1]}, r"no_rope_layers is \[1, 1\]; it must be a list of 3, each 0 or 1"),
    ("smollm3", {"layer_types": ["sliding_attention"] * 3}, "layer_types is .*; it must be all full_attention"),
    ("neox", {"rope_parameters": {"partial_rotary_factor": 0.2}}, "rotary_size is 3; it must be even"),
    ("neox", {"rotary_pct": 0.5}, "rotary_pct is 0.5; it must be 0.25, as in"),
    ("neox", {"hidden_act": "relu"}, 'hidden_act is "relu"'),
    ("llama-gqa", {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2}}, 'type is "dynamic"'),
    ("llama-gqa", {"rope_parameters": {"rope_type": "linear"}}, "rope_parameters: factor is missing"),
    ("llama-gqa", {"rope_parameters": {"rope_theta": 1e4, "beta": 1}}, "beta not supported for rope_type default"),
    ("llama-gqa", {"rope_parameters": {"full_attention": {}}}, "full_attention not supported"),
    ("llama-gqa", {"rope_theta": 5.0}, "rope_theta is 5.0; it must be 10000.0, as in"),
    ("llama-gqa", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is .* absent where rope_parameters"),
    ("llama-gqa", {"rope_parameters": [1]}, "rope_parameters is .*; it must be an object"),
    ("llama-gqa", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; it must be 1.0"),
    ("llama-gqa", {"eos_token_id": "</s>"}, 'eos_token_id is "</s>"'),
    ("mistral-window", {"sliding_window": -1}, "sliding_window is -1"),
    ("qwen2-window", {"layer_types": ["full_attention"]}, "layer_types is .*; it must be a list of 3"),
    ("qwen2-gqa", {"layer_types": ["sliding_attention"] * 3}, "layer_types is .*; it must be all full_attention"),
    ("gpt2-tied", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true"),
    ("gpt2-tied", {"add_cross_attention": True}, "add_cross_attention is true"),
    ("gpt2-tied", {"n_head": 5}, "heads is 5; it must divide hidden_size 64"),
    ("gpt2-tied", {"activation_function": "relu"}, 'activation_function is "relu"'),
]


@pytest.mark.parametrize(("name", "entries", "message"), REFUSED_ENTRIES)
def test_config_entries_refused_by_name(tmp_path: Path, name: str, entries: dict[str, Any], message: str) -> None:
    zoo.write(name, tmp_path)
    edit(tmp_path, "generation_config.json", drop=("eos_token_id",))
    edit(tmp_path, **entries)
    with pytest.raises(CheckpointError, match=r"config\.json") as raised:
        weights.load(tmp_path)
    assert raised.match(message)


def change_tensors(folder: Path, drop: str = "", **changed: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(drop, None)
    save_file(tensors | {name.replace("__", "."): t for name, t in changed.items()}, folder / "model.safetensors")


def break_shard_names(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"model.norm.weight": "../a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "lost.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def misplace_tensor(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": dict.fromkeys(names, "a.safetensors") | {"more": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])


BROKEN_FILES = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: missing"),
    "no json": (lambda f: (f / "config.json").write_text("{"), r"config\.json: not readable as JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "holds list; it must hold a JSON object"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: missing"),
    "bad tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json: not a readable tokenizer"),
    "bad generation": (lambda f: (f / "generation_config.json").write_text("?"), r"generation_config\.json: not read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has neither model\.safetensors nor"),
    "pickle": (only_pickle, r"pytorch_model\.bin is a pickle"),
    "truncated": (truncate, r"model\.safetensors: not a readable safetensors file"),
    "not safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"PK"), "not a readable safetensors file"),
    "missing": (lambda f: change_tensors(f, drop="model.norm.weight"), r"tensors missing: model\.norm\.weight"),
    "unexpected": (
        lambda f: change_tensors(f, model__layers__0__self_attn__q_proj__bias=torch.zeros(64)),
        r"no place for: model\.layers\.0\.self_attn\.q_proj\.bias",
    ),
    "misshapen": (
        lambda f: change_tensors(f, model__norm__weight=torch.zeros(65)),
        r"model\.norm\.weight is \[65\]; config\.json makes it \[64\]",
    ),
    "integers": (
        lambda f: change_tensors(f, model__norm__weight=torch.zeros(64, dtype=torch.int8)),
        r"model\.norm\.weight is I8; it must be one of float32",
    ),
    "outside": (break_shard_names, r"'\.\./a\.safetensors' must be a file of the same folder"),
    "lost shard": (lose_shard, r"lost\.safetensors: missing; model\.safetensors\.index\.json names it"),
    "misplaced": (misplace_tensor, r"more is said to be in a\.safetensors; it is in None"),
}


@pytest.mark.parametrize("kind", BROKEN_FILES)
def test_broken_files_refused_by_name(tmp_path: Path, kind: str) -> None:
    zoo.write("llama-gqa", tmp_path)
    damage, message = BROKEN_FILES[kind]
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        weights.load(tmp_path)


def test_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    zoo.write("llama-mha-tied", tmp_path)
    change_tensors(tmp_path, lm_head__weight=torch.zeros(zoo.VOCABULARY, 64))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from the embedding"):
        weights.load(tmp_path)


def test_load_refuses_other_dtypes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype is torch\.int8"):
        weights.load(tmp_path, dtype=torch.int8)


PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_page_about_models_has_every_family() -> None:
    assert set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == set(FAMILIES)


def test_the_page_about_models_prints_what_it_says() -> None:
    session = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "models.md", None, None)
    assert len(test.examples) == 5
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


def test_names_that_are_nothing() -> None:
    with pytest.raises(
        CheckpointError, match=r"no-such: no such checkpoint; it must be tiny-target, tiny-draft, names-tr"
    ):
        locate("no-such")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        locate(Path("no/such"))


def test_hub_names_offline_and_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(name: str, **_: object) -> str:
        raise ConnectionError("cannot reach the hub\nlong explanation")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"^owner/name: no such folder, .* \(cannot reach the hub\)$"):
        locate("owner/name")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **patterns: asked.update(patterns) or str(tmp_path))
    assert locate("owner/name") == tmp_path
    assert asked["allow_patterns"] == ["*.json", "*.safetensors", "*.jinja"]


def test_shipped_names_lie_in_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("warpdraw.model.locate.__file__", str(tmp_path / "model" / "locate.py"))
    with pytest.raises(CheckpointError, match=r"tiny-draft: not in this installation; .* is missing"):
        locate("tiny-draft")
    (tmp_path / "models" / "tiny-draft").mkdir(parents=True)
    assert locate("tiny-draft") == tmp_path / "models" / "tiny-draft"


SAVED = {
    "gqa": {"kv_heads": 2},
    "tied": {"tied": True},
    "biases": {"qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "theta": {"rope_theta": 5e5, "head_dim": 24},
}


@torch.no_grad()
@pytest.mark.parametrize("kind", SAVED)
def test_saved_folder_is_read_by_both(tmp_path: Path, kind: str) -> None:
    config = ModelConfig(
        vocab_size=96, hidden_size=64, layers=2, heads=4, mlp_size=104, max_positions=80, **SAVED[kind]
    )
    torch.manual_seed(0)
    model = Transformer(config)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    tokenizer = Tokenizer(zoo.byte_tokenizer())
    weights.save(tmp_path, model, tokenizer, eos_ids=[3, 4], bos_id=1)
    ours = weights.load(tmp_path)
    assert (ours.config, ours.eos_ids) == (config, (3, 4))
    state = ours.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert ours.tokenizer.encode("AB") == tokenizer.encode("AB")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(50)[None]
    assert difference(model(tokens), theirs(tokens).logits) < CLOSE
    assert theirs.generation_config.eos_token_id == [3, 4]


def test_saved_in_half_the_size(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=96, hidden_size=64, layers=2, heads=4, mlp_size=104, max_positions=80)
    model, tokenizer = Transformer(config), Tokenizer(zoo.byte_tokenizer())
    weights.save(tmp_path / "full", model, tokenizer)
    weights.save(tmp_path / "half", model, tokenizer, dtype=torch.float16)
    full, half = (tmp_path / kind / "model.safetensors" for kind in ("full", "half"))
    assert half.stat().st_size < 0.52 * full.stat().st_size
    assert model.embedding.weight.dtype == torch.float32
    loaded = weights.load(tmp_path / "half").model.state_dict()
    assert all(torch.equal(loaded[key], value.half().float()) for key, value in model.state_dict().items())
    shutil.rmtree(tmp_path / "half")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *(("norm", "layer"), ("mlp", "plain"), ("qk_norm", True), ("sliding_window", 5), ("qkv_bias", True)),
        *(("heads", 3), ("logit_cap", 30.0), ("norm_placement", "after"), ("rotary_size", 4), ("norm_offset", 1.0)),
        ("rope_scaling", RopeScaling("yarn", 4.0)),
    ],
)
def test_save_refuses_what_llama_cannot_say(tmp_path: Path, entry: str, value: Any) -> None:
    shape = {
        "vocab_size": 8,
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
        "mlp_size": 8,
        "max_positions": 8,
        "head_dim": 8,
    }
    model = Transformer(ModelConfig(**shape | {entry: value}))
    with pytest.raises(ValueError, match="Llama"):
        weights.save(tmp_path, model, Tokenizer(zoo.byte_tokenizer()))
