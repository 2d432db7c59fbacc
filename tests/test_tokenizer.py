"""The tokenizer: byte-level and sentencepiece-style files, special tokens as transformers adds them, nothing lost."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from warpdraw.model.config import CheckpointError
from warpdraw.model.tokenizer import Tokenizer

TEXTS = ["The sky is blue.", " two  spaces ", "naïve café — 東京 🎲", "line\nbreak\ttab", "", "🧑‍🚀"]


def byte_level() -> Backend:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)} | {"Ġs": 256, "Ġsk": 257, "Ġsky": 258}
    backend = Backend(models.BPE(vocabulary, [("Ġ", "s"), ("Ġs", "k"), ("Ġsk", "y")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return backend


def sentencepiece() -> Backend:
    """As Llama 2 has it: a space before the text, spaces as low lines, unknown characters as bytes."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "s",
        "k",
        "y",
        "▁s",
        "▁sk",
        "▁sky",
    ]
    merges = [("▁", "s"), ("▁s", "k"), ("▁sk", "y")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def metaspace() -> Backend:
    backend = sentencepiece()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


KINDS = {"byte-level": byte_level, "sentencepiece": sentencepiece, "metaspace": metaspace}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    KINDS[request.param]().save(str(tmp_path / "tokenizer.json"))
    return Tokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back_whole(kind: str) -> None:
    tokenizer = Tokenizer(KINDS[kind]())
    for text in TEXTS:
        # Metaspace puts no second space before a text that begins with one, and the decoder takes one away.
        expected = text.removeprefix(" ") if kind == "metaspace" else text
        assert tokenizer.decode(tokenizer.encode(text)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    KINDS[kind]().save(str(tmp_path / "tokenizer.json"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json")
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, clean_up_tokenization_spaces=False)


def test_the_post_processor_alone_adds_special_tokens() -> None:
    assert Tokenizer(sentencepiece()).encode(" sky")[0] == 1
    backend = sentencepiece()
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert 1 not in Tokenizer(backend).encode(" sky")


def test_every_byte_is_decoded() -> None:
    """An incomplete character becomes U+FFFD, and the character once its last byte is there."""
    for build in KINDS.values():
        tokenizer = Tokenizer(build())
        ids = [token for token in tokenizer.encode("🎲") if token > 2][-4:]
        assert tokenizer.decode(ids) == "🎲"
        for cut in (1, 2, 3):
            assert set(tokenizer.decode(ids[:cut])) == {"\ufffd"}


def test_special_tokens_have_text_on_request(tokenizer: Tokenizer) -> None:
    end = "<end>" if tokenizer.encode("<end>") == [259] else "</s>"
    (identifier,) = [token for token in tokenizer.encode(end) if token != 1 and tokenizer.token_text(token) == end]
    assert tokenizer.decode([identifier]) == ""
    assert tokenizer.decode([identifier], skip_special=False) == end


def test_token_text_keeps_the_space_before_the_word(tokenizer: Tokenizer) -> None:
    (sky,) = [token for token in tokenizer.encode("k sky") if tokenizer.token_text(token) == " sky"]
    assert tokenizer.decode([sky]).strip() == "sky"
    assert tokenizer.token_text(99999) == "<99999>"
    texts = [tokenizer.token_text(token) for token in range(tokenizer.vocab_size)]
    assert all(isinstance(text, str) for text in texts)


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert len(tokenizer.encode("abcdefgh")) == 8
    assert len(tokenizer.encode("ab")) == 2


def test_save_and_read_again(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "again.json")
    again = Tokenizer.from_file(tmp_path / "again.json")
    assert again.vocab_size == tokenizer.vocab_size
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_files_that_are_no_tokenizers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json: missing"):
        Tokenizer.from_file(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"bad\.json: not a readable tokenizer"):
        Tokenizer.from_file(tmp_path / "bad.json")


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(ValueError, match="text is not valid Unicode"):
        Tokenizer(byte_level()).encode("\ud800")
