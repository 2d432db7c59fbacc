"""The tiny language knows its own probabilities, and the models in the box have learned them."""

from __future__ import annotations

import doctest
import importlib.util
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from typer import Typer
from typer.testing import CliRunner, Result

from warpdraw.model import Transformer, weights

MODELS = ("tiny-target", "tiny-draft")
TOLERANCE = 0.03  # largest error of a next-word probability of the target
SENTENCES = 200_000


def example(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "tiny" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


language = example("language")
train = example("train")


@pytest.fixture(scope="module")
def target() -> weights.Checkpoint:
    return weights.load("tiny-target")


@pytest.fixture(scope="module")
def draft() -> weights.Checkpoint:
    return weights.load("tiny-draft")


@pytest.fixture(scope="module")
def sentences_before() -> dict[str, str]:
    """For each place in a document, sentences that lead to it."""
    before: dict[str, str] = {}
    documents = language.join(islice(language.speak(11), 200_000)).split(language.END)
    for document in documents[:-1]:
        *earlier, _ = document.rstrip(".").split(". ")
        if earlier:
            (place,) = language.places(document)
            before.setdefault(place, ". ".join(earlier) + ".")
    return before


def after_sentences(contexts: list[str], before: dict[str, str]) -> list[str]:
    return [f"{before[place]} {context}" for context in contexts for place in language.places(context)]


def chi_square(seen: Counter[str], chances: dict[str, float]) -> tuple[float, float]:
    """The statistic, infinite if a word was seen that has no chance; and the bound that it has to stay under."""
    if set(seen) - set(chances):
        return float("inf"), 0.0
    total, degrees = seen.total(), len(chances) - 1
    statistic = sum((seen[word] - total * chance) ** 2 / (total * chance) for word, chance in chances.items())
    return statistic, degrees + 10 * (2 * degrees) ** 0.5


# The language


def test_the_stated_distributions() -> None:
    sky = {"blue": 0.35, "clear": 0.25, "cloudy": 0.17, "grey": 0.10, "dark": 0.08, "bright": 0.05}
    assert language.next_words("The sky is") == sky
    assert language.next_words("The sky is cloudy and the") == {"air": 0.55, "wind": 0.45}
    assert language.next_words("The sun is shining and the sky is") == {"blue": 0.45, "clear": 0.3, "bright": 0.25}
    assert language.next_words("My cat") == {"likes": 0.5, "sleeps": 0.5}  # two of the sentences begin so
    assert language.next_words("The sky is dark and the stars are bright.")[language.END] == 0.2


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(language) == (0, 1)


def test_there_are_hundreds_of_sentences_and_choice_points() -> None:
    stages = [stage for _, (stage,) in language.RULES[language.START]]
    assert sum(len(language.RULES[stage]) for stage in stages) >= 300
    assert len(language.contexts()) == len(set(language.contexts())) >= 500


def test_every_distribution_sums_to_one_and_ignores_earlier_sentences(sentences_before: dict[str, str]) -> None:
    contexts = language.contexts()
    for context, later in zip(contexts, after_sentences(contexts, sentences_before), strict=True):
        chances = language.next_words(context)
        assert len(chances) > 1
        assert sum(chances.values()) == pytest.approx(1)
        assert language.next_words(later) == pytest.approx(chances, abs=1e-8)


def test_sampled_sentences_have_the_probabilities() -> None:
    contexts = ["The sky is", "My cat sleeps on the", "The cat drinks", "Her umbrella is", "I wake up at"]
    contexts += ["The wind is cold and it comes from the", "Tomorrow it will be", "The king had"]
    seen: dict[tuple[str, ...], Counter[str]] = {tuple(language.split(context)): Counter() for context in contexts}
    said: tuple[str, ...] = ()
    sentences = documents = 0
    for word in language.speak(5):
        if said in seen:
            seen[said][word] += 1
        said = () if word in (".", language.END) else (*said, word)
        sentences += word == "."
        documents += word == language.END
        if sentences == SENTENCES:
            break
    for context, counts in zip(contexts, seen.values(), strict=True):
        known = language.next_words(context)
        statistic, bound = chi_square(counts, known)
        assert statistic < bound, context
        statistic, bound = chi_square(counts, dict.fromkeys(known, 1 / len(known)))
        assert statistic > bound, f"{context}: uniform was not rejected"
    assert documents / sentences == pytest.approx(0.2, abs=0.005)


def test_the_entropy_is_that_of_sampled_text() -> None:
    nats, words = language.entropy()
    text = list(islice(language.speak(6), 500_000))
    surprise = -sum(math.log(chances[word]) for word, chances in zip(text, language.along(text), strict=True))
    assert surprise / len(text) == pytest.approx(nats / words, rel=0.01)
    assert len(text) / text.count(language.END) == pytest.approx(words, rel=0.03)


def test_text_is_split_and_joined() -> None:
    words = ["It", "is", "raining", ",", "so", "stay", ".", language.END, "We", "sing", "."]
    assert language.join(words) == "It is raining, so stay.<|endoftext|>We sing."
    assert language.split(language.join(words)) == words


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("[a]\nIt is (50 hot | 40 cold)", r"line 2 .*\(50 hot \| 40 cold\) must give .* together 100"),
        ("[a]\nIt is (60 hot | cold)", r"line 2 .*must give each of its words a percentage"),
        ("[a]\nIt is <hot>", r"line 2 .*no line gives the slot <hot>"),
        ("It is hot", r"line 1 .*a sentence needs a \[topic\] above it"),
    ],
)
def test_a_broken_grammar_is_refused(grammar: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        language.parse(grammar)


def test_a_context_that_the_language_never_says_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context is 'The sky was blue'; where it says 'was' it may say is"):
        language.next_words("The sky was blue")


# The tokenizer


@pytest.mark.parametrize("name", MODELS)
def test_every_word_is_one_token(name: str) -> None:
    tokenizer = weights.load(name).tokenizer
    text = list(islice(language.speak(7), 300_000))
    pieces = {word if previous == language.END else language.join(["", word]) for previous, word in pairwise(text)}
    assert len(pieces) > 500
    assert [piece for piece in pieces if len(tokenizer.encode(piece)) != 2] == []  # <|endoftext|> and the word
    assert tokenizer.vocab_size <= 1280


def test_a_prompt_begins_a_document(target: weights.Checkpoint, draft: weights.Checkpoint) -> None:
    end = target.tokenizer.backend.token_to_id(language.END)
    assert list(target.eos_ids) == list(draft.eos_ids) == [end]
    ids = target.tokenizer.encode("The sky is")
    assert ids[0] == end
    assert len(ids) == 4
    assert draft.tokenizer.encode("The sky is") == ids
    for text in ("The sky is blue, so we sing.", "Zoë naïvely typed 東京 🙂\n\ttwice"):
        assert target.tokenizer.decode(target.tokenizer.encode(text)) == text


# The models


def next_token_chances(checkpoint: weights.Checkpoint, contexts: list[str]) -> list[dict[str, float]]:
    """For each context, the model's probability of every token, by its text without the space before it."""
    encoded = [checkpoint.tokenizer.encode(context) for context in contexts]
    same_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(encoded):
        same_length[len(ids)].append(index)
    names = [checkpoint.tokenizer.token_text(token) for token in range(checkpoint.config.vocab_size)]
    chances: list[dict[str, float]] = [{}] * len(contexts)
    for indices in same_length.values():
        with torch.no_grad():
            logits = checkpoint.model(torch.tensor([encoded[index] for index in indices]))[:, -1]
        for index, row in zip(indices, logits.softmax(-1).tolist(), strict=True):
            chances[index] = dict(zip(names, row, strict=True))
    return chances


def largest_error(said: dict[str, float], known: dict[str, float]) -> float:
    """The largest error over all tokens; a token that begins no word of `known` should have probability 0."""
    wanted = {word if word in (".", ",") else f" {word}": chance for word, chance in known.items()}
    return max(abs(said.get(piece, 0.0) - wanted.get(piece, 0.0)) for piece in said.keys() | wanted.keys())


@pytest.mark.parametrize("later", [False, True], ids=["at the start", "after sentences"])
def test_the_target_knows_every_probability(
    later: bool, target: weights.Checkpoint, sentences_before: dict[str, str]
) -> None:
    contexts = language.contexts()
    texts = after_sentences(contexts, sentences_before) if later else contexts
    known = [language.next_words(context) for context in contexts]
    errors = [largest_error(*pair) for pair in zip(next_token_chances(target, texts), known, strict=True)]
    print(f"{len(errors)} contexts, error at most {max(errors):.4f}, {sum(errors) / len(errors):.4f} on average")
    assert max(errors) <= TOLERANCE, texts[errors.index(max(errors))]


def test_wrong_probabilities_are_rejected(target: weights.Checkpoint) -> None:
    contexts = language.contexts()
    known = [language.next_words(context) for context in contexts]
    said = next_token_chances(target, contexts)
    spelled = [{piece: chance for piece, chance in row.items() if chance > 0.01} for row in said]
    wrong = {
        "uniform over the right words": [dict.fromkeys(row, 1 / len(row)) for row in spelled],
        "how often the word is said anywhere": [language_unigram()] * len(contexts),
        "of the next context": said[1:] + said[:1],
        "a temperature of 0.8": [cooled(row, 0.8) for row in said],
    }
    for name, rows in wrong.items():
        errors = [largest_error(*pair) for pair in zip(rows, known, strict=True)]
        assert max(errors) > 2 * TOLERANCE, name


def language_unigram() -> dict[str, float]:
    counts = Counter(language.join(["", word]) for word in islice(language.speak(8), 100_000))
    return {piece: count / counts.total() for piece, count in counts.items()}


def cooled(chances: dict[str, float], temperature: float) -> dict[str, float]:
    powers = {piece: chance ** (1 / temperature) for piece, chance in chances.items()}
    return {piece: power / sum(powers.values()) for piece, power in powers.items()}


@pytest.fixture(scope="module", params=[128, 512])
def text(request: pytest.FixtureRequest, target: weights.Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Text that was never trained on, and the exact distribution of each next token."""
    length = request.param
    tokens, exact = train.Corpus(target.tokenizer, 9).batch(8192 // length, length)
    return tokens, exact


def distance(p: torch.Tensor, q: torch.Tensor) -> float:
    """The mean total variation."""
    return (p - q).abs().sum(-1).mean().item() / 2


def test_the_models_are_close_on_text(
    text: tuple[torch.Tensor, torch.Tensor], target: weights.Checkpoint, draft: weights.Checkpoint
) -> None:
    tokens, exact = text
    with torch.no_grad():
        p, q = target.model(tokens).softmax(-1), draft.model(tokens).softmax(-1)
    print(f"total variation: target to exact {distance(p, exact):.4f}, draft to target {distance(p, q):.4f}")
    assert distance(p, exact) < 0.01
    assert 0.02 < distance(p, q) < 0.25  # a good proposer, but one that is rejected now and then


def test_the_models_are_small() -> None:
    folders = [weights.load(name).path for name in MODELS]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 6_000_000
    sizes = [sum(value.numel() for value in weights.load(name).model.parameters()) for name in MODELS]
    assert 800_000 <= sizes[0] <= 1_200_000
    assert 80_000 <= sizes[1] <= 150_000
    for folder in folders:
        with safe_open(folder / "model.safetensors", "pt") as stored:
            assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_them(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    ours = weights.load(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(ours.path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(ours.path)
    for prompt in ("The sky is", "My cat", "The wind is cold and it comes from the sea. Today it is warm, so we"):
        ids = tokenizer(prompt).input_ids
        assert ids == ours.tokenizer.encode(prompt)
        tokens = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(ours.model(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    assert tokenizer.eos_token == tokenizer.bos_token == language.END
    assert tokenizer.decode(ids, skip_special_tokens=True) == prompt
    assert theirs.generation_config.eos_token_id in (ours.eos_ids[0], list(ours.eos_ids))


# The training


@pytest.mark.parametrize("count", [1, 2])
def test_training_twice_gives_equal_weights(
    count: int, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(count)
    monkeypatch.setattr(train, "BATCH", 512)
    tokenizer = train.train_tokenizer()
    recipe = train.RECIPES["tiny-target"]

    def trained() -> tuple[list[float], Transformer]:
        torch.manual_seed(3)
        model = Transformer(recipe.config(tokenizer.vocab_size))
        return list(train.train(model, train.Corpus(tokenizer, 4), recipe.rate, 20)), model

    (losses, first), (again, second) = trained(), trained()
    assert losses == again
    assert losses[-1] < losses[0] - 0.5
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_shipped_tokenizer_is_the_one_that_the_script_makes(target: weights.Checkpoint) -> None:
    assert train.train_tokenizer().backend.to_str() == target.tokenizer.backend.to_str()


def run(*arguments: str | Path) -> Result:
    application = Typer()
    application.command()(train.main)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_the_script_writes_both_checkpoints(tmp_path: Path, threads: Callable[[int], None]) -> None:
    pytest.importorskip("matplotlib")
    threads(1)
    result = run("--out", tmp_path / "new", "--steps", "3", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "entropy rate of the language 0.4494 nats a token" in result.output
    for name in MODELS:
        checkpoint = weights.load(tmp_path / "new" / name)
        assert checkpoint.tokenizer.encode("The sky is") == weights.load(name).tokenizer.encode("The sky is")
    assert (tmp_path / "new" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in [
        ((), "--out"),
        (("--out", tmp_path, "--steps", "0"), "--steps"),
        (("--out", tmp_path / "file"), "--out"),
        (("--out", tmp_path, "--threads", "0"), "--threads"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.output
