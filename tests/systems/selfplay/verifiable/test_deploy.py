from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.systems.selfplay.verifiable.test_trainer import trainer
from tests.task_families import PurseGenerator
from tests.task_runs import LEARNING, TINY
from troupe.errors import ConfigError, StorageError
from troupe.systems.selfplay.verifiable.deploy import load_task_solver, write_chains


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("solver") / "run"
    trainer(folder, TINY | LEARNING, trainer__iterations=10).train()
    return folder


def test_a_run_solves_new_tasks_in_words(folder: Path, tmp_path: Path) -> None:
    tasks = PurseGenerator(seed=99, kinds=("coins", "parity")).generate(60)
    solver = load_task_solver(folder)
    solved = solver.solve(tasks)
    assert [one.task for one in solved] == tasks
    for one in solved:
        assert one.success == PurseGenerator.verify(one.task, one.answer)
        if one.task.kind == "coins" and one.success:
            assert one.chain[-1].endswith("0 is left") and len(one.chain) == len(one.answer.split())
    assert solver.solve(tasks) == solved
    right = sum(one.success for one in solved)
    assert right > sum(one.success for one in load_task_solver(folder, which="untrained").solve(tasks))
    assert write_chains(tmp_path / "chains.jsonl", solved) == right
    rows = [json.loads(line) for line in (tmp_path / "chains.jsonl").read_text().splitlines()]
    assert len(rows) == right and rows[0]["messages"][0] == {
        "role": "user",
        "content": rows[0]["messages"][0]["content"],
    }
    said = {row["task_id"]: row["messages"][1]["content"] for row in rows}
    first = next(one for one in solved if one.success)
    assert said[first.task.id].splitlines() == [*first.chain, f"Answer: {first.answer}"]


def test_what_a_run_did_not_learn(folder: Path, tmp_path: Path) -> None:
    (task,) = PurseGenerator(seed=0, kinds=("shown",)).generate(1)
    with pytest.raises(ConfigError, match="no tasks of kind 'shown'"):
        load_task_solver(folder).solve([task])
    with pytest.raises(ConfigError, match="no weights 'best'"):
        load_task_solver(folder, which="best")
    with pytest.raises(ConfigError, match="1 or more simulations"):
        load_task_solver(folder, simulations=0)
    with pytest.raises(StorageError):
        load_task_solver(tmp_path)


def test_more_simulations(folder: Path) -> None:
    assert load_task_solver(folder, simulations=64).config.search.simulations == 64
