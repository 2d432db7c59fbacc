"""Every example in the documentation of the package runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import warpdraw
from warpdraw.op import OPS


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
