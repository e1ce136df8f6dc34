"""What an override does to a tree: Hydra's rules for keys that exist, keys that are new, and keys that go."""

from __future__ import annotations

from troupe.config.overrides import Action, Override, format_value
from troupe.config.problems import Path, Problem, dotted, guess, show
from troupe.config.schema import Shape, shape_of
from troupe.config.tree import Node, complete, defaults, drop, find, merge, nest, wrap
from troupe.config.validation import unknown_key

__all__ = ["apply"]


def apply(override: Override, origin: str, tree: Node, model: type, problems: list[Problem]) -> Node:
    """The tree after one override; what cannot be done is a problem and leaves the tree as it was."""
    refused = _refused(override, tree, model)
    if refused is not None:
        path, message = refused
        problems.append(Problem(origin, path, message))
        return tree
    if override.action is Action.REMOVE:
        return _removed(override.path, tree, model)
    node = wrap(override.value, origin)
    return merge(tree, nest(override.path, Node(node.value, origin, override.raw)))


def _refused(override: Override, tree: Node, model: type) -> tuple[Path, str] | None:
    """The key that is wrong and the end of a sentence about it, None where the override can be applied."""
    shape = shape_of(model)
    for end, key in enumerate(override.path, start=1):
        path, below = override.path[:end], shape.child(key)
        if below is None:
            return path, _no_such_key(override, model, path)
        if key not in shape.fields():
            message = _entry_refused(override, path, find(tree, path[:-1]), below)
            if message:
                return path, message
        shape = below
    return _comparison_refused(override, tree, model)


def _no_such_key(override: Override, model: type, path: Path) -> str:
    shape = shape_of(model)
    for key in path[:-1]:
        shape = shape.below(key)
    if shape.items:
        return f"lists are assigned whole; write {dotted(path[:-1])}=[...]"
    if not shape.fields():
        return f"unknown key; {dotted(path[:-1])} holds a single value"
    hint = "; '+' adds entries to dicts only" if override.action in (Action.ADD, Action.FORCE) else ""
    return unknown_key(model, path) + hint


def _entry_refused(override: Override, path: Path, holder: Node | None, below: Shape) -> str:
    """Entries of a dict: `=` and `~` need one that exists, `+` one that does not. Where anything may stand, as in the
    arguments of a workflow, `=` adds, too: whoever reads them knows their names."""
    known = list(holder.value) if holder is not None and holder.is_mapping else []
    exists, last = path[-1] in known, path == override.path
    if not exists and override.action is Action.REMOVE:
        return f"there is no such entry to remove{guess(path[-1], known, ())}"
    if not exists and override.action is Action.SET and not below.free:
        return f"there is no such entry yet{guess(path[-1], known, ())}; write '+{override.text}' to add it"
    if exists and last and override.action is Action.ADD:
        return f"there is such an entry already; write '{override.text.strip()[1:]}' to change it"
    return ""


def _comparison_refused(override: Override, tree: Node, model: type) -> tuple[Path, str] | None:
    """`~a.b=c` removes only what equals c."""
    if override.action is not Action.REMOVE or not override.has_value:
        return None
    value: object = complete(model, tree)
    for key in override.path:
        value = value.get(key) if isinstance(value, dict) else None
    if value == override.value:
        return None
    return (
        override.path,
        f"is {format_value(value)}, not {show(override.value)}; write ~{dotted(override.path)} to remove it anyway",
    )


def _removed(path: Path, tree: Node, model: type) -> Node:
    """Without an entry of a dict, or with a field as its default has it."""
    holder = shape_of(model)
    for key in path[:-1]:
        holder = holder.below(key)
    reset = find(defaults(model), path) if path[-1] in holder.fields() else None
    rest = drop(tree, path)
    return rest if reset is None else merge(rest, nest(path, reset))
