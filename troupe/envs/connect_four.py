"""Connect Four on 7 columns of 6 rows: in plain Python, on arrays, and compiled, all three on bitboards.

A state is (own, other): the stones of the player to move and of the player who just moved. Bit 7 * column + row of
each, row 0 at the bottom; the seventh bit of a column stays empty, so that a line cannot leave a column at its top and
enter the next, and so that adding a column's lowest bit to all stones carries to its first free cell. As an array
a state is the row of these two words. Four in a line win; a full board without is a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.protocols import Symmetry
from troupe.search.compiled import compile_functions

__all__ = ["ConnectFour", "ConnectFourBatch", "State", "compiled_functions", "line_heuristic"]

State = tuple[int, int]

ROWS, COLUMNS, HEIGHT = 6, 7, 7  # HEIGHT: bits per column
CELLS = ROWS * COLUMNS
DIRECTIONS = (1, 6, 7, 8)  # from one cell of a line to the next: up, down and right, right, up and right

BOTTOM = tuple(1 << HEIGHT * column for column in range(COLUMNS))
TOP = tuple(bit << ROWS - 1 for bit in BOTTOM)
FULL = sum(bit * ((1 << ROWS) - 1) for bit in BOTTOM)
ABOVE = sum(bit << ROWS for bit in BOTTOM)
TOPS = sum(TOP)
COLUMN = (1 << HEIGHT) - 1
LEGAL = {
    sum(top for i, top in enumerate(TOP) if taken >> i & 1): tuple(i for i in range(COLUMNS) if not taken >> i & 1)
    for taken in range(1 << COLUMNS)
}
"""The columns that are not full, by the stones of the top row."""

MIRROR = np.arange(CELLS).reshape(ROWS, COLUMNS)[:, ::-1].reshape(-1)
SYMMETRIES = (
    Symmetry(np.arange(2 * CELLS), np.arange(COLUMNS)),
    Symmetry(np.concatenate([MIRROR, MIRROR + CELLS]), np.arange(COLUMNS)[::-1].copy()),
)


class ConnectFour:
    """A `Game`: action c drops a stone into column c. Player 0, drawn X, begins."""

    players = 2
    actions = COLUMNS
    observation_shape = (2, ROWS, COLUMNS)

    def initial(self) -> State:
        return 0, 0

    def to_play(self, state: State) -> int:
        return (state[0] | state[1]).bit_count() & 1

    def legal(self, state: State) -> tuple[int, ...]:
        return LEGAL[(state[0] | state[1]) & TOPS]

    def step(self, state: State, action: int) -> tuple[State, float, bool, int]:
        """Raises DataError where the column is full."""
        own, other = state
        taken = own | other
        stone = (taken + BOTTOM[action]) & ~taken
        if stone & ABOVE:
            free = self.legal(state)
            raise DataError(f"ConnectFour.step: column {action} is full in state {state}; take one of {free}")
        own |= stone
        to_play = taken.bit_count() & 1 ^ 1
        # Pairs of neighbours, then pairs of pairs two steps apart; written out, as a loop would take twice the time.
        up, down, right, rise = own & own >> 1, own & own >> 6, own & own >> 7, own & own >> 8
        if up & up >> 2 or down & down >> 12 or right & right >> 14 or rise & rise >> 16:
            return (other, own), 1.0, True, to_play
        return (other, own), 0.0, taken | stone == FULL, to_play

    def observe(self, state: State) -> np.ndarray:
        """float32 `[2, 6, 7]`: own stones, the other's; the first row is the top one."""
        return _planes(np.array([state], np.uint64))[0]

    def key(self, state: State) -> int:
        """Column by column: a column of h stones has the numbers 2^h - 1 to 2^(h+1) - 2, so that no two share one."""
        return 2 * state[0] + state[1]

    def canonical(self, state: State) -> tuple[int, int]:
        """The smaller of the key and its mirror's."""
        key = 2 * state[0] + state[1]
        mirrored = key & COLUMN << 21
        for shift, bits in ((42, COLUMN), (28, COLUMN << 7), (14, COLUMN << 14)):
            mirrored |= (key & bits) << shift | key >> shift & bits
        return (key, 0) if key <= mirrored else (mirrored, 1)

    def heuristic(self, state: State) -> float:
        """What `line_heuristic` says, for players that look a few moves ahead."""
        return line_heuristic(state)

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    def render(self, state: State) -> str:
        """Six lines of X, O and dots above the columns' numbers, and who moves."""
        mover = self.to_play(state)
        crosses, noughts = state if mover == 0 else state[::-1]
        marks = ["X" if crosses >> b & 1 else "O" if noughts >> b & 1 else "." for b in range(HEIGHT * COLUMNS)]
        rows = (" ".join(marks[row::HEIGHT]) for row in reversed(range(ROWS)))
        return "\n".join([*rows, " ".join(map(str, range(COLUMNS))), f"{'XO'[mover]} to move"])


def line_heuristic(state: State) -> float:
    """How promising the open lines are to the player to move, in (-1, 1): tanh of the weighed difference.

    A line of four cells is open to a player while the other has no stone in it. With one, two or three stones of the
    player it counts 1, 4 or 16 thirty-seconds: a line of three needs one cell alone. Only lines count, not who can
    reach the cell in time; the search sees that.
    """
    own, other = state
    return math.tanh((_open_lines(own, FULL & ~other) - _open_lines(other, FULL & ~own)) / 32)


