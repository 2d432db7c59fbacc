"""What a model computes on its way to the logits: the output of each part, and what each attention reads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .transformer import Attention, Transformer


@dataclass(frozen=True)
class Attended:
    """One call of a layer's attention, as it compares and mixes: after norms and rotations, before the projection.

    query [B, T, H, D]; key and value [B, T, kv_heads, D]; mixed [B, T, H, D] is what came of them.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mixed: Tensor
    positions: Tensor  # [B, T]
    attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # the model's own, of query, key, value and positions

    def weights(self, first: int = 0) -> Tensor:
        """How much each head mixes in of each token, for the tokens from `first` on: [B, H, T - first, T].

        In the model's dtype; the last dimension sums to 1. The model's attention computes them: whatever it does to
        query and key, scale, mask or cap, is in them.
        """
        # mixed = W v is linear in v, so that the attention of one-hot values, v = I, is W itself
        batch, count, kv_heads, _ = self.key.shape
        one_hot = torch.eye(count, dtype=self.value.dtype, device=self.value.device)
        values = one_hot[None, :, None].expand(batch, count, kv_heads, count)
        return self.attend(self.query[:, first:], self.key, values, self.positions[:, first:]).transpose(1, 2)


@contextmanager
def attention_watched(model: Transformer, saw: Callable[[Attended], None]) -> Iterator[None]:
    """While the block runs, `saw` gets each call of an attention without a cache."""
    with ExitStack() as stack:
        for layer, attention in enumerate(attentions(model)):
            stack.enter_context(_watched(layer, attention, saw))
        yield


@contextmanager
def _watched(layer: int, attention: Attention, saw: Callable[[Attended], None]) -> Iterator[None]:
    original = attention._attend

    def watched(query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Tensor:
        mixed = original(query, key, value, positions)
        saw(Attended(layer, query, key, value, mixed, positions, original))
        return mixed

    # The function of this one object gives way, not that of the class: other models are not watched.
    vars(attention)["_attend"] = watched
    try:
        yield
    finally:
        del vars(attention)["_attend"]


@contextmanager
def outputs_watched(model: Transformer, saw: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """While the block runs, `saw` gets name, module and output of each part, in the order in which they run.

    The parts are those of the model, its blocks, and theirs, by their names: "embedding", "blocks.0.mlp", "blocks.0",
    "norm".
    """
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name.count(".") in ((1, 2) if name.startswith("blocks.") else (0,)) and name not in ("", "blocks"):
                handle = module.register_forward_hook(lambda part, _, out, name=name: saw(name, part, out))
                stack.callback(handle.remove)
        yield


def logits_from(model: Transformer, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Logits [B, 1, V] of the last position as if the blocks ended with `hidden` [B, T, C]: the logit lens.

    nostalgebraist, "interpreting GPT: the logit lens" (2020).
    """
    ended = copy.copy(model)
    ended._modules = {**model._modules, "blocks": nn.ModuleList([_Given(hidden)])}
    logits: Tensor = ended(tokens, last=True)
    return logits


class _Given(nn.Module):
    """Instead of a block: whatever comes in, what was given goes out."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any) -> Tensor:
        return self.hidden


def attentions(model: Transformer) -> list[Attention]:
    """The attention of each layer."""
    return [module for module in model.modules() if isinstance(module, Attention)]
