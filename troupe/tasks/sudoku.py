"""Sudokus of 4x4, 6x6 and 9x9 cells: a solver that proves uniqueness, and a generator of puzzles with one solution.

    puzzle, solution = generate_sudoku(4, 6, np.random.default_rng(0))
    solve_sudoku(puzzle) == [solution]

A puzzle is a list of size * size digits, row by row, 0 for an empty cell. Boxes are 2x2 in 4x4, 2 rows by 3 columns in
6x6, 3x3 in 9x9.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from troupe.errors import ConfigError, DataError

__all__ = ["BOXES", "generate_sudoku", "is_solution", "peers", "shuffle_sudoku", "solve_sudoku"]

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by the size of the grid."""
MAX_TRIES = 100
"""Full grids that `generate_sudoku` empties before it concludes that so few givens are out of its reach."""


@lru_cache
def peers(size: int) -> tuple[tuple[int, ...], ...]:
    """For each cell the cells that must hold another digit: those of its row, its column and its box."""
    tall, wide = BOXES[size]
    places = [(cell // size, cell % size) for cell in range(size * size)]
    return tuple(
        tuple(
            other
            for other, (r, c) in enumerate(places)
            if (r, c) != (row, column)
            and (r == row or c == column or (r // tall, c // wide) == (row // tall, column // wide))
        )
        for row, column in places
    )


def size_of(puzzle: Sequence[int]) -> int:
    """The side of a grid. Raises DataError unless it is 4, 6 or 9 and every digit fits."""
    size = next((size for size in BOXES if size * size == len(puzzle)), 0)
    if not size:
        raise DataError(f"a sudoku has {len(puzzle)} cells; it needs 16, 36 or 81")
    if not all(0 <= digit <= size for digit in puzzle):
        raise DataError(f"a {size}x{size} sudoku holds a digit outside 0 to {size}; write 0 for an empty cell")
    return size


def is_solution(puzzle: Sequence[int], grid: Sequence[int]) -> bool:
    """Whether the grid is full, keeps the puzzle's givens and repeats no digit in a row, a column or a box."""
    size = size_of(puzzle)
    if len(grid) != len(puzzle) or not all(1 <= digit <= size for digit in grid):
        return False
    if any(given and given != digit for given, digit in zip(puzzle, grid, strict=True)):
        return False
    return all(grid[cell] != grid[other] for cell, others in enumerate(peers(size)) for other in others)


def solve_sudoku(puzzle: Sequence[int], limit: int = 2) -> list[list[int]]:
    """Up to `limit` solutions: none, one (it is then the only one) or two (there are others).

    Depth first, always at the cell with the fewest candidates, so a forced cell is never guessed. Raises DataError for
    a puzzle of another shape.
    """
    size = size_of(puzzle)
    candidates = [(1 << size) - 1] * len(puzzle)
    grid = [0] * len(puzzle)
    for cell, digit in enumerate(puzzle):
        if digit and not _place(size, grid, candidates, cell, digit - 1):
            return []
    return _complete(size, grid, candidates, limit, None)


def _place(size: int, grid: list[int], candidates: list[int], cell: int, digit: int) -> bool:
    """Writes a digit (from 0) and strikes it at the peers. False where that leaves a cell without a candidate."""
    bit = 1 << digit
    if not candidates[cell] & bit:
        return False
    grid[cell] = digit + 1
    candidates[cell] = bit
    for other in peers(size)[cell]:
        candidates[other] &= ~bit
        if not candidates[other]:
            return False
    return True


def _complete(
    size: int, grid: list[int], candidates: list[int], limit: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Solutions of a grid in progress. With `rng` digits are tried in a random order."""
    empty = [cell for cell, digit in enumerate(grid) if not digit]
    if not empty:
        return [list(grid)]
    cell = min(empty, key=lambda cell: candidates[cell].bit_count())
    digits = [digit for digit in range(size) if candidates[cell] >> digit & 1]
    if rng is not None:
        digits = [digits[i] for i in rng.permutation(len(digits))]
    found: list[list[int]] = []
    for digit in digits:
        after, left = list(grid), list(candidates)
        if _place(size, after, left, cell, digit):
            found += _complete(size, after, left, limit - len(found), rng)
        if len(found) >= limit:
            break
    return found


def generate_sudoku(size: int, givens: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """(puzzle, solution) with exactly one solution and exactly `givens` digits.

    A random full grid is emptied cell by cell in a random order; a cell whose digit the others do not force keeps it.
    Where that stops above `givens`, another grid is begun. Raises ConfigError for a size other than 4, 6 and 9, or for
    a number of givens that no grid reached (17 is the least for 9x9, and around 24 is what this method reaches
    quickly).
    """
    if size not in BOXES:
        raise ConfigError(f"size is {size}; a sudoku is generated with 4, 6 or 9")
    if not 0 < givens <= size * size:
        raise ConfigError(f"givens is {givens}; a {size}x{size} sudoku has between 1 and {size * size}")
    for _ in range(MAX_TRIES):
        solution = _complete(size, [0] * (size * size), [(1 << size) - 1] * (size * size), 1, rng)[0]
        puzzle = _emptied(solution, givens, rng)
        if sum(map(bool, puzzle)) == givens:
            return shuffle_sudoku(puzzle, solution, rng)
    raise ConfigError(
        f"no {size}x{size} sudoku with {givens} givens was found in {MAX_TRIES} grids; ask for more givens"
    )


def _emptied(solution: list[int], givens: int, rng: np.random.Generator) -> list[int]:
    """The solution without as many digits as can go, down to `givens`, while one solution remains."""
    puzzle, left = list(solution), len(solution)
    for cell in map(int, rng.permutation(len(solution))):
        if left == givens:
            break
        digit, puzzle[cell] = puzzle[cell], 0
        if len(solve_sudoku(puzzle)) == 1:
            left -= 1
        else:
            puzzle[cell] = digit
    return puzzle


def shuffle_sudoku(
    puzzle: Sequence[int], solution: Sequence[int], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """The same sudoku in other clothes: digits renamed, bands, stacks, and the rows and columns inside them shuffled,
    and, where boxes are square, perhaps transposed. What had one solution has one."""
    size = size_of(puzzle)
    tall, wide = BOXES[size]
    rows, columns = _order(size, tall, rng), _order(size, wide, rng)
    cells = [row * size + column for row in rows for column in columns]
    if tall == wide and rng.random() < 0.5:
        cells = [cells[column * size + row] for row in range(size) for column in range(size)]
    names = [0, *(int(digit) + 1 for digit in rng.permutation(size))]
    return [names[puzzle[cell]] for cell in cells], [names[solution[cell]] for cell in cells]


def _order(size: int, band: int, rng: np.random.Generator) -> list[int]:
    """Lines in an order that keeps those of one band together."""
    return [int(b) * band + int(i) for b in rng.permutation(size // band) for i in rng.permutation(band)]
