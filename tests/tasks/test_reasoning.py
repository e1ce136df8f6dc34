"""The reasoning family as a whole: every kind keeps the promises of generators, and gets harder."""

from __future__ import annotations

import random

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.errors import ConfigError
from troupe.protocols import TaskGame
from troupe.search.config import SearchConfig
from troupe.search.search import Search
from troupe.systems.selfplay.chunks import play_lines
from troupe.tasks.reasoning import MultiStepReasoningGenerator
from troupe.testing.tasks import check_generator

KINDS = MultiStepReasoningGenerator.KINDS
DEFAULT = MultiStepReasoningGenerator.DEFAULT_KINDS


def solved(kind: str, difficulty: float, n: int = 40) -> float:
    """How many of n tasks 16 simulations per step solve, with uniform priors."""
    game = MultiStepReasoningGenerator.game(kind)
    tasks = MultiStepReasoningGenerator((difficulty, difficulty), seed=5, kinds=(kind,)).generate(n)
    search = SearchConfig(simulations=16, considered=16, kernels="numpy")
    trees = Search(game, search, slots=n, generator=np.random.default_rng(0), explore=False)
    states = [game.begin(task.problem) for task in tasks]
    lines = play_lines(trees, UniformEvaluator(), states, np.zeros(n, np.int8), 200)
    verdicts = [
        MultiStepReasoningGenerator.verify(task, game.answer(line.final))
        for task, line in zip(tasks, lines, strict=True)
    ]
    assert verdicts == [sum(line.rewards) == 1 for line in lines]  # what is seen to be solved is solved
    return float(np.mean(verdicts))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_keep_their_promises(kind: str) -> None:
    check_generator(MultiStepReasoningGenerator, kind, random.Random(0), tasks=12, playouts=2)


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_are_right_and_corrupted_tasks_refuse_them(kind: str) -> None:
    rng = random.Random(1)
    for task in MultiStepReasoningGenerator(seed=2, kinds=(kind,)).generate(25):
        assert MultiStepReasoningGenerator.verify(task, task.solution)
        wrong = MultiStepReasoningGenerator.corrupted(task, rng)
        assert wrong.answer != task.answer and wrong.problem == task.problem
        assert not MultiStepReasoningGenerator.verify(wrong, task.solution)
        assert not MultiStepReasoningGenerator.verify(task, None)


@pytest.mark.parametrize("kind", KINDS)
def test_difficulty_raises_what_a_search_has_to_do(kind: str) -> None:
    easy, hard = solved(kind, 0.05), solved(kind, 0.9)
    assert easy >= 0.6 and hard <= 0.4 and easy - hard >= 0.4


@pytest.mark.parametrize("kind", DEFAULT)
def test_games_are_of_fixed_actions_and_short_tokens(kind: str) -> None:
    game = MultiStepReasoningGenerator.game(kind)
    assert isinstance(game, TaskGame)
    assert game.vocabulary <= 200 and game.observation_shape[0] <= 96
    assert game.pointers == 0 or game.actions % game.pointers == 0


def test_kinds_are_told_apart() -> None:
    tasks = MultiStepReasoningGenerator((0.2, 0.4), seed=0).generate(60)
    assert {task.kind for task in tasks} == set(KINDS)
    with pytest.raises(ConfigError, match="did you mean"):
        MultiStepReasoningGenerator.game("sudokus")
