"""An op is a contract and an eager reference; from the two follow checks, outputs, dispatch and the compiled node."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _C
from .backends import backend_for, native_kernels
from .contract import ChoiceSpec, Contract, SizeSpec, Spec, TensorSpec, letters_in, size_of

OPS: dict[str, Op] = {}
_ARRAYS = (
    "Tensors may be any arrays with the DLPack protocol, of NumPy, JAX or CuPy: nothing is copied, and one given to\n"
    "write into is returned as it was given. What the op makes is a tensor of torch."
)
LIBRARY: Any = torch.library.Library("warpdraw", "DEF")  # type: ignore[no-untyped-call]


class Op:
    """A public op: call it with the inputs of its contract, in order or by name; outputs are keywords.

    An output given as a tensor is written in place; an optional one given as True, or with a size of its own that
    is given, is made; else it is None. An array of another library that exports its memory by DLPack is taken like a
    tensor, at a little more cost.
    """

    def __init__(self, contract: str, reference: Callable[..., Any]):
        self.contract = Contract.parse(contract)
        self.reference = reference
        self.__name__ = self.name = reference.__name__
        self.__doc__ = f"{inspect.getdoc(reference)}\n\n{_ARRAYS}\n\nContract: {self.contract.text}"
        self.__module__ = reference.__module__
        self.__signature__ = _signature(self.contract)
        fields = [spec.name for spec in self.contract.outputs]
        self._result: Any = namedtuple(self.name.title().replace("_", "") + "Result", fields)  # type: ignore[misc]
        if len(fields) > 1:  # so that an exported program that returns one can be saved
            name = f"{self.__module__}.{self._result.__name__}"
            torch.utils._pytree._register_namedtuple(self._result, serialized_type_name=name)
        signature = _C.Signature(self.name, self.contract.inputs, self.contract.outputs, self._result)
        self._bind, self._call_native = signature.bind, signature.call
        self._count = len(self.contract.inputs)
        self._node = _Node(self)

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.contract.text}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._pack(self._node.call(args, kwargs))
        # Eager calls skip the dispatcher, which costs more than these kernels do.
        result = self._call_native(native_kernels(self.name), args, kwargs)
        return self._pack(self.run(args, kwargs)) if result is None else result

    def _pack(self, outputs: Any) -> Any:
        return self._result._make(outputs) if len(outputs) > 1 else outputs[0]

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check the arguments, make the outputs and run the backend that their device picks, or the forced one."""
        bound = self._bind(args, kwargs)
        backend_for(bound[0].device).run(self, bound)
        results = zip(self.contract.outputs, bound[self._count :], strict=True)
        return [_as_given(kwargs.get(spec.name), tensor) for spec, tensor in results]

    def prepare(self, *args: Any, **kwargs: Any) -> Callable[[], None]:
        """Bind a call once: what is returned runs the kernel on the same tensors, without checks, for measurements."""
        bound = self._bind(args, kwargs)
        backend = backend_for(bound[0].device)
        if backend.module is None:
            raise ValueError(f"backend: expected one with native kernels, got {backend.name}")
        prepared: Callable[[], None] = getattr(backend.module, self.name).prepare(*bound)
        return prepared

    def run_reference(self, bound: tuple[Any, ...]) -> None:
        inputs = [
            spec.choices[value] if isinstance(spec, ChoiceSpec) else value
            for spec, value in zip(self.contract.inputs, bound, strict=False)
        ]
        results = self.reference(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        for output, result in zip(bound[self._count :], results, strict=True):
            if output is not None:
                assert output.shape == result.shape
                output.copy_(result)


class _Node:
    """The op as one opaque torch.library node: a tensor or None for each parameter, an empty tensor for what was not
    asked for.
    """

    def __init__(self, op: Op):
        self.op = op
        self.inputs, self.outputs = op.contract.inputs, op.contract.outputs
        takes = [_schema_of(spec) for spec in self.inputs]
        takes += [f"bool {spec.name}" for spec in self.outputs if spec.optional]
        gives = ", ".join("Tensor" for _ in self.outputs)
        LIBRARY.define(f"{op.name}({', '.join(takes)}) -> {gives if len(self.outputs) == 1 else f'({gives})'}")
        LIBRARY.impl(op.name, self.run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"warpdraw::{op.name}", self.fake, lib=LIBRARY)
        self.function = getattr(torch.ops.warpdraw, op.name).default

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor | None]:
        """Call the node from code that is being compiled."""
        given = inspect.signature(self.op).bind(*args, **kwargs).arguments
        sizes = self._sizes(given)
        device = next(value.device for value in given.values() if isinstance(value, Tensor))
        inputs = []
        for spec in self.inputs:
            value = given.get(spec.name, None if isinstance(spec, TensorSpec) else spec.default)
            if isinstance(spec, TensorSpec) and isinstance(value, str) and value in spec.words:
                value = spec.words.index(value)
            if isinstance(spec, TensorSpec) and isinstance(value, (int, float)):
                shape = [size_of(size, sizes) for size in spec.sizes]
                value = torch.full(shape, value, dtype=spec.dtypes[0], device=device)
            inputs.append(value)
        requests = [given.get(spec.name, self._by_default(spec, sizes)) for spec in self.outputs]
        wanted = [isinstance(request, Tensor) or bool(request) for request in requests]
        flags = [want for spec, want in zip(self.outputs, wanted, strict=True) if spec.optional]
        results = self.function(*inputs, *flags)
        outputs: list[Tensor | None] = []
        for request, want, result in zip(requests, wanted, results if len(wanted) > 1 else [results], strict=True):
            outputs.append(request.copy_(result) if isinstance(request, Tensor) else result if want else None)
        return outputs

    def run(self, *arguments: Any) -> Any:
        inputs = self._named(arguments)
        given = {name: value for name, value in inputs.items() if value is not None}
        return self._results(self.op.run((), {**given, **self._requests(arguments)}), arguments[0].device)

    def fake(self, *arguments: Any) -> Any:
        inputs = self._named(arguments)
        sizes = self._sizes(inputs)
        outputs = [
            torch.empty(
                [size_of(size, sizes) for size in spec.sizes],
                dtype=inputs[spec.same_dtype_as].dtype if spec.same_dtype_as else spec.dtypes[0],
                device=arguments[0].device,
            )
            if wanted
            else None
            for spec, wanted in zip(self.outputs, self._requests(arguments).values(), strict=True)
        ]
        return self._results(outputs, arguments[0].device)

    def _named(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        return {spec.name: value for spec, value in zip(self.inputs, arguments, strict=False)}

    def _requests(self, arguments: tuple[Any, ...]) -> dict[str, bool]:
        flags = iter(arguments[len(self.inputs) :])
        return {spec.name: next(flags) if spec.optional else True for spec in self.outputs}

    def _by_default(self, output: TensorSpec, sizes: dict[str, int]) -> bool:
        own = [spec.letter for spec in self.inputs if isinstance(spec, SizeSpec) and spec.letter in output.sizes]
        return not output.optional or any(sizes[letter] > 0 for letter in own)

    def _sizes(self, given: dict[str, Any]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            value = given.get(spec.name)
            if isinstance(spec, SizeSpec):
                sizes[spec.letter] = spec.default if value is None else value
            elif isinstance(spec, TensorSpec) and isinstance(value, Tensor):
                shape = spec.other_sizes if value.dim() == len(spec.other_sizes) else spec.sizes
                sizes = letters_in(shape, value.shape) | sizes
        return sizes

    @staticmethod
    def _results(outputs: Any, device: torch.device) -> Any:
        results = [torch.empty(0, device=device) if output is None else output for output in outputs]
        return results[0] if len(results) == 1 else tuple(results)


def _as_given(request: Any, tensor: Tensor | None) -> Any:
    """What the caller gets for an output: the object given for it, which may be an array of another library."""
    return tensor if tensor is None or request is None or request is True else request


def _schema_of(spec: Spec) -> str:
    if isinstance(spec, ChoiceSpec):
        return f"str {spec.name}"
    if isinstance(spec, SizeSpec):
        return f"SymInt {spec.name}"
    return f"Tensor{'?' if spec.optional or spec.default is not None else ''} {spec.name}"


def _signature(contract: Contract) -> inspect.Signature:
    """What help() shows: inputs in order, then sizes, choices and outputs by keyword."""
    parameter = inspect.Parameter
    parameters = []
    for spec in contract.inputs:
        kind = parameter.POSITIONAL_OR_KEYWORD if isinstance(spec, TensorSpec) else parameter.KEYWORD_ONLY
        required = isinstance(spec, TensorSpec) and spec.default is None and not spec.optional
        parameters.append(parameter(spec.name, kind, default=parameter.empty if required else spec.default))
    for spec in contract.outputs:
        default = None if spec.optional else True
        parameters.append(parameter(spec.name, parameter.KEYWORD_ONLY, default=default))
    return inspect.Signature(parameters)


def op(contract: str) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op: the decorated function is its eager reference, its name and its documentation."""

    def declare(reference: Callable[..., Any]) -> Op:
        OPS[reference.__name__] = made = Op(contract, reference)
        return made

    return declare
