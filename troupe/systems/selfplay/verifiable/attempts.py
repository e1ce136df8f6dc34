"""Attempts at tasks: searched, judged, and turned into what the learner reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.episode import Task
from troupe.protocols import Evaluator, TaskGame
from troupe.search.config import SearchConfig
from troupe.search.search import Search
from troupe.systems.selfplay.chunks import Chunk, Line, as_chunk, play_lines
from troupe.systems.selfplay.verifiable.config import AttemptsConfig
from troupe.systems.selfplay.verifiable.families import Family

__all__ = ["RETURNS", "Attempts", "attempt"]

RETURNS = (0.0, 1.0)
"""Of every `TaskGame`: what a search measures its Q against."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """One attempt at each of n tasks, in their order."""

    chunk: Chunk
    successes: np.ndarray  # bool [n]
    disputed: int  # attempts that their world paid in full and whose verdict was failure
    answers: tuple[str | None, ...]
    edges: tuple[tuple[int, ...], ...]  # the actions taken


def attempt(
    family: Family,
    game: TaskGame,
    evaluator: Evaluator,
    search: SearchConfig,
    acting: AttemptsConfig,
    tasks: Sequence[Task],
    seed: Sequence[int],
    *,
    explore: bool,
    distrust: bool = False,
) -> Attempts:
    """Attempts tasks of one kind. What it gives depends on the arguments alone.

    The world sees the problem; the verdict comes afterwards. An attempt is worth what its world paid. Where that is
    nothing, since only the hidden answer decides, a success is worth 1, and its policies are the actions that it took:
    the search could not tell them apart (filtered imitation, as in STaR, Zelikman et al. 2022, arXiv:2203.14465).
    What a world took for solved and the verdict does not (`disputed`) teaches nothing; with `distrust`, neither does
    what a world paid anything for. That is for tasks with wrong answers, whose worlds still know what is good.
    """
    generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
    slots = min(acting.slots, len(tasks))
    trees = Search(game, search, slots=slots, generator=generator, explore=explore, returns=RETURNS)  # type: ignore[arg-type]
    states = [game.begin(task.problem) for task in tasks]
    lines = play_lines(trees, evaluator, states, np.zeros(len(tasks), np.int8), acting.max_moves)
    answers = [game.answer(line.final) for line in lines]
    successes = np.array(family.verdicts(list(zip(tasks, answers, strict=True))), bool)
    paid = np.array([sum(line.rewards) for line in lines])
    for line, success, total in zip(lines, successes.tolist(), paid.tolist(), strict=True):
        if success and total == 0.0:
            line.rewards[-1] = 1.0
            line.policy = [_certain(policy, edge) for policy, edge in zip(line.policy, line.edges, strict=True)]
    disputed = ~successes & (paid >= 1.0)
    unlearned = ~successes & (paid > 0) if distrust else disputed
    chunk = as_chunk(lines, search.discount, acting, trees, evaluator)
    chunk = _weighted(chunk, lines, successes, unlearned, acting.failure_weight)
    edges = tuple(tuple(line.edges) for line in lines)
    return Attempts(chunk, successes, int(disputed.sum()), tuple(answers), edges)


def _certain(policy: np.ndarray, edge: int) -> np.ndarray:
    chosen = np.zeros_like(policy)
    chosen[edge] = 1.0
    return chosen


def _weighted(
    chunk: Chunk, lines: Sequence[Line], successes: np.ndarray, disputed: np.ndarray, failure_weight: float
) -> Chunk:
    """With a weight for each position's policy besides that of its value."""
    lengths = [len(line.rewards) for line in lines]
    value = np.repeat(np.where(disputed, 0.0, 1.0), lengths) * chunk.columns["weight"]
    policy = np.repeat(np.where(successes, 1.0, failure_weight), lengths) * value
    columns: dict[str, Any] = {**chunk.columns, "weight": value.astype(np.float32)}
    columns["policy_weight"] = policy.astype(np.float32)
    return Chunk(columns, chunk.results, chunk.lengths, chunk.counts)
