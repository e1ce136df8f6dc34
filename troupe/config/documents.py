"""YAML files as trees that remember file and line.

Scalars follow the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3), not PyYAML's 1.1: `2e-5` and `1e6`
are floats, only `true` and `false` are booleans, `yes`, `on`, `010` and `12:30:00` are what they look like.
Nothing is ever constructed from a tag, so a file runs no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import yaml

from troupe.config.problems import Path, Problem
from troupe.config.tree import Node, merge

__all__ = ["read"]

_EXTENDS = "extends"
_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": r"(?:null|Null|NULL|~|)$",
    "bool": r"(?:true|True|TRUE|false|False|FALSE)$",
    "int": r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
    "merge": r"<<$",  # YAML 1.1's merge key, which everybody uses with anchors
}


def read(file: FilePath | str, problems: list[Problem], label: str = "") -> Node:
    """The tree of one file, the files that it `extends` merged underneath.

    Whatever is wrong is appended to `problems`, and what could be read is returned. `label` goes before the file's
    name in every origin.
    """
    return _Reader(problems, label).file(str(file), "", ())


@cache
def _loader() -> Any:
    """The fastest loader at hand, with the core schema in place of its resolvers."""
    base = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    rules = [(_TAG + name, re.compile(pattern)) for name, pattern in _CORE.items()]
    return type("CoreLoader", (base,), {"yaml_implicit_resolvers": {None: rules}})


class _Reader:
    def __init__(self, problems: list[Problem], label: str) -> None:
        self.problems = problems
        self.label = label

    def file(self, name: str, wanted_by: str, inside: tuple[str, ...]) -> Node:
        """`inside` are the files that led here through `extends`."""
        empty = Node({}, self._place(name))
        if os.path.abspath(name) in map(os.path.abspath, inside):
            self._wrong(wanted_by, (_EXTENDS,), f"goes in a circle: {' -> '.join((*inside, name))}")
            return empty
        text = self._text(name, wanted_by)
        root = None if text is None else self._compose(name, text)
        if root is None or root.tag == _TAG + "null":  # comments only
            return empty
        if not isinstance(root, yaml.MappingNode):
            self._wrong(
                self._at(name, root), (), "a config file is a mapping such as 'key: value', not a list or a word"
            )
            return empty
        return self._extended(self._node(name, root, (), ()), name, inside)

    def _text(self, name: str, wanted_by: str) -> str | None:
        try:
            data = FilePath(name).read_bytes()
        except OSError as error:
            path = (_EXTENDS,) if wanted_by else ()
            message = f"cannot read {name} ({error.strerror}); write the path of a YAML file"
            self._wrong(wanted_by or self._place(name), path, message)
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            self._wrong(self._place(name, line), (), "is not UTF-8 text; save the file as UTF-8")
            return None

    def _compose(self, name: str, text: str) -> Any:
        try:
            return yaml.compose(text, Loader=_loader())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self._place(name, mark.line + 1 if mark else 0)
            self._wrong(where, (), f"is not valid YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._wrong(self._place(name, line), (), f"is not valid YAML: {error.reason}")
        except RecursionError:
            self._wrong(self._place(name), (), "is nested too deeply to be a config")
        return None

    def _extended(self, node: Node, name: str, inside: tuple[str, ...]) -> Node:
        wanted = node.value.get(_EXTENDS)
        if wanted is None:
            return node
        own = Node({key: below for key, below in node.value.items() if key != _EXTENDS}, node.origin)
        others = wanted.value if isinstance(wanted.value, list) else [wanted]
        below = Node({}, node.origin)
        for other in others:
            if not isinstance(other.value, str):
                self._wrong(other.origin, (_EXTENDS,), "expected the path of a YAML file, or a list of such paths")
                continue
            path = os.path.normpath(os.path.join(os.path.dirname(name), other.value))
            below = merge(below, self.file(path, other.origin, (*inside, name)))
        return merge(below, own)

    def _node(self, name: str, node: Any, path: Path, inside: tuple[int, ...]) -> Node:
        """`inside` are the nodes around this one: an anchor can be an alias of itself."""
        origin = self._at(name, node)
        if id(node) in inside:
            self._wrong(origin, path, "is an anchor that contains itself")
            return Node(None, origin)
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(name, node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            items = [self._node(name, item, (*path, str(i)), inside) for i, item in enumerate(node.value)]
            return Node(items, origin)
        return self._scalar(node, path, origin)

    def _mapping(self, name: str, mapping: Any, path: Path, inside: tuple[int, ...]) -> Node:
        found: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged = Node({}, self._at(name, mapping))
        for key_node, value_node in mapping.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            below = (*path, str(key))
            if not isinstance(key, str):
                self._wrong(self._at(name, key_node), path, "a key must be a word, not a list or a mapping")
            elif key_node.tag == _TAG + "merge":
                merged = self._merge_key(merged, self._node(name, value_node, path, inside), below)
            elif key in found:
                self._wrong(self._place(name, line), below, f"is given twice, first on line {lines[key]}; keep one")
            else:
                node = self._node(name, value_node, below, inside)
                found[key] = Node(node.value, self._place(name, line), node.raw)
                lines[key] = line
        return Node({**merged.value, **found}, merged.origin)

    def _merge_key(self, merged: Node, value: Node, path: Path) -> Node:
        """`<<: *a` and `<<: [*a, *b]`, where the earlier of two wins."""
        for other in value.value if isinstance(value.value, list) else [value]:
            if other.is_mapping:
                merged = Node({**other.value, **merged.value}, merged.origin)
            else:
                self._wrong(value.origin, path, "expected a mapping to merge, such as *anchor")
        return merged

    def _scalar(self, node: Any, path: Path, origin: str) -> Node:
        kind = node.tag.removeprefix(_TAG)
        try:
            value = _convert(kind, node.value)
        except (KeyError, ValueError):
            self._wrong(origin, path, f"cannot read {node.value!r} as {node.tag}; write a plain value without a tag")
            value = None
        return Node(value, origin, None if node.style else node.value)

    def _at(self, name: str, node: Any) -> str:
        return self._place(name, node.start_mark.line + 1)

    def _place(self, name: str, line: int = 0) -> str:
        """`my.yaml:7`; a labelled file is one of the package's own and goes by its last name."""
        shown = self.label + (os.path.basename(name) if self.label else name)
        return f"{shown}:{line}" if line else shown

    def _wrong(self, origin: str, path: Path, message: str) -> None:
        self.problems.append(Problem(origin, path, message))


def _convert(kind: str, text: str) -> Any:
    """The value of a scalar; KeyError for a tag outside the core schema, ValueError for text that does not fit."""
    read_as: dict[str, Callable[[str], Any]] = {
        "str": str,
        "merge": str,
        "null": lambda _: None,
        "bool": _boolean,
        "int": _integer,
        "float": _float,
    }
    return read_as[kind](text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _integer(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
