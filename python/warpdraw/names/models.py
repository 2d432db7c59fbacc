"""The models of names, MLP and transformer, with one face: logits of the next letter, and names drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .. import ops
from ..generation.loop import stream
from ..generation.params import SamplingParams, sample_seed
from ..model import weights
from ..model.cache import KVCache
from ..model.json_fields import read_json
from ..model.rowwise import DECODE_TOKENS
from ..model.weights import Checkpoint
from . import mlp
from .alphabet import END, LETTERS, LONGEST, SIZE, ids_of
from .mlp import MODEL_TYPE, Mlp, windows

# The models of the package, by the name of each.
SHIPPED = ("mlp", "mlp-2d", "transformer")
# Takes how many names are finished, while they are drawn.
Report = Callable[[int], None]
# Names whose logits are computed at once.
ROWS = 64


class NameModel(Protocol):
    """A model of names. All ids are those of the alphabet; a name's first letter follows the end of another."""

    name: str

    @property
    def table(self) -> Tensor:
        """The embeddings, float32 [27, E]."""

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""

    def logits(self, names: Sequence[str]) -> list[Tensor]:
        """float32 [letters + 1, 27] for each name: of its first letter, ..., and of what follows its last."""

    def draw(self, start: str, count: int, params: SamplingParams, report: Report) -> list[list[int]]:
        """The ids that follow `start` in each name, the end included where one was drawn.

        Name j is drawn with `sample_seed(params.seed, j)`, so it does not depend on the count.
        """


class MlpNames:
    """Names by an `Mlp`."""

    def __init__(self, name: str, model: Mlp) -> None:
        self.name, self.model = name, model

    @property
    def table(self) -> Tensor:
        return self.model.embedding.weight.detach()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def logits(self, names: Sequence[str]) -> list[Tensor]:
        prefixes = [ids_of(name)[:length] for name in names for length in range(len(name) + 1)]
        found: Tensor = self.model(windows(prefixes, self.model.config.context))
        return list(torch.split(found, [len(name) + 1 for name in names]))

    @torch.no_grad()
    def draw(self, start: str, count: int, params: SamplingParams, report: Report) -> list[list[int]]:
        context = self.model.config.context
        window = windows([ids_of(start)], context).repeat(count, 1)
        seed = torch.tensor([sample_seed(params.seed or 0, sample) for sample in range(count)])
        running = torch.arange(count)
        drawn: list[list[int]] = [[] for _ in range(count)]
        # The first letter stands at position 1, after the end of another name, as it does in the transformer.
        for position in range(1 + len(start), 1 + LONGEST):
            tokens: Tensor = ops.sample(
                self.model(window),
                temperature=params.temperature,
                top_k=params.top_k,
                top_p=params.top_p,
                min_p=params.min_p,
                order=params.order,
                seed=seed[running],
                position=position,
            ).tokens
            for row, token in zip(running.tolist(), tokens.tolist(), strict=True):
                drawn[row].append(token)
            goes_on = tokens != END
            if not goes_on.any():
                break
            running = running[goes_on]
            report(count - len(running))
            window = torch.cat([window[:, 1:], tokens[:, None]], dim=1)[goes_on]
        return drawn


class TransformerNames:
    """Names by a checkpoint whose tokens are the alphabet."""

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.name, self.checkpoint = name, checkpoint
        if (
            checkpoint.tokenizer.vocab_size != SIZE
            or checkpoint.config.vocab_size != SIZE
            or checkpoint.tokenizer.encode(LETTERS) != list(range(SIZE))
            or checkpoint.eos_ids != (END,)
            or checkpoint.config.max_positions <= LONGEST
        ):
            raise ValueError(f"model: expected one of names, whose tokens are an end and a to z, got {name!r}")

    @property
    def table(self) -> Tensor:
        return self.checkpoint.model.embedding.weight.detach()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.checkpoint.model.parameters())

    def logits(self, names: Sequence[str]) -> list[Tensor]:
        found: list[Tensor] = []
        for first in range(0, len(names), ROWS):
            part = names[first : first + ROWS]
            width = 1 + max(map(len, part))
            tokens = torch.tensor([([END, *ids_of(name)] + [END] * width)[:width] for name in part])
            cache = KVCache(self.checkpoint.config, len(part), width)
            # So few tokens a call that the logits are those of one letter at a time, in any batch.
            steps = [self.checkpoint.model(step, cache) for step in torch.split(tokens, DECODE_TOKENS, dim=1)]
            rows = torch.cat(steps, dim=1)
            found += [row[: len(name) + 1] for row, name in zip(rows, part, strict=True)]
        return found

    def draw(self, start: str, count: int, params: SamplingParams, report: Report) -> list[list[int]]:
        asked = replace(params, n=count, max_tokens=LONGEST - len(start))
        drawn: list[list[int]] = [[] for _ in range(count)]
        finished = 0
        for event in stream(self.checkpoint, [[END, *ids_of(start)]], asked):
            if event.completion is not None:
                drawn[event.sample] = event.completion.token_ids
                finished += 1
                report(finished)
        return drawn


def load(name: str | Path) -> NameModel:
    """A shipped model, "mlp", "mlp-2d" or "transformer", or one that `train` wrote into a folder.

    Raises ValueError for another name, CheckpointError for a folder that holds no model of names.

    >>> load("mlp").table.shape[0]
    27
    """
    if name in SHIPPED:
        folder = Path(__file__).parent.parent / "models" / f"names-{name}"
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        raise ValueError(f"model: expected {', '.join(SHIPPED)} or a folder, got {str(name)!r}")
    if read_json(folder / "config.json").get("model_type") == MODEL_TYPE:
        return MlpNames(str(name), mlp.load(folder))
    return TransformerNames(str(name), weights.load(folder))
