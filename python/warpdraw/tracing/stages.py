"""What is recorded while the model reads a text: shapes and sizes, the attention of one head, each block's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.recording import Attended, attention_watched, outputs_watched
from ..model.transformer import Attention, Transformer
from .records import HeadAttention, Stage


@dataclass(frozen=True)
class Recorded:
    """The stages, the attention, and what each block gives at the last position, [1, 1, C]."""

    stages: tuple[Stage, ...]
    attention: HeadAttention
    hidden: list[Tensor]


def record(model: Transformer, ids: list[int], layer: int | None = None, head: int | None = None) -> Recorded:
    """Run the model once over token ids; without layer or head, the sharpest view of those that are left."""
    stages, view = Stages(), SharpestView(layer, head)
    tokens = torch.tensor([ids], device=model.embedding.weight.device)
    stages.add("tokens", None, tokens, 0)

    def saw_attention(attended: Attended) -> None:
        attention = model.blocks[attended.layer].attention
        assert isinstance(attention, Attention)
        stages.add_attention(attended, attention)
        view.look(attended)

    with torch.no_grad():
        with attention_watched(model, saw_attention), outputs_watched(model, stages.add_output):
            logits = model(tokens, last=True)
        attention = view.found()
    head_size = 0 if model.head is None else sum(parameter.numel() for parameter in model.head.parameters())
    stages.add("head" if head_size else "head, tied to the embedding", None, logits, head_size)
    return Recorded(tuple(stages.stages), attention, stages.hidden)


class Stages:
    """Collects the stages as the model runs."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.hidden: list[Tensor] = []

    def add(self, name: str, block: int | None, out: Tensor, parameters: int) -> None:
        dtype = str(out.dtype).removeprefix("torch.")
        self.stages.append(Stage(name, block, tuple(out.shape), dtype, parameters))

    def add_attention(self, attended: Attended, attention: Attention) -> None:
        """Queries, keys and values, each with its rows of the packed projection."""
        size = attention.qkv.in_features + (attention.qkv.bias is not None)
        for name, part in (("queries", attended.query), ("keys", attended.key), ("values", attended.value)):
            self.add(name, attended.layer, part, part.shape[2] * part.shape[3] * size)

    def add_output(self, name: str, module: nn.Module, out: Tensor) -> None:
        """A part of the model; what stands in its blocks is told apart by their number."""
        _, _, inside = name.partition("blocks.")
        number, _, part = inside.partition(".")
        if inside and not part:
            self.hidden.append(out[:, -1:])
            return
        parameters = sum(parameter.numel() for parameter in module.parameters())
        if isinstance(module, Attention):
            parameters -= sum(parameter.numel() for parameter in module.qkv.parameters())
        self.add((part or name).replace("_", " "), int(number) if part else None, out, parameters)


class SharpestView:
    """Of the heads in question, the one whose last token looks hardest at one token between the first and itself."""

    def __init__(self, layer: int | None, head: int | None) -> None:
        self._layer, self._head = layer, head
        self._best: tuple[float, int, Attended] | None = None

    def look(self, attended: Attended) -> None:
        if self._layer is not None and attended.layer != self._layer:
            return
        between = attended.weights(first=attended.query.shape[1] - 1)[0, :, 0, 1:-1].float()
        sharpness = between.amax(-1).tolist() if between.numel() else [0.0] * len(between)
        for head in range(len(between)) if self._head is None else (self._head,):
            if self._best is None or sharpness[head] > self._best[0]:
                self._best = sharpness[head], head, attended

    def found(self) -> HeadAttention:
        assert self._best is not None
        _, head, attended = self._best
        weights = attended.weights()[0, head].float().tolist()
        return HeadAttention(attended.layer, head, tuple(map(tuple, weights)))
