"""From text to probabilities, visible: what a model makes of a text, and what strategies keep and draw of that."""

from .records import Candidate, HeadAttention, LayerView, Stage, StrategyDraw, TokenScore, Trace, TracedToken
from .trace import STRATEGIES, trace

__all__ = [
    "STRATEGIES",
    "Candidate",
    "HeadAttention",
    "LayerView",
    "Stage",
    "StrategyDraw",
    "TokenScore",
    "Trace",
    "TracedToken",
    "trace",
]
