"""Tic-tac-toe, small enough for tables: in plain Python, on arrays, and compiled.

A state is (own, other): the stones of the player to move and of the player who just moved, bit 3 * row + column of
each. As an array it is the row of these two words. Three in a row win; a full board without is a draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.protocols import Symmetry
from troupe.search.compiled import compile_functions

__all__ = ["State", "TicTacToe", "TicTacToeBatch", "compiled_functions", "turns"]

State = tuple[int, int]

CELLS = 9
FULL = (1 << CELLS) - 1
BOARDS = 1 << CELLS
BIT = tuple(1 << cell for cell in range(CELLS))
LINES = (0o007, 0o070, 0o700, 0o111, 0o222, 0o444, 0o124, 0o421)

WON = tuple(any(board & line == line for line in LINES) for board in range(BOARDS))
LEGAL = tuple(tuple(cell for cell in range(CELLS) if not board >> cell & 1) for board in range(BOARDS))

WON_TABLE = np.array(WON)  # bool [512]
LEGAL_TABLE = np.array([[not board >> cell & 1 for cell in range(CELLS)] for board in range(BOARDS)])  # bool [512, 9]
PLANES = (~LEGAL_TABLE).astype(np.float32)  # [512, 9]: a board as a plane
BITS = np.left_shift(np.uint64(1), np.arange(CELLS, dtype=np.uint64))
FULL_WORD = np.uint64(FULL)


def turns(size: int) -> np.ndarray:
    """The eight symmetries of a square board, the identity first: int `[8, size * size]`.

    `board[turns(size)[k]]` is the flat board turned k quarters, and mirrored as well for k >= 4.
    """
    grid = np.arange(size * size).reshape(size, size)
    mirrored = np.fliplr(grid)
    return np.array([np.rot90(g, k).reshape(-1) for g in (grid, mirrored) for k in range(4)])


TURNS = turns(3)
TURNED_TABLE = np.array(
    [[sum((board >> int(source) & 1) << cell for cell, source in enumerate(turn)) for board in range(BOARDS)]
     for turn in TURNS]
)  # fmt: skip
"""int [8, 512]: the board that symmetry k makes of a board."""
TURNED = tuple(tuple(row) for row in TURNED_TABLE.tolist())
SYMMETRIES = tuple(Symmetry(np.concatenate([turn, turn + CELLS]), turn) for turn in TURNS)


class TicTacToe:
    """A `Game`: action 3 * row + column puts a stone there. Player 0, drawn X, begins."""

    players = 2
    actions = CELLS
    observation_shape = (2, 3, 3)

    def initial(self) -> State:
        return 0, 0

    def to_play(self, state: State) -> int:
        return (state[0] | state[1]).bit_count() & 1

    def legal(self, state: State) -> tuple[int, ...]:
        return LEGAL[state[0] | state[1]]

    def step(self, state: State, action: int) -> tuple[State, float, bool, int]:
        """Raises DataError where the cell is taken."""
        own, other = state
        taken = own | other
        bit = BIT[action]
        if taken & bit:
            raise DataError(f"TicTacToe.step: cell {action} is taken in state {state}; take one of {LEGAL[taken]}")
        own |= bit
        to_play = taken.bit_count() & 1 ^ 1
        if WON[own]:
            return (other, own), 1.0, True, to_play
        return (other, own), 0.0, taken | bit == FULL, to_play

    def observe(self, state: State) -> np.ndarray:
        """float32 `[2, 3, 3]`: own stones, the other's."""
        return PLANES[list(state)].reshape(2, 3, 3)

    def key(self, state: State) -> int:
        return state[0] | state[1] << CELLS

    def canonical(self, state: State) -> tuple[int, int]:
        """The smallest key among the eight symmetric positions, and the first symmetry that leads there."""
        own, other = state
        keys = [turned[own] | turned[other] << CELLS for turned in TURNED]
        smallest = min(keys)
        return smallest, keys.index(smallest)

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    def render(self, state: State) -> str:
        """Three lines of X, O and the free cells' numbers, and who moves."""
        mover = self.to_play(state)
        crosses, noughts = state if mover == 0 else state[::-1]
        marks = ["X" if crosses >> i & 1 else "O" if noughts >> i & 1 else str(i) for i in range(CELLS)]
        return "\n".join([*(" ".join(marks[row : row + 3]) for row in (0, 3, 6)), f"{'XO'[mover]} to move"])


def compiled_functions() -> tuple[Callable[..., Any], ...]:
    """(step, legal, encode), compiled by numba, over one state's two words.

    `step(state, action, out) -> (reward, done, to_play)` writes the next state to `out`, another array than `state`;
    `legal(state, mask)` fills bool [9]; `encode(state, planes)` fills the flat float32 observation. Illegal actions
    are not looked for. Raises MissingExtra without numba.
    """
    return compile_functions(_step, _legal, _encode)


class TicTacToeBatch:
    """The same game as a `BatchGame`: states uint64 `[n, 2]`. Illegal actions are not looked for."""

    players = 2
    actions = CELLS
    observation_shape = (2, 3, 3)
    words = 2
    compiled_functions = staticmethod(compiled_functions)

    def initial(self, n: int) -> np.ndarray:
        return np.zeros((n, 2), np.uint64)

    def legal(self, states: np.ndarray) -> np.ndarray:
        return LEGAL_TABLE[states[:, 0] | states[:, 1]]

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        own = states[:, 0] | BITS[actions]
        other = states[:, 1]
        taken = own | other
        won = WON_TABLE[own]
        following = np.empty_like(states, order="C")
        following[:, 0] = other
        following[:, 1] = own
        to_play = (np.bitwise_count(taken) & 1).view(np.int8)
        return following, won.astype(np.float64), won | (taken == FULL_WORD), to_play

    def observe(self, states: np.ndarray) -> np.ndarray:
        return PLANES[states].reshape(-1, 2, 3, 3)

    def keys(self, states: np.ndarray) -> list[int]:
        return (states[:, 0] | states[:, 1] << np.uint64(CELLS)).tolist()

    def canonical(self, states: np.ndarray) -> tuple[list[int], np.ndarray]:
        keys = TURNED_TABLE[:, states[:, 0]] | TURNED_TABLE[:, states[:, 1]] << CELLS
        return keys.min(axis=0).tolist(), keys.argmin(axis=0)

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES


# ------------------------------------------------------------------------------------------------ for the compiler


def _step(state: np.ndarray, action: int, out: np.ndarray) -> tuple[float, bool, int]:
    own = state[0] | BITS[action]
    taken = own | state[1]
    out[0] = state[1]
    out[1] = own
    stones = 0
    for cell in range(CELLS):
        if taken & BITS[cell]:
            stones += 1
    if WON_TABLE[own]:
        return 1.0, True, stones & 1
    return 0.0, taken == FULL_WORD, stones & 1


def _legal(state: np.ndarray, mask: np.ndarray) -> None:
    taken = state[0] | state[1]
    for cell in range(CELLS):
        mask[cell] = taken & BITS[cell] == 0


def _encode(state: np.ndarray, planes: np.ndarray) -> None:
    for cell in range(CELLS):
        planes[cell] = 1.0 if state[0] & BITS[cell] else 0.0
        planes[CELLS + cell] = 1.0 if state[1] & BITS[cell] else 0.0
