"""A checker for authors of task families.

    check_generator(MyGenerator, "my_kind", random.Random(0))

It draws tasks and plays their games; the first broken promise raises DataError, in one sentence that names the method
and the task.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.protocols import TaskGame
from troupe.tasks.splits import fingerprint
from troupe.testing.games import check_game

__all__ = ["check_generator"]

NONSENSE = ("", "no such answer", '{"moves": "?"}', "[[]]", "-0.5e", "\x00")


def check_generator(
    generator: Any, kind: str, rng: random.Random, tasks: int = 20, *, playouts: int = 3, max_steps: int = 500
) -> None:
    """Checks the tasks and the game of one kind of a generator class, as `TaskTrainer` uses it.

    Checked are: the same seed gives the same tasks, and other seeds others; ids and fingerprints belong to what is
    asked; data can be written as JSON; the game, by `check_game`, from the first state of tasks; actions, pointers and
    token ids within their ranges; equal keys for equal observations and actions alone; rewards that add up to within
    0 and 1; `describe`; nothing that is shown depends on answer or solution; `verify` refuses None and nonsense, and
    never raises for an answer that a game submits; and what it accepts it no longer accepts of a `corrupted` task.

    Whether the tasks can be solved is not checked by random play: search them for that. Raises DataError.
    """
    name = f"{generator.__name__}[{kind}]"
    drawn = _draw(generator, kind, rng.randrange(2**32), tasks, name)
    game: TaskGame = generator.game(kind)
    _check_shape(game, name)
    seen: dict[Hashable, tuple[bytes, tuple[int, ...]]] = {}
    for task in drawn:
        _check_hidden(game, task, name)
        for answer in (None, *NONSENSE):
            if generator.verify(task, answer):
                raise DataError(f"{name}.verify accepts {answer!r} for task {task.id!r}")
        for _ in range(playouts):
            _check_play(generator, game, task, rng, seen, max_steps, name)
    # The verbs of `Game`, from the first states of real tasks.
    for task in drawn[:3]:
        check_game(_From(game, task.problem), np.random.default_rng(rng.randrange(2**32)), 2, max_steps=max_steps)


def _draw(generator: Any, kind: str, seed: int, n: int, name: str) -> list[Task]:
    def stream(seed: int) -> list[Task]:
        return generator(seed=seed, kinds=(kind,)).generate(n)

    drawn, again, others = stream(seed), stream(seed), stream(seed + 1)
    if [task.to_dict() for task in drawn] != [task.to_dict() for task in again]:
        raise DataError(f"{name}: the same seed gave other tasks the second time; draw from self.rng alone")
    if [fingerprint(task) for task in drawn] == [fingerprint(task) for task in others]:
        raise DataError(f"{name}: two seeds gave the same tasks; draw from self.rng")
    asked: dict[str, str] = {}
    for task in drawn:
        try:
            told = json.dumps([task.prompt, dict(task.data)], sort_keys=True)
        except TypeError as error:
            raise DataError(f"{name}: the data of task {task.id!r} cannot be written as JSON: {error}") from error
        if task.data.get("key") is None and asked.setdefault(fingerprint(task), told) != told:
            raise DataError(f"{name}: two different tasks have the fingerprint of {task.id!r}; write data['key']")
    return drawn


def _check_shape(game: TaskGame, name: str) -> None:
    if game.players != 1:
        raise DataError(f"{name}: the game of a task has one player, found {game.players}")
    if game.pointers and game.actions % game.pointers:
        raise DataError(f"{name}: {game.actions} actions cannot point at {game.pointers} positions, so many at each")
    if game.pointers > game.observation_shape[0]:
        raise DataError(f"{name}: actions point at {game.pointers} positions of {game.observation_shape[0]}")
    if game.vocabulary and len(game.observation_shape) != 1:
        raise DataError(f"{name}: observations of tokens have one axis, found {list(game.observation_shape)}")


def _check_hidden(game: TaskGame, task: Task, name: str) -> None:
    """Nothing of the answer may be seen: neither by type, nor by what it changes."""
    other = replace(task, answer="another answer", solution=["another solution"])
    one, same = (game.begin(Problem(t.id, t.kind, t.prompt, t.data, t.difficulty)) for t in (task, other))
    if not np.array_equal(game.observe(one), game.observe(same)):
        raise DataError(f"{name}: what is shown of task {task.id!r} depends on its answer")


def _check_play(
    generator: Any,
    game: TaskGame,
    task: Task,
    rng: random.Random,
    seen: dict[Hashable, tuple[bytes, tuple[int, ...]]],
    max_steps: int,
    name: str,
) -> None:
    total, final = 0.0, None
    for state, reward in _random_line(game, task, rng, max_steps, name):
        total += reward
        final = state
        if reward < 0 or total > 1 + 1e-9 or not math.isfinite(total):
            raise DataError(f"{name}: the rewards of task {task.id!r} add up to {total}; they lie within 0 and 1")
    ended = game.answer(final)
    if ended is not None and not isinstance(ended, str):
        raise DataError(f"{name}.answer gave a {type(ended).__name__}; an answer is a text, or None")
    if ended is not None and generator.verify(task, ended) and hasattr(generator, "corrupted"):
        wrong = generator.corrupted(task, rng)
        if generator.verify(wrong, ended):
            raise DataError(f"{name}: the answer {ended!r} is right for task {task.id!r}, and for a corrupted one, too")
    for walked in _random_line(game, task, rng, max_steps, name):
        _check_look(game, walked[0], seen, name, task)


def _random_line(
    game: TaskGame, task: Task, rng: random.Random, max_steps: int, name: str
) -> Iterator[tuple[Any, float]]:
    """States after the first, with what was paid for reaching them."""
    state, done = game.begin(task.problem), False
    for _ in range(max_steps):
        action = rng.choice(list(game.legal(state)))
        if not (told := game.describe(state, action)) or not isinstance(told, str):
            raise DataError(f"{name}.describe gave {told!r} for action {action} of task {task.id!r}; write a few words")
        state, reward, done, _ = game.step(state, action)
        yield state, reward
        if done:
            return
    raise DataError(f"{name}: an attempt at task {task.id!r} was not over after {max_steps} steps; every episode ends")


def _check_look(
    game: TaskGame, state: Any, seen: dict[Hashable, tuple[bytes, tuple[int, ...]]], name: str, task: Task
) -> None:
    shown = game.observe(state)
    whole = not game.vocabulary or (
        np.all(shown == np.floor(shown)) and 0 <= shown.min() <= shown.max() < game.vocabulary
    )
    if not whole:
        raise DataError(f"{name}.observe gave {shown.min()} to {shown.max()}; token ids are 0 to {game.vocabulary - 1}")
    if game.answer(state) is not None:
        return  # over, or as good as that: such states are not evaluated
    look = shown.tobytes(), tuple(game.legal(state))
    if seen.setdefault(game.key(state), look) != look:
        raise DataError(f"{name}.key is the same for two states of task {task.id!r} or another that look different")


class _From:
    """A `Game` that begins with one task."""

    def __init__(self, game: TaskGame, problem: Problem) -> None:
        self._game, self._problem = game, problem

    def initial(self) -> Any:
        return self._game.begin(self._problem)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_game"], name)
