"""TensorFiles: the tensors of a checkpoint folder by name, from one safetensors file or from the shards of an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .config import CheckpointError
from .json_fields import read_json

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


@dataclass(frozen=True)
class _Stored:
    path: Path
    shape: list[int]
    dtype: str


class TensorFiles:
    """What the safetensors files of `folder` hold: `names`, and one tensor at a time.

    Raises CheckpointError for files that are missing, broken, or in another format: pickled files are never opened.
    """

    def __init__(self, folder: Path) -> None:
        self._stored: dict[str, _Stored] = {}
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
        return set(self._stored)

    def shape(self, name: str) -> list[int]:
        return self._stored[name].shape

    def dtype(self, name: str) -> torch.dtype:
        stored = self._stored[name]
        if stored.dtype not in _DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES.values())
            raise CheckpointError(f"{stored.path}: {name} is {stored.dtype}; it must be one of {allowed}")
        return _DTYPES[stored.dtype]

    def read(self, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """A tensor on `device`, in the dtype it is stored in; on the CPU it is a part of the mapped file.

        The file is mapped anew for each tensor, so that what was read of it goes when the tensor goes.
        """
        self.dtype(name)
        with safe_open(self._stored[name].path, framework="pt", device=str(device)) as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def _add(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
        for name, part in found.items():
            if name in self._stored:
                raise CheckpointError(f"{path}: {name} is also in {self._stored[name].path.name}")
            self._stored[name] = _Stored(path, list(part.get_shape()), part.get_dtype())

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
        return self._stored[name].path.name if name in self._stored else None
