"""Policy: which ops draw the next token, in which order, with which randomness, and when a text ends."""

from .loop import Stream, generate, stream
from .params import SamplingParams
from .results import Completion, Completions, Event

__all__ = ["Completion", "Completions", "Event", "SamplingParams", "Stream", "generate", "stream"]
