# The native module: how calls are bound and run, and a submodule of kernels for each backend.
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from .contract import Spec

class Kernel:
    @property
    def launches(self) -> int: ...
    def __call__(self, *bound: Any) -> None: ...
    def prepare(self, *bound: Any) -> Callable[[], None]: ...

class Signature:
    def __init__(
        self, op: str, inputs: Sequence[Spec], outputs: Sequence[Spec], result: type[tuple[Any, ...]]
    ) -> None: ...
    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]: ...
    def call(
        self, kernels: tuple[Kernel | None, Kernel | None], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any: ...

def wish(cluster: int = 0, resident: int = -1, persistent: int = -1, split: bool = False) -> None: ...

shapes: dict[str, dict[str, Any]]
scalar: ModuleType
numerics: ModuleType
