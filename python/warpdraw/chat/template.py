"""ChatTemplate: the messages of a conversation as the text that a model was trained to read, by its own template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jinja2

from ..model.json_fields import Fields, read_json
from ..model.tokenizer import Tokenizer
from ..model.weights import Checkpoint
from .conversation import Message
from .sandbox import Sandbox

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
LEGACY_FILE = "special_tokens_map.json"

_PROBE_QUESTION, _PROBE_ANSWER = "warpdrawquestion", "warpdrawanswer"


class TemplateError(ValueError):
    """A chat template that is missing, cannot be read, or fails; the message names the file and says what it said."""


@dataclass(frozen=True)
class Turn:
    """What a template writes around an answer.

    space  the white space between the generation prompt and the answer, which a model has to draw first.
    ends   the ids of the tokens that end an answer.
    """

    space: str = ""
    ends: tuple[int, ...] = ()


class ChatTemplate:
    """The text of a conversation, as a checkpoint's Jinja template writes it: that of transformers'
    `apply_chat_template` on the same folder, without tools and documents.

    source          the template.
    tokenizer       the tokenizer that reads its text.
    special_tokens  names such as bos_token, and their texts.
    where           the file, for messages.

    Templates run in Jinja's sandbox, with bounds for their loops, calls and texts. Raises TemplateError where
    the template is not one.

    >>> from warpdraw import load
    >>> tokenizer = load("tiny-target").tokenizer
    >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", tokenizer)
    >>> template.render([Message("user", "Hello"), Message("assistant", "Hi")])
    '<user>Hello<assistant>Hi'
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        where: str = "chat template",
    ) -> None:
        if not isinstance(source, str):
            raise TypeError(f"source: expected the text of a template, got {source!r}")
        self.source, self.where, self._tokenizer = source, where, tokenizer
        self.special_tokens = dict(special_tokens or {})
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.from_string(source)
        except Exception as error:  # a syntax error, or whatever a constant in the template leads to
            raise self._failure(error, "not a chat template") from None

    @classmethod
    def load(cls, source: Checkpoint | str | Path, file: str | Path | None = None) -> ChatTemplate:
        """The template of a checkpoint, or of a folder with a tokenizer.json.

        chat_template.jinja comes first, then `chat_template` of tokenizer_config.json: a text, or a list of named
        ones, of which "default" is taken. With `file` the template is read from there. Raises TemplateError where
        there is none, or what there is cannot be read; CheckpointError for a broken tokenizer.

        >>> from warpdraw import load
        >>> ChatTemplate.load(load("tiny-target")).render([Message("user", "The sky is")])
        '<|endoftext|>The sky is'
        """
        folder = source.path if isinstance(source, Checkpoint) else Path(source)
        tokenizer = (
            source.tokenizer if isinstance(source, Checkpoint) else Tokenizer.from_file(folder / "tokenizer.json")
        )
        config = Fields(str(folder / CONFIG_FILE), {})
        if (folder / CONFIG_FILE).is_file():
            config = read_json(folder / CONFIG_FILE)
        text, where = (_read(Path(file)), str(file)) if file is not None else _stored_template(folder, config)
        return cls(text, tokenizer, _special_tokens(folder, config), where)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of messages, with the beginning of an answer after them if asked for.

        variables  further names that the template reads, such as enable_thinking.

        Raises TemplateError where the template raises, does what the sandbox forbids, or does too much.
        """
        values = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self.special_tokens,
            **(variables or {}),
        }
        try:
            return self._sandbox.render_text(self._template, values)
        except Exception as error:  # a template can lead to whatever Python can raise
            raise self._failure(error, "the chat template failed") from None

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of the rendered text.

        The tokenizer adds no special tokens: a beginning-of-text token is there if the template writes it, once.
        """
        return self._ids(self.render(messages, add_generation_prompt=add_generation_prompt, variables=variables))

    def turn(self, variables: Mapping[str, Any] | None = None) -> Turn:
        """What the template writes around an answer, seen from one that it renders.

        The end is the first token after the answer, where that is one that the tokenizer adds whole to texts (a
        special token), behind white space or not: in a last answer, or else before the next question.
        """
        question, answer = Message("user", _PROBE_QUESTION), Message("assistant", _PROBE_ANSWER)
        try:
            before = self.render([question], add_generation_prompt=True, variables=variables)
            last = self.render([question, answer], variables=variables)
        except TemplateError:
            return Turn()
        if _PROBE_ANSWER not in last:
            return Turn()
        head, _, tail = last.rpartition(_PROBE_ANSWER)
        space = head.removeprefix(before) if head.startswith(before) else ""
        end = self._first_special(tail)
        if end is None and not tail.strip():
            try:
                more = self.render([question, answer, question], variables=variables)
                end = self._first_special(more.rpartition(_PROBE_ANSWER)[2])
            except TemplateError:
                pass
        return Turn(space if space.isspace() else "", () if end is None else (end,))

    def _first_special(self, text: str) -> int | None:
        added = self._tokenizer.backend.get_added_tokens_decoder()
        for token in self._ids(text.lstrip()):
            return token if token in added else None
        return None

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False)

    def _failure(self, error: Exception, what: str) -> TemplateError:
        line = getattr(error, "lineno", None) or _line(error.__traceback__)
        said = str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
        place = f" in line {line}" if line else ""
        return TemplateError(f"{self.where}: {what}{place}: {' '.join(said.split())[:400]}")


def _line(traceback: TracebackType | None) -> int | None:
    """The last line of the template that led to an error."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TemplateError(f"{file}: expected a chat template, got no such file") from None
    except (OSError, UnicodeError) as error:
        raise TemplateError(f"{file}: expected a chat template as UTF-8 text: {error}") from None


def _stored_template(folder: Path, config: Fields) -> tuple[str, str]:
    """A folder's default template, and the file that it stands in."""
    if (folder / TEMPLATE_FILE).is_file():
        return _read(folder / TEMPLATE_FILE), str(folder / TEMPLATE_FILE)
    stored, where = config.get("chat_template"), config.where
    if stored is None:
        raise TemplateError(
            f"{folder}: expected a chat template in {TEMPLATE_FILE} or {CONFIG_FILE}, got none: "
            "this is no chat model, or the template has to be given"
        )
    if isinstance(stored, list):
        try:
            named = {str(each["name"]): each["template"] for each in stored}
        except (TypeError, KeyError):
            raise TemplateError(f"{where}: chat_template: expected a list of objects with name and template") from None
        if "default" not in named:
            names = ", ".join(map(repr, named)) or "none"
            raise TemplateError(f"{where}: chat_template: expected one named 'default', got {names}")
        stored = named["default"]
    if not isinstance(stored, str):
        raise TemplateError(f"{where}: chat_template: expected a text or a list, got {json.dumps(stored)[:80]}")
    return stored, where


def _special_tokens(folder: Path, config: Fields) -> dict[str, str]:
    """The names that templates know special tokens by, with their texts."""
    content = config.content
    # Where an older folder has the file beside a configuration without added tokens, transformers takes its entries.
    if "added_tokens_decoder" not in content and (folder / LEGACY_FILE).is_file():
        content = content | read_json(folder / LEGACY_FILE).content
    tokens = {}
    for name, value in content.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
