"""`warpdraw chat`: piped and on a terminal, its commands, and the sessions in the documentation."""

import codecs
import dataclasses
import doctest
import io
import itertools
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from chat_templates import TEMPLATES
from test_chat import chat_folder

from warpdraw import SamplingParams, load
from warpdraw.chat import Chat, Conversation
from warpdraw.cli.dialogue import Dialogue

# Parameters of a request that a conversation does not offer on the command line.
WITHOUT_AN_OPTION = {"n", "bitmask", "logprobs", "logprobs_of", "kept"}
WITHOUT_AN_OPTION |= {"guide", "prefix", "stop_on_repeat", "guidance", "negative_prompt"}
GUIDE = (Path(__file__).parent.parent / "docs" / "chat.md").read_text(encoding="utf-8")


@pytest.fixture
def chat(run, monkeypatch):
    """Runs the command with lines on standard input; returns exit code, lines of output and of errors."""

    def call(lines, *arguments):
        text = lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code, out, err = run("chat", *arguments)
        return code, out.splitlines(), err.splitlines()

    return call


def test_only_answers_are_printed(chat):
    code, out, err = chat(["The sky is", "", "My cat"], "--seed", "7", "--max-tokens", "16")
    session = Chat(load("tiny-target"), SamplingParams(seed=7, max_tokens=16))
    assert (code, out, err) == (0, [session.say(text).run().text for text in ("The sky is", "My cat")], [])
    assert chat(["The sky is", "", "My cat"], "--seed", "7", "--max-tokens", "16")[1] == out


def test_without_a_seed_one_is_printed_and_repeats_the_answers(chat):
    _, out, err = chat(["The sky is", "My cat"])
    assert err[0].startswith("seed ")
    # A long answer to the first question may leave no room for it beside the second, which is said both times.
    assert chat(["The sky is", "My cat"], "--seed", err[0].split()[1]) == (0, out, err[1:])


def test_json_is_one_line_an_answer(chat):
    code, out, _ = chat(["The sky is", "/retry", "My cat"], "--seed", "7", "--max-tokens", "5", "--json")
    answers = [json.loads(line) for line in out]
    assert code == 0
    assert [(answer["turn"], answer["attempt"]) for answer in answers] == [(0, 0), (0, 1), (1, 0)]
    assert {"text", "finish_reason", "seed", "prompt_tokens", "dropped", "error"} <= set(answers[0])


def test_commands_do_what_they_say(chat, tmp_path):
    saved = tmp_path / "a b.json"
    lines = [
        "/params",
        '/params temperature=0 top-p=0.9 stop=[".", "x y"] order=hf',
        "/params",
        "/seed 9",
        "/seed",
        "/system",
        "/system It rains.",
        "/system",
        "The sky is",
        "//quit",
        "/undo",
        "/history",
        f"/save {saved}",
        '/system ""',
        "/undo",
        "/system",
        f"/load {saved}",
        "/history",
        "/help",
        "/quit",
        "My cat",
    ]
    code, out, err = chat(lines, "--seed", "7")
    assert code == 0
    assert len(out) == 2
    expected = [
        "temperature=1.0 top_k=0 top_p=1.0 min_p=0.0 seed=7 max_tokens=256",
        'temperature=0 top_k=0 top_p=0.9 min_p=0.0 order=hf seed=7 max_tokens=256 stop=[".", "x y"]',
        "seed 9",
        "no system prompt",
        "It rains.",
        "taken back: /quit",
        "system: It rains.",
        "user: The sky is",
        f"assistant: {out[0]}",
        f"wrote {saved}, 3 messages",
        "taken back: The sky is",
        "no system prompt",
        f"{saved}: 3 messages",
        "system: It rains.",
        "user: The sky is",
        f"assistant: {out[0]}",
    ]
    assert err[: len(expected)] == expected
    assert err[len(expected)].startswith("/params ")
    assert [message.role for message in Conversation.load(saved)] == ["system", "user", "assistant"]
    greedy = Chat(load("tiny-target"), SamplingParams(temperature=0, stop=(".", "x y")), system="It rains.")
    assert out[0] == greedy.say("The sky is").run().text


