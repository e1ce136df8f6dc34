"""A loaded config, and where each of its values came from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from troupe.config.problems import Path, dotted
from troupe.config.tree import DEFAULT, Node

__all__ = ["Resolved", "origins"]

M = TypeVar("M", bound=BaseModel)

_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # YAML 1.1's too, for other readers
_COLUMN = 44


@dataclass(frozen=True)
class Resolved(Generic[M]):
    """A config and the origin of every leaf: `default`, `preset demo.yaml:12`, `my.yaml:7`, `override 'data.x=3'`."""

    config: M
    origins: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The config as nested JSON-able values."""
        return self.config.model_dump(mode="json", by_alias=True, round_trip=True)

    def to_yaml(self) -> str:
        """The config as YAML; loading it again gives an equal config."""
        return "".join(f"{line}\n" for line, _ in _lines(self.to_dict(), ()))

    def describe(self) -> str:
        """`to_yaml` with each value's origin as a comment behind it."""
        rows = [(line, self.origins.get(dotted(path), "")) for line, path in _lines(self.to_dict(), ())]
        return "".join(
            f"{line:<{_COLUMN}}  # {_printable(origin)}\n" if origin else f"{line}\n" for line, origin in rows
        )


def origins(values: Any, tree: Node | None, path: Path = (), above: str = DEFAULT) -> dict[str, str]:
    """The origin of every leaf of `values`; `tree` holds what was written, `above` is the origin of a parent leaf."""
    origin = tree.origin if tree is not None and not tree.is_mapping else above
    if not isinstance(values, dict) or not values:
        return {dotted(path): tree.origin if tree is not None else above}
    found: dict[str, str] = {}
    for key, value in values.items():
        below = tree.value.get(key) if tree is not None and tree.is_mapping else None
        found |= origins(value, below, (*path, key), origin)
    return found


def _lines(values: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Path]]:
    """Lines of block YAML, each with the path of the value that it holds; a list stands on one line."""
    for key, value in values.items():
        start = "  " * len(path) + _scalar(key)
        if isinstance(value, dict) and value:
            yield f"{start}:", ()
            yield from _lines(value, (*path, key))
        else:
            yield f"{start}: {_flow(value)}", (*path, key)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A scalar that YAML 1.1 and 1.2 read alike."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and value.lower() not in _WORDS
        return value if bare else _printable(json.dumps(_literal(value), ensure_ascii=False))
    return json.dumps(value)


def _printable(text: str) -> str:
    """The text with every character that YAML does not allow, or that ends a line, as an escape."""
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def _literal(text: str) -> str:
    """The text with its `${` escaped, so that it is not taken for an interpolation when read again."""
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", text)
