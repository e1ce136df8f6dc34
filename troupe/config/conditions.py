"""Keys that only some configurations read: where nothing would read what somebody wrote, that is a problem."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from troupe.config.problems import Path, Problem, dotted
from troupe.config.recording import Recording, unread
from troupe.config.schema import leaf_paths
from troupe.config.tree import DEFAULT, Node, drop, find, leaves
from troupe.config.validation import validate

__all__ = ["ReadWhen", "ignored", "is_record"]


@dataclass(frozen=True, slots=True)
class ReadWhen:
    """These keys, or all below them, are read where `holds(config)`.

    A `*` in a key stands for one entry of a dict, whose name `holds` receives, too. `otherwise` is the end of a
    sentence that says what to write instead; it may quote the config and the entries: `{algorithm.adv_estimator}`,
    `{0}`. Where the user has written the key `switch` as well, they have left out on purpose what these keys
    configure, and may let them stand.
    """

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    otherwise: str
    switch: str = ""


def is_record(layer: Node, model: type) -> bool:
    """Whether a layer gives every key of the model a value, as the config.json of a run does: nobody chose those. A
    section that is null has none to give."""
    return all(_gives(layer, tuple(leaf.partition(".*")[0].split("."))) for leaf in leaf_paths(model))


def _gives(layer: Node, path: Path) -> bool:
    if find(layer, path) is not None:
        return True
    above = (find(layer, path[:length]) for length in range(1, len(path)))
    return any(node is not None and node.value is None for node in above)


def ignored(
    model: type[BaseModel], tree: Node, config: BaseModel | None, assumed: Collection[str], problems: list[Problem]
) -> list[Problem]:
    """A problem for each key that somebody wrote and nothing would read, by the table `read_when` of the model.

    `assumed` are origins of values that nobody chose for this run. Where the config has other problems (None), the
    rest of it is looked at, and what depends on a key that is wrong is left alone.
    """
    table: tuple[ReadWhen, ...] = getattr(model, "read_when", ())
    wrong = [problem.path for problem in problems]
    if config is None:
        for path in wrong:
            tree = drop(tree, path) if path else Node({}, DEFAULT)
        config = validate(model, tree, [])
    if config is None:
        return []
    written = {path: node.origin for path, node in leaves(tree) if not (node.is_mapping or node.origin in assumed)}
    return [
        Problem(origin, path, row.otherwise.format(*entries, **dict(config)))
        for path, origin in written.items()
        for row, entries in _rows(table, path)
        if not any(dotted(other) == row.switch for other in written) and _unread(row, entries, config, wrong)
    ]


def _rows(table: tuple[ReadWhen, ...], path: Path) -> Iterator[tuple[ReadWhen, list[str]]]:
    """The rows about a key, with the names that stand at their stars."""
    for row in table:
        for key in row.keys:
            parts = key.split(".")
            if _within(path, parts):
                yield row, [name for name, part in zip(path, parts, strict=False) if part == "*"]


def _within(path: Path, section: Collection[str]) -> bool:
    return len(path) >= len(section) and all(part in (name, "*") for name, part in zip(path, section, strict=False))


def _unread(row: ReadWhen, entries: list[str], config: BaseModel, wrong: list[Path]) -> bool:
    recording: Any = Recording(config)
    if row.holds(recording, *entries):
        return False
    looked_at = [leaf.split(".") for leaf in unread(config, ()) if leaf not in recording.unread()]
    return not any(_touch(leaf, path) for leaf in looked_at for path in wrong)


def _touch(leaf: list[str], path: Path) -> bool:
    """Whether one is the other or stands below it."""
    return all(part in (name, "*") for name, part in zip(path, leaf, strict=False))
