"""Training and held-out puzzles: nothing in common, whatever the relabelling; the same seed, the same puzzles."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.systems.puzzles.test_sudokus import geometric_forms, relabelled
from troupe.errors import DataError
from troupe.systems.puzzles import sudokus
from troupe.systems.puzzles.config import PuzzleDataConfig
from troupe.systems.puzzles.data import puzzle_data
from troupe.training.recursion import IGNORED


def data(seed: int = 0, **keys: Any) -> Any:
    return puzzle_data(PuzzleDataConfig(**({"size": 4, "train": 60, "held_out": 30} | keys)), seed)


def canonical(puzzle: np.ndarray) -> tuple[int, ...]:
    """Of all forms of a 4x4 puzzle the first, found by trying them all; empty cells keep their name."""
    given = np.where(puzzle > 1, puzzle, 0)
    return min(relabelled(np.concatenate([[0], given[turn]])) for turn in geometric_forms())


def test_no_puzzle_is_a_form_of_another_by_brute_force() -> None:
    found = data()
    keys = [canonical(puzzle) for puzzle in (*found.train.puzzles, *found.held_out.puzzles)]
    assert len(keys) == 90 == len(set(keys))
    turned, _ = sudokus.forms(found.train.puzzles[:3], found.train.answers[:3], 4, np.random.default_rng(0))
    assert [canonical(puzzle) for puzzle in turned] == keys[:3]  # so the check sees forms


def test_the_seed_decides_and_held_out_puzzles_do_not_depend_on_the_number_of_others() -> None:
    one, again, larger, other = data(), data(), data(train=90), data(seed=1)
    assert (one.train.puzzles == again.train.puzzles).all() and one.held_out.digest() == again.held_out.digest()
    assert one.held_out.digest() == larger.held_out.digest() != other.held_out.digest()
    assert (larger.train.puzzles[:60] == one.train.puzzles).all()


def test_there_are_only_so_many_puzzles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("troupe.systems.puzzles.data.MAX_DRAWS", 300)
    with pytest.raises(DataError, match=r"only 13 different puzzles for data.held_out=5 and data.train=20") as refused:
        data(givens=(4, 4), train=20, held_out=5)
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match="only 13 different puzzles"):
        data(givens=(4, 4), train=1, held_out=20)


def test_mazes() -> None:
    found = data(name="maze", size=5)
    assert (found.length, found.vocabulary, found.tasks) == (25, 6, 0)
    assert found.form is not None and data(name="maze", size=5, augment=False).form is None
    ways = (found.train.answers != found.train.puzzles).sum(1)
    assert ways.min() >= 1


def test_the_control_gives_puzzles_the_answers_of_others() -> None:
    plain, mixed = data(), data(shuffle_answers=True)
    assert (plain.train.puzzles == mixed.train.puzzles).all()
    assert plain.held_out.digest() == mixed.held_out.digest()
    assert (plain.train.answers != mixed.train.answers).any(1).mean() > 0.9
    assert sorted(map(bytes, plain.train.answers)) == sorted(map(bytes, mixed.train.answers))


def test_a_file_of_sudokus(tmp_path: Path) -> None:
    rows = []
    for puzzle, solution in itertools.islice(sudokus.generated(4, (4, 8), np.random.default_rng(0)), 40):
        rows.append(
            {"puzzle": "".join(".1234"[c - 1] for c in puzzle), "solution": "".join(str(c - 1) for c in solution)}
        )
    path = tmp_path / "puzzles.jsonl"
    path.write_text("\n".join(map(json.dumps, rows + rows)))
    found = data(file=str(path), train=20, held_out=10)
    texts = {"".join(".1234"[c - 1] for c in puzzle) for puzzle in found.train.puzzles}
    assert len(texts) == 20 and texts <= {row["puzzle"] for row in rows}
    with pytest.raises(DataError, match="different puzzles for"):
        data(file=str(path), train=40, held_out=10)


def test_public_sudokus() -> None:
    root = os.environ.get("TROUPE_DATA")
    if root is None:
        pytest.skip("TROUPE_DATA does not name the folder of real data")
    found = puzzle_data(PuzzleDataConfig(size=9, file=f"{root}/sudoku", train=1000, held_out=5000), 0)
    assert (found.length, found.vocabulary, len(found.train), len(found.held_out)) == (81, 11, 1000, 5000)
    assert found.train.answers.min() == 2 and found.train.answers.max() == 10


def test_arc_holds_out_the_tests_of_the_tasks_that_it_shows(tmp_path: Path) -> None:
    grid = [[1, 2], [0, 3]]
    tasks = [
        {
            "id": f"t{n}",
            "train": [{"input": grid, "output": [[n]]}] * (n + 1),
            "test": [{"input": grid, "output": [[9]]}],
        }
        for n in range(4)
    ]
    tasks.append({"id": "large", "train": [{"input": [[1] * 9], "output": [[1]]}], "test": tasks[0]["test"]})
    path = tmp_path / "training.jsonl"
    path.write_text("\n".join(map(json.dumps, tasks)))
    found = puzzle_data(PuzzleDataConfig(name="arc", file=str(path), size=5, forms=2), 0)
    assert (found.length, found.vocabulary, found.tasks) == (25, 12, 12)
    assert len(found.train) == 3 * (1 + 2 + 3 + 4) and len(found.held_out) == 4
    assert found.held_out.tasks.tolist() == [0, 1, 2, 3] and sorted(set(found.train.tasks.tolist())) == list(range(12))
    labels = found.labels(found.held_out.answers)
    assert (labels == IGNORED).sum() == 4 * (25 - 3)  # one cell, and the two that end it
    assert len(puzzle_data(PuzzleDataConfig(name="arc", file=str(path), size=5, forms=0, train=2), 0).held_out) == 2
    with pytest.raises(DataError, match=r"no task whose grids all fit into data.size=2"):
        path.write_text(json.dumps(tasks[4]))
        puzzle_data(PuzzleDataConfig(name="arc", file=str(path), size=2), 0)
