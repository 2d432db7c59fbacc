# The native module: a submodule of ops for each backend, reached through Backend.function only.
from types import ModuleType

numerics: ModuleType