def _open_lines(stones: int, room: int) -> int:
    """Sum over the lines within `room` of 1, 4 or 16 for one, two or three stones: all lines of a direction at once."""
    total = 0
    for step in DIRECTIONS:
        pairs = room & room >> step
        lines = pairs & pairs >> 2 * step  # a line stands at its lowest bit
        if not lines:
            continue
        second, third, fourth = stones >> step, stones >> 2 * step, stones >> 3 * step
        low, high = stones ^ second, third ^ fourth  # odd number of stones in the lower pair, in the upper pair
        odd = (low ^ high) & lines
        twos = ((stones & second) ^ (third & fourth) ^ (low & high)) & lines  # the sum's second binary digit
        three = odd & twos
        total += odd.bit_count() + 4 * twos.bit_count() + 11 * three.bit_count()
    return total


# ------------------------------------------------------------------------------------------------------- on arrays

_BOTTOM = np.array(BOTTOM, np.uint64)
_TOP = np.array(TOP, np.uint64)
_FULL = np.uint64(FULL)
_STEPS = np.array(DIRECTIONS, np.uint64)
_STEP, _TWO_STEPS = _STEPS[:, None], 2 * _STEPS[:, None]
_SHIFTS = np.arange(0, HEIGHT * COLUMNS, HEIGHT, dtype=np.uint64)
_BACK = _SHIFTS[::-1].copy()
_COLUMN = np.uint64(COLUMN)
_ZERO = np.uint64(0)


def _planes(states: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(states, "<u8").view(np.uint8).reshape(-1, 2, 8)
    bits = np.unpackbits(words, axis=2, count=HEIGHT * COLUMNS, bitorder="little")
    grid = bits.reshape(-1, 2, COLUMNS, HEIGHT)[..., ROWS - 1 :: -1]
    return grid.swapaxes(2, 3).astype(np.float32, order="C")


def compiled_functions() -> tuple[Callable[..., Any], ...]:
    """(step, legal, encode), compiled by numba, over one state's two words.

    `step(state, action, out) -> (reward, done, to_play)` writes the next state to `out`, another array than `state`;
    `legal(state, mask)` fills bool [7]; `encode(state, planes)` fills the flat float32 observation. Illegal actions
    are not looked for. Raises MissingExtra without numba.
    """
    return compile_functions(_step, _legal, _encode)


class ConnectFourBatch:
    """The same game as a `BatchGame`: states uint64 `[n, 2]`. Illegal actions are not looked for."""

    players = 2
    actions = COLUMNS
    observation_shape = (2, ROWS, COLUMNS)
    words = 2
    compiled_functions = staticmethod(compiled_functions)

    def initial(self, n: int) -> np.ndarray:
        return np.zeros((n, 2), np.uint64)

    def legal(self, states: np.ndarray) -> np.ndarray:
        return ((states[:, :1] | states[:, 1:]) & _TOP) == _ZERO

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        own, other = states[:, 0], states[:, 1]
        taken = own | other
        after = taken | (taken + _BOTTOM[actions])
        own = after ^ other
        pairs = own & own >> _STEP  # [4, n]
        pairs &= pairs >> _TWO_STEPS
        won = np.bitwise_or.reduce(pairs, axis=0) != _ZERO
        following = np.empty((len(states), 2), np.uint64)
        following[:, 0] = other
        following[:, 1] = own
        to_play = (np.bitwise_count(after) & 1).view(np.int8)
        return following, won.astype(np.float64), won | (after == _FULL), to_play

    def observe(self, states: np.ndarray) -> np.ndarray:
        return _planes(states)

    def keys(self, states: np.ndarray) -> list[int]:
        return self._keys(states).tolist()

    def canonical(self, states: np.ndarray) -> tuple[list[int], np.ndarray]:
        keys = self._keys(states)
        mirrored = np.bitwise_or.reduce((keys[:, None] >> _SHIFTS & _COLUMN) << _BACK, axis=1)
        return np.minimum(keys, mirrored).tolist(), (mirrored < keys).astype(np.int64)

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    @staticmethod
    def _keys(states: np.ndarray) -> np.ndarray:
        return states[:, 0] + states[:, 0] + states[:, 1]


# ------------------------------------------------------------------------------------------------ for the compiler

_FOLDS = np.array([32, 16, 8, 4, 2, 1], np.uint64)
_ONE = np.uint64(1)
_CELLS = np.array(
    list(chain.from_iterable([HEIGHT * c + r for c in range(COLUMNS)] for r in reversed(range(ROWS)))), np.uint64
)
"""The bit of each cell of a plane, top row first."""


def _step(state: np.ndarray, action: int, out: np.ndarray) -> tuple[float, bool, int]:
    taken = state[0] | state[1]
    after = taken | (taken + _BOTTOM[action])
    own = after ^ state[1]
    out[0] = state[1]
    out[1] = own
    parity = after
    for fold in _FOLDS:
        parity ^= parity >> fold
    to_play = int(parity & _ONE)
    for step in _STEPS:
        pairs = own & (own >> step)
        if pairs & (pairs >> (step + step)):
            return 1.0, True, to_play
    return 0.0, after == _FULL, to_play


def _legal(state: np.ndarray, mask: np.ndarray) -> None:
    taken = state[0] | state[1]
    for column in range(COLUMNS):
        mask[column] = taken & _TOP[column] == _ZERO


def _encode(state: np.ndarray, planes: np.ndarray) -> None:
    for cell in range(CELLS):
        planes[cell] = 1.0 if (state[0] >> _CELLS[cell]) & _ONE else 0.0
        planes[CELLS + cell] = 1.0 if (state[1] >> _CELLS[cell]) & _ONE else 0.0