def test_every_sampling_option_reaches_the_parameters(chat):
    numbers = {
        **{"temperature": 0.5, "dynatemp_range": 0.25, "dynatemp_exponent": 1.5, "top_k": 9, "top_p": 0.75},
        **{"min_p": 0.125, "top_n_sigma": 3.0, "typical_p": 0.875, "epsilon": 0.0009765625, "eta": 0.001953125},
        **{"xtc_probability": 0.5, "xtc_threshold": 0.25, "order": "hf", "seed": -5, "repetition_penalty": 1.25},
        **{"frequency_penalty": -0.5, "presence_penalty": 0.75, "dry_multiplier": 0.875, "dry_base": 2.0},
        **{"dry_allowed_length": 3, "no_repeat_ngram": 4, "max_tokens": 5, "min_tokens": 2},
    }
    mirostat = {"mirostat": 2, "mirostat_tau": 3.5, "mirostat_eta": 0.25}  # which other filters exclude
    words = [word for name, value in mirostat.items() for word in ("--" + name.replace("_", "-"), str(value))]
    code, _, err = chat(["/params"], *words, "--seed", "7", "--threads", "1")
    assert (code, mirostat.items() <= changed_by(err[0]).items()) == (0, True)
    lists = {
        "stop": "x",
        "ban_phrase": "it is",
        "stop_id": "3",
        "bias": "7=1.5",
        "ban": "9",
        "allow": "8",
        "dry_breaker": "e",
    }
    words = [word for name, value in (numbers | lists).items() for word in ("--" + name.replace("_", "-"), str(value))]
    code, _, err = chat(["/params"], *words, "--ignore-eos", "--ban-case", "--threads", "1")
    shown = changed_by(err[0])
    expected = numbers | {"stop": ["x"], "stop_ids": [3], "logit_bias": [[7, 1.5]], "banned_ids": [9]}
    expected |= {"allowed_ids": [8], "dry_breakers": ["e"], "ignore_eos": True}
    expected |= {"ban_phrases": ["it is"], "ban_case": True}
    assert (code, shown) == (0, expected)
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert fields - set(shown) - set(mirostat) == WITHOUT_AN_OPTION


def changed_by(line):
    """What `/params` shows, as names and values."""
    pairs = (each.split("=", 1) for each in re.split(r" (?=\w+=)", line))
    return {name: value if value[0].isalpha() and value != "true" else json.loads(value) for name, value in pairs}


def test_retry_draws_another_answer_and_repeats(chat):
    _, out, _ = chat(["My cat", "/retry", "/retry", "/undo", "My cat", "/retry"], "--seed", "7")
    assert len(set(out[:3])) == 3
    assert out[3:] == out[:2]


