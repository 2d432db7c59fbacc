"""Conversations: what is kept, what is left out, where answers end, and that nothing is lost when something fails."""

import dataclasses
import itertools
import json

import pytest
import torch
from chat_templates import ID_OF, TEMPLATES, VOCABULARY, backend, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from warpdraw import SamplingParams, generate, load
from warpdraw.chat import Chat, ChatTemplate, Conversation, Message, TemplateError
from warpdraw.chat.window import exchanges, fit
from warpdraw.generation.params import sample_seed
from warpdraw.model import ModelConfig, Transformer, weights
from warpdraw.model.tokenizer import Tokenizer

END = ID_OF["<|im_end|>"]


def chat_folder(folder, template, context=256, eos_ids=()):
    """A random model with the tokens of the templates."""
    config = ModelConfig(
        vocab_size=VOCABULARY, hidden_size=32, layers=2, heads=4, kv_heads=2, mlp_size=64, max_positions=context
    )
    torch.manual_seed(11)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(12.0)
    weights.save(folder, model, Tokenizer(backend()), eos_ids=eos_ids)
    return write_tokenizer(folder, template)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A checkpoint for each template."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TEMPLATES}
    return {name: load(chat_folder(folder, TEMPLATES[name])) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def tiny():
    return load("tiny-target")


def contents(chat):
    return [message.content for message in chat.conversation]


# Conversations


def test_messages_are_checked():
    with pytest.raises(ValueError, match=r"^role: expected one of system, user, assistant, got 'tool'$"):
        Message("tool", "a")
    with pytest.raises(TypeError, match=r"^content: expected text, got None$"):
        Message("user", None)
    with pytest.raises(ValueError, match=r"^content: expected text without lone surrogates"):
        Message("user", "\ud800")
    with pytest.raises(ValueError, match=r"^messages\[1\]: expected an object with role and content, got \{'role"):
        Conversation([Message("user", "a"), {"role": "user", "content": "a", "tool_calls": []}])
    with pytest.raises(ValueError, match=r"^messages\[0\].role: expected one of"):
        Conversation([{"role": "robot", "content": "a"}])


def test_a_system_prompt_is_put_in_changed_and_taken_away():
    conversation = Conversation([Message("user", "a")])
    for text in ("one", "two", None, "three"):
        conversation.system = text
        assert conversation.system == text
        assert [message.content for message in conversation] == ([text] if text else []) + ["a"]


def test_undo_takes_back_the_last_question_and_what_came_after_it():
    said = [Message(role, str(at)) for at, role in enumerate(("system", "user", "assistant", "user", "assistant"))]
    conversation = Conversation(said)
    assert conversation.undo() == said[3:]
    assert conversation.undo() == said[1:3]
    assert conversation.undo() == []
    assert conversation.messages == said[:1]


def test_saved_conversations_come_back(tmp_path):
    said = [Message("system", "é 🙂"), Message("user", "a\n\t"), Message("assistant", "", stopped=True)]
    Conversation(said).save(tmp_path / "a.json")
    assert Conversation.load(tmp_path / "a.json").messages == said
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))[1] == {"role": "user", "content": "a\n\t"}
    (tmp_path / "b.json").write_text(json.dumps({"messages": [{"role": "user", "content": "a"}], "model": "m"}))
    assert Conversation.load(tmp_path / "b.json").messages == [Message("user", "a")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a.json: expected JSON: "),
        ("7", "a.json: expected a list of messages, got 7"),
        ("{}", "a.json: expected a list of messages, got None"),
        ("[1]", r"a.json: messages\[0\]: expected an object with role and content, got 1"),
        ('[{"role": "user", "content": 3}]', r"a.json: messages\[0\].content: expected text, got 3"),
        ("[" * 100_000, "a.json: expected JSON: "),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Conversation.load(tmp_path / "a.json")


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Conversation().save(tmp_path / "nowhere" / "a.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        Conversation().save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# The window


def any_messages():
    message = st.builds(Message, st.sampled_from(["user", "assistant", "user", "system"]), st.text("ab", max_size=9))
    return st.lists(message, max_size=12).map(lambda said: [*said, Message("user", "c" * 3)])


@given(any_messages(), st.integers(1, 120), st.integers(1, 40))
def test_what_is_left_out_is_the_oldest_and_the_least_that_will_do(messages, context, max_tokens):
    def encode(kept):
        return [at for message in kept for at in (ord(message.role[0]), *message.content.encode(), 0)]

    head, starts = exchanges(messages)
    fitting = [
        count
        for count in range(len(starts))
        if len(encode([*messages[:head], *messages[starts[count] :]])) + max_tokens <= context
    ]
    if not fitting:
        with pytest.raises(ValueError, match=rf"context {context}, less max_tokens {max_tokens}\), got \d+$"):
            fit(messages, encode, context, max_tokens)
        return
    window = fit(messages, encode, context, max_tokens)
    assert window.dropped == tuple(range(head, starts[fitting[0]]))
    kept = [message for at, message in enumerate(messages) if at not in window.dropped]
    assert window.ids == encode(kept)
    assert kept[:head] == messages[:head]
    assert kept[-1] is messages[-1]
    # A question is not parted from its answer.
    assert not window.dropped or kept[head].role == "user"


def test_a_long_conversation_drops_what_it_says_and_keeps_the_system_prompt(models):
    chat = Chat(models["chatml"], SamplingParams(seed=1, max_tokens=24, ignore_eos=True), system="Be brief.")
    dropped = []
    for number in range(12):
        reply = chat.say(f"Question {number}?")
        answer = reply.run()
        dropped.append(len(answer.dropped))
        assert answer.prompt_tokens + 24 <= 256
        assert answer.finish_reason == "length"
        text = models["chatml"].tokenizer.decode(reply.prompt.ids, skip_special=False)
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
        assert text.endswith(f"<|im_start|>user\nQuestion {number}?<|im_end|>\n<|im_start|>assistant\n")
        assert answer.dropped == tuple(range(1, 1 + len(answer.dropped)))
        for at in range(number):
            assert (f"Question {at}?" in text) == (1 + 2 * at not in answer.dropped)
    assert dropped[0] == 0
    assert dropped[-1] > 2
    assert dropped == sorted(dropped)
    assert len(chat.conversation) == 25


def test_a_question_that_does_not_fit_is_refused_with_the_figures_and_nothing_is_lost(models):
    chat = Chat(models["chatml"], SamplingParams(seed=1, max_tokens=24), system="Be brief.")
    chat.say("Hello").run()
    before = list(chat.conversation)
    with pytest.raises(
        ValueError, match=r"^message: expected at most 232 tokens with the system prompt in the template "
    ):
        chat.say("x" * 300)
    with pytest.raises(ValueError, match=r"\(context 256, less max_tokens 24\), got \d+$"):
        chat.say("x" * 300)
    assert list(chat.conversation) == before
    with pytest.raises(ValueError, match=r"^message: expected at most 232 tokens with the system prompt"):
        chat.system = "x" * 300
    assert chat.system == "Be brief."
    with pytest.raises(ValueError, match=r"^max_tokens: expected less than the context of 256, got 256$"):
        chat.params = SamplingParams(max_tokens=256)
    assert chat.params.max_tokens == 24


# Answers


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_those_of_generate_for_the_rendered_prompt(models, name):
    model, template = models[name], ChatTemplate.load(models[name])
    params = SamplingParams(temperature=0.9, top_k=40, seed=5, max_tokens=12)
    chat = Chat(model, params)
    for turn, question in enumerate(("Hello", "And then?")):
        said = [*chat.conversation, Message("user", question)]
        answer = chat.say(question).run()
        ids = template.encode(said, add_generation_prompt=True)
        again = dataclasses.replace(params, seed=sample_seed(5, turn), stop_ids=chat.end_ids)
        (expected,) = generate(model, [ids], again)
        assert (answer.text, answer.finish_reason, answer.stop) == (
            expected.text.removeprefix(template.turn().space),
            expected.finish_reason,
            expected.stop,
        )
        assert (answer.prompt_tokens, answer.completion_tokens) == (len(ids), expected.completion_tokens)
        assert (answer.seed, answer.turn, answer.attempt) == (sample_seed(5, turn), turn, 0)
    assert list(chat.conversation)[-1] == Message("assistant", answer.text)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("mistral", "</s>"),
        ("gemma", "<end_of_turn>"),
        ("loops", "<|end|>"),
    ],
)
def test_an_answer_ends_at_the_templates_end_token(models, name, end):
    assert models[name].eos_ids == ()
    params = SamplingParams(seed=1, max_tokens=20, min_tokens=4, logit_bias={end: 1e4})
    chat = Chat(models[name], params)
    answer = chat.say("Hello").run()
    assert (answer.finish_reason, answer.stop, answer.completion_tokens) == ("stop", ID_OF[end], 5)
    assert end not in answer.text
    assert chat.end_ids == (ID_OF[end],)
    # Ends that were asked for are ends too; those of the template are not where the request ignores ends.
    chat.params = dataclasses.replace(params, stop_ids=(7,))
    assert chat.end_ids == tuple(sorted((7, ID_OF[end])))
    chat.params = dataclasses.replace(params, ignore_eos=True, min_tokens=0)
    assert chat.end_ids == ()
    assert chat.say("Again").run().finish_reason == "length"


