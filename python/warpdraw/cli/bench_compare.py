"""`warpdraw bench compare`: what became faster or slower between two measurements."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..bench.comparison import FASTER, SAME, SLOWER
from ..bench.comparison import compare as compared
from .bench_output import WIDTH_OF_FILES, JsonPath, check_place, figure, write_json
from .bench_show import read_document
from .terminal import stdout, warning_line

EXAMPLES = """Examples:

warpdraw bench compare old.json new.json

warpdraw bench compare old.json new.json --all --json changes.json"""

STYLES = {FASTER: "green", SLOWER: "red"}


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD.json", help="What a benchmark wrote with --json.")],
    new: Annotated[str, typer.Argument(metavar="NEW.json", help="What the same benchmark wrote later.")],
    every: Annotated[bool, typer.Option("--all", help="List what stayed the same too.")] = False,
    json_path: JsonPath = None,
) -> int:
    """Compare two measurements of one benchmark, each method at each place with itself.

    Same: medians within 3 % of each other. Faster or slower: further apart, and the spans from the 10th to the 90th
    percentile do not meet. Unclear: they meet.
    """
    check_place("json", json_path)
    documents = [read_document(name, path) for name, path in (("old", old), ("new", new))]
    try:
        result = compared(*documents)
    except KeyError as error:
        raise ValueError(f"old, new: expected all that a benchmark writes, got a file that lacks {error}") from error
    if len(set(result["machines"])) > 1:
        warning_line(f"measured on different machines: {result['machines'][0]} and {result['machines'][1]}")
    if not write_json(json_path, result):
        _print(result, every)
    return 0


def _print(result: dict[str, Any], every: bool) -> None:
    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(f"{result['machines'][1]}, {result['dates'][0]} and {result['dates'][1]}")
    figures = ("old_us", "new_us", "ratio", "verdict")
    for job in dict.fromkeys(record.get("job", result["benchmark"]) for record in result["results"]):
        table = Table(box=SIMPLE_HEAD, title=job, title_justify="left")
        table.add_column("rows", min_width=16)
        table.add_column("method", min_width=16)
        for heading in ("old us", "new us", "takes", ""):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in result["results"]:
            if record.get("job", result["benchmark"]) == job and (every or record["verdict"] != SAME):
                rows = [str(v) for k, v in record.items() if k not in ("job", "method", *figures) and v is not None]
                verdict = Text(record["verdict"], STYLES.get(record["verdict"], ""))
                times = [figure(record[name]) for name in ("old_us", "new_us")]
                table.add_row(", ".join(rows), record["method"], *times, f"{record['ratio']:.2f}x", verdict)
        if table.row_count:
            console.print(table)
    console.print(", ".join(f"{count} {name}" for name, count in result["counts"].items()))
    if result["only_old"] or result["only_new"]:
        console.print(f"{result['only_old']} in the old one alone, {result['only_new']} in the new one alone")
