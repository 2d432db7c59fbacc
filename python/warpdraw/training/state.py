"""State: all that a run needs to go on after a kill, in one file that is written at once."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..model.replacing import replacing
from ..model.tokenizer import Tokenizer
from .config import TextConfig, TrainingConfig, differing

FILE = "training.safetensors"
FORMAT = 1
# What is kept for each parameter, by the name that AdamW has for it.
MOMENTS = ("exp_avg", "exp_avg_sq")
_HISTORY = ("losses", "norms", "held_out_steps", "held_out_losses")


@dataclass
class State:
    """A run after `step` steps. Nothing is random but the first weights and the order of the data, and these are
    functions of the seed; so there is no random state to keep.

    losses, norms                    float64 [step], of each step: the loss before it, the norm of the gradient.
    held_out_steps, held_out_losses  int64 and float64 [N]: the loss of the held-out part after so many steps.
    parameters, moments              by the parameter's name; AdamW's moments under their own names.
    data                             SHA-256 of the tokens.
    where                            device, threads and version of torch: bits depend on them.
    """

    step: int
    config: TrainingConfig
    text: TextConfig | None
    data: str
    where: dict[str, str]
    tokenizer: Tokenizer
    parameters: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    losses: Tensor
    norms: Tensor
    held_out_steps: Tensor
    held_out_losses: Tensor

    def write(self, folder: Path) -> None:
        """Put the state in the place of the one before, in one step."""
        tensors = {f"model.{name}": tensor for name, tensor in self.parameters.items()}
        for moment in MOMENTS:
            tensors |= {f"{moment}.{name}": tensor for name, tensor in self.moments[moment].items()}
        tensors |= {name: getattr(self, name) for name in _HISTORY}
        record = {
            "format": FORMAT,
            "step": self.step,
            "config": asdict(self.config),
            "text": None if self.text is None else asdict(self.text),
            "data": self.data,
            "where": self.where,
        }
        metadata = {"training": json.dumps(record), "tokenizer": self.tokenizer.backend.to_str()}
        with replacing(folder / FILE) as file:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file, metadata)

    @classmethod
    def read(cls, folder: Path) -> State:
        """The state in a folder; ValueError where there is none, or where the file is broken or another one."""
        path = folder / FILE
        if not path.is_file():
            raise ValueError(f"resume: expected a folder with a run to go on with, got {folder} without {FILE}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            record = json.loads(metadata["training"])
            tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(metadata["tokenizer"]))
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"resume: expected a whole state, got {path} that cannot be read ({error})") from None
        except KeyError as error:
            raise ValueError(f"resume: expected a state of a training, got {path} without {error}") from None
        return cls._of(path, record, tokenizer, tensors)

    @classmethod
    def _of(cls, path: Path, record: dict[str, Any], tokenizer: Tokenizer, tensors: dict[str, Tensor]) -> State:
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"resume: expected a state of format {FORMAT}, got another one in {path}")
        try:
            state = cls(
                step=int(record["step"]),
                config=_config(TrainingConfig, record["config"]),
                text=None if record["text"] is None else _config(TextConfig, record["text"]),
                data=str(record["data"]),
                where=dict(record["where"]),
                tokenizer=tokenizer,
                parameters=_under("model", tensors),
                moments={moment: _under(moment, tensors) for moment in MOMENTS},
                **{name: tensors[name] for name in _HISTORY},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"resume: expected a whole state, got {path} with a bad entry ({error})") from None
        if not 0 <= state.step <= state.config.steps or len(state.losses) != state.step:
            raise ValueError(
                f"resume: expected a loss for each step, got {len(state.losses)} for {state.step} in {path}"
            )
        return state

    def check_run(
        self, folder: Path, config: TrainingConfig, text: TextConfig | None, data: str, where: dict[str, str]
    ) -> None:
        """Raise ValueError, with the entry that differs, unless this is a state of that run; warn of another place."""
        pairs: tuple[tuple[TrainingConfig | TextConfig | None, TrainingConfig | TextConfig | None], ...]
        pairs = ((self.config, config), (self.text, text))
        for before, now in pairs:
            if before is not None and now is not None and (name := differing(before, now)) is not None:
                expected, got = getattr(before, name), getattr(now, name)
                raise ValueError(f"{name}: expected {expected!r}, as the run in {folder} has it, got {got!r}")
        if self.data != data:
            raise ValueError(
                f"text: expected that of the run in {folder} (SHA-256 of its tokens {self.data[:12]}), "
                f"got another one ({data[:12]})"
            )
        for name, value in where.items():
            if self.where.get(name) != value:
                warnings.warn(
                    f"{name}: the run in {folder} had {self.where.get(name)} and goes on with {value}; "
                    "its bits are not those of a run that was not stopped",
                    stacklevel=4,
                )

    def check_shapes(self, shapes: dict[str, torch.Size]) -> None:
        """Raise ValueError unless there is a tensor of the right shape for every parameter and moment."""
        for kind, found in {"model": self.parameters, **self.moments}.items():
            for name in sorted(shapes.keys() | found.keys()):
                expected = list(shapes[name]) if name in shapes else None
                got = list(found[name].shape) if name in found else None
                if expected != got:
                    raise ValueError(f"resume: expected {kind}.{name} of shape {expected}, got {got}")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): each for name, each in tensors.items() if name.startswith(f"{prefix}.")}


def _config(kind: type[Any], entries: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    if known != entries.keys():
        raise ValueError(f"{kind.__name__}: {', '.join(sorted(known ^ entries.keys()))}")
    return kind(**entries)
