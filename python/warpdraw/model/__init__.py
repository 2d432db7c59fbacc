"""The model column: transformer, cache, checkpoints and tokenizer. It imports no ops; generation joins the two."""

from .cache import KVCache
from .config import CheckpointError, ModelConfig
from .tokenizer import Tokenizer
from .transformer import Transformer
from .weights import Checkpoint, load, save

__all__ = ["Checkpoint", "CheckpointError", "KVCache", "ModelConfig", "Tokenizer", "Transformer", "load", "save"]
