"""Training from scratch: a text becomes a tokenizer, batches and a checkpoint; a killed run goes on, nothing lost."""

from .batches import Data, Documents, Windows
from .config import TextConfig, TrainingConfig
from .curve import draw_curve
from .loop import Report, Result, Training
from .optimizer import learning_rate, parameter_groups
from .state import State
from .texts import read_texts
from .train import train
from .vocabulary import byte_level_tokenizer, character_tokenizer, line_ids, stream_ids

__all__ = [
    "Data",
    "Documents",
    "Report",
    "Result",
    "State",
    "TextConfig",
    "Training",
    "TrainingConfig",
    "Windows",
    "byte_level_tokenizer",
    "character_tokenizer",
    "draw_curve",
    "learning_rate",
    "line_ids",
    "parameter_groups",
    "read_texts",
    "stream_ids",
    "train",
]
