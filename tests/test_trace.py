"""`warpdraw trace`: what is shown of a model is what the model computes, and what is drawn is what `sample` draws."""

import dataclasses
import json
import struct
import sys
import warnings

import families_zoo
import pytest
import torch
from small_model import small_model

import warpdraw
from warpdraw import SamplingParams
from warpdraw.cli.main import main
from warpdraw.cli.trace_output import TABLE_TOKENS, trace_lines
from warpdraw.model import weights
from warpdraw.model.recording import attention_watched, logits_from, outputs_watched
from warpdraw.model.transformer import Attention, Transformer
from warpdraw.tracing import STRATEGIES, trace
from warpdraw.tracing.picture import save_picture
from warpdraw.tracing.stages import record

FAMILIES = tuple(families_zoo.ZOO)
IDS = [5, 40, 7, 7, 91, 3, 22, 60, 14, 5, 33, 80, 2]  # more than the window of 7
SKY = "The sun is shining and the sky is"


@pytest.fixture(scope="module")
def target():
    return warpdraw.load("tiny-target")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A family's checkpoint, and the model of transformers that wrote it."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            theirs = families_zoo.write(name, folder)
            with warnings.catch_warnings():  # about contexts that are refused; they are not the matter here
                warnings.filterwarnings("ignore", message=".*max_position_embeddings")
                made[name] = weights.load(folder), theirs
        return made[name]

    return get


def attended(model):
    seen = []
    with torch.no_grad(), attention_watched(model, seen.append):
        model(torch.tensor([IDS]))
    return seen


# What the model computes


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_that_of_transformers_and_reproduces_the_output(zoo, name):
    ours, theirs = zoo(name)
    with torch.no_grad():
        expected = theirs(torch.tensor([IDS]), output_attentions=True).attentions
    seen = attended(ours.model)
    assert [each.layer for each in seen] == list(range(ours.config.layers))
    for each, gold in zip(seen, expected, strict=True):
        found = each.weights()
        torch.testing.assert_close(found, gold, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))
        assert not found.triu(1).any()
        torch.testing.assert_close(each.weights(first=9), found[:, :, 9:])
        values = each.value.repeat_interleave(ours.config.heads // ours.config.kv_heads, dim=2)
        torch.testing.assert_close(torch.einsum("bhts,bshd->bthd", found, values), each.mixed, atol=1e-5, rtol=1e-4)


def test_the_window_is_in_the_weights(zoo):
    first, _, last = (each.weights()[0] for each in attended(zoo("qwen2-window")[0].model))
    assert first[:, -1, :6].all()
    assert not last[:, -1, :6].any()
    assert last[:, -1, 6:].all()


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("head", range(4))
def test_the_attention_is_of_the_layer_and_the_head_that_were_asked_for(zoo, layer, head):
    ours, theirs = zoo("llama-gqa")
    with torch.no_grad():
        expected = theirs(torch.tensor([IDS]), output_attentions=True).attentions
    found = record(ours.model, IDS, layer, head).attention
    assert (found.layer, found.head) == (layer, head)
    difference = torch.stack([(gold[0] - torch.tensor(found.weights)).abs().amax((1, 2)) for gold in expected])
    assert difference[layer, head] < 2e-5
    assert (difference < 0.01).sum() == 1  # no other head would pass for it


def test_whatever_attention_does_to_the_scores_is_in_the_weights(zoo, monkeypatch):
    ours, _ = zoo("llama-gqa")

    def capped(self, query, key, value, positions):
        group = self.heads // self.kv_heads
        key, value = (part.repeat_interleave(group, dim=2) for part in (key, value))
        scores = 2.0 * (torch.einsum("bthd,bshd->bhts", query, key) * 0.3 / 2.0).tanh()
        scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf)
        return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), value)

    before = [each.weights() for each in attended(ours.model)]
    monkeypatch.setattr(Attention, "_attend", capped)
    for each, plain in zip(attended(ours.model), before, strict=True):
        found = each.weights()
        values = each.value.repeat_interleave(2, dim=2)
        torch.testing.assert_close(torch.einsum("bhts,bshd->bthd", found, values), each.mixed, atol=1e-5, rtol=1e-4)
        assert (found - plain).abs().max() > 0.01


