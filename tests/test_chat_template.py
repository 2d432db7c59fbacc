"""Chat templates: the text and tokens of transformers, one clear error for whatever fails, and bounded work."""

import itertools
import json
import re

import jinja2
import pytest
from chat_templates import BOS, CHATML, ID_OF, SPECIAL, TEMPLATES, backend, write_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from warpdraw import load
from warpdraw.chat import ChatTemplate, Message, TemplateError
from warpdraw.model.tokenizer import Tokenizer

TEXTS = ["Hello", "  How are\n\tyou? ", "<|im_end|>é 🙂 {{ bos_token }}{% raw %}", "Fine.\n\n", "x" * 50]
SYSTEM = "Answer in one sentence."


def conversations():
    """Orders of roles, right and wrong ones."""
    for roles in ("u", "ua", "uau", "su", "sua", "suaua", "uu", "a", "suu", "us"):
        names = {"u": "user", "a": "assistant", "s": "system"}
        texts = itertools.cycle(TEXTS)
        yield [Message(names[role], SYSTEM if role == "s" else next(texts)) for role in roles]


def documents(messages):
    return [message.document for message in messages]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each template."""
    return {name: write_tokenizer(tmp_path_factory.mktemp(name), text) for name, text in TEMPLATES.items()}


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_tokens_are_those_of_transformers(folders, name):
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(folders[name]), ChatTemplate.load(folders[name])
    refused = 0
    for messages, prompt in itertools.product(conversations(), (False, True)):
        asked = {"add_generation_prompt": prompt}
        try:
            expected = theirs.apply_chat_template(documents(messages), tokenize=False, **asked)
        except jinja2.TemplateError as error:
            refused += 1
            reason = re.escape(str(folders[name] / "tokenizer_config.json")) + ".*" + re.escape(str(error))
            with pytest.raises(TemplateError, match=reason):
                ours.render(messages, **asked)
            continue
        assert ours.render(messages, **asked) == expected
        ids = theirs.apply_chat_template(documents(messages), return_dict=False, **asked)
        assert ours.encode(messages, **asked) == ids
    assert (refused > 0) == (name in ("mistral", "gemma"))


@pytest.mark.parametrize("place", ["config", "list", "file"])
def test_the_template_is_found_where_transformers_finds_it(tmp_path, place):
    folder = write_tokenizer(tmp_path, CHATML, place)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    messages = [Message("system", SYSTEM), Message("user", "Hello")]
    ours = ChatTemplate.load(folder)
    assert ours.render(messages) == theirs.apply_chat_template(documents(messages), tokenize=False)
    assert "<|im_start|>user\nHello" in ours.render(messages)
    assert ours.where == str(folder / ("chat_template.jinja" if place == "file" else "tokenizer_config.json"))


def test_special_tokens_of_an_older_folder_stand_in_a_file_of_their_own(tmp_path):
    folder = write_tokenizer(tmp_path, "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ image_token }}|")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"image_token": "<|user|>"}))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": "<|end|>", "unk_token": {"content": "<s>"}})
    )
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = theirs.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert ChatTemplate.load(folder).render([Message("user", "a")]) == expected == "<s>|<|end|>|<s>|<|user|>|"


def test_there_is_one_beginning_of_text(folders):
    messages = [Message("user", "Hello")]
    for name in ("llama3", "mistral", "gemma"):
        template = ChatTemplate.load(folders[name])
        assert template.encode(messages).count(BOS) == 1
        # The tokenizer would add another.
        assert Tokenizer(backend()).encode(template.render(messages)).count(BOS) == 2
    assert ChatTemplate.load(folders["chatml"]).encode(messages).count(BOS) == 0


def test_further_variables_reach_the_template(folders):
    template = ChatTemplate("{{ enable_thinking }}{{ messages[0].content }}", Tokenizer(backend()))
    assert template.render([Message("user", "a")], variables={"enable_thinking": False}) == "Falsea"


@pytest.mark.parametrize(
    ("name", "space", "end"),
    [
        ("chatml", "", "<|im_end|>"),
        ("llama3", "", "<|eot_id|>"),
        ("mistral", " ", "</s>"),
        ("gemma", "", "<end_of_turn>"),
        ("loops", "", "<|end|>"),
    ],
)
def test_what_a_template_writes_around_an_answer(folders, name, space, end):
    turn = ChatTemplate.load(folders[name]).turn()
    assert (turn.space, turn.ends) == (space, (ID_OF[end],))


@pytest.mark.parametrize(
    ("source", "ends"),
    [
        # Nothing ends the last answer, but the next question begins with a token.
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}", [ID_OF["<|user|>"]]),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", []),
        ("{% for m in messages %}{{ m.content }} and <|end|>{% endfor %}", []),
        ("{{ messages[0].content }}", []),
        ("{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}{{ messages[0].content }}", []),
    ],
)
def test_where_an_end_can_be_seen(source, ends):
    assert ChatTemplate(source, Tokenizer(backend())).turn().ends == tuple(ends)


FAILING = {
    "raises": ("one\n{{ raise_exception('not\nthis') }}", "the chat template failed in line 2: not this"),
    "undefined attribute": ("{{ nothing.at_all }}", "the chat template failed in line 1: 'nothing' is undefined"),
    "undefined function": ("\n\n{{ nothing() }}", "the chat template failed in line 3: 'nothing' is undefined"),
    "missing key": ("{{ messages[9].role }}", "line 1: list object has no element 9"),
    "type error": ("{{ 1 + 'a' }}", "line 1: TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
    "division": ("{{ 1 // 0 }}", "line 1: ZeroDivisionError"),
    "class": ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    "subscript": ("{{ messages['__class__']() }}", "access to attribute '__class__' of 'list' object is unsafe"),
    "attribute filter": ("{{ (messages | attr('__class__')).x }}", "access to attribute '__class__'"),
    "format": ("{{ '{0.__class__.__mro__}'.format(1) }}", "access to attribute '__class__'"),
    "globals": ("{{ raise_exception.__globals__.x }}", "access to attribute '__globals__'"),
    "method": ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
    "namespace": ("{% set ns = namespace(__a=1) %}", "a namespace holds no name that begins with _, got '__a'"),
    "include": ("{% include 'other' %}", "no loader"),
    "range": ("{{ range(1000000) }}", "Range too big"),
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "rounds of loops"),
    "loops over texts": (
        "{% set t = 'a' * 9999 %}{% for a in t %}{% for b in t %}{% endfor %}{% endfor %}",
        "more than 1,000,000 rounds of loops",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "branching recursion": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "more than 1,000,000 rounds of loops",
    ),
    "a long text": ("{{ 'a' * 999999999999 }}", "longer than 10,000,000"),
    "a long list": ("{{ [1] * 999999999999 }}", "longer than 10,000,000"),
    "a large power": ("{{ 9 ** 9 ** 9 }}{{ 2 ** 99999999999 }}", "an integer of more than 4,096 bits"),
    "a large product": (
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "bits",
    ),
    "doubling by +": (
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "longer than 10,000,000",
    ),
    "doubling by ~": (
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "longer than 10,000,000",
    ),
    "doubling by join": (
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = [n.x, n.x] | join %}{% endfor %}",
        "longer than 10,000,000",
    ),
    "doubling by a block": (
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        "longer than 10,000,000",
    ),
    "a long output": (
        "{% set t = 'a' * 999999 %}{% for i in range(99) %}{{ t }}{% endfor %}",
        "longer than 10,000,000",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_template_that_fails_is_one_error_with_the_file_and_the_reason(case):
    source, message = FAILING[case]
    template = ChatTemplate(source, Tokenizer(backend()), where="folder/chat_template.jinja")
    with pytest.raises(TemplateError) as caught:
        template.render([Message("user", "Hello")])
    assert str(caught.value).startswith("folder/chat_template.jinja: the chat template failed")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_render_has_an_allowance_of_its_own():
    template = ChatTemplate(
        "{% for i in range(9) %}{% for j in range(99999) %}{% endfor %}{% endfor %}.", Tokenizer(backend())
    )
    assert [template.render([]) for _ in range(3)] == ["."] * 3


def test_a_name_that_nobody_gives_is_empty_text_as_in_transformers(tmp_path):
    folder = write_tokenizer(tmp_path, "[{{ nothing }}]{% for a in nothing %}{% endfor %}{{ 'x' if nothing }}")
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = theirs.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert ChatTemplate.load(folder).render([Message("user", "a")]) == expected == "[]"


def test_a_template_does_not_change_the_messages():
    messages = [Message("user", "Hello")]
    source = "{% set ns = namespace(m=messages[0]) %}{{ messages[0].role }}{{ messages[0].pop('role') }}"
    with pytest.raises(TemplateError, match="'pop' of 'dict' object is unsafe"):
        ChatTemplate(source, Tokenizer(backend())).render(messages)
    assert messages == [Message("user", "Hello")]


BROKEN = {
    "nothing": (None, r"expected a chat template in chat_template\.jinja or tokenizer_config\.json, got none"),
    "syntax": ("{% for x in %}", r"tokenizer_config\.json: not a chat template in line 1: Expected an expression"),
    "open block": ("a\n{% if a %}", r"not a chat template in line 2: Unexpected end of template"),
    "unknown filter": ("{{ 1 | nothing }}", r"not a chat template in line 1: No filter named 'nothing'"),
    "deep expression": ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", r"not a chat template: RecursionError"),
    "deep blocks": ("{% for a in b %}" * 60 + "{% endfor %}" * 60, r"not a chat template.*too many statically nested"),
    "number": (7, r"chat_template: expected a text or a list, got 7"),
    "no default": ([{"name": "rag", "template": ""}], r"chat_template: expected one named 'default', got 'rag'"),
    "strange list": (["a"], r"chat_template: expected a list of objects with name and template"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_without_a_usable_template_is_refused(tmp_path, case):
    stored, message = BROKEN[case]
    write_tokenizer(tmp_path, stored)
    with pytest.raises(TemplateError, match=message) as caught:
        ChatTemplate.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    folder = write_tokenizer(tmp_path, "", "file")
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match=r"chat_template\.jinja: expected a chat template as UTF-8 text"):
        ChatTemplate.load(folder)
    with pytest.raises(TemplateError, match="other: expected a chat template, got no such file"):
        ChatTemplate.load(folder, "other")


def test_the_shipped_template_continues_a_text_in_transformers_too():
    model = load("tiny-target")
    theirs, ours = AutoTokenizer.from_pretrained(model.path), ChatTemplate.load(model)
    messages = [
        Message("system", "It rains. "),
        Message("user", "The sky"),
        Message("assistant", " is grey."),
        Message("user", "My"),
    ]
    expected = theirs.apply_chat_template(documents(messages), tokenize=False, add_generation_prompt=True)
    assert ours.render(messages, add_generation_prompt=True) == expected == "<|endoftext|>It rains. The sky is grey. My"
    asked = theirs.apply_chat_template(documents(messages), return_dict=False, add_generation_prompt=True)
    assert (
        ours.encode(messages, add_generation_prompt=True)
        == asked
        == model.tokenizer.encode("It rains. The sky is grey. My")
    )


def test_special_tokens_are_all_known_to_the_tokenizer():
    assert [Tokenizer(backend()).encode(text, add_special=False) for text in SPECIAL] == [[i] for i in ID_OF.values()]
