"""Guides: what a text has to be (a JSON schema, a regular expression, a grammar), followed token by token."""

from .guide import Guide, grammar, json_schema, regex

__all__ = ["Guide", "grammar", "json_schema", "regex"]
