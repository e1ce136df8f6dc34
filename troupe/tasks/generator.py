"""The shape of a task generator, as document 001 has it, and the one thing generators share: a seeded stream of tasks.

    class Doubling(BaseTaskGenerator):
        def make(self, difficulty: float) -> Task:
            n = self.rng.randint(1, self._difficulty_to_params(difficulty)["largest"])
            return Task(f"double-{n}", "double", f"Double {n}", difficulty=difficulty, answer=str(2 * n))

        def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
            return {"largest": int(1 + 10 * difficulty)}

A generator of several kinds names them in `KINDS`; its `make` asks `self.draw_kind()`. A subclass may also override
`generate` itself and return plain dicts with document 001's keys; `as_task` reads them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from troupe.episode import Task
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = ["BaseTaskGenerator", "as_task"]


class BaseTaskGenerator:
    """A stream of tasks whose difficulties are uniform over `difficulty_range`, within [0, 1].

    The same seed gives the same tasks, however they are asked for: `generate(2) + generate(3)` is `generate(5)`.
    `weights` are relative frequencies along `kinds` (some of `KINDS`, all by default), equal by default. Raises
    ConfigError for an unknown kind, or weights or a range that do not fit.
    """

    KINDS: ClassVar[tuple[str, ...]] = ()
    """The kinds of tasks that it makes; none for a generator of one kind."""
    DEFAULT_KINDS: ClassVar[tuple[str, ...]] = ()
    """Those that a run trains on where its config names none; all by default."""
    SEARCHED: ClassVar[tuple[str, ...]] = ()
    """Those whose tasks a network of fixed actions can search, by `game(kind)`; all by default."""

    def __init__(
        self,
        difficulty_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        low, high = difficulty_range
        if not 0.0 <= low <= high <= 1.0:
            raise ConfigError(f"difficulty_range is {difficulty_range!r}; write two rising numbers within [0, 1]")
        self.difficulty_range = (float(low), float(high))
        self.seed = seed
        self.rng = random.Random(seed)
        self.kinds = tuple(self.KINDS if kinds is None else kinds)
        for kind in self.kinds:
            if kind not in self.KINDS:
                raise ConfigError(f"kind {kind!r} is not known{did_you_mean(kind, self.KINDS)}")
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.kinds)
        fits = len(self.weights) == len(self.kinds) and all(weight >= 0 for weight in self.weights)
        if not fits or (self.KINDS and not sum(self.weights) > 0):
            raise ConfigError(f"weights are {weights!r} for kinds {self.kinds!r}; write one weight >= 0 for each kind")

    def draw_kind(self) -> str:
        """A kind, drawn by weight."""
        return self.rng.choices(self.kinds, self.weights)[0]

    def generate(self, n: int) -> list[Task]:
        """The next `n` tasks of the stream."""
        return [self.make(self.rng.uniform(*self.difficulty_range)) for _ in range(n)]

    def __iter__(self) -> Iterator[Task]:
        while True:
            yield from self.generate(1)

    def make(self, difficulty: float) -> Task:
        """One task of this difficulty, drawn from `self.rng`."""
        raise NotImplementedError(f"{type(self).__name__} defines neither make() nor generate()")

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """What a difficulty means for this generator, such as the ranges of the numbers."""
        raise NotImplementedError(f"{type(self).__name__} does not define _difficulty_to_params()")


_RECORD_KEYS = {"task_id": "id", "type": "kind", "problem": "prompt"}
_OWN_KEYS = ("difficulty", "answer", "solution")


def as_task(record: Task | Mapping[str, Any]) -> Task:
    """A Task from document 001's dict `{"task_id", "type", "difficulty", "problem", "answer"}`; a Task stays as it is.

    `steps` are a worked solution. Other keys become the task's data. Raises DataError where one of the first keys is
    missing.
    """
    if isinstance(record, Task):
        return record
    missing = [key for key in _RECORD_KEYS if key not in record]
    if missing:
        raise DataError(f"a generated task has no {missing[0]!r}; it needs {', '.join(_RECORD_KEYS)}")
    renamed = {name: record[key] for key, name in _RECORD_KEYS.items()}
    own = {key: record[key] for key in _OWN_KEYS if key in record}
    if "steps" in record:
        own.setdefault("solution", record["steps"])
    hidden = (*_RECORD_KEYS, *_OWN_KEYS, "steps")
    data = {key: value for key, value in record.items() if key not in hidden}
    return Task(**renamed, **own, data={**data.pop("data", {}), **data})
