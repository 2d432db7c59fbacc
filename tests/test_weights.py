"""Checkpoints: the five families against transformers, both config spellings, shards, and every refusal by name."""

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from warpdraw.model import weights
from warpdraw.model.cache import KVCache
from warpdraw.model.config import CheckpointError, ModelConfig
from warpdraw.model.locate import locate
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


@pytest.fixture(scope="module", params=zoo.ZOO)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return zoo.write(request.param, folder), weights.load(folder)


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_logits_equal_transformers(pair: Any) -> None:
    theirs, ours = pair
    tokens = torch.randint(zoo.VOCABULARY, (3, 60), generator=torch.Generator().manual_seed(3))
    reference = theirs(tokens).logits
    assert reference.std() > 1, "the logits must be far from constant for the bound to mean anything"
    assert difference(ours.model(tokens), reference) < CLOSE
    cache = KVCache(ours.config, slots=3, capacity=8)
    pieces = [ours.model(tokens[:, part], cache) for part in (slice(0, 33), slice(33, 55), slice(55, 60))]
    assert difference(torch.cat(pieces, 1), reference) < CLOSE


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


@pytest.mark.parametrize("name", ["llama-gqa", "llama-linear", "llama-llama3", "mistral-window", "qwen2-gqa"])
def test_old_spelling_reads_as_the_new(tmp_path: Path, name: str) -> None:
    zoo.write(name, tmp_path)
    new = weights.load(tmp_path).config
    rope = dict(json.loads((tmp_path / "config.json").read_text())["rope_parameters"])
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    scaling = None if kind == "default" else rope | {"type" if kind == "linear" else "rope_type": kind}
    edit(tmp_path, drop=("rope_parameters", "dtype"), rope_theta=theta, rope_scaling=scaling, torch_dtype="float32")
    assert weights.load(tmp_path).config == new


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
        r'model_type is "mamba"; it must be one of llama, mistral, qwen2, qwen3, gpt2',
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
    ("llama-gqa", {"rope_parameters": {"rope_type": "yarn", "factor": 4}}, 'rope_parameters: rope_type is "yarn"'),
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
        r"model\.norm\.weight is torch\.int8; it must be one of float32",
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
    assert asked["allow_patterns"] == ["*.json", "*.safetensors"]


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
    [("norm", "layer"), ("mlp", "plain"), ("qk_norm", True), ("sliding_window", 5), ("qkv_bias", True), ("heads", 3)],
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
