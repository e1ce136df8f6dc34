r"""Hydra's override grammar: `a.b=c`, `+a.b=c`, `++a.b=c`, `~a.b`, `~a.b=c`.

After hydra.cc/docs/advanced/override_grammar/basic. Values are primitives (`null`, `true`, `10`, `1_000`, `2e-5`,
`inf`, `word`, `two words`), quoted strings, lists `[1, [a, b]]` and dicts `{a: 1, b: [x, y]}`;
constants are case-insensitive. In an unquoted value `\` escapes one of `\()[]{}:=,` and white space. In quotes, only
backslashes in front of a quote are special: there each `\` is doubled, and `\"` is a quote.

Different from Hydra, on purpose:

1. A run takes one value per key: sweeps (`a=1,2`) and functions (`choice(1, 2)`) are refused.
2. There are no config groups (`db=mysql`, `a/b@c=d`); a file `extends` another.
3. Dict keys are always strings and may be quoted; any character without a meaning is allowed unquoted (`#`, `é`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from troupe.config.problems import Path
from troupe.errors import ConfigError

__all__ = ["Action", "Override", "format_value", "parse_override", "parse_value"]

_INT = r"(?:0|[1-9](?:_?[0-9])*)"
_POINT = rf"(?:{_INT}\.(?:[0-9](?:_?[0-9])*)?|\.[0-9](?:_?[0-9])*)"
_INTEGER = re.compile(rf"[+-]?{_INT}")
_FLOAT = re.compile(rf"[+-]?(?:(?:{_INT}|{_POINT})[eE][+-]?[0-9](?:_?[0-9])*|{_POINT}|inf|nan)", re.IGNORECASE)
_WORDS = {"null": None, "true": True, "false": False}
_KEY = re.compile(r"(?:[^\W\d][\w$-]*|\$[\w$-]*|[0-9]+)(?:\.[\w$-]+)*")
_ESCAPABLE = "\\()[]{}:=, \t"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DEEPEST = 100


class Action(StrEnum):
    """What an override does, by the sign in front of it."""

    SET = "="  # the key exists
    ADD = "+"  # the key is new
    FORCE = "++"  # either
    REMOVE = "~"  # the entry goes, or the field returns to its default


@dataclass(frozen=True, slots=True)
class Override:
    """One parsed override. `has_value` tells `~a=null` from `~a`; `raw` is a value that is no string, as written."""

    text: str
    action: Action
    path: Path
    value: Any = None
    has_value: bool = True
    raw: str | None = None


def parse_override(text: str) -> Override:
    """Raises ConfigError, one sentence that quotes the override."""
    try:
        return _override(text)
    except ValueError as error:
        raise ConfigError(f"override '{text}': {error}") from error


def parse_value(text: str) -> Any:
    """The right-hand side of an override. Raises ValueError, whose text is the end of a sentence."""
    return _Reader(text).whole()


def _override(text: str) -> Override:
    sign = re.match(r"\s*(~|\+\+|\+|)", text)
    assert sign is not None  # the pattern matches the empty string
    action = Action(sign[1] or "=")
    key, equals, value = text[sign.end() :].partition("=")
    path = _path(key.strip())
    if not equals:
        if action is not Action.REMOVE:
            raise ValueError(f"has no value; write {text.strip()}=VALUE")
        return Override(text, action, path, has_value=False)
    parsed = parse_value(value)
    return Override(text, action, path, parsed, raw=None if isinstance(parsed, str) else value.strip())


def _path(key: str) -> Path:
    if key.startswith("-"):
        raise ValueError(f"overrides take no dashes; write {key.lstrip('-') or 'key'}=VALUE")
    if "@" in key or "/" in key or ":" in key:
        raise ValueError("config groups are not used here; write 'extends: other.yaml' in a file")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key; write names joined by dots, such as a.b=VALUE")
    return tuple(key.split("."))


class _Reader:
    """A recursive-descent parser of one value; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> Any:
        self._blank()
        if self.at == len(self.text):
            return ""  # `a=` is the empty string
        value = self._element("", 0)
        self._blank()
        if self._next() == ",":
            raise ValueError(
                f"a comma makes it a sweep, and a run takes one value; write [{self.text.strip()}] for a list, "
                "or quotes around a text with commas"
            )
        if self.at < len(self.text):
            raise ValueError(f"{self._next()!r} cannot stand there; put quotes around the value")
        return value

    def _element(self, stops: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"is nested more than {_DEEPEST} deep")
        start = self._next()
        if start == "[":
            return self._list(depth)
        if start == "{":
            return self._dict(depth)
        if start in ("'", '"'):
            return self._quoted()
        text, escaped = self._primitive(stops + ",=")
        return text if escaped else _typed(text)

    def _list(self, depth: int) -> list[Any]:
        self._take("[")
        items: list[Any] = []
        while not self._closes("]", bool(items)):
            items.append(self._element("]", depth + 1))
        return items

    def _dict(self, depth: int) -> dict[str, Any]:
        self._take("{")
        found: dict[str, Any] = {}
        while not self._closes("}", bool(found)):
            key = self._quoted() if self._next() in ("'", '"') else self._primitive(":,}=")[0]
            self._blank()
            self._take(":")
            self._blank()
            if key in found:
                raise ValueError(f"the key {key!r} is given twice")
            found[key] = self._element("}", depth + 1)
        return found

    def _closes(self, bracket: str, later: bool) -> bool:
        """Past the closing bracket, or at the next element: past the comma where this is a `later` one."""
        self._blank()
        if self._next() == bracket:
            self.at += 1
            return True
        if later:
            self._take(",", f" or '{bracket}'")
            self._blank()
        return False

    def _quoted(self) -> str:
        quote, start = self._next(), self.at + 1
        for found in re.compile(rf"(\\*){quote}").finditer(self.text, start):
            if len(found[1]) % 2 == 0:
                self.at = found.end()
                inner = self.text[start : found.end() - 1]
                return re.sub(rf"(\\+)({quote}|\Z)", lambda m: "\\" * (len(m[1]) // 2) + m[2], inner)
        raise ValueError(f"the quote {quote} is never closed")

    def _primitive(self, stops: str) -> tuple[str, bool]:
        """Unquoted text up to one of `stops`, white space around it removed, and whether it held escapes."""
        kept, escaped, solid = [], False, 0  # what follows the first `solid` pieces is unescaped white space
        while (char := self._next()) and char not in stops:
            escape = char == "\\" and self.text[self.at + 1 : self.at + 2] in tuple(_ESCAPABLE)
            piece = self.text[self.at + 1] if escape else self._interpolation() or self._allowed(char)
            self.at += 2 if escape else len(piece)
            kept.append(piece)
            escaped = escaped or escape
            solid = len(kept) if escape or not piece.isspace() else solid
        if not solid:
            raise ValueError(f"a value is missing before {char!r}" if char else "a value is missing at the end")
        return "".join(kept[:solid]), escaped

    def _interpolation(self) -> str:
        """`${...}` with balanced braces, taken as it is; the empty string where none starts here."""
        if not self.text.startswith("${", self.at):
            return ""
        depth = 0
        for brace in re.compile("[{}]").finditer(self.text, self.at):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                return self.text[self.at : brace.end()]
        raise ValueError("the interpolation '${' is never closed")

    def _allowed(self, char: str) -> str:
        if char == "(":
            raise ValueError("functions such as choice(...) and range(...) are sweeps, and a run takes one value")
        if char in "[]{}()'\"":
            raise ValueError(f"{char!r} cannot stand inside an unquoted value; put quotes around the value")
        return char

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _blank(self) -> None:
        while self._next().isspace():
            self.at += 1

    def _take(self, char: str, alternative: str = "") -> None:
        if self._next() != char:
            found = repr(self._next()) if self._next() else "the end"
            raise ValueError(f"expected '{char}'{alternative}, found {found}")
        self.at += 1


def _typed(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def format_value(value: Any) -> str:
    """A JSON-like value in the grammar; `parse_value` gives it back. Raises TypeError for anything else."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(key)}: {format_value(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no form in the override grammar")


def _string(text: str) -> str:
    """Bare where nothing else could be meant, otherwise in double quotes."""
    if _PLAIN.fullmatch(text) and isinstance(_typed(text), str):
        return text
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text) + '"'
