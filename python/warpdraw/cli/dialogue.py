"""A conversation on the terminal: lines in, answers out as they stream, and the commands between them."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..chat import Chat, Conversation, Reply
from ..generation.params import NUMBERS, SamplingParams
from .terminal import error_line, json_text, stderr

INTERRUPTED = 130
PROMPT = "> "
ALWAYS_SHOWN = ("temperature", "top_k", "top_p", "min_p", "max_tokens", "seed")
CHANGEABLE = (
    *NUMBERS,
    *("order", "max_tokens", "stop", "stop_ids", "ignore_eos", "dry_breakers", "banned_ids", "allowed_ids"),
)
_DEFAULT = SamplingParams()


class Dialogue:
    """Runs a chat with the lines of standard input.

    Answers go to standard output, all else to standard error. Prompts and colour are for terminals.
    """

    def __init__(self, chat: Chat, as_json: bool) -> None:
        self._chat, self._as_json = chat, as_json
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._failed = self._over = False
        self._dropped = 0
        self._console = stderr()
        self._commands: dict[str, tuple[Callable[[str], Any], str]] = {
            "/params": (self._params, "show how answers are drawn; /params temperature=0.7 top_p=0.9 changes it"),
            "/seed": (self._seed, "show the seed; /seed 7 changes it"),
            "/system": (self._system, 'show the system prompt; /system TEXT changes it, /system "" takes it away'),
            "/undo": (self._undo, "take back the last question and its answer"),
            "/retry": (self._retry, "another answer to the last question"),
            "/history": (self._history, "show the conversation"),
            "/save": (self._save, "/save FILE writes the conversation as JSON"),
            "/load": (self._load, "/load FILE goes on with one"),
            "/help": (self._help, "show these lines"),
            "/quit": (self._quit, "end"),
        }

    def run(self) -> int:
        """The exit code: 0; of piped input 1 if a line failed, 130 after Ctrl-C."""
        try:
            for line in self._typed() if self.interactive else self._piped():
                if line.strip():
                    self._take(line)
                if self._over:
                    break
        except KeyboardInterrupt:
            return INTERRUPTED
        return 1 if self._failed and not self.interactive else 0

    def note(self, text: str) -> None:
        """Print a line about the conversation."""
        self._console.print(text, style="dim" if self._console.is_terminal else "", markup=False)

    def _typed(self) -> Iterator[str]:
        with suppress(ImportError):
            import readline  # noqa: F401 (editing and history for input)
        while True:
            try:
                yield input(PROMPT)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                self.note("Ctrl-D or /quit ends")

    @staticmethod
    def _piped() -> Iterator[str]:
        try:
            for line in sys.stdin:
                yield line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input: expected UTF-8 text: {error}") from error

    def _take(self, line: str) -> None:
        """Do what a line says; what is wrong with it is one line, and the conversation goes on."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line.partition(" ")
                if name not in self._commands:
                    raise ValueError(
                        f"{name}: expected a command that /help lists, or // where a message begins with /"
                    )
                self._commands[name][0](rest.strip())
            else:
                self._print(self._chat.say(line[1:] if line.startswith("//") else line))
        except BrokenPipeError:  # nobody reads the answers
            raise
        # Too little memory or a fault of the device ends an answer, but not the conversation.
        except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
            error_line(str(error) or type(error).__name__)
            self._failed = True
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            print()
            self.note("stopped")

    def _print(self, reply: Reply) -> None:
        dropped = len(reply.prompt.dropped)
        if dropped != self._dropped:
            self._dropped = dropped
            messages = "message is" if dropped == 1 else "messages are"
            left_out = f"the oldest {dropped} {messages} left out: the context is too short for them"
            self.note(left_out if dropped else "all messages fit into the context again")
        failure: BaseException | None = None
        try:
            for event in reply:
                if not self._as_json:
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
        except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
            failure = error
        answer = reply.stop()
        print(json_text(dataclasses.asdict(answer)) if self._as_json else "", flush=True)
        if failure is not None:
            self.note("stopped; what came is kept" if answer.text else "stopped; nothing of it is kept")
            if not (self.interactive and isinstance(failure, KeyboardInterrupt)):
                raise failure
        elif answer.error is not None:
            raise ValueError(answer.error)
        elif answer.finish_reason == "length" and self.interactive:
            self.note(f"max_tokens {self._chat.params.max_tokens} reached")

    def _params(self, text: str) -> None:
        if text:
            self._chat.params = dataclasses.replace(self._chat.params, **changes(text))
            return
        params = self._chat.params
        shown = [
            f"{name}={_written(getattr(params, name))}"
            for name in (field.name for field in dataclasses.fields(params))
            if name in ALWAYS_SHOWN or getattr(params, name) != getattr(_DEFAULT, name)
        ]
        self.note(" ".join(shown))

    def _seed(self, text: str) -> None:
        if text:
            self._chat.params = dataclasses.replace(self._chat.params, seed=_integer("/seed", text))
        else:
            self.note(f"seed {self._chat.params.seed}")

    def _system(self, text: str) -> None:
        if text:
            self._chat.system = None if text == '""' else text
        else:
            self.note("no system prompt" if self._chat.system is None else self._chat.system)

    def _undo(self, text: str) -> None:
        _expect_nothing("/undo", text)
        taken = self._chat.undo()
        if not taken:
            raise ValueError("/undo: expected a question to take back, got none")
        self.note(f"taken back: {taken[0].content}")

    def _retry(self, text: str) -> None:
        _expect_nothing("/retry", text)
        self._print(self._chat.retry())

    def _history(self, text: str) -> None:
        _expect_nothing("/history", text)
        for message in self._chat.conversation:
            self.note(f"{message.role}: {message.content}" + (" (stopped)" if message.stopped else ""))

    def _save(self, text: str) -> None:
        path = _file("/save", text)
        self._chat.conversation.save(path)
        self.note(f"wrote {path}, {len(self._chat.conversation)} messages")

    def _load(self, text: str) -> None:
        path = _file("/load", text)
        self._chat.conversation = Conversation.load(path)
        self.note(f"{path}: {len(self._chat.conversation)} messages")

    def _quit(self, text: str) -> None:
        _expect_nothing("/quit", text)
        self._over = True

    def _help(self, text: str) -> None:
        _expect_nothing("/help", text)
        for name, (_, about) in self._commands.items():
            self.note(f"{name:<9} {about}")
        self.note("A line that begins with // is a message that begins with /. Ctrl-C stops an answer, Ctrl-D ends.")


def changes(text: str) -> dict[str, Any]:
    """Parameters from NAME=VALUE, apart by spaces; a value is JSON, or else a text.

    >>> changes('temperature=0.7 stop=["a b", "c"] order=hf')
    {'temperature': 0.7, 'stop': ['a b', 'c'], 'order': 'hf'}
    """
    changed: dict[str, Any] = {}
    for each in re.split(r"\s+(?=[\w-]+=)", text):
        name, equals, value = each.partition("=")
        name = name.replace("-", "_")
        if name == "seed":
            raise ValueError("/params: expected no seed, which /seed changes")
        if not equals or name not in CHANGEABLE:
            raise ValueError(f"/params: expected NAME=VALUE with one of {', '.join(CHANGEABLE)}, got {each!r}")
        try:
            changed[name] = json.loads(value)
        except ValueError:
            changed[name] = value
    return changed


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False)


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: expected an integer, got {text!r}") from None


def _expect_nothing(name: str, text: str) -> None:
    if text:
        raise ValueError(f"{name}: expected nothing after it, got {text!r}")


def _file(name: str, text: str) -> Path:
    if not text:
        raise ValueError(f"{name}: expected a file, got none")
    return Path(text).expanduser()
