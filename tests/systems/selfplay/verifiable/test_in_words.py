from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from tests.task_families import PurseGenerator
from troupe.engines.evaluator import OracleEvaluator, UniformEvaluator
from troupe.engines.proposing import LanguageProposer, Told, ToldGame
from troupe.episode import Task
from troupe.models.config import TinyConfig
from troupe.models.language import Policy, build_tiny
from troupe.protocols import Evaluator, Positions
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.verifiable.attempts import attempt
from troupe.systems.selfplay.verifiable.config import AttemptsConfig, TasksConfig
from troupe.systems.selfplay.verifiable.deploy import Solved, chain_of, write_chains
from troupe.systems.selfplay.verifiable.families import family_of
from troupe.systems.selfplay.verifiable.in_words import solve_in_words
from troupe.systems.workflow_rl.sft import fine_tune
from troupe.tasks.math import MathProblemGenerator
from troupe.training.config import SftConfig, TrainerConfig
from troupe.training.conversations import demonstrations, read_conversations

SEARCH = SearchConfig(simulations=8, considered=4, c_scale=1.0)


def _worth(state: Any) -> float:
    """Nearly the same for all states, and different: what is made of it depends on what Q is measured against."""
    line = state.state if isinstance(state, Told) else state
    return 0.5 + 0.02 * (crc32(repr(line).encode()) % 101) / 101


@pytest.mark.parametrize("judge", [UniformEvaluator(0.5), OracleEvaluator(_worth, lambda _: range(1, 41))])
def test_attempts_are_those_of_the_synchronous_driver(judge: Evaluator) -> None:
    tasks = MathProblemGenerator(difficulty_range=(0.0, 0.3), seed=0, kinds=("equation",)).generate(40)
    family = family_of(TasksConfig(family="math", kinds=("equation",)))
    inner = family.game("equation")
    wanted = attempt(family, inner, judge, SEARCH, AttemptsConfig(), tasks, (0,), explore=False)
    found = asyncio.run(solve_in_words(MathProblemGenerator, ToldGame(inner), judge, tasks, SEARCH, slots=16))
    assert [one.task for one in found] == tasks
    assert [one.success for one in found] == wanted.successes.tolist() and 2 < sum(wanted.successes) < 38
    assert [one.answer for one in found] == list(wanted.answers)
    for one, edges in zip(found, wanted.edges, strict=True):
        assert one.chain == chain_of(inner, one.task, edges)


def test_the_verdict_is_that_of_the_task() -> None:
    (task,) = PurseGenerator(seed=0, kinds=("parity",)).generate(1)
    wrong = PurseGenerator.corrupted(task, PurseGenerator(seed=0).rng)
    found = asyncio.run(
        solve_in_words(
            PurseGenerator, ToldGame(PurseGenerator.game("parity")), UniformEvaluator(0.5), [task, wrong], SEARCH
        )
    )
    assert found[0].answer == found[1].answer and found[0].success != found[1].success


def test_what_an_evaluator_raises_is_raised() -> None:
    class Broken:
        def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
            raise ZeroDivisionError("broken")

    tasks = PurseGenerator(seed=0, kinds=("coins",)).generate(4)
    with pytest.raises(ZeroDivisionError, match="broken"):
        asyncio.run(
            solve_in_words(PurseGenerator, ToldGame(PurseGenerator.game("coins")), Broken(), tasks, SEARCH, slots=2)
        )


@pytest.mark.parametrize("right", [True, False])
def test_a_model_does_what_the_chains_show(tmp_path: Path, right: bool) -> None:
    """No search can tell even from odd here: the world pays nothing. A model tuned on right chains answers new tasks
    rightly, one tuned on wrong chains wrongly."""
    tasks = list({task.id: task for task in PurseGenerator(seed=1, kinds=("parity",)).generate(400)}.values())
    new, shown = tasks[:60], [replace(task, answer=_said(task, right)) for task in tasks[60:]]
    solved = [Solved(task, task.answer, True, (f"say {task.answer}",)) for task in shown]
    assert write_chains(tmp_path / "chains.jsonl", solved) == len(shown) > 200
    rows = read_conversations(tmp_path / "chains.jsonl")
    sizes = TinyConfig(hidden_size=32, layers=2, intermediate_size=48, max_positions=64)
    policy = Policy("solver", build_tiny([said["content"] for row in rows for said in row["messages"]], sizes, seed=0))
    game = ToldGame(PurseGenerator.game("parity"))
    proposer = LanguageProposer(policy, game)

    def share() -> float:
        found = asyncio.run(solve_in_words(PurseGenerator, game, proposer, new, SEARCH))
        return sum(one.success for one in found) / len(found)

    assert 0.2 < share() < 0.8
    config = SftConfig(steps=150, batch_size=32, lr=1e-2, optimizer="muon", warmup_steps=10, save_freq=150)
    fine_tune(
        policy, demonstrations(policy, rows), config, TrainerConfig(), tmp_path / "sft", seed=0, share=True,
        progress=lambda phase, step, total, metrics: None,
    )  # fmt: skip
    after = share()
    assert after > 0.95 if right else after < 0.05


def _said(task: Task, right: bool) -> str:
    return str(task.answer) if right else {"even": "odd", "odd": "even"}[task.answer]
