"""Tokenizers made from a text: a byte-level BPE of a stated size, or a token for each character; and texts as ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from ..model.replacing import replacing
from ..model.tokenizer import Tokenizer

END = "<|endoftext|>"
END_ID = 0
# A text is encoded in pieces of about so many characters, because what the library keeps for a piece is large.
PIECE = 1 << 16
PIECES = 16

# uint16 where all ids fit, int32 elsewhere.
Ids = NDArray[np.integer[Any]]


def byte_level_tokenizer(texts: Iterable[str], size: int, *, begin: bool = False) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens, trained on `texts`: any text can be encoded with it.

    Token 0 is `<|endoftext|>`; with `begin` it is put in front of what is encoded. A small text gives fewer tokens.
    Sennrich, Haddow and Birch, arXiv 1508.07909.

    >>> tokenizer = byte_level_tokenizer(["to be or not to be"], 260)
    >>> tokenizer.vocab_size, tokenizer.decode(tokenizer.encode("to be"))
    (260, 'to be')
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _finish(backend, begin)


def character_tokenizer(texts: Iterable[str], *, begin: bool = False) -> Tokenizer:
    """A token for each character of `texts`, in the order of their code points; other characters cannot be encoded.

    Token 0 is `<|endoftext|>`; with `begin` it is put in front of what is encoded.

    >>> tokenizer = character_tokenizer(["abba"], begin=True)
    >>> tokenizer.encode("ab")
    [0, 1, 2]
    """
    characters = sorted(set().union(*texts))
    vocabulary = {END: END_ID} | {character: index for index, character in enumerate(characters, start=END_ID + 1)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([tokenizers.AddedToken(END, special=True, normalized=False)])
    return _finish(backend, begin)


def _finish(backend: tokenizers.Tokenizer, begin: bool) -> Tokenizer:
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, END_ID)]
        )
    return Tokenizer(backend)


def save_tokenizer_config(folder: Path, begins: bool) -> None:
    """Write what transformers wants to know beside tokenizer.json: which token ends a text, and may begin one."""
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END if begins else None,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    with replacing(folder / "tokenizer_config.json") as file:
        file.write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def stream_ids(tokenizer: Tokenizer, texts: list[str]) -> Ids:
    """The ids of all texts one after the other, with the end of a text between them.

    >>> stream_ids(character_tokenizer(["ab"]), ["ab", "b"]).tolist()
    [1, 2, 0, 2]
    """
    parts = []
    for number, text in enumerate(texts):
        if number:
            parts.append(_array(tokenizer, [END_ID]))
        pieces = list(pieces_of(text))
        for start in range(0, len(pieces), PIECES):
            encoded = tokenizer.backend.encode_batch(pieces[start : start + PIECES], add_special_tokens=False)
            parts += [_array(tokenizer, piece.ids) for piece in encoded]
    return np.concatenate(parts) if parts else _array(tokenizer, [])


def line_ids(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    """The ids of each line between two ends of a text.

    >>> line_ids(character_tokenizer(["ab"]), ["ab", "b"])
    [[0, 1, 2, 0], [0, 2, 0]]
    """
    encoded = tokenizer.backend.encode_batch(lines, add_special_tokens=False)
    return [[END_ID, *line.ids, END_ID] for line in encoded]


def pieces_of(text: str, size: int = PIECE) -> Iterator[str]:
    r"""The text in pieces of at least `size` characters, each but the first of which begins with a line end.

    Their ids are those of the whole, because no token has a letter and then a line end.

    >>> list(pieces_of("one\ntwo\n\nthree", 2))
    ['one', '\ntwo', '\n\nthree']
    """
    start = 0
    while start < len(text):
        end = _line_end(text, start + size + 1)  # not the line end that the piece begins with
        yield text[start:end]
        start = end


def _line_end(text: str, start: int) -> int:
    while (end := text.find("\n", start)) >= 0:
        start = end + 1
        end -= text[end - 1] == "\r"
        if not text[end - 1].isspace():
            return end
    return len(text)


def _array(tokenizer: Tokenizer, ids: list[int]) -> Ids:
    return np.array(ids, dtype=np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
