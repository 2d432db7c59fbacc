"""Which tensor of a Hugging Face checkpoint is which part of which parameter of our Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .config import ModelConfig

# Which of our norms the norms of a block are, by where they stand: the same name is not always the same place.
_BLOCK_NORMS = {
    "before": {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"},
    "after": {"post_attention_layernorm": "attention_after", "post_feedforward_layernorm": "mlp_after"},
    "both": {
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "attention_after",
        "pre_feedforward_layernorm": "mlp_norm",
        "post_feedforward_layernorm": "mlp_after",
    },
}


@dataclass(frozen=True)
class Part:
    """Rows `start : start + rows` of `parameter` are the checkpoint's tensor `name`, stored transposed or not.

    With `heads`, the rows are all queries, all keys and all values, and the tensor has the three of each head together.
    """

    name: str
    parameter: str
    start: int
    rows: int
    transposed: bool = False
    heads: int = 0

    def copy(self, tensor: Tensor, rows: Tensor) -> None:
        """Write the checkpoint's tensor into those rows of the parameter, without a copy of either on the way."""
        if self.transposed:
            tensor = tensor.t()
        if self.heads:
            tensor = tensor.unflatten(0, (self.heads, 3, -1)).transpose(0, 1)  # type: ignore[no-untyped-call]
            rows = rows.view(tensor.shape)
        rows.copy_(tensor)


def llama_parts(config: ModelConfig) -> list[Part]:
    """The tensors of Llama checkpoints and their descendants'; what a family has not, its config switches off."""
    return _llama_parts(config, fused=False)


def phi3_parts(config: ModelConfig) -> list[Part]:
    """The tensors of Phi-3 checkpoints: Llama's, with query, key and value in one, and gate and up in one."""
    return _llama_parts(config, fused=True)


def _llama_parts(config: ModelConfig, fused: bool) -> list[Part]:
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    qkv = {"q_proj": query, "k_proj": key, "v_proj": key}
    up = {"gate_proj": config.mlp_size, "up_proj": config.mlp_size}
    if fused:
        qkv, up = {"qkv_proj": query + 2 * key}, {"gate_up_proj": 2 * config.mlp_size}
    parts = [Part("model.embed_tokens.weight", "embedding.weight", 0, config.vocab_size)]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        for name, norm in _BLOCK_NORMS[config.norm_placement].items():
            parts.append(Part(f"{theirs}.{name}.weight", f"{ours}.{norm}.weight", 0, config.hidden_size))
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            parts += _stacked(f"{theirs}.self_attn", f"{ours}.attention.qkv", kind, qkv)
        for kind in ("weight", "bias") if config.output_bias else ("weight",):
            parts.append(
                Part(f"{theirs}.self_attn.o_proj.{kind}", f"{ours}.attention.output.{kind}", 0, config.hidden_size)
            )
        if config.qk_norm:
            spans = (query, key) if config.qk_norm_span == "all" else (config.head_dim, config.head_dim)
            parts += [
                Part(f"{theirs}.self_attn.q_norm.weight", f"{ours}.attention.query_norm.weight", 0, spans[0]),
                Part(f"{theirs}.self_attn.k_norm.weight", f"{ours}.attention.key_norm.weight", 0, spans[1]),
            ]
        for kind in ("weight", "bias") if config.mlp_bias else ("weight",):
            parts += _stacked(f"{theirs}.mlp", f"{ours}.mlp.up", kind, up)
            parts.append(Part(f"{theirs}.mlp.down_proj.{kind}", f"{ours}.mlp.down.{kind}", 0, config.hidden_size))
    parts.append(Part("model.norm.weight", "norm.weight", 0, config.hidden_size))
    return parts + _head("lm_head.weight", config)


def _stacked(theirs: str, ours: str, kind: str, rows: dict[str, int]) -> list[Part]:
    """Tensors that are one above the other in a parameter."""
    starts = [sum(list(rows.values())[:index]) for index in range(len(rows))]
    return [
        Part(f"{theirs}.{name}.{kind}", f"{ours}.{kind}", start, count)
        for start, (name, count) in zip(starts, rows.items(), strict=True)
    ]


def _head(name: str, config: ModelConfig) -> list[Part]:
    return [] if config.tied else [Part(name, "head.weight", 0, config.vocab_size)]


def gpt2_parts(config: ModelConfig) -> list[Part]:
    """The tensors of GPT-2 checkpoints: its linear weights are stored [in, out], query, key and value in one."""
    packed = config.head_dim * (config.heads + 2 * config.kv_heads)
    parts = [
        Part("transformer.wte.weight", "embedding.weight", 0, config.vocab_size),
        Part("transformer.wpe.weight", "position_embedding.weight", 0, config.max_positions),
    ]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            linear = kind == "weight"
            parts += [
                Part(f"{theirs}.ln_1.{kind}", f"{ours}.attention_norm.{kind}", 0, config.hidden_size),
                Part(f"{theirs}.attn.c_attn.{kind}", f"{ours}.attention.qkv.{kind}", 0, packed, linear),
                Part(f"{theirs}.attn.c_proj.{kind}", f"{ours}.attention.output.{kind}", 0, config.hidden_size, linear),
                Part(f"{theirs}.ln_2.{kind}", f"{ours}.mlp_norm.{kind}", 0, config.hidden_size),
                Part(f"{theirs}.mlp.c_fc.{kind}", f"{ours}.mlp.up.{kind}", 0, config.mlp_size, linear),
                Part(f"{theirs}.mlp.c_proj.{kind}", f"{ours}.mlp.down.{kind}", 0, config.hidden_size, linear),
            ]
    parts += [Part(f"transformer.ln_f.{kind}", f"norm.{kind}", 0, config.hidden_size) for kind in ("weight", "bias")]
    return parts + _head("lm_head.weight", config)


def gpt_neox_parts(config: ModelConfig) -> list[Part]:
    """The tensors of GPT-NeoX checkpoints: the query, key and value of each head are stored together."""
    packed, heads, size = 3 * config.heads * config.head_dim, config.heads, config.hidden_size
    parts = [Part("gpt_neox.embed_in.weight", "embedding.weight", 0, config.vocab_size)]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        for kind in ("weight", "bias"):
            parts += [
                Part(f"{theirs}.input_layernorm.{kind}", f"{ours}.attention_norm.{kind}", 0, size),
                Part(f"{theirs}.post_attention_layernorm.{kind}", f"{ours}.mlp_norm.{kind}", 0, size),
                Part(f"{theirs}.mlp.dense_h_to_4h.{kind}", f"{ours}.mlp.up.{kind}", 0, config.mlp_size),
                Part(f"{theirs}.mlp.dense_4h_to_h.{kind}", f"{ours}.mlp.down.{kind}", 0, size),
            ]
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            fused = f"{theirs}.attention.query_key_value.{kind}"
            parts += [
                Part(fused, f"{ours}.attention.qkv.{kind}", 0, packed, heads=heads),
                Part(f"{theirs}.attention.dense.{kind}", f"{ours}.attention.output.{kind}", 0, size),
            ]
    parts += [Part(f"gpt_neox.final_layer_norm.{kind}", f"norm.{kind}", 0, size) for kind in ("weight", "bias")]
    return parts + _head("embed_out.weight", config)
