"""Where a trainer's tasks come from: named generators, and a held-out set that none of them repeats."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from troupe.episode import Task
from troupe.errors import ConfigError
from troupe.tasks.generator import as_task
from troupe.tasks.splits import fingerprint

__all__ = ["Sources"]

TRIES = 20
"""Draws in a row that bring nothing new before a generator counts as having no other tasks."""


class _Generates(Protocol):
    def generate(self, n: int) -> Any: ...


@dataclass
class Sources:
    """`generators` may change at any time; a new one brings its own held-out tasks, drawn from a copy with another
    seed. Where a generator has no tasks but held-out ones, training takes those and `overlap` counts them."""

    generators: dict[str, Any]
    size: int  # held-out tasks in all
    seed: int = 0
    overlap: int = 0
    drawn: int = 0
    _held: dict[str, list[Task]] = field(default_factory=dict)

    def held_out(self, n: int) -> list[Task]:
        """The first `n`, in turn from every generator. Raises ConfigError for more than there are reserved."""
        if n > self.size:
            if self.drawn:
                raise ConfigError(
                    f"{n} held-out tasks are asked for and {self.size} are reserved; set eval_games to {n}"
                )
            self.size = n
            self._held.clear()
        self._reserve()
        found: list[Task] = []
        for i in range(max((len(tasks) for tasks in self._held.values()), default=0)):
            found += [tasks[i] for name, tasks in self._held.items() if name in self.generators and i < len(tasks)]
        return found[:n]

    def draw(self, n: int) -> list[Task]:
        """The next `n` tasks to train on, in turn from every generator."""
        if not self.generators:
            raise ConfigError("task_generators is empty; give it a generator of tasks")
        self._reserve()
        reserved = {fingerprint(task) for tasks in self._held.values() for task in tasks}
        names = list(self.generators)
        queues = {
            name: iter(self._fresh(self.generators[name], len(range(i, n, len(names))), reserved))
            for i, name in enumerate(names)
        }
        self.drawn += n
        return [next(queues[names[i % len(names)]]) for i in range(n)]

    def _fresh(self, generator: _Generates, n: int, reserved: set[str]) -> list[Task]:
        found: list[Task] = []
        tries = 0
        while len(found) < n:
            tasks = [as_task(record) for record in generator.generate(n - len(found))]
            new = [task for task in tasks if fingerprint(task) not in reserved]
            tries = 0 if new else tries + 1
            if not tasks or tries > TRIES:
                if not tasks:
                    raise ConfigError(f"{type(generator).__name__}.generate({n - len(found)}) gave no task")
                self.overlap += len(tasks)
                new = tasks
            found += new
        return found[:n]

    def _reserve(self) -> None:
        for i, (name, generator) in enumerate(self.generators.items()):
            if name not in self._held:
                count = -(-self.size // len(self.generators))
                self._held[name] = _distinct(_reseeded(generator, self.seed * 1009 + i + 1), count, name)

    def state(self) -> dict[str, Any]:
        """Counters, the held-out tasks, and how far each generator with an `rng` has come."""
        return {
            "size": self.size,
            "overlap": self.overlap,
            "drawn": self.drawn,
            "held": {name: [task.to_dict() for task in tasks] for name, tasks in self._held.items()},
            "rng": {name: _rng_state(generator) for name, generator in self.generators.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError where a generator of the stored run is missing."""
        missing = set(state["rng"]) - set(self.generators)
        if missing:
            raise ConfigError(
                f"the checkpoint's run had the task generator {sorted(missing)[0]!r}; add it before loading"
            )
        self.size, self.overlap, self.drawn = state["size"], state["overlap"], state["drawn"]
        self._held = {name: [Task.from_dict(row) for row in rows] for name, rows in state["held"].items()}
        for name, stored in state["rng"].items():
            _set_rng(self.generators[name], stored)


def _distinct(generator: _Generates, n: int, name: str) -> list[Task]:
    found: dict[str, Task] = {}
    tries = 0
    while len(found) < n and tries <= TRIES:
        before = len(found)
        for record in generator.generate(n - len(found)):
            task = as_task(record)
            mark = fingerprint(task)
            if mark not in found:  # ids may repeat from call to call, as in document 001's own example
                found[mark] = replace(task, id=f"{name}/{len(found)}/{task.id}")
        tries = tries + 1 if len(found) == before else 0
    return list(found.values())


def _reseeded(generator: Any, seed: int) -> Any:
    other = copy.deepcopy(generator)
    if isinstance(getattr(other, "rng", None), random.Random):
        other.rng = random.Random(seed)
    elif isinstance(getattr(other, "rng", None), np.random.Generator):
        other.rng = np.random.default_rng(seed)
    return other


def _rng_state(generator: Any) -> Any:
    rng = getattr(generator, "rng", None)
    if isinstance(rng, random.Random):
        return rng.getstate()
    return rng.bit_generator.state if isinstance(rng, np.random.Generator) else None


def _set_rng(generator: Any, state: Any) -> None:
    if isinstance(state, tuple):
        generator.rng.setstate(state)
    elif state is not None:
        generator.rng.bit_generator.state = state
