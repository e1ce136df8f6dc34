"""Sudokus: the solver against counts that are known, and generated puzzles against the solver and the rules."""

from __future__ import annotations

import numpy as np
import pytest

from troupe.errors import ConfigError, DataError
from troupe.tasks.sudoku import generate_sudoku, is_solution, peers, shuffle_sudoku, solve_sudoku

PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def test_a_puzzle_that_is_widely_known() -> None:
    assert solve_sudoku([int(digit) for digit in PUZZLE]) == [[int(digit) for digit in SOLVED]]


def test_all_grids_of_four_by_four_are_288() -> None:
    grids = solve_sudoku([0] * 16, limit=1000)
    assert len({tuple(grid) for grid in grids}) == 288
    assert all(is_solution([0] * 16, grid) for grid in grids)


def test_peers_of_a_cell() -> None:
    # Row and column give 2 (n - 1); the box adds those outside both.
    assert peers(4)[0] == (1, 2, 3, 4, 5, 8, 12)
    assert [len(peers(size)[0]) for size in (4, 6, 9)] == [3 + 3 + 1, 5 + 5 + 2, 8 + 8 + 4]


@pytest.mark.parametrize(("size", "givens"), [(4, 4), (4, 12), (6, 10), (6, 27), (9, 28)])
def test_a_generated_puzzle_has_one_solution_and_its_givens(size: int, givens: int) -> None:
    puzzle, solution = generate_sudoku(size, givens, np.random.default_rng(3))
    assert sum(digit > 0 for digit in puzzle) == givens
    assert solve_sudoku(puzzle) == [solution] and is_solution(puzzle, solution)
    assert (puzzle, solution) == generate_sudoku(size, givens, np.random.default_rng(3))


@pytest.mark.parametrize("size", [4, 6, 9])
def test_a_shuffled_puzzle_is_another_sudoku_with_one_solution(size: int) -> None:
    rng = np.random.default_rng(0)
    puzzle, solution = generate_sudoku(size, size * size // 2, rng)
    other, solved = shuffle_sudoku(puzzle, solution, rng)
    assert other != puzzle and solve_sudoku(other) == [solved]


def test_a_wrong_grid_is_no_solution() -> None:
    right = [int(digit) for digit in SOLVED]
    puzzle = [int(digit) for digit in PUZZLE]
    swapped = [right[1], right[0], *right[2:]]
    assert is_solution(puzzle, right)
    assert not is_solution(puzzle, swapped)
    assert not is_solution(puzzle, right[:-1])
    assert not is_solution(puzzle, [0] * 81)
    assert not is_solution([0] * 81, [1 + digit % 9 for digit in range(81)])


def test_no_solution_and_too_many() -> None:
    assert solve_sudoku([1, 1, *[0] * 14]) == []
    assert len(solve_sudoku([0] * 36)) == 2


def test_errors() -> None:
    with pytest.raises(DataError, match="10 cells"):
        solve_sudoku([0] * 10)
    with pytest.raises(DataError, match="outside 0 to 4"):
        solve_sudoku([5, *[0] * 15])
    with pytest.raises(ConfigError, match="size is 5"):
        generate_sudoku(5, 10, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="between 1 and 16"):
        generate_sudoku(4, 17, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="ask for more"):  # three givens never suffice: two digits stay swappable
        generate_sudoku(4, 2, np.random.default_rng(0))
