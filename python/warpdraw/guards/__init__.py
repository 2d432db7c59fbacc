"""Guards: checks of prompts and texts, and what happens where one finds something."""

from .checks import Check, Finding, forbid, length, require, scripts
from .guarding import Guard, guarded
from .personal import personal_data

__all__ = ["Check", "Finding", "Guard", "forbid", "guarded", "length", "personal_data", "require", "scripts"]
