"""Policy: which ops draw the next token, in which order, with which randomness, and when a text ends."""

from .beam import beam_search
from .best_of import best_of
from .contrastive import contrastive_search
from .engine import Engine, EngineFull
from .loop import Stream, generate, stream
from .params import SamplingParams
from .repetition import Repetition
from .results import Acceptance, Completion, Completions, Event, GuardAction, SpeculationStats
from .speculation import Speculation

__all__ = [
    "Acceptance",
    "Completion",
    "Completions",
    "Engine",
    "EngineFull",
    "Event",
    "GuardAction",
    "Repetition",
    "SamplingParams",
    "Speculation",
    "SpeculationStats",
    "Stream",
    "beam_search",
    "best_of",
    "contrastive_search",
    "generate",
    "stream",
]
