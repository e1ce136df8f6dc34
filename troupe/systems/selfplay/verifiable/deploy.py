"""What a run has learned, at work: tasks solved by its champion, with the steps in words.

solver = load_task_solver("runs/tasks-math")
(solved,) = solver.solve([task])
solved.answer, solved.success, solved.chain

write_chains("chains.jsonl", solver.solve(tasks))      # what was solved, as conversations for fine-tuning
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from troupe.episode import Task
from troupe.errors import ConfigError
from troupe.protocols import TaskGame
from troupe.search.config import SearchConfig
from troupe.stores.atomic import write_atomic
from troupe.systems.selfplay.deploy import read_checkpoint
from troupe.systems.selfplay.verifiable.attempts import Attempts
from troupe.systems.selfplay.verifiable.config import VerifiableConfig
from troupe.systems.selfplay.verifiable.desk import TaskDesk, network
from troupe.systems.selfplay.verifiable.families import family_of
from troupe.systems.selfplay.workers import arrays_of

__all__ = ["Solved", "TaskSolver", "chain_of", "load_task_solver", "write_chains"]

WHICH = ("champion", "averaged", "untrained")
"""Weights that a run folder holds: of the incumbent, of the last iteration, and those that it began with."""


@dataclass(frozen=True, slots=True)
class Solved:
    """An attempt at a task: what was submitted, the verdict, and what each step did."""

    task: Task
    answer: str | None
    success: bool
    chain: tuple[str, ...]

    def to_messages(self) -> list[dict[str, str]]:
        """A conversation in OpenAI's shape: the problem, then the steps and the answer."""
        said = "\n".join([*self.chain, f"Answer: {self.answer}"])
        return [{"role": "user", "content": self.task.prompt}, {"role": "assistant", "content": said}]


def chain_of(game: TaskGame, task: Task, edges: Iterable[int]) -> tuple[str, ...]:
    """What these actions do, step by step, in the game's own words."""
    state, lines = game.begin(task.problem), []
    for action in edges:
        lines.append(game.describe(state, action))
        state, *_ = game.step(state, action)
    return tuple(lines)


class TaskSolver:
    """The networks of a run, and the search that they were judged with."""

    def __init__(self, config: VerifiableConfig, weights: dict[str, dict[str, Tensor]], generator: Any = None) -> None:
        self.config, self.weights = config, weights
        self.family = family_of(config.tasks, generator)
        self._desk = TaskDesk(config, generator)

    def solve(self, tasks: Sequence[Task], seed: int = 0) -> list[Solved]:
        """An attempt at each task, without exploration. Raises ConfigError for a kind that the run did not learn."""
        found: dict[int, Solved] = {}
        for kind in dict.fromkeys(task.kind for task in tasks):
            if kind not in self.weights:
                raise ConfigError(f"the run has learned {', '.join(self.weights)}, and no tasks of kind {kind!r}")
            places = [i for i, task in enumerate(tasks) if task.kind == kind]
            some = [tasks[i] for i in places]
            attempts: Attempts = self._desk.play(kind, some, (seed,), arrays_of(self.weights[kind]), False)
            game = self.family.game(kind)
            for i, task, answer, success, edges in zip(
                places, some, attempts.answers, attempts.successes.tolist(), attempts.edges, strict=True
            ):
                found[i] = Solved(task, answer, success, chain_of(game, task, edges))
        return [found[i] for i in range(len(tasks))]


def load_task_solver(
    folder: str | Path, *, which: str = "champion", simulations: int | None = None, generator: Any = None
) -> TaskSolver:
    """The solver of a run (or checkpoint) folder. `simulations` takes the place of the run's own; a `generator` that
    was given in code, and whose class cannot be imported, is given again.

    Raises StorageError for a folder that holds no run, ConfigError for other arguments that it has not.
    """
    if which not in WHICH:
        raise ConfigError(f"a run has no weights {which!r}; write {', '.join(WHICH)}")
    if simulations is not None and simulations < 1:
        raise ConfigError(f"a search needs 1 or more simulations, not {simulations}")
    checkpoint, config = read_checkpoint(folder, VerifiableConfig)
    if simulations is not None:
        search = SearchConfig.model_validate({**config.search.model_dump(), "simulations": simulations})
        config = config.model_copy(update={"search": search})
    family = family_of(config.tasks, generator)
    if which == "untrained":
        weights = {kind: dict(network(config, family.game(kind), config.seed).state_dict()) for kind in family.kinds}
    else:
        weights = {kind: dict(checkpoint.tensors[f"{which}.{kind}"]) for kind in family.kinds}
    return TaskSolver(config, weights, generator)


def write_chains(path: str | Path, solved: Sequence[Solved]) -> int:
    """The attempts that succeeded, as conversations to fine-tune language models on: one JSON object a line, with
    `messages` in OpenAI's shape, `task_id` and `kind`. Returns how many; StorageError where the file cannot be written.
    """
    right = [attempt for attempt in solved if attempt.success]
    rows = [
        {"task_id": attempt.task.id, "kind": attempt.task.kind, "messages": attempt.to_messages()} for attempt in right
    ]
    write_atomic(Path(path), "".join(json.dumps(row) + "\n" for row in rows).encode())
    return len(right)
