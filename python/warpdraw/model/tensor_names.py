"""Which tensor of a Hugging Face checkpoint is which part of which parameter of our Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from .config import ModelConfig


@dataclass(frozen=True)
class Part:
    """Rows `start : start + rows` of `parameter` are the checkpoint's tensor `name`, stored transposed or not."""

    name: str
    parameter: str
    start: int
    rows: int
    transposed: bool = False


def llama_parts(config: ModelConfig) -> list[Part]:
    """The tensors of Llama, Mistral, Qwen2 and Qwen3 checkpoints; what a family has not, its config switches off."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    parts = [Part("model.embed_tokens.weight", "embedding.weight", 0, config.vocab_size)]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        parts += [
            Part(f"{theirs}.input_layernorm.weight", f"{ours}.attention_norm.weight", 0, config.hidden_size),
            Part(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp_norm.weight", 0, config.hidden_size),
        ]
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            parts += [
                Part(f"{theirs}.self_attn.q_proj.{kind}", f"{ours}.attention.qkv.{kind}", 0, query),
                Part(f"{theirs}.self_attn.k_proj.{kind}", f"{ours}.attention.qkv.{kind}", query, key),
                Part(f"{theirs}.self_attn.v_proj.{kind}", f"{ours}.attention.qkv.{kind}", query + key, key),
            ]
        for kind in ("weight", "bias") if config.output_bias else ("weight",):
            parts.append(
                Part(f"{theirs}.self_attn.o_proj.{kind}", f"{ours}.attention.output.{kind}", 0, config.hidden_size)
            )
        if config.qk_norm:
            parts += [
                Part(f"{theirs}.self_attn.q_norm.weight", f"{ours}.attention.query_norm.weight", 0, config.head_dim),
                Part(f"{theirs}.self_attn.k_norm.weight", f"{ours}.attention.key_norm.weight", 0, config.head_dim),
            ]
        for kind in ("weight", "bias") if config.mlp_bias else ("weight",):
            parts += [
                Part(f"{theirs}.mlp.gate_proj.{kind}", f"{ours}.mlp.up.{kind}", 0, config.mlp_size),
                Part(f"{theirs}.mlp.up_proj.{kind}", f"{ours}.mlp.up.{kind}", config.mlp_size, config.mlp_size),
                Part(f"{theirs}.mlp.down_proj.{kind}", f"{ours}.mlp.down.{kind}", 0, config.hidden_size),
            ]
    parts.append(Part("model.norm.weight", "norm.weight", 0, config.hidden_size))
    if not config.tied:
        parts.append(Part("lm_head.weight", "head.weight", 0, config.vocab_size))
    return parts


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
    if not config.tied:
        parts.append(Part("lm_head.weight", "head.weight", 0, config.vocab_size))
    return parts
