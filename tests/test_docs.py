"""Every example in the documentation of the package runs and prints what it says."""

import dataclasses
import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import warpdraw
from warpdraw.cli.main import main
from warpdraw.op import OPS

DOCS = Path(__file__).parent.parent / "docs"
GUIDE = (DOCS / "generation.md").read_text(encoding="utf-8")
STRATEGIES = (DOCS / "strategies.md").read_text(encoding="utf-8")


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


def blocks(language, page=GUIDE):
    """The code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def commands(page=GUIDE):
    """The commands of a page, and what it says that each prints."""
    sessions = [block.removeprefix("$ ").split("\n$ ") for block in blocks("console", page)]
    return [session.partition("\n")[::2] for sessions_of_block in sessions for session in sessions_of_block]


@pytest.mark.parametrize(("command", "printed"), commands() + commands(STRATEGIES))
def test_a_command_of_the_guide_prints_what_it_says(command, printed, capsys):
    program, *arguments = shlex.split(command)
    assert (program, main(arguments)) == ("warpdraw", 0)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(lines).rstrip("\n") == printed.rstrip("\n")


def test_the_python_of_the_guide_prints_what_it_says():
    session = "\n".join(block for block in blocks("python") if block.startswith(">>>"))
    test = doctest.DocTestParser().get_doctest(session, {}, "generation.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 10


def test_every_parameter_of_a_request_has_an_example_in_the_guide():
    options = " ".join(command for command, _ in commands())
    python = " ".join(blocks("python"))
    names = {"logit_bias": "bias", "banned_ids": "ban", "allowed_ids": "allow", "dry_breakers": "dry-breaker"}
    for field in dataclasses.fields(warpdraw.SamplingParams):
        option = names.get(field.name, field.name.removesuffix("s") if field.name == "stop_ids" else field.name)
        assert f"--{option.replace('_', '-')} " in options + " " or f"{field.name}=" in python, field.name
