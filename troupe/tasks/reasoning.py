"""The reasoning family: deduction, causal graphs, planning and constraint satisfaction, as tasks to search.

    generator = MultiStepReasoningGenerator(difficulty_range=(0.2, 0.4), seed=0, kinds=("deduction", "sudoku"))
    task = generator.generate(1)[0]
    game = MultiStepReasoningGenerator.game(task.kind)
    state = game.begin(task.problem)        # ... play it ...
    MultiStepReasoningGenerator.verify(task, game.answer(state))

Each kind has its own file: `deduction`, `causal`, `blocksworld`, `planning` (logistics, and any PDDL problem), and
`constraint_tasks` (sudoku, queens, colouring).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from troupe.episode import Task
from troupe.errors import ConfigError, did_you_mean
from troupe.tasks import blocksworld, causal, constraint_tasks, constraints, deduction, planning
from troupe.tasks.generator import BaseTaskGenerator

__all__ = ["MultiStepReasoningGenerator"]


@dataclass(frozen=True)
class Kind:
    """What a kind is made of. `corrupt` gives a wrong answer for a task."""

    params: Callable[[float], dict[str, Any]]
    make: Callable[[random.Random, float], Task]
    game: Callable[[], Any]
    solves: Callable[[Task, str], bool]
    corrupt: Callable[[Task, random.Random], Any]


FAMILY = {
    "deduction": Kind(
        deduction.deduction_params,
        deduction.make_deduction,
        deduction.DeductionGame,
        deduction.solves_deduction,
        deduction.corrupted_deduction,
    ),
    "causal": Kind(
        causal.causal_params, causal.make_causal, causal.CausalGame, causal.solves_causal, causal.corrupted_causal
    ),
    "blocksworld": Kind(
        blocksworld.blocks_params,
        blocksworld.make_blocks,
        blocksworld.BlocksGame,
        blocksworld.solves_blocks,
        blocksworld.corrupted_blocks,
    ),
    "logistics": Kind(
        planning.logistics_params,
        planning.make_logistics,
        planning.PDDLGame,
        planning.solves_plan,
        planning.corrupted_plan,
    ),
    "sudoku": Kind(
        constraint_tasks.sudoku_params,
        constraint_tasks.make_sudoku,
        lambda: constraints.GAMES["sudoku"],
        constraint_tasks.solves_sudoku,
        constraint_tasks.corrupted_sudoku,
    ),
    "queens": Kind(
        constraint_tasks.queens_params,
        constraint_tasks.make_queens,
        lambda: constraints.GAMES["queens"],
        constraint_tasks.solves_queens,
        constraint_tasks.corrupted_queens,
    ),
    "colouring": Kind(
        constraint_tasks.colouring_params,
        constraint_tasks.make_colouring,
        lambda: constraints.GAMES["colouring"],
        constraint_tasks.solves_colouring,
        constraint_tasks.corrupted_colouring,
    ),
}


class MultiStepReasoningGenerator(BaseTaskGenerator):
    """Tasks of several steps whose submissions are checked against the problem itself.

    `logistics` is not among the default kinds: its game lists candidates in each state, and a network of fixed actions
    cannot play it.
    """

    KINDS: ClassVar[tuple[str, ...]] = tuple(FAMILY)
    DEFAULT_KINDS: ClassVar[tuple[str, ...]] = tuple(kind for kind in FAMILY if kind != "logistics")
    SEARCHED: ClassVar[tuple[str, ...]] = DEFAULT_KINDS

    def make(self, difficulty: float) -> Task:
        return FAMILY[self.draw_kind()].make(self.rng, difficulty)

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """Kind -> what the difficulty means for it."""
        return {kind: FAMILY[kind].params(difficulty) for kind in self.kinds}

    @staticmethod
    def game(kind: str) -> Any:
        """The game of a kind: a `TaskGame`, but for `logistics`, whose actions are candidates."""
        _check(kind)
        return _game(kind)

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        """Whether the submission solves the task; None and what cannot be read do not."""
        _check(task.kind)
        return answer is not None and FAMILY[task.kind].solves(task, answer)

    @staticmethod
    def corrupted(task: Task, rng: random.Random) -> Task:
        """The same task with a wrong answer: what was right is then judged wrong."""
        _check(task.kind)
        return replace(task, answer=FAMILY[task.kind].corrupt(task, rng))


def _check(kind: str) -> None:
    if kind not in FAMILY:
        raise ConfigError(f"kind {kind!r} is not known{did_you_mean(kind, tuple(FAMILY))}")


@lru_cache
def _game(kind: str) -> Any:
    return FAMILY[kind].game()
