from __future__ import annotations

import numpy as np
import pytest

from troupe.engines.symmetries import symmetry_tables, turned
from troupe.errors import ConfigError
from troupe.protocols import Symmetry

IDENTITY = Symmetry(np.arange(4), np.arange(3))
CYCLE = Symmetry(np.array([2, 0, 3, 1]), np.array([1, 2, 0]))  # a quarter turn of 2x2 cells, a cycle of three actions


def test_turned_by_hand() -> None:
    tables = symmetry_tables([IDENTITY, CYCLE], 4, 3)
    boards = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float32)
    assert turned(boards, tables.cells[[1, 0]]).tolist() == [[[3, 1], [4, 2]], [[5, 6], [7, 8]]]
    assert turned(boards, tables.cells[1][None])[1].tolist() == [[7, 5], [8, 6]]


def test_back_undoes_the_turn_of_a_policy() -> None:
    tables = symmetry_tables([IDENTITY, CYCLE], 4, 3)
    policy = np.array([10.0, 20.0, 30.0])
    there = policy[CYCLE.actions]
    assert there.tolist() == [20, 30, 10]
    assert there[tables.back[1]].tolist() == policy.tolist()


def test_what_is_no_symmetry_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no symmetries"):
        symmetry_tables([], 4, 3)
    with pytest.raises(ConfigError, match="cells of the game's symmetry 1 must be a permutation of 0 to 3"):
        symmetry_tables([IDENTITY, Symmetry(np.array([0, 1, 1, 3]), np.arange(3))], 4, 3)
    with pytest.raises(ConfigError, match="actions of the game's symmetry 0 must be a permutation of 0 to 3"):
        symmetry_tables([IDENTITY], 4, 4)
