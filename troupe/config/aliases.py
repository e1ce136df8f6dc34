"""Documented keys that have moved: the old spelling keeps working, and says so."""

from __future__ import annotations

from collections.abc import Mapping

from troupe.config.problems import Path, Problem, dotted, show
from troupe.config.tree import Node, drop, find, merge, nest, plain

__all__ = ["Aliases", "canonical", "parse_aliases", "relocate"]

Aliases = Mapping[Path, Path]
"""Old key to new key, the longest old keys first: a leaf is moved before the section that it was in."""


def parse_aliases(aliases: Mapping[str, str]) -> Aliases:
    split = {tuple(old.split(".")): tuple(new.split(".")) for old, new in aliases.items()}
    return dict(sorted(split.items(), key=lambda pair: -len(pair[0])))


def canonical(path: Path, aliases: Aliases) -> tuple[Path, str]:
    """The new spelling of a key, and what its origin says about the old one."""
    for old, new in aliases.items():
        if path[: len(old)] == old:
            return new + path[len(old) :], _remark(path)
    return path, ""


def relocate(layer: Node, aliases: Aliases, problems: list[Problem]) -> Node:
    """One file with every old key moved to its new place; both spellings with different values are a problem."""
    for old, new in aliases.items():
        moved = find(layer, old)
        if moved is None:
            continue
        layer, moved = _pruned(layer, old), _marked(moved, old)
        standing = find(layer, new)
        if standing is not None:
            _compare(standing, moved, new, problems)
            moved = merge(moved, standing)
        layer = merge(drop(layer, new), nest(new, moved))
    return layer


def _pruned(layer: Node, path: Path) -> Node:
    """The layer without `path`, and without the sections that held nothing else."""
    layer = drop(layer, path)
    parent = find(layer, path[:-1])
    return _pruned(layer, path[:-1]) if path[:-1] and parent is not None and parent.value == {} else layer


def _marked(node: Node, path: Path) -> Node:
    if node.is_mapping:
        return Node(
            {key: _marked(below, (*path, key)) for key, below in node.value.items()}, node.origin + _remark(path)
        )
    return Node(node.value, node.origin + _remark(path), node.raw)


def _remark(path: Path) -> str:
    return f" (as '{dotted(path)}')"


def _compare(one: Node, other: Node, path: Path, problems: list[Problem]) -> None:
    if one.is_mapping and other.is_mapping:
        for key in one.value.keys() & other.value.keys():
            _compare(one.value[key], other.value[key], (*path, key), problems)
    elif plain(one) != plain(other):
        values = f"{show(plain(one))} and {show(plain(other))}"
        problems.append(Problem(one.origin, path, f"is also given at {other.origin}, as {values}; keep one"))
