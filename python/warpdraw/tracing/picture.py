"""The attention of a trace as a PNG."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

from .records import Trace, shortened

# Beyond that a label is smaller than its row.
MOST_TOKENS = 128
INCHES_PER_TOKEN = 0.28
DOTS_PER_INCH = 120


def save_picture(trace: Trace, path: str | Path) -> None:
    """Write the attention of the traced head as a PNG: a row for each token, a column for each that it may look at.

    Raises ValueError for a name that does not end in .png, more than 128 tokens, and where matplotlib (the extra
    `train`) is missing; OSError where the file cannot be written.
    """
    count = len(trace.tokens)
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"picture: expected a file name that ends in .png, got {str(path)!r}")
    if count > MOST_TOKENS:
        raise ValueError(f"picture: expected a text of at most {MOST_TOKENS} tokens, got {count}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("picture: expected matplotlib, got none; pip install 'warpdraw[train]' brings it") from None

    side = 2.5 + INCHES_PER_TOKEN * count
    figure = Figure(figsize=(side + 1, side), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    # What stands after a token is not looked at by rule; it stays white, apart from what is looked at little.
    weights = [[*row[: at + 1], *(count - at - 1) * (math.nan,)] for at, row in enumerate(trace.attention.weights)]
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1)
    labels = [shortened(json.dumps(token.text, ensure_ascii=False)) for token in trace.tokens]
    axes.set_xticks(range(count), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(count), labels, parse_math=False)
    axes.set_xlabel("looked at")
    axes.set_ylabel("token")
    axes.set_title(f"Attention, block {trace.attention.layer}, head {trace.attention.head}")
    figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box, which says as much.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, format="png")