def test_without_a_layer_and_a_head_it_is_the_sharpest_view(zoo):
    ours, _ = zoo("llama-gqa")
    views = torch.stack([each.weights()[0, :, -1, 1:-1].amax(-1) for each in attended(ours.model)])
    for layer, head in ((None, None), (1, None), (None, 2)):
        found = record(ours.model, IDS, layer, head).attention
        allowed = views[slice(None) if layer is None else [layer]][:, slice(None) if head is None else [head]]
        assert views[found.layer, found.head] == allowed.max()
        assert layer in (None, found.layer)
        assert head in (None, found.head)


def test_a_view_of_the_first_token_is_not_a_sharp_one(target):
    ids = target.tokenizer.encode("The sky is")
    at_first = torch.tensor(record(target.model, ids, 1, 1).attention.weights)[-1]
    found = record(target.model, ids, 1).attention
    assert at_first.argmax() == 0
    assert found.head != 1
    assert max(found.weights[-1][1:-1]) < at_first[0]


def test_a_watched_model_is_as_it_was(zoo):
    model = zoo("llama-gqa")[0].model
    parts = {name: set(vars(module)) for name, module in model.named_modules()}

    def fail(*_):
        raise RuntimeError("stop")

    for watched in (attention_watched, outputs_watched):
        with pytest.raises(RuntimeError, match="stop"), watched(model, fail):
            model(torch.tensor([IDS]))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == parts
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_have_every_parameter_once(zoo, name):
    ours, _ = zoo(name)
    stages = record(ours.model, IDS).stages
    assert sum(stage.parameters for stage in stages) == sum(each.numel() for each in ours.model.parameters())
    shapes = {stage.name: stage.shape for stage in stages}
    config, count = ours.config, len(IDS)
    assert shapes["embedding"] == shapes["attention"] == shapes["mlp"] == (1, count, config.hidden_size)
    assert shapes["queries"] == (1, count, config.heads, config.head_dim)
    assert shapes["keys"] == shapes["values"] == (1, count, config.kv_heads, config.head_dim)
    head = "head, tied to the embedding" if config.tied else "head"
    assert shapes[head] == (1, 1, config.vocab_size)
    assert [stage.block for stage in stages if stage.name == "queries"] == list(range(config.layers))
    assert ("position embedding" in shapes) == (config.positions == "learned")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lens_is_the_model_without_its_last_blocks(zoo, name):
    model = zoo(name)[0].model
    tokens, recorded = torch.tensor([IDS]), record(zoo(name)[0].model, IDS)
    blocks = model.blocks
    try:
        for count, hidden in enumerate(recorded.hidden, 1):
            found = logits_from(model, hidden, tokens[:, -1:])
            model.blocks = blocks[:count]
            torch.testing.assert_close(found, model(tokens, last=True))
            model.blocks = blocks
    finally:
        model.blocks = blocks
    assert len(recorded.hidden) == len(blocks)


# What is drawn


def test_the_distribution_is_the_softmax_of_the_logits(target):
    traced = trace(target, SKY, candidates=1264)
    ids = [token.id for token in traced.tokens]
    assert ids == target.tokenizer.encode(SKY)
    with torch.no_grad():
        logits = target.model(torch.tensor([ids]))[0, -1].double()
    expected = logits.softmax(-1)
    assert len(traced.top) == traced.vocabulary == 1264
    assert traced.rest == pytest.approx(0, abs=1e-6)
    for score in traced.top:
        assert score.probability == pytest.approx(float(expected[score.id]), rel=1e-4, abs=1e-12)
        assert score.logit == pytest.approx(float(logits[score.id]), abs=1e-4)
    assert [score.probability for score in traced.top] == sorted((s.probability for s in traced.top), reverse=True)
    assert traced.layers[-1].leading_probability == pytest.approx(traced.top[0].probability, rel=1e-4)


