"""Every example in the documentation of the package runs and prints what it says."""

import dataclasses
import doctest
import importlib
import io
import pkgutil
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import warpdraw
from warpdraw.cli.main import main
from warpdraw.op import OPS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*DOCS.glob("*.md"), *DOCS.glob("tutorial/*.md")])
}


def modules():
    names = [module.name for module in pkgutil.walk_packages(warpdraw.__path__, "warpdraw.")]
    return ["warpdraw", *sorted(name for name in names if not name.endswith("__main__"))]


def examples_of(module):
    """The examples of a module's functions, classes and ops that are defined in it."""
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    for op in OPS.values():
        if op.__module__ == module.__name__:
            found.append(doctest.DocTestParser().get_doctest(op.__doc__, {}, op.name, None, None))
    return found


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    module = importlib.import_module(name)
    for test in examples_of(module):
        output = []
        result = doctest.DocTestRunner(verbose=False).run(test, out=output.append)
        assert result.failed == 0, "".join(output)


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_documented_with_an_example(name):
    text = OPS[name].__doc__
    assert doctest.DocTestParser().get_examples(text)
    for spec in (*OPS[name].contract.inputs, *OPS[name].contract.outputs):
        assert spec.name in text or spec.name == "out"
    for word in ("Args:", "Returns:", "Contract:"):
        assert word in text


def test_everything_public_is_documented():
    for name in warpdraw.__all__:
        thing = getattr(warpdraw, name)
        assert thing.__doc__, name
        assert thing.__doc__.strip().splitlines()[0].strip().endswith("."), name


def blocks(page, language):
    """The code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL)


def commands(page):
    """The commands of a page in order, and what it says that each prints: None in the sh blocks of the tutorial."""
    found = []
    for language, block in re.findall(r"^```(console|sh)\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL):
        if language == "console":
            found += [session.partition("\n")[::2] for session in block.removeprefix("$ ").split("\n$ ")]
        elif page.startswith("tutorial/"):
            found += [(line, None) for line in block.splitlines()]
    return found


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A folder for each page, in which its commands run: what one writes the next may read."""
    folders = {page: tmp_path_factory.mktemp("page") for page in PAGES}
    for folder in folders.values():
        (folder / "examples").symlink_to(DOCS.parent / "examples")
    return folders


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_print_what_it_says(page, capsys, monkeypatch, folder_of):
    monkeypatch.chdir(folder_of[page])
    for command, printed in commands(page):
        with monkeypatch.context() as patch:
            assert run(command, patch) == 0, command
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert printed is None or "\n".join(lines).rstrip("\n") == printed.rstrip("\n"), command


def run(command, patch):
    """The exit code of a command: of the program in this process, where it is the last of a pipe and writes no file."""
    before, _, last = command.rpartition(" | ")
    program, *arguments = shlex.split(last)
    if program != "warpdraw" or ">" in arguments:
        return subprocess.run(in_shell(command), shell=True).returncode
    if before:
        piped = subprocess.run(in_shell(before), shell=True, capture_output=True, encoding="utf-8", check=True).stdout
        patch.setattr("sys.stdin", io.StringIO(piped))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the program prints them
        return main(arguments)


def in_shell(command):
    """A command with this Python, and with the program that this Python has."""
    python = shlex.quote(sys.executable)
    return re.sub(r"\bpython\b|\bwarpdraw\b", lambda found: python + " -m warpdraw" * (found[0] == "warpdraw"), command)


def session_of(page):
    return "\n".join(block for block in blocks(page, "python") if block.startswith(">>>"))


@pytest.mark.parametrize("page", [page for page in PAGES if session_of(page)])
def test_the_python_of_a_page_prints_what_it_says(page, monkeypatch, folder_of):
    monkeypatch.chdir(folder_of[page])
    test = doctest.DocTestParser().get_doctest(session_of(page), {}, page, None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)


def test_the_pages_have_examples():
    assert len(commands("generation.md")) > 20
    assert session_of("generation.md").count(">>>") > 10
    assert commands("trace.md")


def test_every_parameter_of_a_request_has_an_example_in_the_guide():
    options = " ".join(command for command, _ in commands("generation.md"))
    python = " ".join(blocks("generation.md", "python"))
    names = {"logit_bias": "bias", "banned_ids": "ban", "allowed_ids": "allow", "dry_breakers": "dry-breaker"}
    for field in dataclasses.fields(warpdraw.SamplingParams):
        option = names.get(field.name, field.name.removesuffix("s") if field.name == "stop_ids" else field.name)
        assert f"--{option.replace('_', '-')} " in options + " " or f"{field.name}=" in python, field.name
