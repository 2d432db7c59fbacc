"""The table of embeddings as a picture: a letter where its two numbers say. Only this needs matplotlib."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ..model.replacing import replacing
from .alphabet import LETTERS
from .models import NameModel

VOWELS = "aeiou"
END = "end"


def plane(table: Tensor) -> tuple[Tensor, float]:
    """A table [27, E] as points [27, 2], and the share of its variance that they show.

    Two numbers a letter are shown as they are, more by their first two principal components.

    >>> points, share = plane(torch.eye(27)[:, :2])
    >>> points.shape, share
    (torch.Size([27, 2]), 1.0)
    """
    if table.shape[1] == 2:
        return table, 1.0
    centred = table - table.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[:, :2] * s[:2], float(s[:2].square().sum() / s.square().sum())


def draw_table(model: NameModel, path: str | Path) -> None:
    """Write a PNG with the place of each letter, vowels apart; ValueError that names the extra without matplotlib."""
    if find_spec("matplotlib") is None:
        raise ValueError("picture: expected matplotlib, got none: pip install 'warpdraw[train]'")
    from matplotlib.figure import Figure

    points, share = plane(model.table)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in zip((END, *LETTERS), points.tolist(), strict=True):
        colour = "C3" if name in VOWELS else "C7" if name == END else "C0"
        axes.scatter(x, y, s=260, color=colour, alpha=0.25, linewidths=0)
        axes.annotate(name, (x, y), ha="center", va="center", color=colour, fontsize=8 if name == END else 12)
    axes.set_title(f"embeddings of {Path(model.name).name}")
    if model.table.shape[1] == 2:
        axes.set(xlabel="first number", ylabel="second number")
    else:
        axes.set(xlabel="first principal component", ylabel=f"second; both show {share:.0%} of the variance")
    axes.grid(alpha=0.3)
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")
