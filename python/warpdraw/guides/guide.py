"""Guide: what a text has to be, checked when it is made; a field of a request's parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# What may stand between the parts of a JSON text: with more a text could be blanks to its last token.
WHITESPACE = " ?"
KINDS = ("json_schema", "regex", "grammar")


@dataclass(frozen=True)
class Guide:
    """What a text has to be: `json_schema`, `regex` and `grammar` make one, for ``SamplingParams(guide=...)``.

    kind        "json_schema", "regex" or "grammar".
    text        the schema as JSON, the regular expression, or the grammar.
    whitespace  a regular expression of what may stand between the parts of a JSON text.
    """

    kind: str
    text: str
    whitespace: str = WHITESPACE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        for name in ("text", "whitespace"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected text, got {getattr(self, name)!r}")
        wrong, messages = library().LLMatcher.validate_grammar_with_warnings(self.compiled)
        if wrong:
            raise self.refused(messages[0])

    @property
    def compiled(self) -> str:
        """The guide in the form that llguidance reads."""
        matcher = library().LLMatcher
        grammar: str
        if self.kind == "json_schema":
            grammar = matcher.grammar_from_json_schema(self.text, overrides={"whitespace_pattern": self.whitespace})
        elif self.kind == "regex":
            grammar = matcher.grammar_from_regex(self.text)
        else:
            grammar = matcher.grammar_from_lark(self.text)
        return grammar

    def refused(self, problem: str, name: str = "") -> ValueError:
        """The error for a guide that llguidance has this problem with."""
        # What follows is the state of its parser.
        reported = " ".join(problem.partition("<state>")[0].split())
        if reported.startswith("NoExtension"):
            reported = f"nothing can be its first token ({reported})"
        return ValueError(f"{name or self.kind}: expected {_EXPECTED[self.kind]}, got: {reported}")


_EXPECTED = {
    "json_schema": "a JSON schema that some text satisfies",
    "regex": "a regular expression that some text matches",
    "grammar": "a grammar in Lark's syntax that some text matches",
}


def json_schema(schema: str | dict[str, Any] | bool, whitespace: str = WHITESPACE) -> Guide:
    """A text that is JSON and satisfies a JSON schema.

    The properties of an object come in the order of the schema. Strings, arrays and numbers without a bound in the
    schema can be as long as a text may be: bound them (``maxLength``, ``maxItems``, ``maximum``), and give a request
    the tokens that the longest text needs.

    Args:
        schema: a dictionary, or JSON text; True is any JSON. llguidance says which keywords it knows, and refuses
            others.
        whitespace: a regular expression of what may stand between the parts of the text; by default one space or
            nothing.

    Raises:
        ValueError: a schema that is no JSON, has keywords that llguidance does not know, or that no text satisfies; the
            message names the contradiction. Also where llguidance is not installed.
        TypeError: a schema that is neither text nor a dictionary.

    >>> json_schema({"type": "integer", "minimum": 5, "maximum": 3})
    Traceback (most recent call last):
    ValueError: json_schema: expected a JSON schema that some text satisfies, got: Unsatisfiable schema: minimum (5) \
is greater than maximum (3)
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise ValueError(f"json_schema: expected a JSON schema, got text that is no JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise TypeError(f"json_schema: expected a dictionary, True or JSON text of one, got {schema!r}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"json_schema: expected what JSON can say, got an error: {error}") from None
    return Guide("json_schema", text, whitespace)


def regex(pattern: str) -> Guide:
    """A text that a regular expression matches from its first to its last character.

    The syntax is that of Rust's regex crate, without look-around and back references.
    Raises ValueError for a pattern that is not one, or that no text matches; TypeError for what is no text.

    >>> regex("[0-9]{4}-[0-9]{2}").kind
    'regex'
    """
    return Guide("regex", pattern)


def grammar(text: str) -> Guide:
    """A text that a context-free grammar in the Lark syntax of llguidance derives from its rule ``start``.

    Raises ValueError for a text that is no grammar, or for a grammar that derives no text; TypeError for what is no
    text.

    >>> grammar('start: sum\\nsum: NUMBER | sum "+" NUMBER\\nNUMBER: /[0-9]{1,3}/').kind
    'grammar'
    """
    return Guide("grammar", text)


def library() -> Any:
    """llguidance, which is installed with an extra of its own."""
    try:
        import llguidance
    except ImportError:
        raise ValueError(
            "guides: expected the package llguidance, which is not installed; pip install 'warpdraw[guide]'"
        ) from None
    return llguidance