def test_an_answer_ends_at_the_checkpoints_end_of_text_too(tmp_path):
    model = load(chat_folder(tmp_path, TEMPLATES["chatml"], eos_ids=(ID_OF["</s>"],)))
    chat = Chat(model, SamplingParams(seed=1, logit_bias={"</s>": 1e4}))
    assert chat.end_ids == (ID_OF["</s>"], END)
    assert chat.say("Hello").run().stop == ID_OF["</s>"]


def test_events_together_are_the_answer_without_the_templates_space(tiny):
    chat = Chat(tiny, SamplingParams(seed=7))
    reply = chat.say("The sky is")
    pieces = [event.text for event in reply]
    assert "".join(pieces) == reply.text == reply.answer.text == "blue and the air is warm."
    assert reply.run() is reply.answer
    assert [event.text for event in reply] == []
    # A longer prompt with the same space.
    assert chat.template.render(list(chat.conversation)) == "<|endoftext|>The sky is blue and the air is warm."


def test_white_space_of_the_answer_itself_stays(models):
    forced = SamplingParams(seed=1, max_tokens=4, logit_bias={" ": 1e4}, ignore_eos=True)
    assert Chat(models["mistral"], forced).say("Hello").run().text == "   "
    assert Chat(models["chatml"], forced).say("Hello").run().text == "    "
    # White space of several characters is taken off as far as it comes.
    source = "{% for m in messages %}{{ '[A]  \\n' if m.role == 'assistant' }}{{ m.content }}{% endfor %}"
    template = ChatTemplate(source + "{{ '[A]' if add_generation_prompt }}", models["chatml"].tokenizer)
    assert template.turn().space == "  \n"
    reply = Chat(models["chatml"], forced, template=template).say("Hello")
    assert [event.text for event in reply] == ["", "", " ", " "]


