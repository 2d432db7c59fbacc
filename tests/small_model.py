"""A random model with a byte-level tokenizer, small enough for a test to generate with it in milliseconds."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from warpdraw.model.config import ModelConfig
from warpdraw.model.tokenizer import Tokenizer
from warpdraw.model.transformer import Transformer
from warpdraw.model.weights import Checkpoint

EOS = 256


def byte_tokenizer() -> Tokenizer:
    """Each byte is a token (ids in the order of GPT-2's alphabet), and one more ends the text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend)


@cache
def small_model(context: int = 256, scale: float = 12.0) -> Checkpoint:
    """`scale` makes the logits of the random weights unequal; about one token in a hundred ends the text."""
    config = ModelConfig(
        vocab_size=EOS + 1, hidden_size=32, layers=2, heads=4, kv_heads=2, mlp_size=64, max_positions=context
    )
    torch.manual_seed(11)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return Checkpoint(model, byte_tokenizer(), config, (EOS,), Path())
