"""Sudokus in all their forms: what stays the same, and how many there are."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from troupe.errors import DataError
from troupe.systems.puzzles import sudokus
from troupe.tasks.sudoku import is_solution, solve_sudoku


def some(size: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    stream = sudokus.generated(size, sudokus.GIVENS[size], np.random.default_rng(seed))
    pairs = list(itertools.islice(stream, n))
    return np.stack([p for p, _ in pairs]), np.stack([s for _, s in pairs])


@pytest.mark.parametrize(("size", "n"), [(4, 60), (6, 30), (9, 2)])
def test_every_form_of_a_sudoku_is_one_and_shares_its_invariant(size: int, n: int) -> None:
    puzzles, solutions = some(size, n)
    rng = np.random.default_rng(1)
    numbers = sudokus.invariants(puzzles, solutions, size)
    for _ in range(5):
        turned, answers = sudokus.forms(puzzles, solutions, size, rng)
        assert turned.dtype == np.uint8 and (turned != puzzles).any(1).all()
        for puzzle, answer in zip(turned.astype(int) - 1, answers.astype(int) - 1, strict=True):
            assert is_solution(puzzle.tolist(), answer.tolist())
        assert (sudokus.invariants(turned, answers, size) == numbers).all()
    assert ((puzzles > 1).sum(1) >= sudokus.GIVENS[size][0]).all()
    assert len(set(numbers.tolist())) > 0.8 * n


def test_forms_of_no_puzzle_are_none() -> None:
    nothing = np.zeros((0, 16), np.uint8)
    assert sudokus.forms(nothing, nothing, 4, np.random.default_rng(0))[0].shape == (0, 16)


def test_all_forms_are_drawn() -> None:
    """One given digit can come to stand in each of 16 cells, as each of four digits."""
    solution = sudokus.encode(np.array(solve_sudoku([0] * 16)[0]))
    puzzle = np.ones(16, np.uint8)
    puzzle[0] = solution[0]
    turned, _ = sudokus.forms(np.tile(puzzle, (4000, 1)), np.tile(solution, (4000, 1)), 4, np.random.default_rng(0))
    cells, digits = turned.argmax(1), turned.max(1)
    counts = np.bincount(cells * 4 + digits - 2, minlength=64)
    assert len(counts) == 64 and counts.min() > 30 and counts.max() < 100  # 62.5 expected


def geometric_forms() -> np.ndarray:
    """`[128, 16]`: every order of the cells of a 4x4 grid that keeps rows, columns and boxes together."""
    lines = [order for order in itertools.permutations(range(4)) if order[0] // 2 == order[1] // 2]
    found = []
    for rows, columns in itertools.product(lines, lines):
        cells = np.array([[4 * row + column for column in columns] for row in rows])
        found += [cells.reshape(-1), cells.T.reshape(-1)]
    return np.array(found)


def relabelled(cells: np.ndarray) -> tuple[int, ...]:
    names: dict[int, int] = {}
    return tuple(names.setdefault(int(digit), len(names)) for digit in cells)


def test_the_invariant_against_all_forms_of_all_small_sudokus() -> None:
    """Of the puzzles with four to eight givens and one solution, 2236 are no forms of one another; the invariants tell
    2223 apart. With four givens, the fewest that will do, there are 13, as is known."""
    grids = np.array(solve_sudoku([0] * 16, limit=1000))
    assert len(grids) == 288
    turns, masks = geometric_forms(), (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    bits = 1 << np.arange(16)
    exact, told = {n: 0 for n in range(17)}, {n: set() for n in range(17)}
    seen: set[tuple[int, ...]] = set()
    for grid in grids:
        if relabelled(grid) in seen:
            continue
        seen |= {relabelled(grid[turn]) for turn in turns}
        differs = (grids != grid) @ bits
        unique = ((np.arange(2**16)[:, None] & differs[differs > 0]) != 0).all(
            1
        )  # another grid shows itself in a given
        wanted = masks[unique & (masks.sum(1) <= 8)]
        own = [turn for turn in turns if relabelled(grid[turn]) == relabelled(grid)]
        first = np.stack([wanted[:, turn] @ bits for turn in own]).min(0)
        solutions = np.repeat(sudokus.encode(grid)[None], len(wanted), 0)
        numbers = sudokus.invariants(sudokus.encode(wanted * grid), solutions, 4)
        for n in range(4, 9):
            of_size = wanted.sum(1) == n
            exact[n] += len(set(first[of_size].tolist()))
            told[n] |= set(numbers[of_size].tolist())
    assert exact[4] == 13 and sum(exact.values()) == 2236
    assert len(told[4]) == 13 and sum(map(len, told.values())) == 2223


def test_reading(tmp_path: Path) -> None:
    solution = "".join(map(str, solve_sudoku([0] * 16)[0]))
    path = tmp_path / "puzzles.jsonl"
    path.write_text(json.dumps({"puzzle": "." + solution[1:15] + "0", "solution": solution}) + "\n")
    ((puzzle, answer),) = sudokus.read_sudokus(tmp_path, 4)
    assert puzzle[0] == puzzle[15] == 1 and (puzzle[1:15] == answer[1:15]).all()
    assert answer.tolist() == [int(letter) + 1 for letter in solution]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"puzzle": "." * 15, "solution": "1" * 16}, r"puzzles\.jsonl:1: puzzle is .*write 16 digits"),
        ({"puzzle": "5" + "." * 15, "solution": "1" * 16}, "puzzle is .*1 to 4"),
        ({"puzzle": "." * 16, "solution": "." * 16}, r"solution is .*write 16 digits, 1 to 4"),
        ({"puzzle": "." * 16, "solution": "1" * 16}, "the solution does not solve the puzzle"),
        ({"puzzle": "²" + "." * 15, "solution": "1" * 16}, "puzzle is"),
        ({"puzzle": "." * 16}, "solution"),
    ],
)
def test_a_bad_line_is_one_sentence(tmp_path: Path, row: dict[str, str], said: str) -> None:
    path = tmp_path / "puzzles.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=said) as refused:
        list(sudokus.read_sudokus(path, 4))
    assert "\n" not in str(refused.value)