LONG = "The sky is blue and the air is warm. In summer the days are long, and the grass is green. " * 2


@pytest.mark.parametrize("text", ["The sky is", SKY, LONG])
@pytest.mark.parametrize("seed", [0, 7, -3])
def test_strategies_keep_and_draw_what_sample_and_generate_do(target, text, seed):
    more = {**STRATEGIES, "hot": {"temperature": 3.0}, "xtc": {"xtc_probability": 1.0, "order": "llama.cpp"}}
    traced = trace(target, text, candidates=1264, strategies=more, seed=seed)
    ids = [token.id for token in traced.tokens]
    with torch.inference_mode():
        cache = warpdraw.model.KVCache(target.config, 1, len(ids))
        logits = target.model.read(ids, cache, 0, 512)[:, -1]
    for strategy in traced.strategies:
        arguments = more[strategy.name]
        settings = {**arguments, "seed": seed, "position": len(ids)}
        kept = warpdraw.filter_logits(logits, **settings)[0] > -torch.inf
        assert {each.id for each in strategy.candidates if each.kept} == set(kept.nonzero()[:, 0].tolist())
        assert strategy.kept == int(kept.sum())
        assert sum(each.probability for each in strategy.candidates) == pytest.approx(1, abs=1e-4)
        assert strategy.drawn.id == int(warpdraw.sample(logits, **settings).tokens[0])
        params = SamplingParams(**arguments, seed=seed, max_tokens=1)
        assert [strategy.drawn.id] == warpdraw.generate(target, text, params)[0].token_ids


def test_a_text_longer_than_a_part_is_read_as_generation_does():
    model = small_model(context=700)
    text = "The quick brown fox. " * 30
    traced = trace(model, text, candidates=257, strategies={"hot": {"temperature": 1.0}}, seed=5)
    assert len(traced.tokens) > 512
    drawn = warpdraw.generate(model, text, SamplingParams(seed=5, max_tokens=1, logprobs=257))[0]
    assert traced.strategies[0].drawn.id == drawn.token_ids[0]
    logits = torch.tensor([[score.logit for score in sorted(traced.top, key=lambda score: score.id)]])
    again = warpdraw.sample(logits, top_n=257)
    pairs = zip(again.top_ids[0].tolist(), again.top_logprobs[0].tolist(), strict=True)
    assert tuple(pairs) == drawn.logprobs[0].top  # in the same bits


def test_what_a_head_is_padded_with_is_not_shown(zoo):
    ours, _ = zoo("llama-gqa")
    fewer = {letter: i for letter, i in families_zoo.byte_tokenizer().get_vocab().items() if i < 90}
    backend = type(ours.tokenizer.backend)(families_zoo.tokenizers.models.BPE(fewer, []))
    padded = dataclasses.replace(ours, tokenizer=warpdraw.model.Tokenizer(backend))
    traced = trace(padded, "abc", candidates=96)
    assert traced.vocabulary == 90
    assert {score.id for score in traced.top} == set(range(90))
    assert max(strategy.kept for strategy in traced.strategies) <= 90


