"""Mazes: one way through, and it is the path that is marked."""

from __future__ import annotations

import numpy as np
import pytest

from troupe.errors import DataError
from troupe.tasks.mazes import FREE, GOAL, START, WALL, generate_maze, path_mask, shortest_path


def open_pairs(grid: np.ndarray) -> int:
    """Pairs of open cells that touch: the edges of the graph of corridors."""
    free = grid != WALL
    return int((free[1:] & free[:-1]).sum() + (free[:, 1:] & free[:, :-1]).sum())


@pytest.mark.parametrize("size", [(2, 2), (3, 7), (6, 6), (9, 9), (12, 5)])
def test_corridors_are_a_tree_and_the_mask_is_the_way_through(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid, mask = generate_maze(*size, rng)
        assert grid.shape == mask.shape == size
        assert (grid == START).sum() == (grid == GOAL).sum() == 1
        # Connected (the path exists) with one edge less than cells: a tree, so that the path is the only one.
        assert open_pairs(grid) == int((grid != WALL).sum()) - 1
        assert mask[grid == START].all() and mask[grid == GOAL].all() and not mask[grid == WALL].any()
        # A path: inner cells touch two others of it, its ends one.
        padded = np.pad(mask, 1).astype(int)
        touching = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        assert sorted(touching[mask].tolist())[:2] == [1, 1] and int(touching[mask].sum()) == 2 * (int(mask.sum()) - 1)


def test_every_open_cell_can_be_reached() -> None:
    grid, _ = generate_maze(9, 9, np.random.default_rng(3))
    reached = {tuple(np.argwhere(grid == START)[0].tolist())}
    while True:
        more = {
            (y + dy, x + dx)
            for y, x in reached
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
            if 0 <= y + dy < 9 and 0 <= x + dx < 9 and grid[y + dy, x + dx] != WALL
        }
        if more <= reached:
            break
        reached |= more
    assert len(reached) == int((grid != WALL).sum()) > 30


def test_a_path_worked_by_hand() -> None:
    grid = np.array([[2, 0, 1, 0], [1, 0, 0, 0], [0, 1, 1, 3]])
    assert shortest_path(grid) == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 3)]
    assert path_mask(grid).astype(int).tolist() == [[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_the_least_length_is_kept_and_seeds_repeat() -> None:
    rng = np.random.default_rng(1)
    assert all(generate_maze(9, 9, rng, shortest=14)[1].sum() >= 15 for _ in range(30))
    first, again = (generate_maze(7, 7, np.random.default_rng(5))[0] for _ in range(2))
    other = generate_maze(7, 7, np.random.default_rng(6))[0]
    assert (first == again).all() and not (first == other).all()
    assert set(np.unique(first)) == {FREE, WALL, START, GOAL}


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(DataError, match="2 or more rows"):
        generate_maze(1, 5, np.random.default_rng(0))
    with pytest.raises(DataError, match="exactly one goal, found 0"):
        shortest_path(np.array([[2, 0]]))
    with pytest.raises(DataError, match="no path leads"):
        shortest_path(np.array([[2, 1, 3]]))
