"""Training: its parts are what they say, a killed run goes on to the same bits, and bad input is refused by name."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import warpdraw
from warpdraw.model import weights
from warpdraw.model.replacing import replacing
from warpdraw.training import (
    Documents,
    State,
    TextConfig,
    Training,
    TrainingConfig,
    Windows,
    byte_level_tokenizer,
    character_tokenizer,
    learning_rate,
    line_ids,
    parameter_groups,
    read_texts,
    stream_ids,
    train,
)
from warpdraw.training.batches import IGNORED
from warpdraw.training.lock import locked
from warpdraw.training.state import FILE
from warpdraw.training.texts import split_lines, split_texts
from warpdraw.training.vocabulary import pieces_of

# A small language: of the words after each word two are possible.
WORDS = {
    "the": ("sky", "sea"),
    "sky": ("is", "was"),
    "sea": ("is", "was"),
    "is": ("blue", "grey"),
    "was": ("calm", "wild"),
}
SMALL = TrainingConfig(layers=1, hidden=32, heads=2, context=16, steps=6, batch=4, warmup=2, eval_every=2, save_every=2)
CHARACTERS = TextConfig(characters=True, held_out=0.1)
OPTIONS = shlex.split(
    "--layers 1 --hidden 32 --heads 2 --context 16 --steps 6 --batch 4 --warmup 2 --eval-every 2 --save-every 2 "
    "--characters --held-out 0.1 --threads 1 --no-plot"
)


def language(sentences: int, seed: int = 0) -> str:
    generator, words = np.random.default_rng(seed), []
    for _ in range(sentences):
        word = "the"
        while word in WORDS:
            words.append(word)
            word = WORDS[word][generator.integers(2)]
        words.append(f"{word}.")
    return " ".join(words) + "\n"


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(language(60), encoding="utf-8")
    return file


def command(*arguments):
    """The program in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(warpdraw.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "warpdraw", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# The parts


def test_the_rate_rises_in_a_line_and_falls_by_half_a_cosine():
    config = TrainingConfig(steps=110, warmup=10, learning_rate=2.0)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    for step in range(10, 110):
        assert rates[step] == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi * (step - 10) / 100)) / 2)
    assert rates[10] == max(rates)
    assert rates[-1] < 0.201
    assert learning_rate(replace(config, warmup=0), 0) == 2.0
    assert learning_rate(replace(config, steps=5), 4) == 1.0  # a run that ends in its warm-up


