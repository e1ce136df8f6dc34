"""Generated sudokus, boards and maps: one solution by brute force, and verdicts on the text alone."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations, product

import pytest

from troupe.errors import DataError
from troupe.tasks.constraint_tasks import (
    colouring_task,
    make_colouring,
    make_queens,
    make_sudoku,
    queens_task,
    solves_colouring,
    solves_queens,
    solves_sudoku,
    sudoku_task,
)
from troupe.tasks.sudoku import solve_sudoku


def test_boards_have_one_solution_by_trying_all_permutations() -> None:
    for seed in range(8):
        task = make_queens(random.Random(seed), 0.2 + 0.06 * seed)
        size, closed = task.data["size"], task.data["closed"]
        right = [
            columns
            for columns in permutations(range(size))
            if len({c + r for r, c in enumerate(columns)}) == len({c - r for r, c in enumerate(columns)}) == size
            and not any(row * size + column in closed for row, column in enumerate(columns))
        ]
        assert [" ".join(str(column + 1) for column in columns) for columns in right] == [task.answer]


def test_maps_have_one_colouring_by_trying_all() -> None:
    for seed in range(6):
        task = make_colouring(random.Random(seed), 0.05 * seed)
        fixed = {int(vertex): colour for vertex, colour in task.data["fixed"].items()}
        right = [
            colours
            for colours in product((1, 2, 3), repeat=task.data["vertices"])
            if all(colours[vertex] == colour for vertex, colour in fixed.items())
            and all(colours[a] != colours[b] for a, b in task.data["edges"])
        ]
        assert [" ".join(map(str, colours)) for colours in right] == [task.answer]


def test_sudokus_have_one_solution_by_the_other_solver() -> None:
    for seed in range(10):
        task = make_sudoku(random.Random(seed), seed / 10)
        assert ["".join(map(str, grid)) for grid in solve_sudoku(task.data["givens"])] == [task.answer]


def test_verdicts_on_sudoku() -> None:
    task = sudoku_task({"size": 4, "givens": [1, 0, 0, 4, 0, 4, 1, 0, 2, 0, 0, 3, 0, 3, 0, 0]}, 0.0)
    assert task.answer == "1234341221434321" and solves_sudoku(task, "1234 3412 2143 4321")
    for wrong in ("1234341221434312", "123434122143432", "2234341221434321", "", "yes", "0" * 16):
        assert not solves_sudoku(task, wrong)
    assert not solves_sudoku(replace(task, answer="2134341221434321"), task.solution)


def test_verdicts_on_queens() -> None:
    task = queens_task({"size": 4, "closed": [2]}, 0.0)  # without the hole, 3 1 4 2 would do as well
    assert task.answer == "2 4 1 3" and solves_queens(task, " 2 4  1\n3\n")
    for wrong in ("3 1 4 2", "1 2 3 4", "2 4 1", "2 4 1 5", "2, 4, 1, 3", "", "2 4 1 " + "3" * 5000, "2 4 1 \u0663"):
        assert not solves_queens(task, wrong)
    assert not solves_queens(replace(task, answer="3 1 4 2"), "2 4 1 3")


def test_verdicts_on_colourings() -> None:
    task = colouring_task(
        {"vertices": 3, "colours": 3, "edges": [[0, 1], [0, 2], [1, 2]], "fixed": {"0": 1, "1": 2}}, 0.0
    )
    assert task.answer == "1 2 3" and solves_colouring(task, "1 2 3") and solves_colouring(task, "\n1  2\n3 ")
    for wrong in ("1 3 2", "2 1 3", "1 2 2", "1 2 4", "1 2", "", "1 2 " + "3" * 5000, "1 2 \u0663"):
        assert not solves_colouring(task, wrong)
    assert not solves_colouring(replace(task, answer="1 2 1"), "1 2 3")


def test_instances_with_no_or_several_solutions_are_refused() -> None:
    with pytest.raises(DataError, match="more than one solution"):
        queens_task({"size": 4, "closed": []}, 0.0)
    with pytest.raises(DataError, match="no solution"):
        queens_task({"size": 4, "closed": [1, 2]}, 0.0)
    with pytest.raises(DataError, match="more than one solution"):
        sudoku_task({"size": 4, "givens": [0] * 16}, 0.0)
