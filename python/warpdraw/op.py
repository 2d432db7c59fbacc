"""An op is a contract and an eager reference; from the two follow checks, outputs, dispatch and the compiled node."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import Backend, backend_for
from .contract import ChoiceSpec, Contract, Sizes, TensorSpec

OPS: dict[str, Op] = {}
LIBRARY: Any = torch.library.Library("warpdraw", "DEF")  # type: ignore[no-untyped-call]


class Op:
    """A public op: call it with the inputs of its contract, in order or by name; outputs are keywords.

    An output given as a tensor is written in place; an optional one given as True is made, else it is None.
    """

    def __init__(self, contract: str, reference: Callable[..., Any]):
        self.contract = Contract.parse(contract)
        self.reference = reference
        self.__name__ = self.name = reference.__name__
        self.__doc__ = f"{inspect.getdoc(reference)}\n\nContract: {self.contract.text}"
        self.__module__ = reference.__module__
        self._inputs = self.contract.inputs
        self._outputs = self.contract.outputs
        self._input_index = {spec.name: i for i, spec in enumerate(self._inputs)}
        self._positional = sum(isinstance(spec, TensorSpec) for spec in self._inputs)
        self._defaults = [spec.default for spec in self._inputs]
        self._requested = {spec.name: not spec.optional for spec in self._outputs}
        fields = [spec.name for spec in self._outputs]
        self._result: Any = namedtuple(self.name.title().replace("_", "") + "Result", fields)
        self.__signature__ = self._signature()
        self._node = self._register_node()

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.contract.text}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values, requested = self._bind(args, kwargs)
        if torch.compiler.is_compiling():
            return self._call_node(values, requested)
        # Eager calls skip the dispatcher, which costs more than these kernels do.
        backend, values, outputs = self._prepare(values, requested)
        self._run(backend, values, outputs)
        return outputs[0] if len(outputs) == 1 else self._result(*outputs)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        if len(args) > self._positional:
            raise TypeError(f"{self.name}: expected at most {self._positional} positional arguments, got {len(args)}")
        values: list[Any] = [*args, *self._defaults[len(args) :]]
        requested: dict[str, Any] = self._requested
        for name, value in kwargs.items():
            index = self._input_index.get(name)
            if index is not None:
                if index < len(args):
                    raise TypeError(f"{self.name}: got {name} twice")
                values[index] = value
            elif name in self._requested:
                requested = {**requested, name: value}
            else:
                allowed = ", ".join([*self._input_index, *self._requested])
                raise TypeError(f"{self.name}: unexpected argument {name!r}; expected one of {allowed}")
        return values, requested

    def _check_inputs(self, values: list[Any]) -> tuple[Sizes, torch.device]:
        first = values[0]
        if not isinstance(first, Tensor):
            raise TypeError(f"{self._inputs[0].name}: expected a tensor, got {type(first).__name__}")
        sizes: Sizes = {}
        device = first.device
        for i, (spec, value) in enumerate(zip(self._inputs, values, strict=True)):
            if isinstance(spec, ChoiceSpec):
                spec.check(value)
            elif isinstance(value, Tensor):
                spec.check(value, sizes, device)
            elif spec.default is not None:
                values[i] = spec.check_number(value)
            elif not (spec.optional and value is None):
                raise TypeError(f"{spec.name}: expected a tensor, got {type(value).__name__}")
        return sizes, device

    def _make_outputs(
        self, values: list[Any], requested: dict[str, Any], sizes: Sizes, device: torch.device
    ) -> list[Tensor | None]:
        outputs: list[Tensor | None] = []
        for spec in self._outputs:
            value = requested[spec.name]
            if value is True:
                value = spec.empty(sizes, device, self._by_name(values) if spec.same_dtype_as else {})
            elif isinstance(value, Tensor):
                spec.check(value, sizes, device)
                if spec.same_dtype_as and value.dtype != (wanted := self._by_name(values)[spec.same_dtype_as].dtype):
                    raise TypeError(
                        f"{spec.name}: expected the dtype of {spec.same_dtype_as}, {wanted}, got {value.dtype}"
                    )
            elif not (spec.optional and (value is False or value is None)):
                allowed = "True, False or a tensor" if spec.optional else "True or a tensor"
                raise TypeError(f"{spec.name}: expected {allowed}, got {value!r}")
            else:
                value = None
            outputs.append(value)
        return outputs

    def _by_name(self, values: list[Any]) -> dict[str, Any]:
        return {spec.name: value for spec, value in zip(self._inputs, values, strict=True)}

    def _prepare(self, values: list[Any], requested: dict[str, Any]) -> tuple[Backend, list[Any], list[Tensor | None]]:
        sizes, device = self._check_inputs(values)
        backend = backend_for(device)
        return backend, values, self._make_outputs(values, requested, sizes, device)

    def _run(self, backend: Backend, values: list[Any], outputs: list[Tensor | None]) -> None:
        if backend.name == "reference":
            backend.count(self.name)
            results = self.reference(*values)
            for output, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
                if output is not None:
                    output.copy_(result)
            return
        native = [
            spec.choices.index(value) if isinstance(spec, ChoiceSpec) else value
            for spec, value in zip(self._inputs, values, strict=True)
        ]
        backend.function(self.name)(*native, *outputs)

    # torch.compile sees one opaque node: tensors for all parameters, and an empty tensor for an output not asked for.

    def _register_node(self) -> Callable[..., Any]:
        takes = []
        for spec in self._inputs:
            if isinstance(spec, ChoiceSpec):
                takes.append(f"str {spec.name}")
            else:
                takes.append(f"Tensor{'?' if spec.optional else ''} {spec.name}")
        takes += [f"bool {spec.name}" for spec in self._outputs if spec.optional]
        gives = ["Tensor"] * len(self._outputs)
        LIBRARY.define(
            f"{self.name}({', '.join(takes)}) -> {gives[0] if len(gives) == 1 else '(' + ', '.join(gives) + ')'}"
        )
        LIBRARY.impl(self.name, self._node_run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"warpdraw::{self.name}", self._node_fake, lib=LIBRARY)
        node: Callable[..., Any] = getattr(torch.ops.warpdraw, self.name).default
        return node

    def _node_request(self, arguments: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
        values = list(arguments[: len(self._inputs)])
        flags = iter(arguments[len(self._inputs) :])
        return values, {spec.name: next(flags) if spec.optional else True for spec in self._outputs}

    @staticmethod
    def _node_results(outputs: list[Tensor | None], device: torch.device) -> Any:
        results = [torch.empty(0, device=device) if output is None else output for output in outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _node_run(self, *arguments: Any) -> Any:
        values, requested = self._node_request(arguments)
        backend, values, outputs = self._prepare(values, requested)
        self._run(backend, values, outputs)
        return self._node_results(outputs, values[0].device)

    def _node_fake(self, *arguments: Any) -> Any:
        values, requested = self._node_request(arguments)
        sizes: Sizes = {}
        for spec, value in zip(self._inputs, values, strict=True):
            if isinstance(spec, TensorSpec) and value is not None:
                sizes |= {
                    letter: size for letter, size in zip(spec.sizes, value.shape, strict=True) if letter not in sizes
                }
        device = values[0].device
        return self._node_results(self._make_outputs(values, requested, sizes, device), device)

    def _call_node(self, values: list[Any], requested: dict[str, Any]) -> Any:
        sizes, device = self._check_inputs(values)
        tensors = [
            torch.full([sizes[letter] for letter in spec.sizes], value, dtype=spec.dtypes[0], device=device)
            if isinstance(spec, TensorSpec) and isinstance(value, (int, float))
            else value
            for spec, value in zip(self._inputs, values, strict=True)
        ]
        wanted = [requested[spec.name] is not None and requested[spec.name] is not False for spec in self._outputs]
        flags = [want for spec, want in zip(self._outputs, wanted, strict=True) if spec.optional]
        results = self._node(*tensors, *flags)
        outputs = [result if want else None
                   for result, want in zip(results if len(wanted) > 1 else (results,), wanted, strict=True)]  # fmt: skip
        for i, spec in enumerate(self._outputs):
            if isinstance(given := requested[spec.name], Tensor) and (made := outputs[i]) is not None:
                outputs[i] = given.copy_(made)
        return outputs[0] if len(outputs) == 1 else self._result(*outputs)

    def _signature(self) -> inspect.Signature:
        parameter, empty = inspect.Parameter, inspect.Parameter.empty
        inputs = [
            parameter(
                spec.name,
                parameter.KEYWORD_ONLY if isinstance(spec, ChoiceSpec) else parameter.POSITIONAL_OR_KEYWORD,
                default=empty if spec.default is None and not getattr(spec, "optional", False) else spec.default,
            )
            for spec in self._inputs
        ]
        outputs = [parameter(spec.name, parameter.KEYWORD_ONLY, default=not spec.optional) for spec in self._outputs]
        return inspect.Signature([*inputs, *outputs])


def op(contract: str) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op: the decorated function is its eager reference, its name and its documentation."""

    def declare(reference: Callable[..., Any]) -> Op:
        OPS[reference.__name__] = made = Op(contract, reference)
        return made

    return declare
