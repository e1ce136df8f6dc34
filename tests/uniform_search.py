"""How many tasks of a kind a search solves that knows nothing: uniform priors, value 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Task
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run


def solved(generator: Any, kind: str, difficulty: float, n: int = 60, simulations: int = 16) -> float:
    """The share of `n` tasks of a generator class at a difficulty that is solved."""
    tasks = generator((difficulty, difficulty), seed=0, kinds=(kind,)).generate(n)
    answers = searched(generator.game(kind), tasks, simulations)
    return sum(generator.verify(task, answer) for task, answer in zip(tasks, answers, strict=True)) / n


def searched(game: Any, tasks: Sequence[Task], simulations: int = 16) -> list[str | None]:
    """What a uniform search submits for each task."""
    n = len(tasks)
    config = SearchConfig(simulations=simulations, considered=min(16, simulations), kernels="numpy")
    trees = Search(game, config, slots=n, generator=np.random.default_rng(0), explore=False)
    states = [game.begin(task.problem) for task in tasks]
    trees.place(np.arange(n), list(states), np.zeros(n, np.int8))
    live = set(range(n))
    while live:
        roots = run(trees, UniformEvaluator())
        played = trees.play(roots.slots, roots.edges)
        for slot, edge, done in zip(roots.slots.tolist(), roots.edges.tolist(), played.done.tolist(), strict=True):
            states[slot] = game.step(states[slot], edge)[0]
            if done:
                live.discard(slot)
    return [game.answer(state) for state in states]
