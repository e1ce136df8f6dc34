"""ARC-AGI-1: tasks of coloured grids, to tokens and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from troupe.errors import DataError
from troupe.systems.puzzles import arc

TASK = {
    "id": "t1",
    "train": [{"input": [[0, 7], [7, 7]], "output": [[7]]}, {"input": [[1]], "output": [[1, 2, 3]]}],
    "test": [{"input": [[4, 5]], "output": [[5, 4]]}],
}


def stored(folder: Path, *rows: Any) -> Path:
    path = folder / "training.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_tasks_are_read(tmp_path: Path) -> None:
    stored(tmp_path, TASK)
    (task,) = arc.read_arc(tmp_path)
    assert task.id == "t1" and len(task.train) == 2 and len(task.test) == 1
    assert task.train[0][0].tolist() == [[0, 7], [7, 7]] and task.test[0][1].dtype == np.uint8


def test_tokens_and_back() -> None:
    grid = np.array([[0, 9], [3, 0]], np.uint8)
    tokens = arc.encode_grid(grid, 4)
    assert tokens.reshape(4, 4).tolist() == [[2, 11, 1, 0], [5, 2, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    found = arc.read_grid(tokens, 4)
    assert found is not None and found.tolist() == grid.tolist()
    full = np.full((4, 4), 5, np.uint8)
    again = arc.read_grid(arc.encode_grid(full, 4), 4)
    assert again is not None and again.tolist() == full.tolist()
    assert arc.read_grid(np.zeros(16, np.uint8), 4) is None
    with pytest.raises(DataError, match="a grid of 4 x 4 does not fit into 3 x 3"):
        arc.encode_grid(full, 3)


def test_forms_of_a_task_turn_all_its_grids_alike() -> None:
    row = np.array([[0, 1, 2]], np.uint8)
    column = row.T.copy()
    task = arc.ArcTask("a", ((row, row),), ((row, column),))
    shapes, backgrounds = set(), set()
    for number in range(30):
        other = arc.transformed(task, number, np.random.default_rng(number))
        ((before, after),), ((tested, answer),) = other.train, other.test
        assert other.id == f"a-{number}" and (before == after).all() and (before == tested).all()
        assert (
            sorted(answer.reshape(-1).tolist()) == sorted(before.reshape(-1).tolist())
            and answer.shape == before.T.shape
        )
        shapes.add(before.shape)
        backgrounds.add(int(before.reshape(-1)[0] == 0 or before.reshape(-1)[-1] == 0))
    assert shapes == {(1, 3), (3, 1)} and backgrounds == {1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": []}, "test is no list of pairs"),
        ({"train": [{"input": [[1]]}]}, "output is no grid"),
        ({"train": [{"input": [[1], [1, 2]], "output": [[1]]}]}, "input is no grid"),
        ({"train": [{"input": [[10]], "output": [[1]]}]}, "colours 0 to 9"),
        ({"train": [{"input": [[-1]], "output": [[1]]}]}, "colours 0 to 9"),
        ({"train": [{"input": [["1"]], "output": [[1]]}]}, "input is no grid"),
        ({"train": [{"input": [[1] * 31], "output": [[1]]}]}, "at most 30"),
        ({"train": [[1]]}, "input is no grid"),
    ],
)
def test_a_bad_task_is_one_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        arc.read_arc(stored(tmp_path, TASK, TASK | change))
    assert "training.jsonl:2" in str(refused.value) and "\n" not in str(refused.value)


def test_the_public_training_tasks() -> None:
    root = os.environ.get("TROUPE_DATA")
    if root is None:
        pytest.skip("TROUPE_DATA does not name the folder of real data")
    tasks = arc.read_arc(Path(root) / "arc_agi_1")
    assert len(tasks) == 400
    for task in tasks[:50]:
        for before, after in (*task.train, *task.test):
            for grid in (before, after):
                found = arc.read_grid(arc.encode_grid(grid, 30), 30)
                assert found is not None and found.tolist() == grid.tolist()
