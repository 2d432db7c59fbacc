"""Trains the two tiny models that ship with warpdraw, a target and a draft, from scratch on a CPU in minutes.

    python examples/tiny/train.py --out trained

The text comes from language.py, which also knows the exact distribution of each next word. The loss is the
cross-entropy to that distribution instead of to the one word that happened to be drawn: the same optimum, without the
noise of the draw. The same seed, number of threads, machine and torch give the same weights, bit for bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Annotated

import language
import tokenizers
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from warpdraw.model import ModelConfig, Tokenizer, Transformer, weights

VOCABULARY_SIZE = 1280  # at most
VOCABULARY_WORDS = 300_000  # of text that the tokenizer is trained on
LENGTHS = (128, 128, 128, 512)  # tokens a row, in turn: mostly short rows, but every position is trained
BATCH = 1024  # tokens a step
WARM_UP = 100  # steps
CLIP = 1.0  # norm of the gradient
AVERAGE = 0.99  # decay of the averaged weights; these are the ones that are kept
HELD_OUT, TRAINED_ON = 1, 2  # seeds of the text
HELD_OUT_ROWS = 100


@dataclass(frozen=True)
class Recipe:
    """What one of the two models is, and how it is trained."""

    hidden_size: int
    layers: int
    mlp_size: int
    steps: int
    rate: float

    def config(self, vocabulary: int) -> ModelConfig:
        return ModelConfig(
            vocab_size=vocabulary, hidden_size=self.hidden_size, layers=self.layers, heads=4, kv_heads=2,
            mlp_size=self.mlp_size, max_positions=max(LENGTHS), tied=True,
        )  # fmt: skip


RECIPES = {
    "tiny-target": Recipe(hidden_size=128, layers=2, mlp_size=768, steps=6000, rate=3e-3),
    "tiny-draft": Recipe(hidden_size=64, layers=1, mlp_size=128, steps=800, rate=5e-3),
}


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE in which each word of the language, with the space before it, is one token.

    A prompt is the start of a document: encoding puts <|endoftext|> in front, as the training text has it.
    """
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[language.END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = islice(language.speak(TRAINED_ON), VOCABULARY_WORDS)
    backend.train_from_iterator(language.join(words).split(language.END), trainer)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{language.END} $A", pair=f"{language.END} $A $B", special_tokens=[(language.END, 0)]
    )
    return Tokenizer(backend)


class Corpus:
    """The text of one seed in rows, as tokens and with the exact distribution of each next token."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.words = language.speak(seed)
        self.vocabulary = tokenizer.vocab_size

        @cache
        def token(word: str, first: bool) -> int:
            text = word if first else language.join(["", word])
            ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
            if len(ids) != 1:
                raise ValueError(f"the tokenizer makes {len(ids)} tokens of {text!r}; each word must be one")
            return ids[0]

        self.token = token

    def row(self, length: int) -> list[str]:
        """<|endoftext|> and the documents after it, cut to `length` words; the next row begins with a new document."""
        words = [language.END, *islice(self.words, length - 1)]
        if words[-1] != language.END:
            next(word for word in self.words if word == language.END)
        return words

    def batch(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens int64 [B, T], and the distribution of the token after each of them, float32 [B, T, V]."""
        tokens: list[int] = []
        places: list[int] = []
        chances: list[float] = []
        for _ in range(rows):
            previous, *words = self.row(length + 1)
            token = self.token(previous, True)
            for word, following in zip(words, language.along(words), strict=True):
                first = previous == language.END
                places += [len(tokens) * self.vocabulary + self.token(candidate, first) for candidate in following]
                chances += following.values()
                tokens.append(token)
                previous, token = word, self.token(word, first)
        targets = torch.zeros(len(tokens) * self.vocabulary)
        targets[torch.tensor(places)] = torch.tensor(chances)
        return torch.tensor(tokens).view(rows, length), targets.view(rows, length, self.vocabulary)


def loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy (nats a token) of the model's distributions to `targets`."""
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(0, 1))


def rate_factor(step: int, steps: int) -> float:
    """A linear warm-up, then half a cosine down to zero."""
    warm_up = min(WARM_UP, steps // 4)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def train(model: Transformer, corpus: Corpus, rate: float, steps: int) -> Iterator[float]:
    """Train `model` for `steps` steps, yielding the loss of each; when it ends, the model has the averaged weights."""
    average = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
    for length in islice(cycle(LENGTHS), steps):
        value = loss(model, *corpus.batch(BATCH // length, length))
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for mean, parameter in zip(average, model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - AVERAGE)
        yield value.item()
    with torch.no_grad():
        for mean, parameter in zip(average, model.parameters(), strict=True):
            parameter.copy_(mean)


def draw_curves(losses: dict[str, list[float]], entropy: float, path: Path) -> None:
    """The loss of each model, step by step, and the entropy rate of the language, as a picture."""
    from matplotlib.figure import Figure  # nothing else needs it

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in losses.items():
        smooth = [sum(values[max(0, i - 50) : i + 1]) / min(i + 1, 51) for i in range(len(values))]
        axes.plot(range(1, len(values) + 1), smooth, label=name)
    axes.axhline(entropy, color="black", linestyle="--", label="entropy rate of the language")
    axes.set(xlabel="step", ylabel="training loss, mean of 51 steps (nats a token)", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(
    out: Annotated[Path, typer.Option(help="Folder for tiny-target/, tiny-draft/ and loss.png.", file_okay=False)],
    steps: Annotated[int | None, typer.Option(min=1, help="Steps for each model, instead of its own number.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A twentieth of the steps: a worse model in seconds.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the weights depend on their number.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the first weights.")] = 0,
) -> None:
    """Train the tiny target and the tiny draft model, and write them as checkpoint folders."""
    if find_spec("matplotlib") is None:
        raise typer.BadParameter("matplotlib draws the loss curves and is not installed: pip install 'warpdraw[train]'")
    torch.set_num_threads(threads)
    console = Console()
    tokenizer = train_tokenizer()
    nats, words = language.entropy()
    console.print(f"vocabulary {tokenizer.vocab_size}, entropy rate of the language {nats / words:.4f} nats a token")
    held_out = Corpus(tokenizer, HELD_OUT).batch(HELD_OUT_ROWS, LENGTHS[0])
    best = torch.special.entr(held_out[1]).sum(-1).mean().item()
    losses: dict[str, list[float]] = {}
    for name, recipe in RECIPES.items():
        total = steps or (recipe.steps // 20 if quick else recipe.steps)
        torch.manual_seed(seed)
        model = Transformer(recipe.config(tokenizer.vocab_size))
        losses[name] = []
        start = perf_counter()
        with progress(console) as bar:
            task = bar.add_task(name, total=total, loss=math.nan, speed=0.0)
            for value in train(model, Corpus(tokenizer, TRAINED_ON), recipe.rate, total):
                losses[name].append(value)
                speed = len(losses[name]) * BATCH / (perf_counter() - start)
                bar.update(task, advance=1, loss=value, speed=speed)
        save(out / name, model, tokenizer)
        with torch.no_grad():
            reached = loss(model, *held_out).item()
        size = sum(parameter.numel() for parameter in model.parameters())
        console.print(
            f"{name}: {size:,} parameters, {perf_counter() - start:.0f} s, held-out loss {reached:.4f} nats a token "
            f"(the best possible on this text: {best:.4f})"
        )
    draw_curves(losses, nats / words, out / "loss.png")
    console.print(f"written to {out}")


def save(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    end = tokenizer.encode("")[0]
    weights.save(folder, model, tokenizer, dtype=torch.float16, eos_ids=[end], bos_id=end)
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": language.END, "eos_token": language.END}
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[speed]:,.0f} tokens/s"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
