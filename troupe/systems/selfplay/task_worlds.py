"""Tasks with exact verifiers as the worlds of document 001's episodes: one task, its game, its family's verdict.

    world = TaskWorld(MathProblemGenerator, task)
    state = world.initial()                     # the game's first state of this very task
    world.submission(state)                     # None, or what a state that has ended submits
    world.solved(task, submission)              # the family's verdict

The world begins with the problem alone; the verdict needs the task with its answer, and is asked for afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from troupe.episode import Task
from troupe.systems.selfplay.search_tasks import MCTSSearchTaskGenerator
from troupe.tasks.math import SEARCHED, MathProblemGenerator
from troupe.tasks.programs import CodeGenerationTaskGenerator
from troupe.tasks.reasoning import MultiStepReasoningGenerator

__all__ = ["TASK_WORLDS", "TaskWorld"]

OPTIONAL = ("key", "symmetries", "render", "vocabulary", "pointers", "encode", "encoding")
"""What a `TaskGame` may have beside the verbs of `Game`."""


class TaskWorld:
    """A `Game` of one player that begins with one task; everything else is that of its kind's `TaskGame`."""

    def __init__(self, generator: Any, task: Task) -> None:
        """`generator` is a class with `game(kind)` and `verify(task, answer)`. Raises DataError for a task that its
        game cannot hold."""
        self.game, self._verify = generator.game(task.kind), generator.verify
        self.players, self.actions = self.game.players, self.game.actions
        self.observation_shape = self.game.observation_shape
        self._first = self.game.begin(task.problem)

    def initial(self) -> Any:
        return self._first

    def legal(self, state: Any) -> Sequence[Any]:
        return self.game.legal(state)  # type: ignore[no-any-return]

    def step(self, state: Any, action: Any) -> tuple[Any, float, bool, int]:
        return self.game.step(state, action)  # type: ignore[no-any-return]

    def observe(self, state: Any) -> np.ndarray:
        return self.game.observe(state)  # type: ignore[no-any-return]

    def submission(self, state: Any) -> str | None:
        """What a state that has ended submits. No `answer`, which would end a world at its first text."""
        return self.game.answer(state)  # type: ignore[no-any-return]

    def solved(self, task: Task, submission: str | None) -> bool:
        """The family's verdict on the task with its answer; None never solves it."""
        return submission is not None and bool(self._verify(task, submission))

    def says(self, state: Any, action: Any) -> str:
        """The action in words: a line of a reasoning chain."""
        return self.game.describe(state, action)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name in OPTIONAL:
            return getattr(self.__dict__["game"], name)
        raise AttributeError(name)


_KINDS: Mapping[Any, Sequence[str]] = {
    MathProblemGenerator: tuple(SEARCHED),
    CodeGenerationTaskGenerator: CodeGenerationTaskGenerator.KINDS,
    MultiStepReasoningGenerator: MultiStepReasoningGenerator.KINDS,
    MCTSSearchTaskGenerator: MCTSSearchTaskGenerator.KINDS,
}

TASK_WORLDS: dict[str, Callable[[Task], TaskWorld]] = {
    kind: partial(TaskWorld, generator) for generator, kinds in _KINDS.items() for kind in kinds
}
"""By task type: the kinds of document 001's four generators that are searched."""
