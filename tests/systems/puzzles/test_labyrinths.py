"""Mazes as tokens, and their eight forms."""

from __future__ import annotations

from itertools import islice

import numpy as np

from troupe.systems.puzzles import labyrinths
from troupe.tasks.mazes import path_mask

GRID = np.array([[2, 0, 1], [1, 0, 1], [0, 0, 3]])


def test_the_answer_marks_the_way() -> None:
    tokens, answer = labyrinths.encode(GRID, path_mask(GRID))
    assert tokens.tolist() == [3, 1, 2, 2, 1, 2, 1, 1, 4]
    assert answer.tolist() == [3, 5, 2, 2, 5, 2, 1, 5, 4]


def test_forms_keep_the_way_and_the_invariant() -> None:
    mazes, answers = map(np.stack, zip(*islice(labyrinths.generated(5, np.random.default_rng(0)), 40), strict=True))
    keys = labyrinths.invariants(mazes, 5)
    assert len(set(keys)) == 40
    rng = np.random.default_rng(1)
    seen = {mazes[0].tobytes()}
    for _ in range(80):
        turned, marked = labyrinths.mirrored(mazes, answers, 5, rng)
        assert labyrinths.invariants(turned, 5) == keys
        seen.add(turned[0].tobytes())
        for tokens, answer in zip(turned, marked, strict=True):
            grid = tokens.reshape(5, 5).astype(int) - 1
            assert labyrinths.encode(grid, path_mask(grid))[1].tolist() == answer.tolist()
    assert len(seen) == 8
