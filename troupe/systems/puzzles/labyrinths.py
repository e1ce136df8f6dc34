"""Mazes as tokens; the answer is the maze with its way through marked.

    token 0 is never there (padding), 1 free, 2 wall, 3 start, 4 goal, 5 a cell of the way between them

The eight (for other than square grids: four) reflections and rotations of a maze are the same puzzle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from troupe.tasks.mazes import FREE, generate_maze

__all__ = ["VOCABULARY", "encode", "generated", "invariants", "mirrored"]

VOCABULARY = 6
WAY = 5


def encode(grid: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, answer), uint8 `[height * width]`, of a maze as `generate_maze` gives it."""
    tokens = (grid + 1).astype(np.uint8)
    return tokens.reshape(-1), np.where(path & (grid == FREE), WAY, tokens).astype(np.uint8).reshape(-1)


def generated(size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random mazes of `size` x `size`, without end."""
    while True:
        yield encode(*generate_maze(size, size, rng))


def mirrored(
    mazes: np.ndarray, answers: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each of `[k, size * size]` mazes, and its answer, in a random one of its eight forms."""
    which = _forms(size)[rng.integers(0, 8, len(mazes))]
    return np.take_along_axis(mazes, which, 1), np.take_along_axis(answers, which, 1)


def invariants(mazes: np.ndarray, size: int) -> list[bytes]:
    """What all forms of a maze share, and no other maze has: the first of them by its bytes."""
    turned = mazes[:, _forms(size)]  # [k, 8, L]
    return [min(form.tobytes() for form in forms) for forms in turned]


def _forms(size: int) -> np.ndarray:
    """`[8, L]`: for each rotation and reflection, which cell each cell is taken from."""
    cells = np.arange(size * size).reshape(size, size)
    turns = [np.rot90(side, k) for side in (cells, cells.T) for k in range(4)]
    return np.stack([turn.reshape(-1) for turn in turns])
