from __future__ import annotations

import random
from typing import Any

import pytest

from tests.task_families import PurseGenerator
from troupe.errors import ConfigError, DataError
from troupe.systems.selfplay.verifiable.config import TasksConfig
from troupe.systems.selfplay.verifiable.families import (
    FAMILIES,
    corrupted,
    family_of,
    held_out,
    marks_of,
    training_tasks,
)
from troupe.tasks.splits import fingerprint
from troupe.testing import check_generator

PURSE = "tests.task_families:PurseGenerator"


def family(**settings: Any) -> Any:
    return family_of(TasksConfig(**{"family": PURSE, "kinds": ("coins", "parity"), **settings}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in FAMILIES for kind in family_of(TasksConfig(family=name)).kinds],
)
def test_every_kind_of_every_family_keeps_its_promises(name: str, kind: str) -> None:
    check_generator(family_of(TasksConfig(family=name)).generator, kind, random.Random(1), tasks=8, playouts=2)


def test_held_out_sets_share_nothing_with_each_other_or_with_training() -> None:
    found = family()
    gate, final = held_out(found, (20, 30), seed=3)
    assert [len(tasks) for tasks in gate.values()] == [10, 10]
    assert [len(tasks) for tasks in final.values()] == [15, 15]
    marks = marks_of([gate, final])
    assert {kind: len(some) for kind, some in marks.items()} == {"coins": 25, "parity": 25}
    drawn = training_tasks(found, "coins", (0.0, 1.0), 300, (3, 1), marks["coins"])
    assert not {fingerprint(task) for task in drawn} & marks["coins"]
    assert drawn == training_tasks(found, "coins", (0.0, 1.0), 300, (3, 1), marks["coins"])
    with pytest.raises(DataError, match="not distinct"):
        marks_of([gate, gate])


def test_a_kind_with_too_few_tasks_says_which_key_to_change() -> None:
    with pytest.raises(ConfigError, match=r"tasks\.difficulty\.parity"):
        held_out(family(kinds=("parity",)), (1001,), seed=0)
    every = {fingerprint(task) for task in family().generator(seed=0, kinds=("parity",)).generate(20_000)}
    assert len(every) == 1000
    with pytest.raises(ConfigError, match="no task that is not held out"):
        training_tasks(family(), "parity", (0.0, 1.0), 1, (0,), every)


def test_difficulty_keeps_to_its_range() -> None:
    found = family(difficulty={"coins": (0.0, 0.1)})
    tasks = training_tasks(found, "coins", found.range_of("coins"), 50, (0,), set())
    assert max(task.data["amount"] for task in tasks) <= 27
    assert found.range_of("parity") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"family": "maths"}, "did you mean 'math'"),
        ({"family": "tests.task_families:Purse"}, "has no game"),
        ({"family": "no.such.module:Thing"}, "cannot be imported"),
        ({"kinds": ("coin",)}, "did you mean 'coins'"),
        ({"kinds": (), "difficulty": {"dice": (0, 1)}}, "searches no kind 'dice'"),
    ],
)
def test_bad_families_are_refused_in_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        family(**settings)


def test_the_control_needs_wrong_answers() -> None:
    class Honest(PurseGenerator):
        corrupted = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="corrupted"):
        family_of(TasksConfig(control="corrupted"), Honest)


def test_corrupted_tasks_turn_success_into_failure() -> None:
    found = family()
    tasks = training_tasks(found, "parity", (0.0, 1.0), 20, (0,), set())
    pairs = [(task, str(task.answer)) for task in tasks]
    assert all(found.verdicts(pairs))
    wrong = corrupted(found, tasks, (5,))
    assert not any(found.verdicts([(task, answer) for task, (_, answer) in zip(wrong, pairs, strict=True)]))
    assert found.verdicts([(tasks[0], None)]) == [False]


def test_many_answers_are_judged_at_once_where_a_family_can() -> None:
    class Batched(PurseGenerator):
        @staticmethod
        def verify_all(pairs: Any) -> list[bool]:
            return [False for _ in pairs]

    found = family_of(TasksConfig(), Batched)
    task = training_tasks(found, "parity", (0.0, 1.0), 1, (0,), set())[0]
    assert found.verdicts([(task, task.answer)]) == [False]
