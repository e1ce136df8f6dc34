"""A tree against a model: every mismatch becomes one sentence with the place where the value was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from troupe.config.problems import Path, Problem, dotted, guess, show
from troupe.config.schema import REQUIRED, Shape, leaf_paths, shape_of
from troupe.config.tree import DEFAULT, Node, as_written, find, plain

__all__ = ["unknown_key", "validate"]

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "bytes_type": "a string",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "keys with values",
    "mapping_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "dataclass_type": "keys with values",
    "none_required": "null",
}
"""What pydantic wanted, by its error type (docs.pydantic.dev/latest/errors/validation_errors)."""

_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def validate(model: type[M], tree: Node, problems: list[Problem], aliased: Sequence[Path] = ()) -> M | None:
    """The config, or None with what is wrong appended to `problems`; a path that already has a problem gets no second.

    `aliased` are old keys that have moved: below their sections each unknown leaf is named, not the section.
    """
    tree = as_written(tree, shape_of(model))
    values = _fitted(tree, shape_of(model), (), problems)
    unread = any(problem.path in ((), ("extends",)) for problem in problems)  # a file that may hold what is missing
    known = {(problem.origin, problem.path) for problem in problems}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for path, errors in _grouped(error, shape_of(model), tree).items():
            if not (unread and errors[0]["type"] == "missing"):
                found = _explained(model, tree, path, errors, aliased)
                problems.extend(p for p in found if (p.origin, p.path) not in known)
        return None


def _fitted(node: Node, shape: Shape, path: Path, problems: list[Problem]) -> Any:
    """Plain values, without conversions that pydantic would make and a reader would not expect: true and false are
    never numbers, `yes` and 1 are never true. `???` is Hydra's mark for a value that has to be given."""
    if isinstance(node.value, dict):
        return {key: _fitted(n, shape.below(key), (*path, key), problems) for key, n in node.value.items()}
    if isinstance(node.value, list):
        return [_fitted(n, shape.item(), (*path, str(i)), problems) for i, n in enumerate(node.value)]
    if node.value == "???":
        problems.append(Problem(node.origin, path, "has to be given a value in place of '???'"))
    elif shape.only(bool) and isinstance(node.value, str) and node.value.lower() in ("true", "false"):
        return node.value.lower() == "true"  # from the environment or in quotes
    elif shape.only(bool) and not isinstance(node.value, bool | None):
        problems.append(Problem(node.origin, path, f"expected true or false, found {show(node.value)}"))
    elif shape.only(int, float) and isinstance(node.value, bool):
        expected = "a number" if float in shape.scalars else "an integer"
        problems.append(Problem(node.origin, path, f"expected {expected}, found {show(node.value)}"))
    return node.value


def _grouped(error: ValidationError, shape: Shape, tree: Node) -> dict[Path, list[Any]]:
    """Pydantic's errors by key: a union reports once per member, with the member's name inside the location."""
    grouped: dict[Path, list[Any]] = {}
    for one in error.errors(include_url=False):
        grouped.setdefault(_located(one["loc"], shape, tree), []).append(one)
    return grouped


def _located(location: tuple[str | int, ...], shape: Shape, node: Node | None) -> Path:
    """The key that pydantic means: its location without the names of union members, `[key]` and the like."""
    path: Path = ()
    for key in map(str, location):
        below = find(node, (key,)) if node is not None else None
        if below is not None or key in shape.fields():
            path, shape, node = (*path, key), shape.below(key), below
    return path


