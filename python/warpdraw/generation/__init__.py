"""Policy: which ops draw the next token, in which order, with which randomness, and when a text ends."""

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
    "generate",
    "stream",
]
