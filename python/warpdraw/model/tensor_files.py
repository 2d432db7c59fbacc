"""TensorFiles: the tensors of a checkpoint folder by name, from one safetensors file or from the shards of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .config import CheckpointError
from .json_fields import read_json

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class TensorFiles:
    """What the safetensors files of `folder` hold: `names`, and one tensor at a time.

    Raises CheckpointError for files that are missing, broken, or in another format: pickled files are never opened.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        if (folder / _SINGLE).is_file():
            self._add(folder / _SINGLE)
        elif (folder / _INDEX).is_file():
            self._add_shards(folder)
        else:
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            other = f"; {pickled[0]} is a pickle, which could run code and is not opened" if pickled else ""
            raise CheckpointError(f"{folder}: has neither {_SINGLE} nor {_INDEX}{other}")

    @property
    def names(self) -> set[str]:
        return set(self._files)

    def shape(self, name: str) -> list[int]:
        return list(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        if tensor.dtype not in _DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise CheckpointError(f"{self._paths[name]}: {name} is {tensor.dtype}; it must be one of {allowed}")
        return tensor

    def _add(self, path: Path) -> list[str]:
        try:
            file = safe_open(path, framework="pt")
            names: list[str] = list(file.keys())  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
        for name in names:
            if name in self._files:
                raise CheckpointError(f"{path}: {name} is also in {self._paths[name].name}")
        self._files.update(dict.fromkeys(names, file))
        self._paths.update(dict.fromkeys(names, path))
        return names

    def _add_shards(self, folder: Path) -> None:
        shards = read_json(folder / _INDEX).fields("weight_map").content
        for shard in sorted(set(map(str, shards.values()))):
            if Path(shard).name != shard:
                raise CheckpointError(f"{folder / _INDEX}: shard {shard!r} must be a file of the same folder")
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder / shard}: missing; {_INDEX} names it")
            self._add(folder / shard)
        wrong = sorted(name for name in self.names | set(shards) if shards.get(name) != self._shard(name))
        if wrong:
            said, found = shards.get(wrong[0]), self._shard(wrong[0])
            raise CheckpointError(f"{folder / _INDEX}: {wrong[0]} is said to be in {said}; it is in {found}")

    def _shard(self, name: str) -> str | None:
        return self._paths[name].name if name in self._paths else None
