"""A config in the making: nested values, each of which knows where it was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from troupe.config.problems import Path
from troupe.config.schema import REQUIRED, Shape, fields_of, shape_of

__all__ = [
    "DEFAULT",
    "Node",
    "as_written",
    "complete",
    "defaults",
    "drop",
    "find",
    "leaves",
    "merge",
    "nest",
    "plain",
    "wrap",
]

DEFAULT = "default"
"""Origin of a value that nobody wrote."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its origin. `value` is a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    origin: str
    raw: str | None = None  # the characters of an unquoted scalar, as written: 1.10 is 1.1 as a number

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, dict)


def wrap(value: Any, origin: str) -> Node:
    """A node of plain nested values, all from one place."""
    if isinstance(value, Mapping):
        return Node({str(key): wrap(below, origin) for key, below in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([wrap(item, origin) for item in value], origin)
    return Node(value, origin)


def plain(node: Node) -> Any:
    """The nested values without their origins."""
    if isinstance(node.value, dict):
        return {key: plain(below) for key, below in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def merge(below: Node, above: Node) -> Node:
    """Mappings are merged key by key, as Hydra does; anything else is replaced."""
    if not (below.is_mapping and above.is_mapping):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, above.origin)


def nest(path: Path, node: Node) -> Node:
    """`node` under `path` in otherwise empty mappings."""
    for key in reversed(path):
        node = Node({key: node}, node.origin)
    return node


def find(node: Node, path: Path) -> Node | None:
    """The node at `path`, None where there is none; items of a list go by their number."""
    for key in path:
        if node.is_mapping and key in node.value:
            node = node.value[key]
        elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
        else:
            return None
    return node


def drop(node: Node, path: Path) -> Node:
    """The tree without the node at `path`."""
    if not node.is_mapping or path[0] not in node.value:
        return node
    if len(path) > 1:
        return Node({**node.value, path[0]: drop(node.value[path[0]], path[1:])}, node.origin)
    return Node({key: below for key, below in node.value.items() if key != path[0]}, node.origin)


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every scalar, list and empty mapping with its path."""
    if not node.is_mapping or not node.value:
        yield path, node
        return
    for key, below in node.value.items():
        yield from leaves(below, (*path, key))


def defaults(model: type) -> Node:
    """The defaults that a layer above may change in part: sections given as instances, and dicts.

    Everything else is left to pydantic. Without this, a file that sets one key of `optim: Optim = Optim(lr=3e-4)`
    would fall back to the class's learning rate.
    """
    found = {}
    for field in fields_of(model).values():
        node = _default(field.default, shape_of(field.annotation))
        if node.is_mapping:
            found[field.key] = node
    return Node(found, DEFAULT)


def _default(value: Any, shape: Shape) -> Node:
    if isinstance(value, Mapping) and shape.has_entries():
        return Node(
            {str(key): _default(below, shape.child(str(key)) or shape) for key, below in value.items()}, DEFAULT
        )
    if shape.sections != (type(value),):  # a scalar, or one of several sections that must not be mixed
        return Node(value, DEFAULT)
    written = {
        field.key: _default(getattr(value, field.name), shape_of(field.annotation))
        for field in fields_of(type(value)).values()
        if field.name in _written(value)
    }
    return merge(defaults(type(value)), Node(written, DEFAULT))


def _written(value: Any) -> set[str]:
    """Names of the fields that an instance was built with; pydantic fills in the others again."""
    if isinstance(value, BaseModel):
        return value.model_fields_set
    return {field.name for field in dataclasses.fields(value)}


def as_written(node: Node, shape: Shape) -> Node:
    """The tree with the characters that were written where a field holds text: `version: 1.10` is not 1.1."""
    if isinstance(node.value, dict):
        return Node({key: as_written(below, shape.below(key)) for key, below in node.value.items()}, node.origin)
    if isinstance(node.value, list):
        return Node([as_written(item, shape.item()) for item in node.value], node.origin)
    is_text = shape.only(str, FilePath) and node.raw is not None and node.value is not None
    return Node(node.raw, node.origin) if is_text else node


def complete(model: type, tree: Node) -> dict[str, Any]:
    """JSON-able values with every static default filled in: what `${a.b}` may refer to, what `~a.b=c` compares with."""
    return to_jsonable_python(_filled(shape_of(model), tree), serialize_unknown=True)


def _filled(shape: Shape, node: Node) -> Any:
    if not node.is_mapping:
        return plain(node)
    filled = {}
    for key, field in shape.fields().items() if len(shape.sections) == 1 else ():
        below = shape_of(field.annotation)
        if field.default is not REQUIRED:
            filled[key] = field.default
        elif len(below.sections) == 1:
            filled[key] = _filled(below, Node({}, DEFAULT))
    return filled | {key: _filled(shape.child(key) or Shape(), below) for key, below in node.value.items()}
