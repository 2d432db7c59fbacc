"""How one token was drawn, as lines of bars: what the model said, what the filters left, what was drawn."""

from __future__ import annotations

import json

from rich.cells import cell_len
from rich.text import Text

from ..generation.results import Candidate, Step

BAR = 20
EIGHTHS = " ▏▎▍▌▋▊▉"


def step_lines(step: Step, unicode: bool = True) -> list[Text]:
    """A title, a line for each candidate and one for the others."""
    names = [json.dumps(candidate.token, ensure_ascii=not unicode) for candidate in step.candidates]
    width = max(8, *map(cell_len, names))
    column = BAR + 8
    title = f"token {step.position}".ljust(width + 4)
    lines = [Text(f"{title}{'model':<{column}}{f'drawn from ({step.kept} kept)':<{column}}", style="bold")]
    for name, candidate in zip(names, step.candidates, strict=True):
        padded = name + " " * (width - cell_len(name))
        before, after = (
            f"{bar(probability, unicode)} {probability:6.1%}"
            for probability in (candidate.probability, candidate.filtered_probability)
        )
        word, style = _fate(candidate)
        after = after if candidate.kept else " " * len(after)
        lines.append(
            Text.assemble(f"  {padded}  {before} {after} ", (word, style), style="" if candidate.kept else "dim")
        )
    if step.rest > 0:
        lines.append(Text(f"  {'others':<{width}}  {bar(step.rest, unicode)} {step.rest:6.1%}", style="dim"))
    lines.append(Text())
    return lines


def _fate(candidate: Candidate) -> tuple[str, str]:
    if candidate.drawn:
        return "drawn", "bold green"
    return ("kept", "green") if candidate.kept else ("dropped", "red")


def bar(probability: float, unicode: bool) -> str:
    if not unicode:
        return ("#" * round(probability * BAR)).ljust(BAR)
    whole, eighths = divmod(round(probability * BAR * 8), 8)
    return ("█" * whole + (EIGHTHS[eighths] if eighths else "")).ljust(BAR)
