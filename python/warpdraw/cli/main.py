"""The program: its commands, its version, and bad input as one line and exit code 2."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from ..backends import BackendError
from . import bench, generate, info, names, train
from .terminal import error_line, warning_line

BAD_INPUT = 2

app = typer.Typer(
    name="warpdraw",
    help="Draws the next token: exact, reproducible, one read of the logits.",
    epilog="Begin with: warpdraw generate 'The sky is' --seed 7",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("names", epilog=names.EXAMPLES)(names.names)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"warpdraw {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code: 0, 1 for a run that failed, 2 for bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = warning_line
            code = app(args=arguments, prog_name="warpdraw", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (ValueError, OSError, BackendError) as error:  # bad arguments, checkpoints, files, settings
        error_line(str(error))
    except typer.Abort:
        error_line("aborted")
    except Exception as error:
        # What the parser raises for bad options has another class in every release of it.
        if not hasattr(error, "format_message"):
            raise
        error_line(error.format_message() or "give a command: see warpdraw --help")
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