def test_matrices_decay_and_vectors_do_not(tmp_path, text):
    run = training(tmp_path, text)
    decayed, kept = parameter_groups(run.model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    assert {names[parameter].split(".")[-2] for parameter in kept["params"]} == {"norm", "attention_norm", "mlp_norm"}
    assert sorted(names[each] for each in [*decayed["params"], *kept["params"]]) == sorted(names.values())
    assert [group["weight_decay"] for group in run._optimizer.param_groups] == [SMALL.weight_decay, 0.0]


def test_the_held_out_part_is_the_end():
    texts = ["a" * 50, "b" * 30, "c" * 20]
    assert split_texts(texts, 0.1) == (["a" * 50, "b" * 30, "c" * 10], ["c" * 10])
    assert split_texts(texts, 0.5) == (["a" * 50], ["b" * 30, "c" * 20])
    assert split_texts(texts, 0.25) == (["a" * 50, "b" * 25], ["b" * 5, "c" * 20])
    assert split_texts(texts, 0) == (texts, [])
    assert split_lines(list("abcdefgh"), 0.25) == (list("abcdef"), list("gh"))


def test_nothing_is_trained_on_the_held_out_part(tmp_path, text):
    other = tmp_path / "other.txt"
    content = text.read_text(encoding="utf-8")
    kept = len(content) - round(len(content) * CHARACTERS.held_out)
    other.write_text(content[:kept] + "".join(reversed(content[kept:])), encoding="utf-8")
    one, two = (train(file, tmp_path / file.stem, SMALL, CHARACTERS) for file in (text, other))
    assert one.losses == two.losses
    assert one.held_out_loss != two.held_out_loss


def test_a_batch_is_a_function_of_seed_and_step():
    ids = np.arange(1000, dtype=np.uint16)
    one, two = Windows(ids, ids[:0], context=16), Windows(ids, ids[:0], context=16)
    forward = [one.batch(3, step, 8) for step in range(40)]
    for step in reversed(range(40)):
        for ours, theirs in zip(two.batch(3, step, 8), forward[step], strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(one.batch(4, 0, 8)[0], forward[0][0])
    for tokens, targets in forward:
        assert tokens.shape == targets.shape == (8, 16)
        assert torch.equal(targets, tokens + 1)


@pytest.mark.parametrize("size", [17, 18, 31, 33, 100, 1000])
def test_an_epoch_has_every_window_once(size):
    data = Windows(np.arange(size), np.arange(0), context=16)
    rows, starts = max(1, (size - 16) // 16), []
    for step in range(3 * rows):
        tokens, targets = data.batch(0, step, 1)
        starts.append(int(tokens[0, 0]))
        assert targets.max() < size
    for epoch in range(3):
        found = sorted(starts[epoch * rows : (epoch + 1) * rows])
        assert found == [found[0] + 16 * row for row in range(rows)]
    if size == 1000:
        first, second = starts[:rows], starts[rows : 2 * rows]
        assert min(first) != min(second)  # cut at another place
        assert np.argsort(first).tolist() != np.argsort(second).tolist()  # and in another order
    # Rows that are drawn by twos and threes, over the ends of epochs, are the same.
    for width in (2, 3):
        batches = [data.batch(0, step, width)[0][:, 0].tolist() for step in range(3 * rows // width)]
        assert list(chain(*batches)) == starts[: width * (3 * rows // width)]


def test_the_held_out_windows_have_every_token_once():
    data = Windows(np.arange(17), np.arange(100, 150), context=16)
    seen = [int(target) for _, targets in data.held_out(2) for target in targets.flatten() if target != IGNORED]
    assert seen == list(range(101, 150))


def test_documents_are_padded_and_padding_is_not_trained_on():
    data = Documents([[0, 1, 2, 3, 0], [0, 4, 0]], [[0, 5, 0]], context=4)
    tokens, targets = data.batch(0, 0, 2)
    rows = dict(zip(map(tuple, tokens.tolist()), targets.tolist(), strict=True))
    assert rows == {(0, 1, 2, 3): [1, 2, 3, 0], (0, 4, 0, 0): [4, 0, IGNORED, IGNORED]}
    assert [[part.tolist() for part in batch] for batch in data.held_out(8)] == [[[[0, 5]], [[5, 0]]]]
    with pytest.raises(
        ValueError,
        match=r"^text: expected lines of at most context - 1 \(2\) tokens, got 3 in line 1 \(blank ones not counted\)$",
    ):
        Documents([[0, 1, 2, 3, 0]], [], context=3)


def test_tokens_of_pieces_are_those_of_the_whole():
    text = "one two\nthree\n\n\nfour  \n  five\n\tsix \nseven\r\neight\n" * 20 + " \n\nend\n"
    tokenizer = byte_level_tokenizer([text], 300)
    for size in (1, 7, 50, 10_000):
        pieces = list(pieces_of(text, size))
        assert "".join(pieces) == text
        parts = [tokenizer.backend.encode(piece, add_special_tokens=False).ids for piece in pieces]
        assert list(chain(*parts)) == tokenizer.encode(text)
    assert len(list(pieces_of(text, 1))) > 100
    assert stream_ids(tokenizer, ["one", "two"]).tolist() == [*tokenizer.encode("one"), 0, *tokenizer.encode("two")]


def test_characters_are_tokens_and_others_are_refused():
    tokenizer = character_tokenizer(["naïve\n  a b"], begin=True)
    assert tokenizer.decode(tokenizer.encode("a  nïb\n")) == "a  nïb\n"
    assert tokenizer.vocab_size == 1 + len(set("naïve\n  a b"))
    assert line_ids(tokenizer, ["ab"])[0] == [*tokenizer.encode("ab"), 0]
    with pytest.raises(ValueError, match=r"^text: expected characters that the tokenizer has a token for, got 'xé'"):
        tokenizer.encode("axbé")


def test_a_vocabulary_has_the_stated_size():
    assert byte_level_tokenizer([language(200)], 280).vocab_size == 280


# The loop


def training(folder, text, config=SMALL, **more):
    data, tokenizer = data_of(text, config)
    return Training(config, data, tokenizer, folder / "out", **more)


def data_of(text, config):
    content = text.read_text(encoding="utf-8")
    tokenizer = character_tokenizer([content])
    kept, held_out = split_texts([content], CHARACTERS.held_out)
    return Windows(stream_ids(tokenizer, kept), stream_ids(tokenizer, held_out), config.context), tokenizer


def test_gradients_are_clipped(tmp_path, text):
    run = training(tmp_path, text, replace(SMALL, clip=0.125))
    norms = []

    def look(*_):
        squares = [parameter.grad.square().sum() for parameter in run.model.parameters()]
        norms.append(math.sqrt(sum(squares)))

    run._optimizer.register_step_pre_hook(look)
    result = run.run()
    assert norms == pytest.approx([0.125] * SMALL.steps, rel=1e-4)
    assert min(result.norms) > 0.25  # those before they were clipped


def test_a_step_is_the_one_of_its_definition(tmp_path, text):
    config = replace(SMALL, steps=3, clip=0.5)
    data, tokenizer = data_of(text, config)
    run = Training(config, data, tokenizer, tmp_path / "out")
    model = type(run.model)(run.model.config)
    model.load_state_dict(run.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}], betas=(0.9, 0.95)
    )
    losses = []
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        tokens, targets = data.batch(config.seed, step, config.batch)
        log_probs = model(tokens).log_softmax(-1)
        loss = -log_probs.gather(-1, targets.unsqueeze(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(parameter.grad.square().sum() for parameter in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1.0, 0.5 / norm)
        optimizer.step()
        losses.append(loss.item())
    assert run.run().losses == pytest.approx(losses, rel=1e-5)
    for (name, ours), theirs in zip(run.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_loss_falls_well_below_the_entropy_of_single_tokens(tmp_path):
    content = language(400)
    text = tmp_path / "text.txt"
    text.write_text(content, encoding="utf-8")
    config = replace(SMALL, hidden=64, context=32, steps=120, batch=8, learning_rate=5e-3, warmup=10, eval_every=40)
    result = train(text, tmp_path / "out", replace(config, save_every=1000), CHARACTERS)
    counts = Counter(content)
    entropy = -sum(count / len(content) * math.log(count / len(content)) for count in counts.values())
    assert result.held_out_loss < 0.4 * entropy
    assert [step for step, _ in result.held_out] == [40, 80, 120]
    assert result.held_out[0][1] > result.held_out[-1][1]
    assert result.perplexity == math.exp(result.held_out_loss)
    # What it learned: the words of the language, in their order.
    model = weights.load(tmp_path / "out")
    params = warpdraw.SamplingParams(seed=1, temperature=0.0, max_tokens=14)
    continued = warpdraw.generate(model, "calm. the sky ", params)[0].text
    assert continued.split()[0] in WORDS["sky"]


def test_bfloat16_trains_float32_weights(tmp_path, text):
    full = train(text, tmp_path / "full", SMALL, CHARACTERS)
    half = train(text, tmp_path / "half", replace(SMALL, dtype="bfloat16"), CHARACTERS)
    assert half.losses != full.losses
    assert half.losses == pytest.approx(full.losses, rel=0.02)
    assert {each.dtype for each in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("characters", [False, True])
def test_transformers_loads_what_was_trained(tmp_path, text, lines, characters):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text.write_text(language(300).replace(". ", ".\n"), encoding="utf-8")
    config = replace(SMALL, context=32, kv_heads=1, mlp=48)
    train(text, tmp_path / "out", config, TextConfig(vocabulary=270, characters=characters, lines=lines, held_out=0.1))
    ours = weights.load(tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = ours.tokenizer.encode("the sky is blue.")
    assert tokenizer("the sky is blue.")["input_ids"] == ids
    assert (ids[0] == 0) == lines
    assert tokenizer.decode(ids, skip_special_tokens=True) == ours.tokenizer.decode(ids) == "the sky is blue."
    assert [tokenizer.eos_token_id] == list(ours.eos_ids) == theirs.config.eos_token_id == [0]
    tokens = torch.tensor([ids])
    torch.testing.assert_close(theirs(tokens).logits, ours.model(tokens), rtol=1e-4, atol=1e-5)


def test_the_global_random_state_is_left_alone(tmp_path, text):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train(text, tmp_path / "out", SMALL, CHARACTERS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_decides(tmp_path, text):
    results = [
        train(text, tmp_path / str(i), replace(SMALL, seed=seed), CHARACTERS) for i, seed in enumerate((1, 1, 2))
    ]
    assert results[0].losses == results[1].losses != results[2].losses
    assert_same_run(tmp_path / "0", tmp_path / "1")


# Kill and resume


def assert_same_run(one, other):
    """Weights, moments, losses of every step and of the held-out part, bit for bit."""
    ours, theirs = load_file(one / FILE), load_file(other / FILE)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path, text, run):
    # With a save after every step most kills hit a run that is writing.
    options = [*OPTIONS, "--steps", "120", "--eval-every", "40", "--save-every", "1"]
    process = command("train", text, "--out", tmp_path / "killed", *options)
    killed_at = 0
    while killed_at < 8:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
        if (tmp_path / "killed" / FILE).exists():
            killed_at = State.read(tmp_path / "killed").step
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = State.read(tmp_path / "killed").step
    assert 8 <= killed_at < 120
    weights.load(tmp_path / "killed")  # a checkpoint at any time

    options += ["--save-every", "120"]
    code, _, err = run("train", str(text), "--out", str(tmp_path / "killed"), *options, "--resume")
    assert (code, f"from step {killed_at} to 120" in err) == (0, True)
    assert run("train", str(text), "--out", str(tmp_path / "whole"), *options)[0] == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*"))


def test_a_run_whose_time_is_up_goes_on(tmp_path, text, run):
    code, out, _ = run("train", str(text), "--out", str(tmp_path / "short"), *OPTIONS, "--minutes", "1e-9", "--json")
    document = json.loads(out)
    assert (code, document["steps"], document["finished"], document["held_out_loss"]) == (0, 1, False, None)
    assert run("train", str(text), "--out", str(tmp_path / "short"), *OPTIONS, "--resume")[0] == 0
    assert run("train", str(text), "--out", str(tmp_path / "whole"), *OPTIONS)[0] == 0
    assert_same_run(tmp_path / "short", tmp_path / "whole")


def test_two_runs_do_not_share_a_folder(tmp_path, text):
    first, second = training(tmp_path, text), training(tmp_path, text)
    first.out.mkdir()
    with (
        locked(first.out),
        pytest.raises(ValueError, match=r"^out: expected a folder that no other run writes to, got"),
    ):
        first.run()
    first.run()
    before = (first.out / FILE).read_bytes()
    with pytest.raises(ValueError, match=r"^out: expected a new or empty folder, got .* that holds a run"):
        second.run()
    assert (first.out / FILE).read_bytes() == before


def test_a_finished_run_can_be_resumed_for_nothing(tmp_path, text):
    result = train(text, tmp_path / "out", SMALL, CHARACTERS)
    (tmp_path / "out" / "model.safetensors").unlink()  # as if killed between the state and the checkpoint
    again = train(text, tmp_path / "out", resume=True)
    assert (again.losses, again.held_out, again.tokens) == (result.losses, result.held_out, 0)
    assert weights.load(tmp_path / "out").config.hidden_size == 32


def test_what_a_killed_writer_left_is_cleared_away(tmp_path, text):
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / f".{FILE}.1.partial"
    left.write_bytes(b"half")
    train(text, tmp_path / "out", SMALL, CHARACTERS)
    assert not left.exists()


def test_other_threads_are_allowed_and_said(tmp_path, text, threads):
    train(text, tmp_path / "out", SMALL, CHARACTERS)
    threads(2)
    with pytest.warns(UserWarning, match="^threads: the run in .* had 1 and goes on with 2"):
        train(text, tmp_path / "out", resume=True)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_save(tmp_path, text):
    config = replace(SMALL, learning_rate=1e38, save_every=1)
    with pytest.raises(
        ValueError, match=r"^learning_rate: expected one that keeps loss and weights finite, got 1e\+38"
    ):
        train(text, tmp_path / "out", config, CHARACTERS)
    state = State.read(tmp_path / "out")
    assert state.step < SMALL.steps
    assert all(tensor.isfinite().all() for tensor in (state.losses, state.norms, *state.parameters.values()))


# Files


def test_files_follow_the_umask(tmp_path, text):
    before = os.umask(0o027)
    try:
        train(text, tmp_path / "out", SMALL, CHARACTERS)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o640}
    assert {"config.json", "model.safetensors", "tokenizer.json", FILE} <= modes.keys()


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    file = tmp_path / "file"
    file.write_text("before")

    def write():
        with replacing(file) as beside:
            beside.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "before")]


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in {"b/one.txt": "B", "a.md": "\ufeffA", ".git": "no", "empty": " \n", "c": "C"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path) == ["A", "B", "C"]


# The command


def test_the_command_prints_the_course_the_samples_and_the_result(tmp_path, text, run):
    code, out, err = run("train", str(text), "--out", str(tmp_path / "out"), *OPTIONS, "--sample", "the sky")
    assert code == 0
    assert out.startswith("held-out loss ")
    assert out.endswith(f"wrote {tmp_path / 'out'}\n")
    lines = err.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split(":")[0] for line in steps] == ["step 2/6", "step 4/6", "step 6/6"]
    assert all(word in steps[0] for word in ("loss", "tokens/s", "held-out", "perplexity", "left"))
    # The last sample is what the checkpoint gives with the seed of the run.
    params = warpdraw.SamplingParams(seed=0, max_tokens=9)
    text = warpdraw.generate(weights.load(tmp_path / "out"), "the sky", params)[0].text
    assert err.endswith(f"the sky{text}\n")


def test_the_document_has_the_course(tmp_path, text, run):
    code, out, _ = run("train", str(text), "--out", str(tmp_path / "out"), *OPTIONS, "--json")
    document = json.loads(out)
    assert (code, document["finished"], document["steps"], len(document["losses"])) == (0, True, 6, 6)
    assert [step for step, _ in document["held_out"]] == [2, 4, 6]
    assert document["perplexity"] == pytest.approx(math.exp(document["held_out_loss"]))
    assert (document["config"]["hidden"], document["text"]["characters"]) == (32, True)


def test_the_curve_is_a_picture(tmp_path, text, run):
    pytest.importorskip("matplotlib")
    options = [option for option in OPTIONS if option != "--no-plot"]
    assert run("train", str(text), "--out", str(tmp_path / "out"), *options)[0] == 0
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named_before_anything_is_done(tmp_path, text, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("train", str(text), "--out", str(tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'warpdraw[train]'" in err
    assert not (tmp_path / "out").exists()


BAD_TEXTS = {
    b"": "{file}: expected text to train on, got an empty file",
    b" \n\n": "{file}: expected text to train on, got an empty file",
    b"plain\0text": "{file}: expected text, got a NUL byte at offset 5",
    b"caf\xe9 au lait": "{file}: expected UTF-8, got byte 0xe9 at offset 3",
    b"ten tokens": "text: expected more than context (16) tokens to train on, got 9 "
    "(a longer text, a smaller context or a smaller held_out)",
    b"twenty tokens, or so!": "held_out: expected 0 or a share of at least 2 tokens, got 1 token",
}


@pytest.mark.parametrize("content", BAD_TEXTS)
@pytest.mark.parametrize("folder", [False, True])
def test_bad_texts_are_refused(tmp_path, run, content, folder):
    file = tmp_path / "texts" / "text.txt"
    file.parent.mkdir()
    file.write_bytes(content)
    held_out = ("--held-out", "0.05") if content.startswith(b"twenty") else ()
    source = file.parent if folder else file
    code, out, err = run("train", str(source), "--out", str(tmp_path / "out"), *OPTIONS, *held_out)
    expected = BAD_TEXTS[content].format(file=file)
    if folder and "empty" in expected:
        expected = f"{source}: expected text to train on, got 1 empty files"
    assert (code, out, err) == (2, "", f"warpdraw: error: {expected}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--heads 3", "heads: expected half a divisor of hidden (32), got 3"),
        ("--hidden 30", "heads: expected half a divisor of hidden (30), got 2"),
        ("--kv-heads 3", "kv_heads: expected a divisor of heads (2), got 3"),
        ("--learning-rate 0", "learning_rate: expected a number greater than 0, got 0.0"),
        ("--learning-rate nan", "learning_rate: expected a number greater than 0, got nan"),
        ("--weight-decay -1", "weight_decay: expected a number of at least 0, got -1.0"),
        ("--clip 0", "clip: expected a number greater than 0, got 0.0"),
        ("--warmup -1", "warmup: expected an integer of at least 0, got -1"),
        ("--held-out 1", "held_out: expected a number of at least 0 and less than 1, got 1.0"),
        ("--seed -1", "seed: expected an integer from 0 to 2**63 - 1, got -1"),
        ("--dtype float16", "dtype: expected one of float32, bfloat16, got 'float16'"),
        ("--minutes 0", "minutes: expected more than 0, got 0.0"),
        ("--vocabulary 300", "vocabulary: expected none with --characters, got 300"),
        ("--model mlp", "model: expected no --model but with the text 'names', got 'mlp'"),
        ("--sample é", "text: expected characters that the tokenizer has a token for, got 'é'"),
        ("--sample the.sky.is.blue.the.sky", "sample: expected a prompt of 1 to 15 tokens, got 23"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_bad_options_are_refused(tmp_path, text, run, options, expected):
    code, _, err = run("train", str(text), "--out", str(tmp_path / "out"), *OPTIONS, *options.split())
    assert code == 2
    assert err.splitlines()[-1].startswith(f"warpdraw: error: {expected}")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_without_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"^vocabulary: expected an integer of at least 257, got 256$"):
        TextConfig(vocabulary=256)


def test_names_have_sizes_of_their_own(run):
    assert "error: layers: expected no --layers with the text 'names'" in run("train", "names", "--layers", "2")[2]
    assert "error: no_plot: expected no --no-plot with the text 'names'" in run("train", "names", "--no-plot")[2]


def test_names_are_trained_by_their_own_package(tmp_path, run):
    pytest.importorskip("warpdraw.names")
    assert run("train", "names", "--model", "rnn", "--out", str(tmp_path / "out"))[0] == 2
    code, out, _ = run("train", "names", "--model", "mlp", "--out", str(tmp_path / "out"), "--steps", "2", "--json")
    assert (code, json.loads(out)["path"]) == (0, str(tmp_path / "out"))
    assert (tmp_path / "out").is_dir()


def test_an_output_folder_that_is_in_use_is_left_alone(tmp_path, text, run):
    assert run("train", str(text))[2].startswith("warpdraw: error: out: expected a folder for the checkpoint")
    out = tmp_path / "out"
    assert run("train", str(text), "--out", str(text), *OPTIONS)[2].endswith(
        f"expected a folder, got the file {text}\n"
    )
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    err = run("train", str(text), "--out", str(out), *OPTIONS)[2]
    assert err == f"warpdraw: error: out: expected a new or empty folder, got {out} that holds thesis.txt\n"
    (out / "thesis.txt").unlink()
    train(text, out, SMALL, CHARACTERS)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    code, _, err = run("train", str(text), "--out", str(out), *OPTIONS)
    assert (code, "holds a run (--resume goes on with it)" in err) == (2, True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    save_file({"weight": torch.zeros(2)}, path)


def without_a_tensor(path):
    change(path, lambda tensors, record: tensors.pop("exp_avg.norm.weight"))


def of_another_shape(path):
    change(path, lambda tensors, record: tensors.update({"model.norm.weight": torch.zeros(5)}))


def of_another_format(path):
    change(path, lambda tensors, record: record.update(format=99))


def of_another_step(path):
    change(path, lambda tensors, record: record.update(step=5))


def of_a_bad_config(path):
    change(path, lambda tensors, record: record["config"].pop("clip"))


def change(path, edit):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors, record = load_file(path), json.loads(metadata["training"])
    edit(tensors, record)
    save_file(tensors, path, metadata | {"training": json.dumps(record)})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (Path.unlink, "resume: expected a folder with a run to go on with, got {out} without training.safetensors"),
        (cut, "resume: expected a whole state, got {file} that cannot be read ("),
        (empty, "resume: expected a whole state, got {file} that cannot be read ("),
        (foreign, "resume: expected a state of a training, got {file} without 'training'"),
        (without_a_tensor, "resume: expected exp_avg.norm.weight of shape [32], got None"),
        (of_another_shape, "resume: expected model.norm.weight of shape [32], got [5]"),
        (of_another_format, "resume: expected a state of format 1, got another one in {file}"),
        (of_another_step, "resume: expected a loss for each step, got 6 for 5 in {file}"),
        (of_a_bad_config, "resume: expected a whole state, got {file} with a bad entry (TrainingConfig: clip)"),
    ],
)
def test_a_broken_state_is_refused(tmp_path, text, run, damage, expected):
    out = tmp_path / "out"
    train(text, out, SMALL, CHARACTERS)
    damage(out / FILE)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    code, _, err = run("train", str(text), "--out", str(out), "--resume", "--no-plot")
    assert code == 2
    assert err.startswith(f"warpdraw: error: {expected.format(out=out, file=out / FILE)}")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--steps 7", "steps: expected 6, as the run in {out} has it, got 7"),
        ("--seed 1", "seed: expected 0, as the run in {out} has it, got 1"),
        ("--mlp 40", "mlp: expected 96, as the run in {out} has it, got 40"),
        ("--held-out 0.2", "held_out: expected 0.1, as the run in {out} has it, got 0.2"),
    ],
)
def test_another_configuration_is_refused(tmp_path, text, run, options, expected):
    out = tmp_path / "out"
    train(text, out, SMALL, CHARACTERS)
    code, _, err = run("train", str(text), "--out", str(out), "--resume", "--no-plot", *options.split())
    assert (code, err) == (2, f"warpdraw: error: {expected.format(out=out)}\n")


def test_another_text_is_refused(tmp_path, text, run):
    out = tmp_path / "out"
    train(text, out, SMALL, CHARACTERS)
    text.write_text(language(60, seed=1), encoding="utf-8")
    code, _, err = run("train", str(text), "--out", str(out), "--resume", "--no-plot")
    assert code == 2
    assert err.startswith(f"warpdraw: error: text: expected that of the run in {out} (SHA-256 of its tokens ")


# The page


PAGE = Path(__file__).parent.parent / "docs" / "training.md"


def commands():
    """The commands of the page, with fewer steps."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [re.sub(r"--steps \d+", "--steps 4", line) for line in lines]


def test_the_commands_of_the_page_run(tmp_path, run, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "examples").symlink_to(PAGE.parent.parent / "examples")
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("ignore")  # the program prints warnings
    for line in commands():
        program, *arguments = shlex.split(line.partition(" > ")[0])
        if program == "warpdraw":
            code, _, err = run(*arguments)
            assert code == 0, (line, err)
        else:
            line = line.replace("python", sys.executable, 1)
            subprocess.run(line.replace("60000", "2000"), shell=True, check=True)
    assert {"sky", "sky-2", "sky-3", "names"} <= {each.name for each in tmp_path.iterdir()}
    assert State.read(tmp_path / "sky-3").step == 4


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "sky.txt").write_text(language(2000), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = code.replace("steps=400", "steps=3").replace("1280", "280")
    exec(re.sub(r"^>>> ", "", code, flags=re.MULTILINE), {})
    assert weights.load("trained").config.hidden_size == 64