def test_a_bad_line_is_one_line_and_the_conversation_goes_on(chat, tmp_path):
    bad = {
        "/nonsense": "/nonsense: expected a command that /help lists, or // where a message begins with /",
        "/undo": "/undo: expected a question to take back, got none",
        "/retry": "retry: expected a question to ask again, got none",
        "/undo 3": "/undo: expected nothing after it, got '3'",
        "/quit now": "/quit: expected nothing after it, got 'now'",
        "/params top_p=2": "top_p: expected a number in [0, 1], got 2",
        "/params top_p=a b": "top_p: expected a number in [0, 1], got 'a b'",
        "/params top_p": "/params: expected NAME=VALUE with one of temperature, ",
        "/params bitmask=1": "/params: expected NAME=VALUE with one of temperature, ",
        "/params seed=1": "/params: expected no seed, which /seed changes",
        "/params max_tokens=512": "max_tokens: expected less than the context of 512, got 512",
        "/params temperature=0.5 stop_ids=[5000]": "params[0].stop_ids: expected ids below 1264, got 5000",
        "/seed x": "/seed: expected an integer, got 'x'",
        f"/seed {2**63}": "seed: expected an integer in [-9223372036854775808, ",
        "/system " + "a " * 600: "message: expected at most 496 tokens with the system prompt in the template ",
        "word " * 600: "message: expected at most 496 tokens in the template (context 512, less max_tokens 16), got ",
        "/save": "/save: expected a file, got none",
        f"/save {tmp_path}": "",
        f"/load {tmp_path / 'nothing'}": "[Errno 2] No such file or directory",
        f"/load {__file__}": f"{__file__}: expected JSON: ",
    }
    for line, message in bad.items():
        code, out, err = chat([line, "The sky is"], "--seed", "7", "--max-tokens", "16")
        assert (code, out) == (1, ["blue and the air is warm."]), line
        assert len(err) == 1, line
        assert err[0].startswith(f"warpdraw: error: {message}"), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny-draft"], "tiny-draft: expected a chat template in chat_template.jinja or"),
        (["--model", "nowhere"], "nowhere: no such checkpoint"),
        (["--template", "nowhere"], "nowhere: expected a chat template, got no such file"),
        (["--top-p", "2"], "top_p: expected a number in [0, 1], got 2"),
        (["--max-tokens", "512"], "max_tokens: expected less than the context of 512, got 512"),
        (["--stop-id", "5000"], "params[0].stop_ids: expected ids below 1264, got 5000"),
        (["--system", "word " * 600], "message: expected at most 256 tokens with the system prompt in the template"),
        (["--draft-tokens", "0", "--draft", "ngram"], "--draft-tokens: expected an integer in [1, 64], got 0"),
        (["--template-set", "a"], "Invalid value for '--template-set': expected NAME=VALUE, got 'a'"),
        (["The sky is"], "(The sky is)"),
    ],
)
def test_bad_input_at_the_start_is_one_line_and_exit_code_2(chat, arguments, message):
    code, out, err = chat(["The sky is"], "--seed", "7", *arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert message in err[0]


def test_a_template_and_what_it_reads_can_be_given(chat, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{{ bos_token }}{{ [text] * times if ready is true else 'no' }}{{ messages[0].content }}")
    options = ["--template", str(template), "--template-set", "times=3", "--template-set", "text=a=b"]
    tokens = []
    for ready in ("true", "false"):
        code, out, _ = chat(["The sky is"], "--seed", "7", "--json", *options, "--template-set", f"ready={ready}")
        assert code == 0
        tokens.append(json.loads(out[0])["prompt_tokens"])
    encode = load("tiny-target").tokenizer.encode
    assert tokens == [len(encode(text + "The sky is")) for text in ("['a=b', 'a=b', 'a=b']", "no")]


def test_a_template_that_refuses_the_system_prompt_ends_it_at_the_start(chat, tmp_path):
    folder = str(chat_folder(tmp_path, TEMPLATES["gemma"]))
    code, out, err = chat(["a"], "--model", folder, "--seed", "1", "--system", "Be brief.")
    assert (code, out, len(err)) == (2, [], 1)
    assert "tokenizer_config.json: the chat template failed in line 1: System role not supported" in err[0]
    code, out, err = chat(["/system a", "b"], "--model", folder, "--seed", "1", "--max-tokens", "4", "--json")
    assert (code, len(out), len(err)) == (1, 1, 1)
    assert "System role not supported" in err[0]


def test_what_is_left_out_is_said_when_it_changes(chat, tmp_path):
    folder = str(chat_folder(tmp_path, TEMPLATES["chatml"]))
    options = ["--model", folder, "--seed", "1", "--max-tokens", "8", "--ban", "<|im_end|>", "--json"]
    code, out, err = chat(["x" * 40] * 6 + ["/undo"] * 6 + ["y"], *options)
    dropped = [len(json.loads(line)["dropped"]) for line in out]
    assert code == 0
    assert dropped[0] == dropped[-1] == 0
    assert len(set(dropped)) >= 3
    expected = []
    for before, now in itertools.pairwise(dropped):
        if now > before:
            expected.append(f"the oldest {now} messages are left out: the context is too short for them")
    expected.append("all messages fit into the context again")
    assert [line for line in err if not line.startswith("taken back")] == expected


def test_an_answer_that_cannot_be_drawn_is_an_error(chat):
    code, out, err = chat(["The sky is", "/history"], "--seed", "7", "--allow", "5", "--ban", "5", "--json")
    assert (code, json.loads(out[0])["finish_reason"], len(err)) == (1, "error", 1)
    assert err[0].startswith("warpdraw: error: no token can be drawn at position 4")


class FailingOnce:
    """Standard input whose second line meets a model that runs out of memory."""

    def __init__(self, model):
        self._model = model

    def isatty(self):
        return False

    def __iter__(self):
        def fail(*_):
            raise torch.OutOfMemoryError("no memory\nis left")

        yield "The sky is\n"
        handle = self._model.register_forward_pre_hook(fail)
        yield "My cat\n"
        handle.remove()
        yield "My cat\n"


def test_a_run_that_fails_ends_its_answer_and_not_the_conversation(monkeypatch, capsys):
    model = load("tiny-target")
    session, expected = (Chat(model, SamplingParams(seed=7, max_tokens=16)) for _ in range(2))
    monkeypatch.setattr(sys, "stdin", FailingOnce(model.model))
    assert Dialogue(session, as_json=False).run() == 1
    captured = capsys.readouterr()
    first, second = (expected.say(text).run().text for text in ("The sky is", "My cat"))
    assert captured.out == f"{first}\n\n{second}\n"
    assert captured.err == "stopped; nothing of it is kept\nwarpdraw: error: no memory is left\n"
    assert list(session.conversation) == list(expected.conversation)


def test_input_that_is_no_text_is_refused(chat, monkeypatch):
    raw = io.TextIOWrapper(io.BytesIO(b"The sky is\n\xff\xfe\n"), encoding="utf-8")
    monkeypatch.setattr(io, "StringIO", lambda text: raw)
    code, _, err = chat("", "--seed", "7")
    assert (code, len(err)) == (2, 1)
    assert "standard input: expected UTF-8 text" in err[0]


def test_drafts_do_not_change_what_is_printed(chat):
    lines = ["The sky is", "My cat"]
    plain = chat(lines, "--seed", "7")
    assert chat(lines, "--seed", "7", "--draft", "tiny-draft") == plain
    assert chat(lines, "--seed", "7", "--draft", "ngram", "--draft-tokens", "8") == plain


def sessions():
    """What the guide pipes into the command, the command, and what it says that is printed."""
    blocks = re.findall(
        r"^```console\n\$ printf (.*?) \| (warpdraw chat .*?)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
    )
    return [(codecs.decode(shlex.split(lines)[0], "unicode_escape"), command, out) for lines, command, out in blocks]


@pytest.mark.parametrize(("lines", "command", "printed"), sessions())
def test_a_session_of_the_guide_prints_what_it_says(chat, lines, command, printed):
    code, out, _ = chat(lines, *shlex.split(command)[2:])
    assert (code, out) == (0, printed.splitlines())


def test_the_guide_has_sessions_and_python_that_prints_what_it_says():
    assert len(sessions()) == GUIDE.count("```console") == 3
    session = "\n".join(re.findall(r"^```python\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "chat.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 5


# In a process of its own


@pytest.fixture
def long_model(tmp_path):
    """A model whose answers take long."""
    return str(chat_folder(tmp_path, TEMPLATES["chatml"], context=100_000))


ENDLESS = ["--seed", "1", "--max-tokens", "90000", "--ignore-eos"]


def test_ctrl_c_in_a_pipe_keeps_what_came_and_ends(long_model):
    command = [sys.executable, "-m", "warpdraw", "chat", "--model", long_model, *ENDLESS]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Jobs in the background of a script ignore the signal, and so would what they start.
    process = subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        process.stdin.write(b"Hello\nNever read\n")
        process.stdin.close()
        first = process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
    assert len(first + rest) > 5
    assert err.decode().splitlines() == ["stopped; what came is kept"]


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments):
        self._ours, theirs = os.openpty()
        command = [sys.executable, "-m", "warpdraw", "chat", *arguments]
        environment = os.environ | {"TERM": "dumb", "COLUMNS": "200"}
        # A session of its own, so that Ctrl-C of this terminal reaches it.
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAD, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text):
        os.write(self._ours, text.encode())

    def wait_for(self, text):
        """Read until a text is shown; returns what came before it, and it."""
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.read()
        at = self.shown.index(text) + len(text)
        seen, self.shown = self.shown[:at], self.shown[at:]
        return seen

    def read(self):
        """Read what is shown by now, or wait for some."""
        self.shown += os.read(self._ours, 4096).decode("utf-8", "replace")

    def end(self):
        """The exit code; the program is gone after this."""
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._ours)


# Makes standard input the controlling terminal of a new session, then becomes the program.
LEAD = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal of its own")
def test_a_conversation_on_a_terminal(long_model):
    terminal = Terminal("--model", long_model, *ENDLESS)
    try:
        assert "context 100000; /help lists" in terminal.wait_for("> ")
        terminal.type("/params max_tokens=3\n")
        terminal.wait_for("=3\r\n")
        terminal.wait_for("> ")
        terminal.type("Hello\n")
        terminal.wait_for("max_tokens 3 reached")
        terminal.wait_for("> ")
        terminal.type("/params max_tokens=90000\n")
        terminal.wait_for("=90000\r\n")
        terminal.wait_for("> ")
        terminal.type("Again\n")
        terminal.wait_for("Again\r\n")
        while len(terminal.shown) < 9:  # some of the answer
            terminal.read()
        terminal.type("\x03")
        terminal.wait_for("stopped; what came is kept")
        terminal.wait_for("> ")
        terminal.type("/history\n")
        assert "user: Again" in terminal.wait_for("(stopped)")
        terminal.wait_for("> ")
        terminal.type("\x04")
    except BaseException:
        terminal.process.kill()
        raise
    finally:
        code = terminal.end()
    assert code == 0
