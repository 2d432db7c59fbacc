# The native module: how calls are bound, and a submodule of kernels for each backend, reached through Backend.run only.
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .contract import Spec

class Signature:
    def __init__(self, op: str, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> None: ...
    def bind(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]: ...

numerics: ModuleType
