"""Mazes with one way through: a tree of corridors, a start, a goal, and the path between them.

    0 free, 1 wall, 2 start, 3 goal        2 0 1 0        # # . .
                                           1 0 0 0        . # # .   the path, start and goal included
                                           0 1 1 3        . . . #

The corridors are carved by a random walk with backtracking, as in "recursive backtracker" mazes (Buck 2015, Mazes for
Programmers), cell by cell instead of room by room, so that every size will do: a cell is opened only where exactly one
open cell touches it. Nothing closes a loop that way, so the shortest path is the only one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from troupe.errors import DataError

__all__ = ["FREE", "GOAL", "START", "WALL", "generate_maze", "path_mask", "shortest_path"]

FREE, WALL, START, GOAL = 0, 1, 2, 3

Cell = tuple[int, int]


def generate_maze(
    height: int, width: int, rng: np.random.Generator, *, shortest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(grid int64 `[height, width]`, the path as a mask bool `[height, width]`, start and goal included).

    `shortest` is the least number of moves from start to goal, (height + width) / 2 unless it is said; where nothing
    lies that far from the start that was drawn, the goal is what lies farthest. Raises DataError for fewer than 2 rows
    or columns.
    """
    if height < 2 or width < 2:
        raise DataError(f"a maze of {height} x {width} has no room for a way; write 2 or more rows and columns")
    grid = np.ones((height, width), np.int64)
    _carve(grid, rng)
    cells = [(int(y), int(x)) for y, x in np.argwhere(grid == FREE)]
    start = cells[int(rng.integers(len(cells)))]
    far = _distances(grid, start)
    least = min((height + width) // 2 if shortest is None else shortest, max(far.values()))
    goals = [cell for cell in cells if far[cell] >= max(least, 1)]
    goal = goals[int(rng.integers(len(goals)))]
    grid[start], grid[goal] = START, GOAL
    return grid, path_mask(grid)


def shortest_path(grid: np.ndarray) -> list[Cell]:
    """The cells of a shortest path from START to GOAL, both included, by breadth-first search.

    Raises DataError for a grid without exactly one start and one goal, and where no path joins them.
    """
    start, goal = _only(grid, START, "start"), _only(grid, GOAL, "goal")
    far = _distances(grid, goal)
    if start not in far:
        raise DataError(f"no path leads from the start {start} to the goal {goal}")
    path = [start]
    while path[-1] != goal:
        path.append(min(_open_neighbours(grid, path[-1]), key=lambda cell: far.get(cell, grid.size)))
    return path


def path_mask(grid: np.ndarray) -> np.ndarray:
    """`shortest_path` as a mask, bool of the grid's shape."""
    mask = np.zeros(grid.shape, bool)
    for cell in shortest_path(grid):
        mask[cell] = True
    return mask


def _carve(grid: np.ndarray, rng: np.random.Generator) -> None:
    """Opens cells of a grid of walls by a walk that goes back where it cannot go on."""
    first = (int(rng.integers(grid.shape[0])), int(rng.integers(grid.shape[1])))
    grid[first] = FREE
    walk = [first]
    while walk:
        ahead = [cell for cell in _neighbours(grid, walk[-1]) if grid[cell] == WALL and _touching(grid, cell) == 1]
        if not ahead:
            walk.pop()
            continue
        cell = ahead[int(rng.integers(len(ahead)))]
        grid[cell] = FREE
        walk.append(cell)


def _touching(grid: np.ndarray, cell: Cell) -> int:
    return sum(1 for _ in _open_neighbours(grid, cell))


def _neighbours(grid: np.ndarray, cell: Cell) -> Iterator[Cell]:
    y, x = cell
    for row, column in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
            yield row, column


def _open_neighbours(grid: np.ndarray, cell: Cell) -> Iterator[Cell]:
    return (other for other in _neighbours(grid, cell) if grid[other] != WALL)


def _distances(grid: np.ndarray, source: Cell) -> dict[Cell, int]:
    """Moves from `source` to every cell that can be reached from there."""
    far, waiting = {source: 0}, deque([source])
    while waiting:
        cell = waiting.popleft()
        for other in _open_neighbours(grid, cell):
            if other not in far:
                far[other] = far[cell] + 1
                waiting.append(other)
    return far


def _only(grid: np.ndarray, what: int, name: str) -> Cell:
    found = np.argwhere(grid == what)
    if len(found) != 1:
        raise DataError(f"a maze has exactly one {name}, found {len(found)}; mark it with a {what}")
    return int(found[0][0]), int(found[0][1])
