"""`warpdraw bench show`: the tables, the picture and the Markdown of a measurement that was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..bench.gpu_picture import gpu_picture
from ..bench.picture import picture
from .bench_decode import print_decode
from .bench_generate import print_generate
from .bench_markdown import markdown
from .bench_output import PicturePath, check_picture, print_goals, print_gpu, print_sample, write_picture
from .bench_tune import print_tune
from .bench_verify import print_verify, verify_picture

EXAMPLES = """Examples:

warpdraw bench show gpu.json

warpdraw bench show gpu.json --picture gpu.svg

warpdraw bench show gpu.json --markdown > tables.md"""

TABLES: dict[str, Callable[[dict[str, Any]], None]] = {
    "cpu": print_goals,
    "gpu": print_gpu,
    "verify": print_verify,
    "generate": print_generate,
    "sample": print_sample,
    "tune": print_tune,
    "decode": print_decode,
}
PICTURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "cpu": picture,
    "gpu": gpu_picture,
    "verify": verify_picture,
}
MARKDOWN: dict[str, Callable[[dict[str, Any]], str]] = {"gpu": markdown}


def show(
    file: Annotated[str, typer.Argument(metavar="FILE.json", help="What a benchmark wrote with --json.")],
    picture_path: PicturePath = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of README.md and docs/measured.md; of bench gpu alone.")
    ] = False,
) -> int:
    """Print the tables of a measurement that was saved, as when it was taken; nothing is measured.

    The picture is drawn from it too: of bench cpu and verify where they were run with --picture, of bench gpu always.

    A run that was cut off leaves a file that can be shown.
    """
    check_picture(picture_path)
    document = read_document("file", file)
    kind = document["benchmark"]
    if kind not in TABLES:
        raise ValueError(f"file: expected a measurement of bench {', '.join(TABLES)}, got one of {kind!r}")
    try:
        drawn = None if picture_path is None else _of(PICTURES, "picture", kind)(document)
        text = _of(MARKDOWN, "markdown", kind)(document) if as_markdown else None
        if text is None:
            TABLES[kind](document)
        else:
            print(text, end="")
    except KeyError as error:
        raise ValueError(f"file: expected all that bench {kind} writes, got {file!r}, which lacks {error}") from error
    if picture_path is not None and drawn is not None:
        write_picture(picture_path, drawn)
    return 0


def read_document(name: str, path: str) -> dict[str, Any]:
    """What a benchmark wrote; raises ValueError with the `name` of the argument for any other file."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # neither JSON nor UTF-8
        raise ValueError(f"{name}: expected JSON of warpdraw bench, got {path!r} ({error})") from None
    if not isinstance(document, dict) or not isinstance(document.get("benchmark"), str):
        raise ValueError(f"{name}: expected JSON of warpdraw bench, got {path!r}, which is of something else")
    return document


def _of(kinds: dict[str, Callable[[dict[str, Any]], str]], name: str, kind: str) -> Callable[[dict[str, Any]], str]:
    if kind not in kinds:
        raise ValueError(f"{name}: expected a measurement of bench {', '.join(kinds)}, got one of {kind!r}")
    return kinds[kind]