def test_strategies_that_draw_other_tokens_show_each_others(target):
    traced = trace(
        target, "The sky is", candidates=1, strategies={"hot": {"temperature": 50.0}, "greedy": {"top_k": 1}}
    )
    hot, greedy = traced.strategies
    assert hot.drawn.id not in (traced.top[0].id,)
    assert [each.id for each in hot.candidates] == [each.id for each in greedy.candidates] == [587, hot.drawn.id]
    assert [each.kept for each in greedy.candidates] == [True, False]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", ""], "text: expected at least one token, got none"),
        (["trace", "a\udcff"], "text is not valid Unicode"),
        (["trace", "The sky " * 300], "text: expected fewer tokens than the context of 512, got 602"),
        (["trace", "a", "--layer", "2"], "layer: expected an integer in [0, 1], got 2"),
        (["trace", "a", "--head", "-1"], "head: expected an integer in [0, 3], got -1"),
        (["trace", "a", "--head", "x"], "expected an integer, got 'x'"),
        (["trace", "a", "--candidates", "1265"], "candidates: expected an integer in [1, 1264], got 1265"),
        (["trace", "a", "--candidates", "0"], "expected an integer of at least 1, got 0"),
        (["trace", "a", "--seed", str(2**63)], "seed: expected an integer in"),
        (["trace", "a", "--strategy", "top_q=1"], "expected NAME=NUMBER,... with a NAME of temperature,"),
        (["trace", "a", "--strategy", "top_k"], "got 'top_k'"),
        (["trace", "a", "--strategy", "top_k=1.5"], "got 'top_k=1.5'"),
        (["trace", "a", "--strategy", "repetition_penalty=2"], "got 'repetition_penalty=2'"),
        (["trace", "a", "--strategy", "top_k=1,top_k=2"], "expected each NAME once, got 'top_k=1,top_k=2'"),
        (["trace", "a", "--strategy", "temperature=nan"], "temperature: expected a number in"),
        (["trace", "a", "--strategy", "top_p=2"], "top_p: expected a number in [0, 1], got 2.0"),
        (["trace", "a", "--picture", "attention.svg"], "picture: expected a file name that ends in .png"),
        (["trace", "a", "--picture", "/nowhere/at/all.png"], "No such file or directory"),
        (["trace", "The sky " * 70, "--picture", "a.png"], "picture: expected a text of at most 128 tokens, got 142"),
        (["trace", "a", "--device", "tpu"], "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (
            ["trace", "a", "--only", "heads"],
            "only: expected one of tokens, shapes, attention, layers, next, strategies",
        ),
        (["trace"], "TEXT"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_bad_arguments_in_python(target):
    with pytest.raises(TypeError, match="text: expected a str, got 3"):
        trace(target, 3)
    with pytest.raises(TypeError, match="layer: expected an integer in"):
        trace(target, "a", layer=1.0)
    with pytest.raises(ValueError, match="top_p"):
        trace(target, "a", strategies={"bad": {"top_p": 2.0}})
    with pytest.raises(TypeError, match="top_q"):
        trace(target, "a", strategies={"bad": {"top_q": 2.0}})
    with pytest.raises(ValueError, match="strategies: expected at least one, got none"):
        trace(target, "a", strategies={})
    model = small_model(context=2000)
    with pytest.raises(ValueError, match="text: expected at most 1024 tokens, got 1025"):
        trace(model, "a" * 1025)
    assert len(trace(model, "a" * 100).tokens) == 100


def test_a_model_without_logits_is_an_error():
    model = small_model()
    broken = dataclasses.replace(model, model=Transformer(model.config))
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="all NaN or -inf"):
        trace(broken, "abc")


