"""Sudokus as tokens, in all the forms that are the same puzzle.

    token 0 is never there (padding), 1 an empty cell, d + 1 the digit d; rows follow one another

Relabelled digits, bands, rows of a band, stacks and columns of a stack in another order, and for square boxes the
transposed grid: every one of these forms of a puzzle is as hard, and its solution is known. Networks are trained on
random forms, and puzzles that are forms of one another never stand in both training and held-out set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from troupe.errors import DataError
from troupe.tasks.rows import locate, objects, text
from troupe.tasks.sudoku import BOXES, generate_sudoku, is_solution

__all__ = ["GIVENS", "encode", "forms", "generated", "invariants", "read_sudokus"]

EMPTY = 1
GIVENS: dict[int, tuple[int, int]] = {4: (4, 8), 6: (9, 18), 9: (26, 36)}
"""Sizes that can be generated, and how many cells are given there unless the config says so."""

Pair = tuple[np.ndarray, np.ndarray]
"""A puzzle and its solution, or many of them along the first axis."""


def encode(digits: np.ndarray) -> np.ndarray:
    """Digits with 0 for an empty cell, to tokens uint8."""
    return (np.asarray(digits) + EMPTY).astype(np.uint8)


def generated(size: int, givens: tuple[int, int], rng: np.random.Generator) -> Iterator[Pair]:
    """Random sudokus with one solution each, without end, as tokens `[L]`."""
    while True:
        puzzle, solution = generate_sudoku(size, int(rng.integers(givens[0], givens[1] + 1)), rng)
        yield encode(np.asarray(puzzle)), encode(np.asarray(solution))


def read_sudokus(path: Path, size: int) -> Iterator[Pair]:
    """Puzzles of JSON lines with `puzzle` (`.` or 0 for an empty cell) and `solution`, as tokens `[L]`.

    Raises DataError with file and line for a record that is not a sudoku of this size with its solution.
    """
    path = locate(path, "puzzles.jsonl.gz", "puzzles.jsonl")
    for where, row in objects(path, "sudoku"):
        puzzle = _digits(text(row, "puzzle", where), size, where, "puzzle", "." + "0")
        solution = _digits(text(row, "solution", where), size, where, "solution", "")
        if not is_solution(puzzle.tolist(), solution.tolist()):
            raise DataError(f"{where}: the solution does not solve the puzzle; correct or delete the line")
        yield encode(puzzle), encode(solution)


def _digits(word: str, size: int, where: str, key: str, blanks: str) -> np.ndarray:
    digits = [0 if letter in blanks else ord(letter) - ord("0") for letter in word]
    if len(word) != size * size or not all(0 < d <= size or (d == 0 and blanks) for d in digits):
        cells = "digits" if not blanks else "digits, with '.' for an empty cell"
        raise DataError(f"{where}: {key} is {word[:24]!r}...; write {size * size} {cells}, 1 to {size}")
    return np.array(digits)


# ---------------------------------------------------------------------------------------------- the same puzzle


def forms(puzzles: np.ndarray, solutions: np.ndarray, size: int, rng: np.random.Generator) -> Pair:
    """Each of `[k, L]` puzzles, and its solution, in a random one of its forms, all of them equally likely."""
    k, (high, wide) = len(puzzles), BOXES[size]
    rows, columns = _lines(k, size, high, rng), _lines(k, size, wide, rng)
    table = np.argsort(rng.random((k, size)), axis=1) + EMPTY + 1
    table = np.concatenate([np.tile(np.arange(EMPTY + 1), (k, 1)), table], axis=1).astype(np.uint8)
    flipped = rng.random(k) < 0.5 if high == wide else np.zeros(k, bool)
    which = np.arange(k)[:, None, None]

    def form(cells: np.ndarray) -> np.ndarray:
        grid = cells.reshape(k, size, size)[which, rows[:, :, None], columns[:, None, :]]
        grid = np.where(flipped[:, None, None], grid.transpose(0, 2, 1), grid)
        return np.take_along_axis(table, grid.reshape(k, size * size).astype(np.int64), 1)

    return form(puzzles), form(solutions)


def _lines(k: int, size: int, deep: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of lines that keep bands of `deep` together, `[k, size]`."""
    bands = np.argsort(rng.random((k, size // deep)), axis=1)
    within = np.argsort(rng.random((k, size // deep, deep)), axis=2)
    return (bands[:, :, None] * deep + within).reshape(k, size)


def invariants(puzzles: np.ndarray, solutions: np.ndarray, size: int) -> np.ndarray:
    """A number for each of `[k, L]` puzzles that all of its forms share, uint64 `[k]`.

    Two puzzles with different numbers are certainly not forms of one another; with equal ones they are taken to be, so
    keeping the numbers of two sets apart keeps the puzzles apart, whatever the relabelling. Computed by colour
    refinement (Weisfeiler and Leman 1968): a cell's colour says whether it is given; then, round by round, also the
    colours in its row, column, box, band and stack, and those of the cells with its digit.
    """
    k, (high, wide) = len(puzzles), BOXES[size]
    boxes, digits = _box_order(size), np.argsort(solutions, axis=1, kind="stable")
    colours = _mixed((puzzles > EMPTY).astype(np.uint64) + np.uint64(1))
    with np.errstate(over="ignore"):
        for _ in range(6):
            grid = colours.reshape(k, size, size)
            rows, columns = _spread(grid, high), _spread(grid.transpose(0, 2, 1), wide).transpose(0, 2, 1)
            box, digit = np.empty_like(colours), np.empty_like(colours)
            box[:, boxes] = np.repeat(_sums(colours[:, boxes], size), size, 1)
            same = np.take_along_axis(colours, digits, 1)
            np.put_along_axis(digit, digits, np.repeat(_sums(same, size), size, 1), 1)
            # Rows and columns count alike: a square grid may be transposed.
            lines = _mixed(rows).reshape(k, -1) + _mixed(columns).reshape(k, -1)
            colours = _mixed(colours + _mixed(lines) + np.uint64(3) * _mixed(box) + np.uint64(5) * _mixed(digit))
        found: np.ndarray = colours.sum(1, dtype=np.uint64)
    return found


def _sums(cells: np.ndarray, size: int) -> np.ndarray:
    """Mixed sums over `size` neighbours each."""
    found: np.ndarray = _mixed(cells.reshape(len(cells), -1, size).sum(2, dtype=np.uint64))
    return found


def _spread(grid: np.ndarray, deep: int) -> np.ndarray:
    """For each cell: its row's sum, and its band's sum of mixed rows. `[k, n, n]`."""
    k, n, _ = grid.shape
    rows = _mixed(grid.sum(2, dtype=np.uint64))
    bands = _mixed(rows.reshape(k, n // deep, deep).sum(2, dtype=np.uint64))
    both = rows + np.uint64(7) * np.repeat(bands, deep, 1)
    return np.repeat(both[:, :, None], n, 2)


def _box_order(size: int) -> np.ndarray:
    """Cells, box after box."""
    high, wide = BOXES[size]
    cells = np.arange(size * size).reshape(size // high, high, size // wide, wide)
    return cells.transpose(0, 2, 1, 3).reshape(-1)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Scrambles 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