def _explained(model: type, tree: Node, path: Path, errors: list[Any], aliased: Sequence[Path]) -> list[Problem]:
    origin = _origin(tree, path)
    if errors[0]["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(model, tree, path, aliased)
    if errors[0]["type"] == "missing" and (node := find(tree, path)) is not None:
        return [Problem(origin, path, f"expected more items, found {show(plain(node))}")]
    if errors[0]["type"] == "missing":
        origin = "" if origin == DEFAULT else origin
        return [
            Problem(origin, leaf, f"is required; give it a value in a file, or write {dotted(leaf)}={value}")
            for leaf, value in _required(shape_of(model), path)
        ]
    return [Problem(origin, path, _message(errors))]


def _required(shape: Shape, path: Path) -> list[tuple[Path, str]]:
    """The keys that have to be written for the missing `path` to exist: the required leaves of a section."""
    for key in path:
        shape = shape.below(key)
    if len(shape.sections) != 1:
        return [(path, "VALUE")]
    needed = [field.key for field in shape.fields().values() if field.default is REQUIRED]
    below = [(path + leaf, value) for key in needed for leaf, value in _required(shape, (key,))]
    return below or [(path, "{}")]


def _origin(tree: Node, path: Path) -> str:
    """Origin of the value, or of the nearest section around it that somebody wrote."""
    for end in range(len(path), 0, -1):
        node = find(tree, path[:end])
        if node is not None:
            return node.origin
    return DEFAULT if path else "config"


def _message(errors: list[Any]) -> str:
    """One sentence; where a value has the right type for one member of a union, that member speaks alone."""
    typed = [error for error in errors if _wanted(error) is None]
    if typed:
        return "; ".join(dict.fromkeys(map(_sentence, typed)))
    wanted = " or ".join(dict.fromkeys(str(_wanted(error)) for error in errors))
    return f"expected {wanted}, found {show(errors[0]['input'])}{_hint(errors)}"


def _wanted(error: Any) -> str | None:
    if error["type"] in ("literal_error", "enum"):
        return f"one of {error['ctx']['expected']}".replace(" or ", ", ")
    return _EXPECTED.get(error["type"])


def _hint(errors: list[Any]) -> str:
    found = errors[0]["input"]
    if any(error["type"] == "string_type" for error in errors) and isinstance(found, bool | int | float):
        return "; put it in quotes"
    if errors[0]["type"] in ("literal_error", "enum") and isinstance(found, str):
        choices = errors[0]["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        hint = guess(found, choices, ())
        return hint if "did you mean" in hint else ""
    return ""


def _sentence(error: Any) -> str:
    kind, found = error["type"], show(error["input"])
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        bound = error["ctx"][name]
        return f"must be {sign} {f'{bound:g}' if isinstance(bound, float) else bound}, found {found}"
    if kind == "value_error" or kind == "assertion_error":
        return str(error["ctx"]["error"])
    message = error["msg"].removeprefix("Input ").removeprefix("Value ")
    return f"{message[:1].lower()}{message[1:]}, found {found}"


def _unknown(model: type, tree: Node, path: Path, aliased: Sequence[Path]) -> list[Problem]:
    """One problem for an unknown key, or one for each leaf under a section that only old keys have."""
    node = find(tree, path)
    assert node is not None  # pydantic found it in the values of this tree
    if node.is_mapping and any(old[: len(path)] == path and old != path for old in aliased):
        return [p for key in node.value for p in _unknown(model, tree, (*path, key), aliased)]
    return [Problem(node.origin, path, unknown_key(model, path))]


def unknown_key(model: type, path: Path) -> str:
    """What to say about a key that the model does not have: siblings that are spelled alike, then leaves anywhere."""
    leaves = leaf_paths(model)
    if path[-1] in leaves and "." in path[-1]:
        return f"unknown key; write it nested, {path[-1].replace('.', ': {')}: ...{'}' * path[-1].count('.')}"
    if path == ("defaults",):
        return "unknown key; in place of Hydra's defaults list write 'extends: other.yaml'"
    shape = shape_of(model)
    for key in path[:-1]:
        shape = shape.below(key)
    if path[-1] in shape.fields():
        return f"unknown key; only another kind of {dotted(path[:-1])} has it"
    return f"unknown key{guess(path[-1], shape.fields(), leaves)}"
