"""`load`: defaults, then the preset, then files, then overrides; one error for everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import BaseModel

from troupe.config.aliases import Aliases, canonical, parse_aliases, relocate
from troupe.config.applying import apply
from troupe.config.conditions import ignored, is_record
from troupe.config.interpolation import interpolate
from troupe.config.overrides import Override, parse_override
from troupe.config.problems import Path, Problem, show
from troupe.config.resolved import Resolved, origins
from troupe.config.tree import DEFAULT, Node, defaults, leaves, merge, wrap
from troupe.config.validation import validate
from troupe.errors import ConfigError

__all__ = ["load"]

M = TypeVar("M", bound=BaseModel)


def load(
    model: type[M],
    *,
    files: Sequence[FilePath | str | Node] = (),
    overrides: Sequence[str] = (),
    preset: Mapping[str, object] | FilePath | str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Resolved[M]:
    """A `model` from its defaults, a preset, YAML files and overrides in Hydra's grammar, each above the one before.

    Mappings are merged, dicts included; lists and scalars are replaced. A file may be given as the tree of what is read
    already. `aliases` maps old dotted keys to the
    present ones. Raises ConfigError, whose text has one line for each problem: where, which key, what to write. One of
    them is a key that nothing would read (the model's `read_when`), unless it stands in a preset or in a layer that
    gives every key, such as the config.json of a run.

        load(Config, files=["my.yaml"], overrides=["optim.lr=2e-5"]).config.optim.lr
    """
    problems: list[Problem] = []
    moved = parse_aliases(aliases or {})
    tree, assumed = defaults(model), {DEFAULT}
    for layer, chosen in _layers(preset, files, problems):
        layer = relocate(layer, moved, problems)
        if not chosen or is_record(layer, model):
            assumed |= {node.origin for _, node in leaves(layer)}
        tree = merge(tree, layer)
    parsed, malformed = _parsed(overrides)
    for override, origin in _respelled(parsed, moved, problems):
        tree = apply(override, origin, tree, model, problems)
    tree = interpolate(tree, model, problems)
    config = validate(model, tree, problems, tuple(moved))
    problems += ignored(model, tree, config, assumed, problems)
    if config is None or problems or malformed:
        raise ConfigError("\n".join(dict.fromkeys([*map(str, problems), *malformed])))
    return Resolved(config, origins(config.model_dump(mode="json", by_alias=True, round_trip=True), tree))


def _layers(
    preset: Mapping[str, object] | FilePath | str | None,
    files: Sequence[FilePath | str | Node],
    problems: list[Problem],
) -> Iterator[tuple[Node, bool]]:
    """Each layer, and whether the user chose what it says; presets are files, and a mapping is what a caller gives."""
    if isinstance(preset, Mapping):
        yield wrap(preset, "preset"), True
        preset = None
    if preset is not None or files:
        from troupe.config.documents import read  # PyYAML, 50 ms, only where there is a file
    if preset is not None:
        yield read(preset, problems, label="preset "), False
    for file in files:
        yield file if isinstance(file, Node) else read(file, problems), True


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides, and a sentence for each that is malformed."""
    parsed, malformed = [], []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except ConfigError as error:
            malformed.append(str(error))
    return parsed, malformed


def _respelled(
    overrides: Sequence[Override], aliases: Aliases, problems: list[Problem]
) -> Iterator[tuple[Override, str]]:
    """Each override under its present key, with its origin; an old and a new spelling that disagree are a problem."""
    seen: dict[Path, Override] = {}
    for override in overrides:
        path, remark = canonical(override.path, aliases)
        other = seen.setdefault(path, override)
        if other.path != override.path and other.value != override.value:
            values = f"{show(other.value)} and {show(override.value)}"
            message = f"is also given by override '{other.text}', as {values}; keep one"
            problems.append(Problem(f"override '{override.text}'", path, message))
        yield replace(override, path=path), f"override '{override.text}'{remark}"
