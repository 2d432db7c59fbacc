"""train: the two models of names from the list, each in less than two minutes on two cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import weights
from ..training.batches import Documents
from ..training.config import TrainingConfig
from ..training.loop import Report as TrainingReport
from ..training.loop import Training, check_new
from ..training.optimizer import learning_rate, optimizer_of
from ..training.vocabulary import END_ID, character_tokenizer, line_ids
from . import mlp
from .alphabet import END, LETTERS, LONGEST, ids_of
from .drawn import letter_logprobs
from .listing import split
from .mlp import Mlp, MlpConfig, windows
from .models import SHIPPED, NameModel, TransformerNames, load

# What names are kept as: half the size, and a loss that differs in the fifth digit.
STORED = torch.float16


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, and the size and dropout of an MLP."""

    config: TrainingConfig
    size: MlpConfig | None = None
    dropout: float = 0.0


_MLP = TrainingConfig(steps=6000, batch=256, learning_rate=5e-3, warmup=200, weight_decay=0.1, eval_every=200)
RECIPES = {
    "mlp": Recipe(_MLP, MlpConfig(), dropout=0.2),
    # Two numbers a letter need a larger rate to find their places, and little that holds them back.
    "mlp-2d": Recipe(replace(_MLP, learning_rate=8e-3, weight_decay=0.02), MlpConfig(embedding=2), dropout=0.1),
    "transformer": Recipe(
        TrainingConfig(
            layers=2, hidden=64, heads=4, context=LONGEST + 4, steps=1800, batch=64, learning_rate=5e-3, warmup=50,
            weight_decay=0.3, eval_every=100,
        )
    ),
}  # fmt: skip

Report = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    best_step      after which the held-out loss was least; its weights are those that were kept.
    held_out_loss  of what was written, in nats a letter, ends counted; `first_loss` is that before the first step.
    seconds        of the whole.
    """

    path: Path
    model: str
    parameters: int
    steps: int
    best_step: int
    first_loss: float
    held_out_loss: float
    seconds: float


def train(
    model: str, out: str | Path, *, seed: int = 0, steps: int | None = None, report: Report | None = None
) -> Trained:
    """Train "mlp", "mlp-2d" (with embeddings of two numbers) or "transformer" on the list, and write a folder.

    AdamW with warm-up, cosine, weight decay and, in an MLP, dropout; the weights with the least held-out loss are
    kept. `report` is called with the step, the steps and the loss. One machine, torch and number of threads give the
    same weights for the same seed. Raises ValueError for another model and for a folder that is not new or empty.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     trained = train("mlp", f"{folder}/names", steps=2)
    >>> trained.held_out_loss < trained.first_loss
    True
    """
    if model not in SHIPPED:
        raise ValueError(f"model: expected {', '.join(SHIPPED)}, got {model!r}")
    folder, began = Path(out), perf_counter()
    recipe = RECIPES[model]
    steps = recipe.config.steps if steps is None else steps
    warmup = min(recipe.config.warmup, steps // 10)
    config = replace(recipe.config, seed=seed, steps=steps, warmup=warmup, save_every=max(1, steps))
    check_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.size is None:
        losses = _train_transformer(model, config, folder, report)
    else:
        losses = _train_mlp(recipe.size, recipe.dropout, config, folder, report)
    written = load(folder)
    best_step = min(losses, key=lambda step: losses[step])
    return Trained(
        folder, model, written.parameters, config.steps, best_step, losses[0], held_out_loss(written),
        perf_counter() - began,
    )  # fmt: skip


def held_out_loss(model: NameModel) -> float:
    """The mean loss of the held-out names, in nats a letter, ends counted.

    >>> 1.5 < held_out_loss(load("mlp")) < 2.5
    True
    """
    _, names = split()
    losses = [-each for letters in letter_logprobs(model, names) for each in letters]
    return sum(losses) / len(losses)


@dataclass
class _Best:
    """The weights with the least held-out loss so far, and all losses by step."""

    losses: dict[int, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def look(self, step: int, loss: float, model: nn.Module) -> None:
        if not self.losses or loss < min(self.losses.values()):
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.losses[step] = loss


def _train_mlp(
    size: MlpConfig, dropout: float, config: TrainingConfig, folder: Path, report: Report | None
) -> dict[int, float]:
    (contexts, targets), held_out = (_examples(names, size.context) for names in split())
    best = _Best()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Mlp(size, dropout).train()
        optimizer = optimizer_of(network, config)
        best.look(0, _loss(network, *held_out), network)
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            chosen = torch.randint(len(contexts), (config.batch,))
            loss = F.cross_entropy(network(contexts[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
            done = step + 1
            if done % config.eval_every == 0 or done == config.steps:
                best.look(done, _loss(network, *held_out), network)
            if report is not None:
                report(done, config.steps, loss.item())
    network.load_state_dict(best.weights)
    mlp.save(folder, network, STORED)
    return best.losses


def _examples(names: Sequence[str], context: int) -> tuple[Tensor, Tensor]:
    """Every window int64 [N, context] of the names, and the letter or end that follows it, int64 [N]."""
    ids = [ids_of(name) for name in names]
    prefixes = [each[:length] for each in ids for length in range(len(each) + 1)]
    return windows(prefixes, context), torch.tensor([follows for each in ids for follows in (*each, END)])


def _loss(network: Mlp, contexts: Tensor, targets: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        loss = F.cross_entropy(network(contexts), targets).item()
    network.train()
    return loss


def _train_transformer(model: str, config: TrainingConfig, folder: Path, report: Report | None) -> dict[int, float]:
    tokenizer = character_tokenizer([LETTERS], begin=True)
    training, held_out = (line_ids(tokenizer, names) for names in split())
    best = _Best()
    # What a run keeps in order to go on would be larger than the model; a run of a minute starts anew.
    with TemporaryDirectory() as scratch:
        run = Training(config, Documents(training, held_out, config.context), tokenizer, scratch)
        best.look(0, held_out_loss(TransformerNames(model, run.checkpoint())), run.model)

        def look(progress: TrainingReport) -> None:
            if progress.held_out is not None:
                best.look(progress.step, progress.held_out, run.model)
            if report is not None:
                report(progress.step, progress.steps, progress.loss)

        run.run(look)
        copyfile(Path(scratch) / "tokenizer_config.json", folder / "tokenizer_config.json")
    run.model.load_state_dict(best.weights)
    weights.save(folder, run.model, tokenizer, dtype=STORED, eos_ids=[END_ID], bos_id=END_ID)
    return best.losses