def test_the_picture_needs_the_extra(target, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'warpdraw\[train\]'"):
        save_picture(trace(target, "a"), tmp_path / "a.png")


# What is printed


def test_json_is_the_whole_trace(run, target):
    code, out, err = run("trace", SKY, "--json", "--layer", "1", "--head", "2", "--seed", "3")
    document = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    traced = trace(target, SKY, layer=1, head=2, seed=3)
    assert (code, err, document.pop("model")) == (0, "", "tiny-target")
    assert document == json.loads(json.dumps(dataclasses.asdict(traced)))
    assert (document["attention"]["layer"], document["attention"]["head"]) == (1, 2)
    assert len(document["attention"]["weights"]) == len(document["tokens"]) == 9


def test_the_picture_is_a_png_that_grows_with_the_text(run, tmp_path):
    sizes = []
    for text in ("a", SKY, "The $sky$ _is_ \u5929 " * 4):
        path = tmp_path / "attention.png"
        code, _, err = run("trace", text, "--picture", str(path))
        assert (code, err) == (0, "")
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert 200 < height < width < 5000
        sizes.append(width)
    assert sizes == sorted(set(sizes))


def test_a_long_text_is_folded(target):
    count = 100
    traced = trace(small_model(), "a" * count)
    lines = [line.plain for line in trace_lines(traced)]
    assert max(map(len, lines)) < 120
    begin = lines.index(f"attention, block {traced.attention.layer}, head {traced.attention.head}")
    end = lines.index("", begin)
    assert end - begin == TABLE_TOKENS + 4
    assert f"there are {count - TABLE_TOKENS} before" in lines[begin + 1]
    assert len(lines) < 120


def test_blocks_alike_are_shown_once(zoo):
    ours, _ = zoo("llama-gqa")
    lines = [line.plain for line in trace_lines(trace(ours, "abcdef"))]
    assert sum("blocks 0 to 2, each" in line for line in lines) == 1
    assert sum("queries" in line for line in lines) == 1
    ours.model.blocks[1].mlp.down.bias = torch.nn.Parameter(torch.zeros(64))
    try:
        lines = [line.plain.strip() for line in trace_lines(trace(ours, "abcdef"))]
    finally:
        ours.model.blocks[1].mlp.down.bias = None
    assert [line for line in lines if line.startswith("block ")][:3] == ["block 0", "block 1", "block 2"]


def test_the_layers_say_who_else_leads(zoo):
    traced = trace(zoo("llama-gqa")[0], "abcdef")
    lines = [line.plain for line in trace_lines(traced)]
    begin = lines.index("the leading token, if the model ended after")
    shown = lines[begin + 1 : lines.index("", begin)]
    assert len(shown) == len(traced.layers) == 3
    assert [", behind" in line for line in shown] == [view.id != traced.top[0].id for view in traced.layers]
    assert ", behind" in shown[0]
    assert ", behind" not in shown[-1]
    deep = dataclasses.replace(
        traced, layers=tuple(dataclasses.replace(traced.layers[-1], blocks=i + 1) for i in range(80))
    )
    listed = [line.plain for line in trace_lines(deep) if line.plain.startswith("  block ")]
    assert len(listed) <= 12
    assert listed[-1].startswith("  block 79 ")


def test_shades_follow_the_weights(target):
    traced = trace(target, SKY)
    for unicode, most, least in ((True, "█", "·"), (False, "#", ".")):
        lines = [line.plain for line in trace_lines(traced, unicode=unicode)]
        assert unicode or all(line.isascii() for line in lines)
        row = next(line for line in lines if line.endswith('7 " sky"'))
        assert f"{7 * 2 * least}{2 * most}{2 * least}" in row
        assert "99.9%" in row or "100.0%" in row


def test_nothing_but_text_where_there_is_no_terminal(run):
    code, out, err = run("trace", "The sky is")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert run("trace", "The sky is")[1] == out


def test_only_some_parts(run):
    whole = run("trace", "The sky is")[1].split("\n\n")
    assert len(whole) == 7  # the strategies are two tables
    _, some, _ = run("trace", "The sky is", "--only", "next", "--only", "tokens")
    assert some.rstrip("\n").split("\n\n") == [whole[0], whole[4]]
    assert run("trace", "The sky is", "--only", "strategies")[1] == "\n\n".join(whole[5:])


def test_the_options_for_strategies(run):
    options = ["--strategy", "temperature=2,top_p=0.5", "--strategy", "typical_p=0.4", "--seed", "7"]
    code, out, _ = run("trace", "The sky is", *options, "--json")
    strategies = json.loads(out)["strategies"]
    assert code == 0
    assert [each["name"] for each in strategies] == ["temperature=2,top_p=0.5", "typical_p=0.4"]
    assert [each["arguments"] for each in strategies] == [{"temperature": 2.0, "top_p": 0.5}, {"typical_p": 0.4}]
    assert [(each["kept"], each["drawn"]["text"]) for each in strategies] == [(3, " blue"), (2, " clear")]


def test_any_checkpoint(zoo, run, tmp_path):
    families_zoo.write("gpt2-tied", tmp_path)
    assert main(["trace", "abc", "--model", str(tmp_path)]) == 0
    assert "position embedding" in run("trace", "abc", "--model", str(tmp_path))[1]
