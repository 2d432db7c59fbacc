"""Policy: which ops draw the next token, in which order, with which randomness, and when a text ends."""

from .engine import Engine, EngineFull
from .loop import Stream, generate, stream
from .params import SamplingParams
from .results import Acceptance, Completion, Completions, Event, SpeculationStats
from .speculation import Speculation

__all__ = [
    "Acceptance",
    "Completion",
    "Completions",
    "Engine",
    "EngineFull",
    "Event",
    "SamplingParams",
    "Speculation",
    "SpeculationStats",
    "Stream",
    "generate",
    "stream",
]
