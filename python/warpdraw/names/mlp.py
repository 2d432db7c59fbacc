"""Mlp: the next letter from a window of letters before it, by a neural network with one table of embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.config import CheckpointError
from ..model.json_fields import read_json
from ..model.replacing import replacing
from ..model.rowwise import linear_rows, map_rows
from ..model.tensor_files import TensorFiles
from .alphabet import END, SIZE

MODEL_TYPE = "names-mlp"
# Rows at once where the bits of a row may not depend on the others: so few that activations stay whole.
ROWS = 64


@dataclass(frozen=True)
class MlpConfig:
    """The sizes of an Mlp.

    context    letters in the window.
    embedding  numbers for each letter; 2 can be seen in a picture.
    hidden     width of each hidden layer, and `layers` of them.

    Raises ValueError for sizes that are no positive integers.
    """

    context: int = 10
    embedding: int = 24
    hidden: int = 192
    layers: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name}: expected an integer of at least 1, got {value!r}")


class Mlp(nn.Module):
    """Maps windows (int64 [B, context]) to logits (float32 [B, 27]) of the letter that follows, or the end.

    Without gradients, a row's logits are the same bits in any batch. Bengio, Ducharme, Vincent and Jauvin, A Neural
    Probabilistic Language Model (2003), without the direct connections.

    >>> Mlp(MlpConfig(context=3))(windows([[], [1, 2, 8]], 3)).shape
    torch.Size([2, 27])
    """

    def __init__(self, config: MlpConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        self.embedding = nn.Embedding(SIZE, config.embedding)
        widths = [config.context * config.embedding, *[config.hidden] * config.layers]
        self.hidden = nn.ModuleList(nn.Linear(width, next_width) for width, next_width in pairwise(widths))
        self.head = nn.Linear(config.hidden, SIZE)

    def forward(self, contexts: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._run(contexts, rowwise=False)
        return torch.cat([self._run(part, rowwise=True) for part in torch.split(contexts, ROWS)])

    def _run(self, contexts: Tensor, rowwise: bool) -> Tensor:
        # x = [C(w_1) ... C(w_n)] for the table C; h = tanh(W x + b) in each hidden layer
        # logits = U h + c
        linear = linear_rows if rowwise else F.linear
        x = self.embedding(contexts).flatten(1)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            x = linear(x, layer.weight, layer.bias)
            x = map_rows(torch.tanh, x) if rowwise else torch.tanh(x)
            x = F.dropout(x, self.dropout, self.training)
        return linear(x, self.head.weight, self.head.bias)


def windows(prefixes: Sequence[Sequence[int]], context: int) -> Tensor:
    """int64 [B, context]: the last ids of each prefix; where there are too few, ends stand in front.

    >>> windows([[], [1, 2], [1, 2, 3, 4]], 3).tolist()
    [[0, 0, 0], [0, 1, 2], [2, 3, 4]]
    """
    return torch.tensor([([END] * context + list(ids))[-context:] for ids in prefixes])


def save(folder: Path, model: Mlp, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors, with the weights as `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as file:
        content = {"model_type": MODEL_TYPE, **asdict(model.config)}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as file:
        save_file(tensors, file, metadata={"format": "pt"})


def load(folder: Path) -> Mlp:
    """Read what `save` wrote, as float32; CheckpointError for a folder that holds anything else."""
    entries = read_json(folder / "config.json")
    entries.choice("model_type", None, {MODEL_TYPE: MODEL_TYPE})
    model = Mlp(MlpConfig(**{field.name: entries.size(field.name) for field in fields(MlpConfig)}))
    files, expected = TensorFiles(folder), model.state_dict()
    if files.names != set(expected):
        differing = ", ".join(sorted(files.names ^ set(expected)))
        raise CheckpointError(f"{folder}: expected the tensors of its config.json, got a difference in {differing}")
    for name, tensor in expected.items():
        if files.shape(name) != list(tensor.shape):
            raise CheckpointError(f"{folder}: {name} is {files.shape(name)}; config.json makes it {list(tensor.shape)}")
        tensor.copy_(files.read(name))
    return model.eval()
