"""`${a.b}` and `${oc.env:NAME,default}`, resolved by OmegaConf where a config contains them."""

from __future__ import annotations

from typing import Any

from troupe.config.problems import Path, Problem, show
from troupe.config.schema import shape_of
from troupe.config.tree import Node, as_written, complete, wrap

__all__ = ["interpolate"]


def interpolate(tree: Node, model: type, problems: list[Problem]) -> Node:
    """The tree with every `${...}` replaced by what it refers to; defaults of the model can be referred to.

    OmegaConf (150 ms to import) is only loaded where there is something to resolve. A literal `${` is written `\\${`.
    """
    if not _contains(tree):
        return tree
    from omegaconf import OmegaConf

    tree = _well_formed(as_written(tree, shape_of(model)), (), problems)
    return _resolved(tree, (), OmegaConf.create(complete(model, tree)), problems)


def _contains(node: Node) -> bool:
    if isinstance(node.value, dict):
        return any(map(_contains, node.value.values()))
    if isinstance(node.value, list):
        return any(map(_contains, node.value))
    return isinstance(node.value, str) and "${" in node.value


def _well_formed(node: Node, path: Path, problems: list[Problem]) -> Node:
    """The tree without texts whose `${` OmegaConf cannot parse: one of them would stop it from reading the others."""
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    if isinstance(node.value, dict):
        below = {key: _well_formed(n, (*path, key), problems) for key, n in node.value.items()}
        return Node(below, node.origin, node.raw)
    if isinstance(node.value, list):
        items = [_well_formed(n, (*path, str(i)), problems) for i, n in enumerate(node.value)]
        return Node(items, node.origin, node.raw)
    try:
        if _contains(node):
            OmegaConf.create({"value": node.value})
    except GrammarParseError:
        problems.append(
            Problem(node.origin, path, f"cannot parse {show(node.value)}; a literal '${{' is written '\\${{'")
        )
        return Node(None, node.origin)
    return node


def _resolved(node: Node, path: Path, container: Any, problems: list[Problem]) -> Node:
    """`container` is OmegaConf's node around the values at `path`."""
    if not _contains(node):
        return node
    if isinstance(node.value, dict):
        below = {key: _child(n, (*path, key), container, key, problems) for key, n in node.value.items()}
        return Node(below, node.origin)
    items = [_child(n, (*path, str(i)), container, i, problems) for i, n in enumerate(node.value)]
    return Node(items, node.origin)


def _child(node: Node, path: Path, container: Any, key: str | int, problems: list[Problem]) -> Node:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(node.value, str):
        return _resolved(node, path, container[key], problems) if _contains(node) else node
    if "${" not in node.value:
        return node
    try:
        value = container[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        problems.append(Problem(node.origin, path, _reason(node.value, error)))
        return Node(None, node.origin)
    found = wrap(value, node.origin)
    return Node(value, node.origin, show(value)) if isinstance(value, int | float) else found


def _reason(text: str, error: Exception) -> str:
    """OmegaConf's first line, without the class name of the exception that it wraps."""
    reason = str(error).splitlines()[0].rpartition("while resolving interpolation: ")[2].strip("\"'")
    return f"cannot resolve {show(text)}: {reason[:1].lower()}{reason[1:]}"
