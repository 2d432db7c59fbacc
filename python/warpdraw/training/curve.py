"""The loss curve as a picture. Only this needs matplotlib, and only when it draws."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..model.replacing import replacing
from .loop import Result

SMOOTHED = 25  # steps


def check_matplotlib() -> None:
    """Raise ValueError that names the extra where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ValueError("plot: expected matplotlib for the loss curve, got none: pip install 'warpdraw[train]'")


def draw_curve(result: Result, path: str | Path) -> None:
    """Write a PNG with the loss of each step, its mean over the last steps and the losses of the held-out part."""
    check_matplotlib()
    from matplotlib.figure import Figure

    losses = result.losses
    smooth = [
        sum(part) / len(part) for end in range(1, len(losses) + 1) if (part := losses[max(0, end - SMOOTHED) : end])
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    axes.plot(steps, losses, color="C0", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth, color="C0", label=f"training, mean of {SMOOTHED} steps")
    if result.held_out:
        axes.plot(*zip(*result.held_out, strict=True), color="C1", marker=".", label="held-out")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")