def test_the_same_messages_parameters_and_seed_give_the_same_answers(tiny):
    def run(seed):
        chat = Chat(tiny, SamplingParams(seed=seed, max_tokens=16))
        return [chat.say(text).run() for text in ("The sky is", "My cat", "The sky is")]

    assert run(7) == run(7)
    assert [answer.text for answer in run(7)] != [answer.text for answer in run(8)]
    assert len({answer.seed for answer in run(7)}) == 3
    chat = Chat(tiny, SamplingParams(max_tokens=16))
    answer = chat.say("The sky is").run()
    assert run(chat.params.seed)[0] == answer


def test_retry_undo_and_repeated_questions(tiny):
    chat = Chat(tiny, SamplingParams(seed=7, max_tokens=16))
    first = chat.say("My cat").run()
    retried = [chat.retry().run() for _ in range(3)]
    assert [answer.attempt for answer in (first, *retried)] == [0, 1, 2, 3]
    assert [answer.turn for answer in retried] == [0] * 3
    assert len({answer.seed for answer in (first, *retried)}) == 4
    assert retried[0].seed == sample_seed(7, 2**32)
    assert contents(chat) == ["My cat", retried[-1].text]
    assert [message.content for message in chat.undo()] == ["My cat", retried[-1].text]
    assert chat.say("My cat").run() == first
    assert chat.retry().run() == retried[0]
    chat.undo()
    assert chat.undo() == []
    with pytest.raises(ValueError, match="retry: expected a question to ask again, got none"):
        chat.retry()
    # No seed of a retry is that of another turn.
    seeds = {sample_seed(7, turn + attempt * 2**32) for turn, attempt in itertools.product(range(50), repeat=2)}
    assert len(seeds) == 2500


def test_a_stopped_answer_is_kept_as_far_as_it_came_and_marked(tiny):
    chat = Chat(tiny, SamplingParams(seed=7, max_tokens=40, ignore_eos=True))
    reply = chat.say("The sky is")
    shown = "".join(next(reply).text for _ in range(4))
    answer = reply.stop()
    assert (answer.finish_reason, answer.text, answer.completion_tokens) == ("stopped", shown, 4)
    assert reply.stop() is answer
    assert list(reply) == []
    assert list(chat.conversation) == [Message("user", "The sky is"), Message("assistant", shown, stopped=True)]
    # The conversation goes on, and a retry takes the place of what was stopped.
    assert chat.retry().run().finish_reason == "length"
    assert [message.stopped for message in chat.conversation] == [False, False]
    # Before the first text there is nothing to keep; a retry that is stopped then leaves the answer it was to replace.
    before = list(chat.conversation)
    chat.say("My cat").stop()
    chat.retry().stop()
    assert list(chat.conversation) == before


