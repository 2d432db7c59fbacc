"""Training: the loop over steps, which looks at the held-out part, saves, and goes on where a killed run stopped."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import weights
from ..model.replacing import PARTIAL
from ..model.tokenizer import Tokenizer
from ..model.transformer import Transformer
from .batches import IGNORED, Batch, Data
from .config import TextConfig, TrainingConfig
from .lock import locked
from .optimizer import learning_rate, optimizer_of
from .state import FILE, MOMENTS, State
from .vocabulary import END_ID, save_tokenizer_config

# Off the CPU a loss is read only so often, because reading waits for the device.
READ_EVERY = 16


@dataclass(frozen=True)
class Report:
    """A run after a step: the loss of that step (nats a token), and that of the held-out part where it was measured.

    tokens_per_second and seconds_left are those of this process.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Result:
    """What a run came to. Losses are in nats a token.

    losses    of each step, before it; `norms` are those of the gradients.
    held_out  (steps done, loss of the held-out part), in order.
    finished  False where the time was up; the run can be resumed.
    tokens, seconds, tokens_per_second are those of this process.
    """

    path: Path
    steps: int
    finished: bool
    parameters: int
    vocabulary: int
    losses: list[float]
    norms: list[float]
    held_out: list[tuple[int, float]]
    tokens: int
    seconds: float
    tokens_per_second: float

    @property
    def held_out_loss(self) -> float | None:
        return self.held_out[-1][1] if self.held_out else None

    @property
    def perplexity(self) -> float | None:
        """exp of the held-out loss."""
        return None if self.held_out_loss is None else perplexity(self.held_out_loss)


def perplexity(loss: float) -> float:
    """exp of a loss in nats; infinite where that is no float.

    >>> perplexity(0.0), perplexity(1000.0)
    (1.0, inf)
    """
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


