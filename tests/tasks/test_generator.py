"""The base generator and document 001's task dicts."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.tasks.generator import BaseTaskGenerator, as_task


class Doubling(BaseTaskGenerator):
    def make(self, difficulty: float) -> Task:
        n = self.rng.randint(1, self._difficulty_to_params(difficulty)["largest"])
        return Task(f"double-{n}", "double", f"Double {n}", difficulty=difficulty, answer=str(2 * n))

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        return {"largest": int(1 + 1000 * difficulty)}


class Documented(BaseTaskGenerator):
    """As document 001 writes one: `generate` itself returns dicts."""

    def generate(self, num_tasks: int) -> list[Any]:
        return [
            {"task_id": f"custom_{i}", "type": "custom", "difficulty": self.rng.uniform(*self.difficulty_range)}
            | {"problem": "Your problem description", "answer": "Expected answer", "hint": i}
            for i in range(num_tasks)
        ]


def test_the_stream_is_the_same_however_it_is_read() -> None:
    whole = Doubling(seed=5).generate(5)
    parts = Doubling(seed=5)
    assert parts.generate(2) + parts.generate(3) == whole
    assert list(islice(Doubling(seed=5), 5)) == whole
    assert Doubling(seed=6).generate(5) != whole


def test_difficulties_stay_in_their_range() -> None:
    tasks = Doubling((0.25, 0.5)).generate(200)
    assert 0.25 <= min(t.difficulty for t in tasks) < 0.3 < 0.45 < max(t.difficulty for t in tasks) <= 0.5


@pytest.mark.parametrize("wrong", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.5)])
def test_a_range_outside_0_to_1_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="difficulty_range"):
        Doubling(wrong)


def test_documented_dicts_become_tasks() -> None:
    task = as_task(Documented(seed=1).generate(2)[1])
    assert (task.id, task.kind, task.prompt) == ("custom_1", "custom", "Your problem description")
    assert task.answer == "Expected answer" and task.data == {"hint": 1} and 0 <= task.difficulty <= 1
    assert as_task(task) is task
    with pytest.raises(DataError, match="'problem'"):
        as_task({"task_id": "a", "type": "b"})


def test_a_generator_without_make_says_so() -> None:
    with pytest.raises(NotImplementedError, match="make"):
        BaseTaskGenerator().generate(1)


def test_worked_steps_are_hidden_like_any_solution() -> None:
    """Document 001's tasks carry `steps`; a workflow or a world sees a task's data."""
    record = {"task_id": "a", "type": "custom", "problem": "2 + 2?", "answer": "4", "steps": ["2 + 2 = 4"], "unit": "m"}
    task = as_task(record)
    assert task.solution == ["2 + 2 = 4"] and task.data == {"unit": "m"}
    assert as_task({**record, "solution": "own"}).solution == "own"
