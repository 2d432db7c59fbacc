"""`warpdraw info`: what is installed, what runs here, and why something does not."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..backends import backends
from ..environment import environment
from .terminal import stdout

EXAMPLES = """Examples:

warpdraw info

warpdraw info --json"""


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, backends with reasons, processor, threads and GPU."""
    record = environment() | {"backends": _backends()}
    if as_json:
        print(json.dumps(record, indent=2))
        return
    console = stdout()
    for name in ("warpdraw", "python", "torch", "triton", "platform", "cpu"):
        console.print(Text.assemble((f"{name:<10}", "bold"), record[name] or "not installed"))
    gpu = record["gpu"]
    console.print(Text.assemble((f"{'features':<10}", "bold"), " ".join(record["cpu_features"]) or "none known"))
    console.print(Text.assemble((f"{'threads':<10}", "bold"), f"{record['threads']} of {record['cores']} cores"))
    found = f"{gpu['name']} (capability {gpu['capability']})" if gpu["available"] else f"none: {gpu['reason']}"
    console.print(Text.assemble((f"{'gpu':<10}", "bold"), found))

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("backend", "available", "reason"):
        table.add_column(heading, overflow="fold")
    for backend in record["backends"]:
        available = Text("yes", "green") if backend["available"] else Text("no", "red")
        table.add_row(backend["name"], available, backend["reason"])
    console.print()
    console.print(table)


def _backends() -> list[dict[str, Any]]:
    return [{"name": each.name, "available": each.available, "reason": each.reason} for each in backends()]