def test_an_answer_that_cannot_be_drawn_says_so(tiny):
    chat = Chat(tiny, SamplingParams(seed=7, allowed_ids=[5], banned_ids=[5]))
    answer = chat.say("The sky is").run()
    assert answer.finish_reason == "error"
    assert "no token can be drawn at position 4" in answer.error
    assert len(chat.conversation) == 0


def test_drafts_do_not_change_the_answers(tiny):
    draft = load("tiny-draft")
    texts = []
    for proposed in (None, draft, "suffix"):
        chat = Chat(tiny, SamplingParams(seed=3, max_tokens=24), draft=proposed, system="It rains.")
        texts.append([chat.say(text).run().text for text in ("The sky is", "My dog")])
    assert texts[0] == texts[1] == texts[2]


def test_what_generate_would_refuse_is_refused_at_once(tiny, models):
    with pytest.raises(ValueError, match="draft: expected a model with the vocabulary of 1264 tokens, got 269"):
        Chat(tiny, draft=models["chatml"])
    with pytest.raises(ValueError, match="banned_ids: expected the text of one token, got 'no such token'"):
        Chat(tiny, SamplingParams(banned_ids=["no such token"]))
    with pytest.raises(ValueError, match=r"^params.n: expected 1 in a conversation, got 2$"):
        Chat(tiny, SamplingParams(n=2))
    with pytest.raises(TypeError, match="params: expected a SamplingParams, got 7"):
        Chat(tiny, 7)
    with pytest.raises(TypeError, match="conversation: expected a Conversation, got"):
        Chat(tiny, conversation=[])
    chat = Chat(tiny, SamplingParams(seed=7))
    with pytest.raises(ValueError, match="stop_ids: expected ids below 1264, got 5000"):
        chat.params = SamplingParams(stop_ids=[5000])
    chat.params = SamplingParams(temperature=0.5)
    assert (chat.params.temperature, chat.params.seed) == (0.5, 7)
    with pytest.raises(ValueError, match="message: expected some text, got ' '"):
        chat.say(" ")


def test_a_template_that_refuses_leaves_the_conversation_as_it_was(models):
    with pytest.raises(
        TemplateError, match=r"tokenizer_config\.json: the chat template failed in line 1: System role not"
    ):
        Chat(models["gemma"], system="Be brief.")
    chat = Chat(models["gemma"], SamplingParams(seed=1, max_tokens=4))
    with pytest.raises(TemplateError, match="System role not supported"):
        chat.system = "Be brief."
    assert chat.system is None
    chat.say("Hello").run()
    before = list(chat.conversation)
    chat.conversation = Conversation([*before, Message("user", "no answer")])
    with pytest.raises(TemplateError, match="Conversation roles must alternate"):
        chat.say("Again")
    assert contents(chat) == [*(message.content for message in before), "no answer"]
    assert [message.content for message in chat.undo()] == ["no answer"]
    chat.say("Again").run()
    assert len(chat.conversation) == 4


def test_a_model_without_a_template_is_refused_but_one_can_be_given(tmp_path):
    draft = load("tiny-draft")
    with pytest.raises(TemplateError, match=r"tiny-draft: expected a chat template in chat_template\.jinja or"):
        Chat(draft)
    (tmp_path / "mine.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}")
    chat = Chat(draft, SamplingParams(seed=7), template=ChatTemplate.load(draft, tmp_path / "mine.jinja"))
    assert chat.say("The sky is").run().prompt_tokens == 5


def test_variables_reach_the_template(models):
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{{ mood }}{% endfor %}", models["chatml"].tokenizer)
    chat = Chat(models["chatml"], SamplingParams(seed=1), template=template, variables={"mood": "!"})
    reply = chat.say("Hello")
    assert models["chatml"].tokenizer.decode(reply.prompt.ids) == "Hello!"


def test_answers_are_short_enough_for_a_small_context(tmp_path):
    model = load(chat_folder(tmp_path, TEMPLATES["chatml"], context=100))
    assert Chat(model).params.max_tokens == 50
