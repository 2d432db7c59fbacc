"""Pieces of text: whole characters only, nothing of a stop string, and together exactly the text."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from warpdraw.generation.streaming import WAITING_LIMIT, Detokenizer, StopStrings, TextStream

TEXT = "the sky is blue 🙂🙃 and the café is naïve; 你好世界 👨‍👩‍👧‍👦 é e\u0301 ñ ٱلسَّلَامُ ไทย\n\t  two  spaces "
texts = st.text(max_size=40) | st.text(alphabet=st.sampled_from(TEXT), max_size=40)


def byte_level() -> Tokenizer:
    """GPT-2's kind: any bytes in a token, some merges that cut through characters, one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: words begin with a marked space, characters outside the vocabulary are byte tokens."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁etaoinshrdlucbky.é你"]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:3]])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BYTE_LEVEL, BYTE_FALLBACK = byte_level(), byte_fallback()


def pieces_of(decode, ids, context=()):
    detokenizer = Detokenizer(decode, context)
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


@given(texts)
def test_byte_level_pieces_are_whole_characters_and_sum_to_the_text(text):
    ids = BYTE_LEVEL.encode(text).ids
    pieces = pieces_of(BYTE_LEVEL.decode, ids)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces if "\ufffd" not in text)


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=60))
@settings(max_examples=300)
def test_any_byte_level_tokens_sum_to_their_decoded_text(ids):
    assert "".join(pieces_of(BYTE_LEVEL.decode, ids)) == BYTE_LEVEL.decode(ids)


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_broken_bytes_become_replacements_where_a_whole_decoder_puts_them(data):
    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    whole, waits = codecs.getincrementaldecoder("utf-8")("replace"), ""
    pieces = pieces_of(decode, data)
    assert "".join(pieces) == decode(data)
    for byte, piece in zip(data, pieces, strict=False):
        waits += whole.decode(bytes([byte]))
        if len(waits) and waits[-1] != "\ufffd":
            assert piece == waits[len(waits) - len(piece) :]  # what is certain comes at once


@given(texts, texts)
def test_the_context_and_the_pieces_sum_to_the_text(prompt, text):
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        context, ids = tokenizer.encode(prompt).ids, tokenizer.encode(text).ids
        pieces = pieces_of(tokenizer.decode, ids, context)
        assert tokenizer.decode(context) + "".join(pieces) == tokenizer.decode(context + ids)


@given(st.lists(st.integers(0, BYTE_FALLBACK.get_vocab_size() - 1), max_size=60))
@settings(max_examples=300)
def test_any_byte_fallback_tokens_give_text(ids):
    # A decoder of this kind replaces a whole run of byte tokens for one broken byte, which no stream can do.
    text, whole = "".join(pieces_of(BYTE_FALLBACK.decode, ids)), BYTE_FALLBACK.decode(ids)
    assert text == whole or "\ufffd" in whole


def test_a_leading_space_survives_in_the_middle_and_not_at_the_start():
    decode, ids = BYTE_FALLBACK.decode, BYTE_FALLBACK.encode(" blue sky").ids
    begin = BYTE_FALLBACK.token_to_id("<s>")
    assert "".join(pieces_of(decode, ids)) == "blue sky"
    assert "".join(pieces_of(decode, ids, [begin])) == "blue sky"
    assert "".join(pieces_of(decode, ids, [begin, *BYTE_FALLBACK.encode("the").ids])) == " blue sky"


def test_special_tokens_change_nothing():
    end = BYTE_LEVEL.token_to_id("<end>")
    ids = BYTE_LEVEL.encode("né🙂").ids
    with_specials = [end] * 20 + [token for i in ids for token in (i, end, end)] + [end] * 20
    assert "".join(pieces_of(BYTE_LEVEL.decode, with_specials)) == "né🙂"

    def decode(ids):
        return bytes(token for token in ids if token < 256).decode("utf-8", "replace")

    scattered = [token for byte in "né🙂".encode() for token in (byte, *[256] * 9)]
    assert "".join(pieces_of(decode, scattered)) == "né🙂"


def test_a_prompt_may_end_inside_a_character():
    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    prompt, rest = "so 🙂".encode()[:-2], "🙂!".encode()[-3:]
    assert "".join(pieces_of(decode, rest, prompt)) == "🙂!"
    assert "".join(pieces_of(decode, b"no", prompt)) == "no"


def test_each_step_decodes_a_bounded_number_of_tokens():
    most, calls = 0, 0

    def decode(ids):
        nonlocal most, calls
        most, calls = max(most, len(ids)), calls + 1
        return bytes(ids).decode("utf-8", "replace")

    for data in ("é🙂x".encode() * 2000, bytes([0x80]) * 14000, bytes([0xF0, 0x9F]) * 7000):
        most = calls = 0
        pieces_of(decode, data)
        assert most <= 2 * (WAITING_LIMIT + 1)
        assert calls <= 4 * len(data) + 2


def text_before_first_stop(text, stop):
    """The definition: cut before the stop string whose last character comes first, the longest of several."""
    for end in range(len(text) + 1):
        for string in sorted(stop, key=len, reverse=True):
            if text[:end].endswith(string):
                return text[: end - len(string)], string
    return text, None


@given(st.data(), st.text(alphabet="ab🙂", max_size=30), st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=5)))
@settings(max_examples=400)
def test_stop_strings_do_not_depend_on_the_pieces(data, text, stop):
    stops, out, rest = StopStrings(stop), "", text
    while rest and stops.found is None:
        size = data.draw(st.integers(0, len(rest)), label="size")
        out += stops.push(rest[:size])
        rest = rest[size:]
        expected, _ = text_before_first_stop(text, stop)
        assert expected.startswith(out)
    if stops.found is None:
        out += stops.finish()
    assert (out, stops.found) == text_before_first_stop(text, stop)


def test_only_what_may_begin_a_stop_string_is_held_back():
    stops = StopStrings(["END"])
    assert [stops.push(piece) for piece in ("a", "E", "N", "x", "EE", "ND", "z")][:6] == ["a", "", "", "ENx", "E", ""]
    assert stops.found == "END"


def test_a_stop_string_does_not_count_until_armed():
    stops = StopStrings(["ab"])
    assert stops.push("xab", armed=False) == "xab"
    assert stops.push("a", armed=False) == ""
    assert stops.push("b", armed=True) == ""
    assert stops.found == "ab"

    stops = StopStrings(["ab", "abc"])
    assert stops.push("ab", armed=False) == ""
    assert stops.push("x", armed=True) == "abx"
    assert stops.found is None


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte level", "byte fallback"])
@given(text=texts, stop=st.lists(st.text(alphabet=st.sampled_from(TEXT), min_size=1, max_size=3), max_size=3))
def test_streamed_text_ends_before_the_first_stop_string(tokenizer, text, stop):
    ids = tokenizer.encode(text).ids
    stream, out = TextStream(tokenizer.decode, (), stop), ""
    for token in ids:
        out += stream.push(token)
        if stream.stop is not None:
            break
    else:
        out += stream.finish()
    assert (out, stream.stop) == text_before_first_stop(tokenizer.decode(ids), stop)