class Training:
    """A run that trains a new model on `data` and leaves a checkpoint in the folder `out`.

    config     sizes and how to train; text: what the data was made with, kept with the run.
    tokenizer  of the data; its token 0 begins and ends texts.
    out        a folder that is new or empty; with `resume`, one that holds a run of the same configuration and data.
    device     where it runs.

    `out` is, after every save, a checkpoint for `load` and transformers; training.safetensors in it is the state to go
    on from. A resumed run gives the same bits as one that was never stopped (same machine, torch and number of
    threads; CPU). Raises ValueError for another folder, a broken state, and a state of another run.

    >>> from tempfile import TemporaryDirectory
    >>> from warpdraw.training import Documents, character_tokenizer, line_ids
    >>> names = ["abhay", "asha", "binod"]
    >>> tokenizer = character_tokenizer(names, begin=True)
    >>> data = Documents(line_ids(tokenizer, names), [], context=8)
    >>> config = TrainingConfig(layers=1, hidden=8, heads=2, context=8, steps=3, batch=2)
    >>> with TemporaryDirectory() as folder:
    ...     result = Training(config, data, tokenizer, folder).run()
    >>> len(result.losses), result.finished
    (3, True)
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        tokenizer: Tokenizer,
        out: str | Path,
        *,
        resume: bool | State = False,
        text: TextConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.data, self.tokenizer, self.text = config, data, tokenizer, text
        self.out, self.device = Path(out), torch.device(device)
        self._where = {
            "device": self.device.type,
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
        }
        self._fingerprint = data.fingerprint()
        state = State.read(self.out) if resume is True else resume or None
        self._new = state is None
        if state is None:
            check_new(self.out)
        else:
            state.check_run(self.out, config, text, self._fingerprint, self._where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = Transformer(config.model(tokenizer.vocab_size)).to(self.device).train()
        self._optimizer = optimizer_of(self.model, config)
        self._held_out: list[tuple[int, float]] = []
        # Losses and norms [steps] stay on the device until they are read.
        self._losses = torch.zeros(config.steps, dtype=torch.float64, device=self.device)
        self._norms = torch.zeros_like(self._losses)
        self.step = 0
        if state is not None:
            self._restore(state)

    def run(self, report: Callable[[Report], None] | None = None, *, minutes: float | None = None) -> Result:
        """Train to the last step, or until so many minutes are over; `report` is called after steps.

        Raises ValueError where the loss or the gradient is no finite number (the last save is left as it is), and where
        another process writes to the folder.
        """
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes: expected more than 0, got {minutes}")
        self.out.mkdir(parents=True, exist_ok=True)
        with locked(self.out):
            if self._new:
                check_new(self.out)  # again, because another run may have been here since
            return self._run(report, minutes)

    def _run(self, report: Callable[[Report], None] | None, minutes: float | None) -> Result:
        began, first, tokens = perf_counter(), self.step, 0
        self._begin()
        every = 1 if self.device.type == "cpu" else READ_EVERY
        while self.step < self.config.steps:
            tokens += self._train_step()
            seconds = perf_counter() - began
            last = self.step == self.config.steps
            over = minutes is not None and seconds > 60 * minutes
            look = last or self.step % self.config.eval_every == 0
            held_out = self._look() if look else None
            if last or over or self.step % self.config.save_every == 0:
                self.save()
            if report is not None and (look or self.step % every == 0):
                left = (self.config.steps - self.step) * seconds / (self.step - first)
                loss = float(self._losses[self.step - 1])
                report(Report(self.step, self.config.steps, loss, held_out, tokens / seconds, left))
            if over:
                break
        seconds = perf_counter() - began
        return Result(
            path=self.out,
            steps=self.step,
            finished=self.step == self.config.steps,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            vocabulary=self.tokenizer.vocab_size,
            losses=self._losses[: self.step].tolist(),
            norms=self._norms[: self.step].tolist(),
            held_out=list(self._held_out),
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
        )

    def checkpoint(self) -> weights.Checkpoint:
        """The model as it is now, for `generate`."""
        return weights.Checkpoint(self.model, self.tokenizer, self.model.config, (END_ID,), self.out)

    def save(self) -> None:
        """Write the state, then the weights that follow from it."""
        self._check_finite()
        self._state().write(self.out)
        weights.save_weights(self.out, self.model)

    def _begin(self) -> None:
        """Clear away what a killed run left half written, and write what stays the same in every save."""
        for left_behind in self.out.glob(f".*{PARTIAL}"):
            left_behind.unlink(missing_ok=True)
        self._state().write(self.out)  # first, because a folder with a state can be resumed
        self._new = False
        begin = END_ID if self.data.begins else None
        weights.save(self.out, self.model, self.tokenizer, eos_ids=[END_ID], bos_id=begin)
        save_tokenizer_config(self.out, begin is not None)

    def _train_step(self) -> int:
        """One step; returns how many tokens it read."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        tokens, targets = self.data.batch(self.config.seed, self.step, self.config.batch)
        count = int((targets != IGNORED).sum())
        loss = self._loss_sum((tokens, targets)) / count
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._norms[self.step] = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._losses[self.step] = loss.detach()
        self._optimizer.step()
        self.step += 1
        return count

    def _loss_sum(self, batch: Batch) -> Tensor:
        """The sum of the losses of all targets, float32."""
        tokens, targets = (each.to(self.device, non_blocking=True) for each in batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            logits = self.model(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")

    @torch.no_grad()
    def _look(self) -> float | None:
        """The mean loss of the held-out part; None where there is none."""
        total, count = 0.0, 0
        for tokens, targets in self.data.held_out(self.config.batch):
            total += self._loss_sum((tokens, targets)).item()
            count += int((targets != IGNORED).sum())
        if not count:
            return None
        self._held_out.append((self.step, total / count))
        return total / count

    def _check_finite(self) -> None:
        """Raise ValueError for a loss, a norm or a weight that is no finite number."""
        wrong = ~(self._losses[: self.step].isfinite() & self._norms[: self.step].isfinite())
        step = int(wrong.nonzero()[0]) if wrong.any() else self.step - 1
        if wrong.any() or not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise ValueError(
                f"learning_rate: expected one that keeps loss and weights finite, got {self.config.learning_rate} with "
                f"a loss of {float(self._losses[step])} and a gradient of norm {float(self._norms[step])} in step "
                f"{step + 1}; {self.out / FILE} is that of an earlier step"
            )

    def _state(self) -> State:
        parameters = dict(self.model.named_parameters())
        moments = {
            moment: {
                name: self._optimizer.state[each].get(moment, torch.zeros_like(each))
                for name, each in parameters.items()
            }
            for moment in MOMENTS
        }
        return State(
            step=self.step,
            config=self.config,
            text=self.text,
            data=self._fingerprint,
            where=self._where,
            tokenizer=self.tokenizer,
            parameters={name: each.detach() for name, each in parameters.items()},
            moments=moments,
            losses=self._losses[: self.step],
            norms=self._norms[: self.step],
            held_out_steps=torch.tensor([step for step, _ in self._held_out], dtype=torch.int64),
            held_out_losses=torch.tensor([loss for _, loss in self._held_out], dtype=torch.float64),
        )

    def _restore(self, state: State) -> None:
        parameters = dict(self.model.named_parameters())
        state.check_shapes({name: parameter.shape for name, parameter in parameters.items()})
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state.parameters[name])
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.step), device=self.device),
                    **{moment: state.moments[moment][name].to(self.device) for moment in MOMENTS},
                }
            self._losses[: state.step] = state.losses
            self._norms[: state.step] = state.norms
        self._held_out = list(zip(state.held_out_steps.tolist(), state.held_out_losses.tolist(), strict=True))
        self.step = state.step


def check_new(out: Path) -> None:
    """Raise ValueError unless `out` is a folder that is new, or empty but for what a killed run left."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {out}")
    if (out / FILE).exists():
        raise ValueError(f"out: expected a new or empty folder, got {out} that holds a run (--resume goes on with it)")
    if out.is_dir() and (found := sorted(each.name for each in out.iterdir() if not each.name.endswith(PARTIAL))):
        raise ValueError(f"out: expected a new or empty folder, got {out} that holds {found[0]}")
