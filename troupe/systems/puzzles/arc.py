"""ARC-AGI-1 (Chollet 2019, arXiv:1911.01547): tasks of a few coloured grids each, as tokens.

    {"id": "007bbfb7", "train": [{"input": [[0, 7, 7], ...], "output": [[0, 0, ...], ...]}, ...], "test": [...]}

    token 0 outside the grid, 1 its end (one row and one column past it), 2 to 11 the colours 0 to 9

A grid lies in the upper left of a square of `side` cells, so that one network reads all of them. What to do is
shown by the other pairs of a task: every task has a number of its own, whose embedding the network learns from the
task's demonstrations, and the pairs held out are the tests of the same tasks. A task's eight rotations and reflections,
and its colours in another order (0, the background, stays), are further tasks with numbers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.tasks.rows import locate, objects

__all__ = ["VOCABULARY", "ArcTask", "encode_grid", "pairs_of", "read_arc", "read_grid", "transformed"]

VOCABULARY = 12
LARGEST = 30
"""Rows and columns of the largest grid of the benchmark."""
END, FIRST_COLOUR = 1, 2

Grid = np.ndarray
"""uint8 `[rows, columns]`, colours 0 to 9."""


@dataclass(frozen=True)
class ArcTask:
    """A task: demonstrations and tests, each a list of (input, output)."""

    id: str
    train: tuple[tuple[Grid, Grid], ...]
    test: tuple[tuple[Grid, Grid], ...]


def read_arc(path: Path) -> list[ArcTask]:
    """The tasks of a file of JSON lines. Raises DataError, with file and line, for what is not a task."""
    path = locate(path, "training.jsonl.gz", "training.jsonl")
    tasks = [
        ArcTask(str(row.get("id", where)), _pairs(row, "train", where), _pairs(row, "test", where))
        for where, row in objects(path, "ARC")
    ]
    if not tasks:
        raise DataError(f"{path} holds no tasks; each line is an object with id, train and test")
    return tasks


def _pairs(row: Mapping[str, Any], key: str, where: str) -> tuple[tuple[Grid, Grid], ...]:
    pairs = row.get(key)
    if not isinstance(pairs, Sequence) or not pairs:
        raise DataError(f"{where}: {key} is no list of pairs; write [{{'input': grid, 'output': grid}}, ...]")
    return tuple((_grid(pair, "input", where), _grid(pair, "output", where)) for pair in pairs)


def _grid(pair: Any, key: str, where: str) -> Grid:
    try:
        grid = np.asarray(pair[key])
        fits = grid.ndim == 2 and grid.dtype.kind == "i" and grid.size > 0 and max(grid.shape) <= LARGEST
    except (KeyError, TypeError, ValueError):  # ValueError: rows of unequal length
        fits = False
    if not fits or grid.min() < 0 or grid.max() > 9:
        raise DataError(f"{where}: {key} is no grid; write rows of equal length, at most {LARGEST}, of colours 0 to 9")
    return grid.astype(np.uint8)


def encode_grid(grid: Grid, side: int) -> np.ndarray:
    """Tokens uint8 `[side * side]`. Raises DataError for a grid that is larger."""
    rows, columns = grid.shape
    if max(rows, columns) > side:
        raise DataError(f"a grid of {rows} x {columns} does not fit into {side} x {side} cells; choose a larger side")
    square = np.zeros((side, side), np.uint8)
    square[:rows, :columns] = grid + FIRST_COLOUR
    square[rows : rows + 1, :columns] = END
    square[:rows, columns : columns + 1] = END
    return square.reshape(-1)


def read_grid(tokens: np.ndarray, side: int) -> Grid | None:
    """The grid that tokens show: the largest rectangle of colours in the upper left corner; None for none."""
    coloured = tokens.reshape(side, side) >= FIRST_COLOUR
    columns = int(np.cumprod(coloured[0]).sum())
    rows = int(np.cumprod(coloured[:, :columns].all(1)).sum()) if columns else 0
    return (tokens.reshape(side, side)[:rows, :columns] - FIRST_COLOUR).astype(np.uint8) if rows else None


def transformed(task: ArcTask, number: int, rng: np.random.Generator) -> ArcTask:
    """The task turned or mirrored at random, with the nine colours other than 0 in a random order."""
    colours = np.concatenate([[0], 1 + rng.permutation(9)]).astype(np.uint8)
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))

    def form(grid: Grid) -> Grid:
        return colours[np.rot90(grid.T if mirror else grid, turns)]

    def pairs(found: Sequence[tuple[Grid, Grid]]) -> tuple[tuple[Grid, Grid], ...]:
        return tuple((form(before), form(after)) for before, after in found)

    return ArcTask(f"{task.id}-{number}", pairs(task.train), pairs(task.test))


def pairs_of(pairs: Sequence[tuple[Grid, Grid]], side: int) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, outputs) as tokens uint8 `[k, side * side]`."""
    return (
        np.stack([encode_grid(before, side) for before, _ in pairs]),
        np.stack([encode_grid(after, side) for _, after in pairs]),
    )
