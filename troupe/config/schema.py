"""What a pydantic model says about a dotted key, read off its annotations without building anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from troupe.config.problems import Path, dotted

__all__ = ["REQUIRED", "Field", "Shape", "fields_of", "is_section", "leaf_paths", "shape_of"]

REQUIRED = PydanticUndefined
"""Default of a field that has none."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a section. `key` is what files write, `name` the attribute; they differ for aliased fields."""

    key: str
    name: str
    annotation: Any
    default: Any


@dataclass(frozen=True, slots=True)
class Shape:
    """What a key may hold. A union is several of these at once; None adds nothing."""

    sections: tuple[type, ...] = ()  # models and dataclasses, whose keys are known
    entries: tuple[Any, ...] = ()  # annotations of the values of a dict, whose keys are free
    items: tuple[Any, ...] = ()  # annotations of the items of a list, tuple or set
    scalars: frozenset[type] = frozenset()
    free: bool = False  # Any: whatever stands below is not described

    def fields(self) -> dict[str, Field]:
        return {key: field for section in self.sections for key, field in fields_of(section).items()}

    def only(self, *kinds: type) -> bool:
        """Whether it holds scalars of these types, or null, and nothing else."""
        others = self.free or self.sections or self.items or self.entries
        return not others and bool(self.scalars) and self.scalars <= set(kinds)

    def has_entries(self) -> bool:
        return bool(self.entries) or self.free

    def child(self, key: str) -> Shape | None:
        """The shape under `key`, None where no such key can exist."""
        below = [shape_of(fields_of(s)[key].annotation) for s in self.sections if key in fields_of(s)]
        if not below:
            below = [shape_of(a) for a in self.entries] + ([_FREE] if self.free else [])
        return _union(below) if below else None

    def item(self) -> Shape:
        return _union([shape_of(a) for a in self.items]) if self.items else _FREE

    def below(self, key: str) -> Shape:
        """`child`, into lists by the number of the item; anything goes where nothing is described."""
        return self.child(key) or (self.item() if key.isdecimal() else _FREE)


_FREE = Shape(free=True)


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def fields_of(section: type) -> dict[str, Field]:
    """The keys of a model or dataclass, in order."""
    return _fields_of(section)


@cache
def _fields_of(section: type) -> dict[str, Field]:
    found = _model_fields(section) if issubclass(section, BaseModel) else _dataclass_fields(section)
    return {field.key: field for field in found}


def _model_fields(model: type[BaseModel]) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
        late = info.default_factory is not None and info.default_factory_takes_validated_data
        default = None if late else info.get_default(call_default_factory=True)
        yield Field(alias or name, name, info.annotation, default)


def _dataclass_fields(section: Any) -> Iterator[Field]:
    hints = get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield Field(field.name, field.name, hints[field.name], REQUIRED if default is dataclasses.MISSING else default)


def shape_of(annotation: Any) -> Shape:
    """The shape of an annotation such as `float | None`, `dict[str, Agent]` or `Literal["a", "b"]`."""
    annotation = getattr(annotation, "__value__", annotation)  # `type X = ...` stands for its value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape_of(arguments[0])
    if origin in (Union, UnionType):
        return _union([shape_of(part) for part in arguments])
    if origin is Literal:
        return Shape(scalars=frozenset(type(choice) for choice in arguments))
    return _class_shape(origin or annotation, arguments)


def _class_shape(kind: Any, arguments: tuple[Any, ...]) -> Shape:
    if kind is NoneType or kind is None:
        return Shape()
    if not isinstance(kind, type) or kind in (Any, object):
        return _FREE
    if is_section(kind):
        return Shape(sections=(kind,))
    if issubclass(kind, Mapping):
        return Shape(entries=arguments[1:] or (Any,))
    if issubclass(kind, Collection) and not issubclass(kind, str | bytes):
        return Shape(items=tuple(a for a in arguments if a is not Ellipsis) or (Any,))
    return Shape(scalars=frozenset({kind}))


def _union(parts: list[Shape]) -> Shape:
    return Shape(
        sections=tuple(dict.fromkeys(s for p in parts for s in p.sections)),
        entries=tuple(a for p in parts for a in p.entries),
        items=tuple(a for p in parts for a in p.items),
        scalars=frozenset().union(*(p.scalars for p in parts)),
        free=any(p.free for p in parts),
    )


def leaf_paths(model: type) -> list[str]:
    """Every dotted key of a model that holds a value; `*` stands for the keys of a dict and the items of a list.

    class Agent(Frozen):  policy: str
    class Team(Frozen):   seed: int = 0; agents: dict[str, Agent] = {}
    leaf_paths(Team) == ["seed", "agents.*.policy"]
    """
    return list(dict.fromkeys(dotted(path) for path in _leaves(shape_of(model), (), ())))


def _leaves(shape: Shape, path: Path, inside: tuple[type, ...]) -> Iterator[Path]:
    """`inside` are the sections around this one: a section that holds itself is followed once."""
    found = False
    for section in shape.sections:
        for field in fields_of(section).values() if section not in inside else ():
            found = True
            yield from _leaves(shape_of(field.annotation), (*path, field.key), (*inside, section))
    for below in map(shape_of, (*shape.entries, *shape.items)):
        if below.sections and not set(below.sections) <= set(inside):
            found = True
            yield from _leaves(below, (*path, "*"), inside)
    if not found:
        yield path
