"""train: a text file or a folder of texts to a checkpoint, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from ..model.tokenizer import Tokenizer
from .batches import Data, Documents, Windows
from .config import TextConfig, TrainingConfig
from .loop import Report, Result, Training, check_new
from .state import State
from .texts import lines_of, read_texts, split_lines, split_texts
from .vocabulary import byte_level_tokenizer, character_tokenizer, line_ids, pieces_of, stream_ids


def train(
    source: str | Path,
    out: str | Path,
    config: TrainingConfig | None = None,
    text: TextConfig | None = None,
    *,
    resume: bool | State = False,
    report: Callable[[Report], None] | None = None,
    minutes: float | None = None,
    device: torch.device | str = "cpu",
) -> Result:
    """Train a tokenizer and a new model on a text file or a folder of them, and write a checkpoint folder.

    config, text  sizes and ways; the defaults, or with `resume` those of the run that goes on.
    resume        go on with the run in `out` from its last save (True, or a `State` that was read from there).
    report        called after steps.
    minutes       stop after so long, and save; `resume` goes on.

    Errors are those of `read_texts`, `Windows`, `Documents` and `Training`.

    >>> from tempfile import TemporaryDirectory
    >>> config = TrainingConfig(layers=1, hidden=8, heads=2, context=8, steps=2, batch=2)
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "text.txt").write_text("the sky is blue. " * 20)
    ...     result = train(f"{folder}/text.txt", f"{folder}/out", config, TextConfig(characters=True))
    >>> result.vocabulary, len(result.losses)
    (13, 2)
    """
    return training_of(source, out, config, text, resume=resume, device=device).run(report, minutes=minutes)


def training_of(
    source: str | Path,
    out: str | Path,
    config: TrainingConfig | None = None,
    text: TextConfig | None = None,
    *,
    resume: bool | State = False,
    device: torch.device | str = "cpu",
) -> Training:
    """What `train` runs, before it runs."""
    state = State.read(Path(out)) if resume is True else resume or None
    if state is None:
        check_new(Path(out))
    else:
        config, text = config or state.config, text or state.text
    config, text = config or TrainingConfig(), text or TextConfig()
    tokenizer, data = _prepare(read_texts(source), config, text, None if state is None else state.tokenizer)
    return Training(config, data, tokenizer, out, resume=state or False, text=text, device=device)


def _prepare(
    texts: list[str], config: TrainingConfig, text: TextConfig, tokenizer: Tokenizer | None
) -> tuple[Tokenizer, Data]:
    split, whole = (split_lines, lines_of(texts)) if text.lines else (split_texts, texts)
    training, held_out = split(whole, text.held_out)
    if tokenizer is None and text.characters:
        # An alphabet tells nothing about the held-out part, and all of it has to be encoded.
        tokenizer = character_tokenizer(whole, begin=text.lines)
    elif tokenizer is None:
        pieces = training if text.lines else (piece for each in training for piece in pieces_of(each))
        tokenizer = byte_level_tokenizer(pieces, text.vocabulary, begin=text.lines)
        if tokenizer.vocab_size < text.vocabulary:
            warnings.warn(
                f"vocabulary: the text gives {tokenizer.vocab_size} tokens, fewer than {text.vocabulary}", stacklevel=5
            )
    if text.lines:
        return tokenizer, Documents(line_ids(tokenizer, training), line_ids(tokenizer, held_out), config.context)
    return tokenizer, Windows(stream_ids(tokenizer, training), stream_ids(tokenizer, held_out), config.context)
