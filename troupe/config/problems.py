"""One line per thing that is wrong with a config, and the guess at what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Path", "Problem", "dotted", "guess", "show"]

Path = tuple[str, ...]
"""A key as its parts: `("optim", "lr")` is `optim.lr`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`origin: path: message`, for example `my.yaml:7: optim.lr: must be > 0, found -1`."""

    origin: str
    path: Path
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin, dotted(self.path), self.message) if part)


def dotted(path: Path) -> str:
    return ".".join(path)


def guess(key: str, siblings: Iterable[str], leaves: Sequence[str]) -> str:
    """A hint to append: a sibling that is spelled alike, else leaf keys of that name anywhere, else the siblings."""
    known = sorted(siblings)
    near = difflib.get_close_matches(key, known, n=1) or _leaves_called(key, leaves)
    if near:
        return f" (did you mean {' or '.join(map(repr, near))}?)"
    return f" (known: {', '.join(known)})" if known else ""


def _leaves_called(key: str, leaves: Sequence[str], most: int = 3) -> list[str]:
    names = {leaf: leaf.rpartition(".")[2] for leaf in leaves}
    near = difflib.get_close_matches(key, sorted(set(names.values())), n=1, cutoff=0.75)
    return [leaf for leaf, name in names.items() if name in near][:most]


def show(value: Any, limit: int = 60) -> str:
    """A value as an error quotes it: YAML's words for null, true and false, long ones cut short."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
