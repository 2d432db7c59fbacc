"""The sandbox that chat templates run in: Jinja as transformers sets it up, with an allowance for each render."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

# Rounds of loops in one render, and what a call counts beside them, because it takes longer.
MOST_STEPS = 1_000_000
CALL_STEPS = 10
# Characters or items that an operator, a filter, a call or the whole text makes.
MOST_CHARACTERS = 10_000_000
# 2 ** 4096 has about as many digits as any template could want.
MOST_BITS = 4096

_COUNTED, _SIZED = "warpdraw_counted", "warpdraw_sized"


class Excess(jinja2.TemplateError):
    """A template that does more than its allowance."""


class Allowance:
    """What is left to one render."""

    def __init__(self) -> None:
        self._steps = 0

    def take(self, steps: int) -> None:
        """Take so many of the steps."""
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise Excess(f"more than {MOST_STEPS:,} rounds of loops and calls")


_ALLOWANCE: ContextVar[Allowance] = ContextVar("allowance")


def _check_length(length: int) -> None:
    if length > MOST_CHARACTERS:
        raise Excess(f"a text or list longer than {MOST_CHARACTERS:,}")


def _sized(value: Any) -> Any:
    """The value, if it is not too long."""
    if isinstance(value, str | list | tuple | dict):
        _check_length(len(value))
    return value


class _Watch(NodeTransformer):
    """Puts counters around the loops of a template, and checks of length around what makes texts and lists."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.iter = _filtered(node.iter, _COUNTED)
        return self.generic_visit(node)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        node.filter = _filtered(node.filter, _SIZED)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return _filtered(self.generic_visit(node), _SIZED)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        return node if node.name in (_COUNTED, _SIZED) else _filtered(node, _SIZED)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=1 if node is None else node.lineno)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates: the same blocks, filters and functions, no access to Python.

    Loops, calls and the operators that make something large of something small take from the render's allowance.
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols])
        self.filters["tojson"] = _tojson
        self.filters[_COUNTED], self.filters[_SIZED] = Counted, _sized
        self.globals.update(
            raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dictionary(), namespace=_Namespace
        )

    def render_text(self, template: jinja2.Template, variables: dict[str, Any]) -> str:
        """The text of a template, within its allowance."""
        token = _ALLOWANCE.set(Allowance())
        try:
            pieces, length = [], 0
            for piece in template.generate(variables):
                length += len(piece)
                _check_length(length)
                pieces.append(piece)
            return "".join(pieces)
        finally:
            _ALLOWANCE.reset(token)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        watched: nodes.Template = _Watch().visit(tree)
        return watched

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result is not larger than the allowance."""
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    _check_length(len(one) * max(0, times))
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(0, right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MOST_BITS:
                raise Excess(f"an integer of more than {MOST_BITS:,} bits")
        return _sized(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call of what the sandbox lets be called."""
        _ALLOWANCE.get().take(CALL_STEPS)
        return _sized(super().call(__context, __obj, *args, **kwargs))


class Counted:
    """What a loop goes through, counted as it does."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        allowance = _ALLOWANCE.get()
        for item in self._items:
            allowance.take(1)
            yield item

    def __len__(self) -> int:
        return len(self._items)


class GenerationBlock(Extension):
    """`{% generation %}`, with which templates for training mark what the assistant says: here the text alone."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it like this)

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as its content, whose variables stay in it."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Dictionary:
    """`dict` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` that holds no names of Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *values = args
        attributes = dict(*values, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace holds no name that begins with _, got {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
