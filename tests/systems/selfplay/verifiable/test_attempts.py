from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.task_families import PurseGenerator
from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Task
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.verifiable.attempts import Attempts, attempt
from troupe.systems.selfplay.verifiable.config import AttemptsConfig, TasksConfig
from troupe.systems.selfplay.verifiable.families import Family, family_of

SEARCH = SearchConfig(simulations=128, considered=4, c_scale=1.0)


def coins(*amounts: int, limit: int = 3) -> list[Task]:
    return [
        Task(f"coins-{amount}", "coins", f"Pay {amount}.", {"amount": amount, "limit": limit}, 0.5, str(amount))
        for amount in amounts
    ]


def attempted(
    kind: str, tasks: list[Task], found: Family | None = None, *, explore: bool = False, **settings: Any
) -> Attempts:
    acting, found = AttemptsConfig(**{"slots": 3, **settings}), found or family_of(TasksConfig(), PurseGenerator)
    return attempt(found, found.game(kind), UniformEvaluator(), SEARCH, acting, tasks, (1, 2), explore=explore)


def test_attempts_are_judged_in_the_order_of_the_tasks() -> None:
    tasks = coins(11, 22, 16, 5, 7)
    got = attempted("coins", tasks)
    assert got.successes.tolist() == [True] * 5
    for task, answer, edges in zip(tasks, got.answers, got.edges, strict=True):
        assert answer is not None
        assert sum(map(int, answer.split())) == task.data["amount"]
        assert len(edges) == len(answer.split())
    assert got.chunk.lengths.tolist() == [len(edges) for edges in got.edges]
    again = attempted("coins", tasks)
    assert again.edges == got.edges
    assert all(np.array_equal(column, again.chunk.columns[name]) for name, column in got.chunk.columns.items())


def test_failures_teach_values_and_no_policies() -> None:
    got = attempted("coins", [*coins(11), *coins(48, limit=2)])
    assert got.successes.tolist() == [True, False]
    weight, policy = got.chunk.columns["weight"], got.chunk.columns["policy_weight"]
    ends = got.chunk.lengths.tolist()
    assert weight.tolist() == [1.0] * sum(ends)
    assert policy.tolist() == [1.0] * ends[0] + [0.0] * ends[1]
    assert got.chunk.columns["value"].tolist() == [1.0] * ends[0] + [0.0] * ends[1]
    half = attempted("coins", [*coins(11), *coins(48, limit=2)], failure_weight=0.5)
    assert half.chunk.columns["policy_weight"].tolist() == [1.0] * ends[0] + [0.5] * ends[1]


def test_what_only_the_hidden_answer_decides_is_paid_and_imitated() -> None:
    tasks = [Task(f"parity-{n}", "parity", "?", {"number": n}, 0.0, ("even", "odd")[n % 2]) for n in range(20)]
    got = attempted("parity", tasks)
    assert 0 < got.successes.sum() < 20
    columns = got.chunk.columns
    assert columns["value"].tolist() == got.successes.astype(float).tolist()
    for i, (success, edges) in enumerate(zip(got.successes.tolist(), got.edges, strict=True)):
        if success:
            assert columns["policy"][i].argmax() == edges[0] and columns["policy"][i].max() == 1.0
        assert columns["policy_weight"][i] == float(success)


def test_what_the_world_paid_and_the_verdict_denies_teaches_nothing() -> None:
    rng = random.Random(0)
    wrong = [PurseGenerator.corrupted(task, rng) for task in coins(11, 22)]
    got = attempted("coins", wrong)
    assert got.disputed == 2 and not got.successes.any()
    assert not got.chunk.columns["weight"].any() and not got.chunk.columns["policy_weight"].any()


def test_the_world_sees_no_answer() -> None:
    class Peeping(PurseGenerator):
        seen: ClassVar[list[Any]] = []

        @staticmethod
        def game(kind: str) -> Any:
            game = PurseGenerator.game(kind)

            class Spy(type(game)):  # type: ignore[misc]
                def begin(self, problem: Any) -> Any:
                    Peeping.seen.append(problem)
                    return super().begin(problem)

            return Spy()

    attempted("coins", coins(11), family_of(TasksConfig(), Peeping))
    assert [hasattr(problem, "answer") or hasattr(problem, "solution") for problem in Peeping.seen] == [False]


@pytest.mark.parametrize("explore", [False, True])
def test_exploring_is_for_training(explore: bool) -> None:
    runs = {attempted("coins", coins(7, 9, 17, 19, limit=5), explore=explore).edges for _ in range(3)}
    assert len(runs) == 1  # by its seed, in either case
