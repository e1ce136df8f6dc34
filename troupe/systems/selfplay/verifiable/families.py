"""Families of tasks by name: a generator, the game that each of its kinds is searched in, and the verdict."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from troupe.episode import Task
from troupe.errors import ConfigError, DataError, did_you_mean
from troupe.protocols import TaskGame
from troupe.systems.selfplay.verifiable.config import TasksConfig
from troupe.tasks.splits import fingerprint

__all__ = ["FAMILIES", "Family", "family_of", "held_out", "training_tasks"]

FAMILIES: dict[str, str] = {
    "code": "troupe.tasks.programs:CodeGenerationTaskGenerator",
    "math": "troupe.tasks.math:MathProblemGenerator",
    "picture": "troupe.tasks.search_problems:SearchProblemGenerator",
    "reasoning": "troupe.tasks.reasoning:MultiStepReasoningGenerator",
    "search": "troupe.systems.selfplay.search_tasks:MCTSSearchTaskGenerator",
}
"""What `tasks.family` may name besides package.module:Class."""

_ONLY: dict[str, tuple[str, ...]] = {"picture": ("picture",)}
"""Families that are some kinds of a generator."""

_MISSES = 200
"""Rounds of draws in a row that bring nothing new before a kind counts as having no other tasks."""


@dataclass(frozen=True)
class Family:
    """A generator class with `game(kind)`, `verify(task, answer)` and, for the control `corrupted`,
    `corrupted(task, rng)`; and the kinds that a run is about. `verify_all(pairs)`, where it is there, judges many
    answers at once."""

    name: str
    generator: Any  # the class
    kinds: tuple[str, ...]
    difficulty: Mapping[str, tuple[float, float]]

    def game(self, kind: str) -> TaskGame:
        return self.generator.game(kind)

    def verdicts(self, pairs: Sequence[tuple[Task, str | None]]) -> list[bool]:
        """Whether each answer solves its task; None never does."""
        verify_all: Callable[[Sequence[tuple[Task, str | None]]], list[bool]] | None = getattr(
            self.generator, "verify_all", None
        )
        if verify_all is not None:
            return list(verify_all(pairs))
        return [answer is not None and bool(self.generator.verify(task, answer)) for task, answer in pairs]

    def tasks(self, kind: str, difficulty: tuple[float, float], seed: Iterable[int]) -> Iterable[Task]:
        """An endless stream of tasks of one kind; the same seed gives the same."""
        words = np.random.SeedSequence(tuple(seed)).generate_state(2)
        return iter(
            self.generator(difficulty_range=difficulty, seed=int(words[0]) << 32 | int(words[1]), kinds=(kind,))
        )

    def range_of(self, kind: str) -> tuple[float, float]:
        return self.difficulty.get(kind, (0.0, 1.0))


def family_of(config: TasksConfig, given: Any = None) -> Family:
    """The family of a config, or of a generator class given in code. Raises ConfigError for a name that nobody knows,
    a class that cannot be searched, or a kind that it has not."""
    generator = _class(config.family) if given is None else given
    name = config.family if given is None else f"{given.__module__}:{given.__qualname__}"
    for method in ("game", "verify"):
        if not callable(getattr(generator, method, None)):
            raise ConfigError(f"{name} has no {method}(); a searched family needs game(kind) and verify(task, answer)")
    searched = _ONLY.get(name, tuple(getattr(generator, "SEARCHED", ()) or generator.KINDS))
    for kind in (*config.kinds, *config.difficulty):
        if kind not in searched:
            raise ConfigError(f"{name} searches no kind {kind!r}{did_you_mean(kind, searched)}")
    for kind in config.kinds:
        if config.kinds.count(kind) > 1:
            raise ConfigError(f"tasks.kinds names {kind!r} twice; write every kind once")
    if config.control == "corrupted" and not callable(getattr(generator, "corrupted", None)):
        raise ConfigError(f"{name} has no corrupted(task, rng), which tasks.control=corrupted needs")
    return Family(name, generator, config.kinds or searched, config.difficulty)


def _class(name: str) -> Any:
    path = FAMILIES.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        raise ConfigError(
            f"tasks.family={name!r} is not known{did_you_mean(name, FAMILIES)}; write one of "
            f"{', '.join(FAMILIES)}, or package.module:Class"
        )
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"tasks.family={name!r} cannot be imported: {error}") from error


def held_out(family: Family, sizes: Sequence[int], seed: int) -> list[dict[str, list[Task]]]:
    """For each size, that many tasks in equal shares of the kinds, by kind; no fingerprint in two places.

    Raises ConfigError where a kind has too few different tasks.
    """
    sets: list[dict[str, list[Task]]] = [{} for _ in sizes]
    for place, kind in enumerate(family.kinds):
        taken: set[str] = set()
        stream = iter(family.tasks(kind, family.range_of(kind), (seed, 7, place)))
        for found, size in zip(sets, sizes, strict=True):
            share = len(range(place, size, len(family.kinds)))
            found[kind] = _fresh(stream, share, taken, f"tasks.difficulty.{kind}", once=True)
    return sets


def training_tasks(
    family: Family, kind: str, difficulty: tuple[float, float], n: int, seed: Sequence[int], reserved: set[str]
) -> list[Task]:
    """`n` tasks of a kind, none of which is `reserved` (fingerprints). The same arguments give the same tasks. Raises
    ConfigError where there are none."""
    return _fresh(iter(family.tasks(kind, difficulty, seed)), n, reserved, f"tasks.difficulty.{kind}", once=False)


def corrupted(family: Family, tasks: Sequence[Task], seed: Sequence[int]) -> list[Task]:
    """The same tasks with wrong answers, for a run that must not improve."""
    words = np.random.SeedSequence(tuple(seed)).generate_state(2)
    rng = random.Random(int(words[0]) << 32 | int(words[1]))
    return [family.generator.corrupted(task, rng) for task in tasks]


def _fresh(stream: Any, n: int, taken: set[str], key: str, *, once: bool) -> list[Task]:
    found: list[Task] = []
    misses = 0
    while len(found) < n:
        task = next(stream)
        mark = fingerprint(task)
        if mark in taken:
            misses += 1
            if misses > _MISSES:
                raise ConfigError(
                    f"{misses} draws in a row brought no task that is not held out ({len(found)} of {n} found); widen "
                    f"{key}, or write smaller tasks.gate and tasks.final"
                )
            continue
        misses = 0
        found.append(task)
        if once:
            taken.add(mark)
    return found


def marks_of(sets: Sequence[Mapping[str, Sequence[Task]]]) -> dict[str, set[str]]:
    """Fingerprints of held-out tasks, by kind. Raises DataError where two sets share one."""
    marks: dict[str, set[str]] = {}
    for tasks in sets:
        for kind, some in tasks.items():
            new = {fingerprint(task) for task in some}
            known = marks.setdefault(kind, set())
            if new & known or len(new) != len(some):
                raise DataError(f"held-out tasks of kind {kind!r} are not distinct: {sorted(new & known)[:1]}")
            known |= new
    return marks
