"""Checkpoints: Hugging Face folders read into a Transformer, and a Transformer written as such a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .config import CheckpointError, ModelConfig
from .families import Family, read_config
from .json_fields import Fields, read_json
from .locate import locate
from .replacing import replacing
from .tensor_files import TensorFiles
from .tensor_names import Part, llama_parts
from .tokenizer import Tokenizer
from .transformer import Transformer


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer, its configuration, the ids that end a text, and the folder they came from."""

    model: Transformer
    tokenizer: Tokenizer
    config: ModelConfig
    eos_ids: tuple[int, ...]
    path: Path


def load(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Checkpoint:
    """Read a checkpoint of the Llama, Mistral, Qwen2, Qwen3 or GPT-2 family, its weights as `dtype` on `device`.

    name_or_path: "tiny-target" or "tiny-draft" (in the package, also where a folder has that name), a folder with
    config.json, safetensors and tokenizer.json, or `owner/name` on the Hugging Face hub. Code and pickles in a
    checkpoint are never run. Raises CheckpointError where anything is missing, broken, unknown or not supported;
    warns about unknown config entries.

    >>> checkpoint = load("tiny-target")
    >>> tokens = torch.tensor([checkpoint.tokenizer.encode("The sky is")])
    >>> checkpoint.model(tokens).shape[-1] == checkpoint.config.vocab_size
    True
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise ValueError(f"dtype is {dtype}; it must be torch.float32, float16, bfloat16 or float64")
    folder = locate(name_or_path)
    fields = read_json(folder / "config.json")
    config, family = read_config(fields)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    with torch.device("meta"):
        model = Transformer(config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    state = {name: torch.empty(shape, dtype=dtype, device=device) for name, shape in shapes.items()}
    _fill(state, folder, family, config)
    model.load_state_dict(state, assign=True)
    return Checkpoint(model.to(device, dtype).eval(), tokenizer, config, _eos_ids(folder, fields, config), folder)


def _fill(state: dict[str, torch.Tensor], folder: Path, family: Family, config: ModelConfig) -> None:
    """Fill our parameters from the parts of them that the checkpoint stores."""
    files = TensorFiles(folder)
    parts = family.parts(config)
    stored = _stored_names(files.names, parts, family, folder)
    for part in parts:
        target = state[part.parameter][part.start : part.start + part.rows]
        expected = list(target.t().shape if part.transposed else target.shape)
        name = stored.pop(part.name)
        if files.shape(name) != expected:
            raise CheckpointError(f"{folder}: {name} is {files.shape(name)}; config.json makes it {expected}")
        tensor = files.read(name)
        target.copy_(tensor.t() if part.transposed else tensor)
    for name in stored.values():  # the copy of a tied head
        if not torch.equal(files.read(name).to(state["embedding.weight"]), state["embedding.weight"]):
            raise CheckpointError(f"{folder}: {name} differs from the embedding, but config.json ties the two")


def _stored_names(names: set[str], parts: list[Part], family: Family, folder: Path) -> dict[str, str]:
    """The checkpoint's name of each part, which may lack the family's prefix.

    Raises CheckpointError for tensors that are missing or left over.
    """
    wanted = {part.name for part in parts}
    prefixed = any(name.startswith(family.prefix) for name in names)
    stored = {name if prefixed or name == "lm_head.weight" else family.prefix + name: name for name in names}
    if missing := sorted(wanted - set(stored)):
        raise CheckpointError(f"{folder}: tensors missing: {_some(missing)}")
    unexpected = sorted(
        name for name in set(stored) - wanted - {"lm_head.weight"} if not name.endswith(family.constants)
    )
    if unexpected:
        raise CheckpointError(f"{folder}: tensors that config.json has no place for: {_some(unexpected)}")
    return {name: theirs for name, theirs in stored.items() if name in wanted or name == "lm_head.weight"}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _eos_ids(folder: Path, config_fields: Fields, config: ModelConfig) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json where it has one, else of config.json: an id, a list, or none."""
    fields = config_fields
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
        fields = generation if generation.get("eos_token_id") is not None else fields
    value = fields.get("eos_token_id", [])
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise fields.error("eos_token_id", "a token id or a list of them")
    inside = tuple(dict.fromkeys(one for one in ids if 0 <= one < config.vocab_size))
    if len(inside) < len(set(ids)):
        warnings.warn(
            f"{fields.where}: eos_token_id {value} is not within vocab_size {config.vocab_size}", stacklevel=3
        )
    return inside


def save(
    path: str | Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype | None = None,
    eos_ids: Sequence[int] = (),
    bos_id: int | None = None,
) -> None:
    """Write config.json, generation_config.json, model.safetensors and tokenizer.json into the folder `path`.

    The folder is a Llama checkpoint that `load` and transformers read. The weights are stored in `dtype`
    (default: as they are). Each file is written at once: one that is there stays whole until the new one is. Raises
    ValueError for a model that Llama cannot express: another norm, mlp or kind of positions, a sliding window, norms of
    queries and keys.
    """
    config = model.config
    _check_llama(config)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = dtype or model.embedding.weight.dtype
    ids: dict[str, object] = {"bos_token_id": bos_id, "eos_token_id": list(eos_ids) or None}
    _write_json(folder / "config.json", _llama_json(config, dtype) | ids)
    _write_json(folder / "generation_config.json", ids)
    with replacing(folder / "tokenizer.json") as file:
        tokenizer.save(file)
    save_weights(folder, model, dtype=dtype)


def save_weights(path: str | Path, model: Transformer, *, dtype: torch.dtype | None = None) -> None:
    """Write model.safetensors alone, into a folder that `save` wrote."""
    state = model.state_dict()
    dtype = dtype or model.embedding.weight.dtype
    tensors = {
        part.name: state[part.parameter][part.start : part.start + part.rows].to("cpu", dtype, copy=True)
        for part in llama_parts(model.config)
    }
    with replacing(Path(path) / "model.safetensors") as file:
        save_file(tensors, file, metadata={"format": "pt"})


def _check_llama(config: ModelConfig) -> None:
    needed = {
        "norm": "rms",
        "positions": "rotary",
        "mlp": "gated",
        "activation": "silu",
        "qk_norm": False,
        "sliding_window": None,
        "output_bias": config.qkv_bias,
    }
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ValueError(f"config.{name} is {getattr(config, name)!r}; a Llama checkpoint needs {value!r}")
    if config.hidden_size % config.heads:
        raise ValueError(f"config.heads is {config.heads}; for Llama it must divide hidden_size {config.hidden_size}")


def _llama_json(config: ModelConfig, dtype: torch.dtype) -> dict[str, object]:
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": config.rope_scaling.kind, "factor": config.rope_scaling.factor}
        if config.rope_scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": config.rope_scaling.low_factor,
                "high_freq_factor": config.rope_scaling.high_factor,
                "original_max_position_embeddings": config.rope_scaling.original_positions,
            }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tied,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    with replacing(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
