"""Names: the list, the two models of it against their definitions, what is drawn from them, and the commands."""

import doctest
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import warpdraw
from warpdraw import SamplingParams, generate, names
from warpdraw.generation.params import sample_seed
from warpdraw.model import CheckpointError
from warpdraw.names import alphabet, listing, mlp, picture

GUIDE = (Path(__file__).parent.parent / "docs" / "names.md").read_text(encoding="utf-8")
MODELS = {name: names.load(name) for name in ("mlp", "mlp-2d", "transformer")}


@pytest.fixture(params=MODELS)
def model(request):
    """Every shipped model in turn."""
    return MODELS[request.param]


def texts(drawn):
    return [each.name for each in drawn.names]


# the list


def test_the_list_has_distinct_names_of_letters_in_order():
    every = [name for members in names.names_by_origin().values() for name in members]
    assert len(every) == len(set(every)) == len(names.all_names()) >= 1500
    assert all(re.fullmatch("[a-z]+", name) for name in every)
    assert all(list(members) == sorted(members) for members in names.names_by_origin().values())
    assert max(map(len, every)) < alphabet.LONGEST


def test_the_file_holds_a_name_a_line_and_its_origins():
    lines = listing.FILE.read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch("|# [A-Z][A-Za-z, -]+|[a-z]+", line) for line in lines)
    assert sum(line.startswith("#") for line in lines) == len(names.names_by_origin())


def test_the_counts_of_the_note_are_those_of_the_file():
    rows = dict(re.findall(r"^\| ([A-Z][^|]*[^| ]) +\| +([\d,]+) \|$", GUIDE, flags=re.MULTILINE))
    counts = {origin: len(members) for origin, members in names.names_by_origin().items()}
    assert {origin: int(count.replace(",", "")) for origin, count in rows.items()} == counts
    assert f"{sum(counts.values()):,} given names" in GUIDE


def test_the_parts_share_no_name_and_are_the_whole():
    training, held_out = names.split()
    assert not set(training) & set(held_out)
    assert sorted(training + held_out) == list(names.all_names())


# the definitions


