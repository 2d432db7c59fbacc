"""Names: a list of given names of India, two character models of it, and new names drawn from them."""

from .drawn import Name, Names, Novelty, generate, letter_logprobs, novelty
from .listing import all_names, known_names, names_by_origin, split
from .mlp import Mlp, MlpConfig
from .models import NameModel, load
from .picture import draw_table
from .training import Trained, held_out_loss, train

__all__ = [
    "Mlp",
    "MlpConfig",
    "Name",
    "NameModel",
    "Names",
    "Novelty",
    "Trained",
    "all_names",
    "draw_table",
    "generate",
    "held_out_loss",
    "known_names",
    "letter_logprobs",
    "load",
    "names_by_origin",
    "novelty",
    "split",
    "train",
]