def test_the_mlp_is_its_definition():
    torch.manual_seed(0)
    network = names.Mlp(names.MlpConfig(context=3, embedding=2, hidden=64, layers=2)).eval()
    context = mlp.windows([[], [1, 2], [5, 4, 3, 2]], 3)
    assert context.tolist() == [[0, 0, 0], [0, 1, 2], [4, 3, 2]]
    weight = {name: tensor.detach().double().numpy() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        logits = network(context).numpy()
    for row, window in zip(logits, context.tolist(), strict=True):
        x = np.concatenate([weight["embedding.weight"][letter] for letter in window])
        for layer in ("hidden.0", "hidden.1"):
            x = np.tanh(weight[f"{layer}.weight"] @ x + weight[f"{layer}.bias"])
        expected = weight["head.weight"] @ x + weight["head.bias"]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_training_and_drawing_compute_the_same():
    network = MODELS["mlp"].model
    context = torch.randint(27, (70, network.config.context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawing = network(context)
    torch.testing.assert_close(network(context).detach(), drawing, rtol=1e-5, atol=1e-5)


def test_a_row_of_the_mlp_is_the_same_bits_in_any_batch():
    network = MODELS["mlp"].model
    context = torch.randint(27, (70, network.config.context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = network(context)
        for row in (0, 7, 64, 69):
            assert torch.equal(network(context[row : row + 1])[0], together[row])


def test_the_transformer_is_that_of_generate():
    """Its logits, in parts with a cache, are those of a whole sequence; and its names those of `generate`."""
    checkpoint = warpdraw.load("names-transformer")
    name = "venkatachalapathi"
    tokens = torch.tensor([checkpoint.tokenizer.encode(name)])
    with torch.no_grad():
        whole = checkpoint.model(tokens)[0]
    torch.testing.assert_close(MODELS["transformer"].logits(["asha", name])[1], whole, rtol=1e-4, atol=1e-4)
    params = SamplingParams(seed=3, n=5, max_tokens=17)
    completions = generate(checkpoint, "abi", params)
    drawn = names.generate(5, "abi", "transformer", SamplingParams(seed=3))
    assert texts(drawn) == ["abi" + each.text for each in completions]


# likelihood


def test_the_log_probability_is_the_sum_over_the_letters(model):
    for each in names.generate(8, "ra", model, SamplingParams(seed=5, temperature=1.5)).names:
        total = 0.0
        letters = alphabet.ids_of(each.name) + [alphabet.END] * each.ended
        for place, letter in enumerate(letters):
            logits = model.logits([each.name[:place]])[0][-1].double()
            total += float(logits.log_softmax(-1)[letter])
        assert each.logprob == pytest.approx(total, abs=1e-4)
        assert each.per_letter == pytest.approx(total / len(letters), abs=1e-5)


def test_the_probabilities_of_all_continuations_are_one(model):
    letters = names.letter_logprobs(model, ["ab", *("ab" + letter for letter in alphabet.LETTERS)])
    assert sum(np.exp(each[2]) for each in letters) == pytest.approx(1, abs=1e-5)
    assert all(each[:2] == letters[0][:2] for each in letters)


def test_a_name_that_was_cut_has_no_end(model):
    start = "ab" * 9 + "a"
    drawn = names.generate(30, start, model, SamplingParams(seed=1, temperature=3.0)).names
    cut = [each for each in drawn if not each.ended]
    assert cut
    for each in cut:
        letters = names.letter_logprobs(model, [each.name])[0]
        assert each.logprob == pytest.approx(sum(letters[:-1]))
        assert each.per_letter == pytest.approx(sum(letters[:-1]) / alphabet.LONGEST)


def test_the_likelihood_does_not_depend_on_how_a_name_was_drawn(model):
    first = names.generate(1, "", model, SamplingParams(seed=5, temperature=0.0)).names[0]
    again = names.generate(1, first.name[:-1], model, SamplingParams(seed=9, top_k=1)).names[0]
    assert again == first
    assert sum(names.letter_logprobs(model, [first.name])[0]) == pytest.approx(first.logprob)


# drawing


def test_the_same_seed_gives_the_same_names_for_any_count(model):
    params = SamplingParams(seed=11, temperature=1.2)
    many = names.generate(90, "s", model, params)
    assert names.generate(7, "s", model, params).names == many.names[:7]
    assert names.generate(90, "s", model, params) == many
    alone = names.generate(1, "s", model, SamplingParams(seed=sample_seed(11, 41), temperature=1.2))
    assert alone.names[0] == many.names[41]
    assert texts(names.generate(90, "s", model, SamplingParams(seed=12, temperature=1.2))) != texts(many)


def test_each_letter_is_a_draw_of_sample(model):
    """That of the name's own seed at the letter's place, the first letter's being 1."""
    params = {"temperature": 1.3, "top_k": 9, "top_p": 0.95, "min_p": 0.01}
    for number, each in enumerate(names.generate(4, "de", model, SamplingParams(seed=21, **params)).names):
        letters = alphabet.ids_of(each.name) + [alphabet.END] * each.ended
        for place in range(2, len(letters)):
            logits = model.logits([each.name[:place]])[0][-1:]
            drawn = warpdraw.sample(logits, seed=sample_seed(21, number), position=place + 1, **params)
            assert drawn.tokens.tolist() == [letters[place]]


@pytest.mark.parametrize("start", ["", "abi", "xq", "a" * (alphabet.LONGEST - 1)])
def test_names_begin_as_asked(model, start):
    drawn = names.generate(10, start, model, SamplingParams(seed=2))
    assert all(each.name.startswith(start) and len(each.name) <= alphabet.LONGEST for each in drawn.names)
    assert all(each.ended or len(each.name) == alphabet.LONGEST for each in drawn.names)


def test_new_is_what_the_list_does_not_have(model):
    drawn = names.generate(60, "", model, SamplingParams(seed=4))
    assert [each.new for each in drawn.names] == [name not in names.all_names() for name in texts(drawn)]
    assert drawn.share_new == sum(each.new for each in drawn.names) / 60
    assert drawn.share_repeated == pytest.approx((60 - len(set(texts(drawn)))) / 60)
    same = names.generate(4, "", model, SamplingParams(seed=4, temperature=0.0))
    assert same.share_repeated == 0.75


def test_the_filters_reach_the_draw(model):
    def first_letters(**filters):
        return {each.name[:1] for each in names.generate(60, "", model, SamplingParams(seed=1, **filters)).names}

    usual = first_letters()
    assert len(usual) > 8
    for filters in ({"top_k": 2}, {"top_p": 0.2}, {"min_p": 0.6}, {"temperature": 0.1}):
        assert len(first_letters(**filters)) < len(usual) / 2, filters


def test_most_names_are_new_and_few_come_twice(model):
    found = names.novelty(300, model, seed=0)
    assert found.share_new >= 0.6
    assert found.share_repeated <= 0.05


def test_names_look_like_names(model):
    """Letters in names that were drawn are as probable, by another model, as those of names that are real."""
    judge = MODELS["transformer" if model is MODELS["mlp"] else "mlp"]
    drawn = texts(names.generate(200, "", model, SamplingParams(seed=8)))
    _, held_out = names.split()

    def mean(of):
        letters = [each for name in names.letter_logprobs(judge, of) for each in name]
        return sum(letters) / len(letters)

    noise = ["".join(chr(97 + (7 * i * i + 3 * j * j * i) % 26) for j in range(7)) for i in range(200)]
    assert mean(drawn) > mean(held_out[:200]) - 0.5 > mean(noise) + 1


# training


@pytest.mark.parametrize(("kind", "steps"), [("mlp", 40), ("mlp-2d", 40), ("transformer", 12)])
def test_a_short_training_lowers_the_held_out_loss(kind, steps, tmp_path):
    reports = []
    trained = names.train(kind, tmp_path / "out", seed=1, steps=steps, report=lambda *each: reports.append(each))
    assert [each[:2] for each in reports] == [(step, steps) for step in range(1, steps + 1)]
    assert trained.held_out_loss < trained.first_loss - 0.3
    found = names.load(tmp_path / "out")
    assert trained.held_out_loss == pytest.approx(names.held_out_loss(found))
    assert trained.parameters == found.parameters
    assert len(names.generate(3, "abi", tmp_path / "out").names) == 3


def test_the_same_seed_trains_the_same_weights(tmp_path):
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        names.train("mlp", tmp_path / folder, seed=seed, steps=3)
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_the_shipped_models_have_learned_and_are_small():
    for kind, most in {"mlp": 2.02, "mlp-2d": 2.15, "transformer": 2.0}.items():
        assert names.held_out_loss(MODELS[kind]) < most
    folder = Path(warpdraw.__file__).parent / "models"
    assert sum(file.stat().st_size for file in folder.glob("names-*/*")) < 600_000


# the picture


def test_vowels_lie_together_in_the_picture():
    points, share = picture.plane(MODELS["mlp-2d"].table)
    assert share == 1
    vowels = points[alphabet.ids_of("aeiou")]
    others = points[alphabet.ids_of("bcdfghjklmnpqrstvwxyz")]
    nearest = [int(torch.cdist(vowel[None], torch.cat([vowels, others]))[0].topk(2, largest=False).indices[1] < 5)
               for vowel in vowels]  # fmt: skip
    assert sum(nearest) >= 4


def test_principal_components_keep_what_varies():
    table = torch.zeros(27, 5)
    table[:, 1], table[:, 3] = torch.arange(27.0), torch.arange(27.0) % 3
    points, share = picture.plane(table)
    assert share == pytest.approx(1)
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(table, table), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [(), ("--model", "transformer")])
def test_the_picture_is_a_png(run, tmp_path, options):
    code, out, _ = run("names", "--picture", str(tmp_path / "letters.png"), *options)
    assert (code, out) == (0, "")
    assert (tmp_path / "letters.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_without_matplotlib_the_extra_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    code, _, err = run("names", "--picture", str(tmp_path / "letters.png"))
    assert code == 2
    assert "pip install 'warpdraw[train]'" in err
    assert not list(tmp_path.iterdir())


# the command


def test_the_command_prints_what_python_gives(run, model):
    code, out, _ = run("names", "--count", "5", "--start", "abi", "--seed", "7", "--model", model.name, "--json")
    document = json.loads(out)
    drawn = names.generate(5, "abi", model, SamplingParams(seed=7))
    assert code == 0
    assert [each["name"] for each in document["names"]] == texts(drawn)
    assert document["share_new"] == drawn.share_new
    code, out, _ = run("names", "--count", "5", "--start", "abi", "--seed", "7", "--model", model.name)
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == texts(drawn)


def test_without_a_seed_the_one_drawn_is_told(run):
    code, out, err = run("names", "--count", "4", "--start", "abi")
    seed = re.search(r"--seed (\d+)", err)[1]
    assert (code, out) == run("names", "--count", "4", "--start", "abi", "--seed", seed)[:2]


def test_next_is_the_distribution_after_the_letters(run, model):
    code, out, _ = run("names", "--next", "abi", "--top-k", "4", "--model", model.name, "--json")
    rows = json.loads(out)["next"]
    assert code == 0
    assert len(rows) == 27
    assert sum(each["probability"] for each in rows) == pytest.approx(1, abs=1e-5)
    assert [each["kept"] for each in rows] == [True] * 4 + [False] * 23
    expected = np.exp([names.letter_logprobs(model, ["abi" + letter])[0][3] for letter in alphabet.LETTERS])
    found = {each["token"]: each["probability"] for each in rows}
    np.testing.assert_allclose([found[letter] for letter in alphabet.LETTERS], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start", "Abi"), "start: expected letters from a to z, got 'Abi'"),
        (("--start", "a b"), "start: expected letters from a to z, got 'a b'"),
        (("--start", "é"), "start: expected letters from a to z, got 'é'"),
        (("--start", "a" * 20), "start: expected at most 19 letters, because names have 20, got 20"),
        (("--next", "a" * 20), "next: expected at most 19 letters, because names have 20, got 20"),
        (("--next", "a1"), "next: expected letters from a to z, got 'a1'"),
        (("--model", "gpt"), "model: expected mlp, mlp-2d, transformer or a folder, got 'gpt'"),
        (("--count", "0"), "count: expected an integer from 1 to 100000, got 0"),
        (("--count", "many"), "expected an integer, got 'many'"),
        (("--top-p", "2"), "top_p: expected a number in [0, 1], got 2.0"),
        (("--next", "a", "--count", "3"), "count: expected none with --next, got 3"),
        (("--next", "a", "--picture", "a.png"), "picture: expected none with --next, got 'a.png'"),
        (("--picture", "a.svg"), "picture: expected a name that ends in .png, got 'a.svg'"),
        (("--picture", "no/such/a.png"), "picture: expected a file in an existing folder, got 'no/such/a.png'"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    code, out, err = run("names", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_another_checkpoint_is_refused(run):
    folder = Path(warpdraw.__file__).parent / "models" / "tiny-draft"
    code, _, err = run("names", "--model", str(folder))
    assert code == 2
    assert "model: expected one of names" in err


def test_a_broken_folder_is_refused(tmp_path):
    mlp.save(tmp_path, MODELS["mlp"].model, torch.float16)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden": 64}))
    with pytest.raises(CheckpointError, match=r"embedding.weight|head.weight|hidden"):
        names.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"layers": 1}))
    with pytest.raises(CheckpointError, match=r"hidden\.1"):
        names.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        names.load(tmp_path)


def test_training_by_command(run, tmp_path):
    out = tmp_path / "mine"
    code, printed, _ = run("train", "names", "--model", "mlp-2d", "--steps", "5", "--out", str(out))
    assert code == 0
    assert re.search(r"held-out loss \d\.\d+ nats a letter", printed)
    assert run("names", "--model", str(out), "--count", "2", "--seed", "1")[0] == 0
    code, _, err = run("train", "names", "--model", "mlp-2d", "--steps", "5", "--out", str(out))
    assert code == 2
    assert "out: expected a new or empty folder" in err


# the guide


def blocks(language):
    """The code of the guide in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def sessions():
    """The commands of the guide, and what it says that each prints."""
    several = [block.removeprefix("$ ").split("\n$ ") for block in blocks("console")]
    return [session.partition("\n")[::2] for sessions_of_block in several for session in sessions_of_block]


@pytest.mark.parametrize(("command", "printed"), sessions())
def test_a_command_of_the_guide_prints_what_it_says(command, printed, run):
    program, *arguments = shlex.split(command)
    code, out, _ = run(*arguments)
    assert (program, code) == ("warpdraw", 0)
    lines = [line.rstrip() for line in out.splitlines()]
    assert "\n".join(lines).rstrip("\n") == printed.rstrip("\n")


def test_the_python_of_the_guide_prints_what_it_says():
    test = doctest.DocTestParser().get_doctest("\n".join(blocks("python")), {}, "names.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 3
