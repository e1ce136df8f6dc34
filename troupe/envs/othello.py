"""Othello on 6 x 6 cells: in plain Python, on arrays, and compiled, all three on bitboards.

A state is (own, other, flags): the discs of the player to move and of the other one, bit 6 * row + column of each; bit
0 of the flags is the player to move, bit 1 says that the other one has just passed. As an array it is the row of
these three words. A player without a move must pass (action 36, legal only then). Two passes in a row or a full board
end the game; more discs win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from troupe.envs.tictactoe import turns
from troupe.errors import DataError
from troupe.protocols import Symmetry
from troupe.search.compiled import compile_functions

__all__ = ["PASS", "Othello", "OthelloBatch", "State", "compiled_functions"]

State = tuple[int, int, int]

SIZE = 6
CELLS = SIZE * SIZE
PASS = CELLS
PASSED = 2  # the flag
FULL = (1 << CELLS) - 1
INNER = sum(0b011110 << SIZE * row for row in range(SIZE))
"""Cells off the left and right edge: a run of discs that are to be flipped sideways lies here."""
BIT = tuple(1 << cell for cell in range(CELLS))
BLACK, WHITE = 1 << 15 | 1 << 20, 1 << 14 | 1 << 21
"""Who begins has the discs of the rising diagonal, as the picture shows them with row 0 on top."""

CHUNK = 9
_CHUNKS = tuple(range(0, CELLS, CHUNK))
_LISTS = tuple(
    tuple(tuple(shift + i for i in range(CHUNK) if chunk >> i & 1) for chunk in range(1 << CHUNK)) for shift in _CHUNKS
)
"""The cells of nine bits, for each quarter of the board."""

_TURNS = turns(SIZE)
SYMMETRIES = tuple(Symmetry(np.concatenate([turn, turn + CELLS]), np.append(turn, PASS)) for turn in _TURNS)


def _rays() -> list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
    """For each cell the rays of two cells and more, as (cells, first cell): those of rising and of falling bits."""
    rays = []
    for row in range(SIZE):
        for column in range(SIZE):
            rising: list[tuple[int, int]] = []
            falling: list[tuple[int, int]] = []
            for down, right in ((0, 1), (1, -1), (1, 0), (1, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1)):
                path = [(row + i * down, column + i * right) for i in range(1, SIZE)]
                bits = [1 << SIZE * r + c for r, c in path if 0 <= r < SIZE and 0 <= c < SIZE]
                if len(bits) > 1:
                    (rising if (down, right) > (0, 0) else falling).append((sum(bits), bits[0]))
            rays.append((rising, falling))
    return rays


RAYS = _rays()


class Othello:
    """A `Game`: action 6 * row + column puts a disc there, 36 passes. Player 0, drawn X, begins."""

    players = 2
    actions = CELLS + 1
    observation_shape = (2, SIZE, SIZE)

    def initial(self) -> State:
        return BLACK, WHITE, 0

    def to_play(self, state: State) -> int:
        return state[2] & 1

    def legal(self, state: State) -> tuple[int, ...]:
        moves = _moves(state[0], state[1])
        if not moves:
            return (PASS,)
        first, second, third, fourth = _LISTS
        return first[moves & 511] + second[moves >> 9 & 511] + third[moves >> 18 & 511] + fourth[moves >> 27]

    def step(self, state: State, action: int) -> tuple[State, float, bool, int]:
        """Raises DataError for an action that is not legal."""
        own, other, flags = state
        to_play = flags & 1 ^ 1
        if action == PASS:
            if _moves(own, other):
                raise self._illegal(state, action)
            done = bool(flags & PASSED)
            return (other, own, to_play | PASSED), _outcome(own, other) if done else 0.0, done, to_play
        flips = 0 if (own | other) & BIT[action] else _flips(own, other, action)
        if not flips:
            raise self._illegal(state, action)
        own |= flips | BIT[action]
        other ^= flips
        done = own | other == FULL
        return (other, own, to_play), _outcome(own, other) if done else 0.0, done, to_play

    def observe(self, state: State) -> np.ndarray:
        """float32 `[2, 6, 6]`: own discs, the other's."""
        return _planes(np.array([state], np.uint64))[0]

    def key(self, state: State) -> bytes:
        """The discs as the player to move sees them. Who has passed is left out: where it could matter, the board
        says it."""
        return (state[0] | state[1] << 64).to_bytes(16, "little")

    def canonical(self, state: State) -> tuple[bytes, int]:
        """The key of that of the eight symmetric boards whose (own, other) is smallest, and the first such symmetry."""
        own, other, _ = state
        boards = [(_turned(own, k), _turned(other, k)) for k in range(len(SYMMETRIES))]
        k = min(range(len(boards)), key=boards.__getitem__)
        return self.key((*boards[k], 0)), k

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    def render(self, state: State) -> str:
        """Six lines of X, O and dots, a star where a disc may go, and who moves."""
        mover = self.to_play(state)
        crosses, noughts = (state[0], state[1]) if mover == 0 else (state[1], state[0])
        moves = _moves(state[0], state[1])
        cells = [
            "X" if crosses >> i & 1 else "O" if noughts >> i & 1 else "*" if moves >> i & 1 else "."
            for i in range(CELLS)
        ]
        rows = (" ".join(cells[start : start + SIZE]) for start in range(0, CELLS, SIZE))
        return "\n".join([*rows, f"{'XO'[mover]} to move{'' if moves else ', must pass'}"])

    def _illegal(self, state: State, action: int) -> DataError:
        return DataError(
            f"Othello.step: action {action} is not legal in state {state}; take one of {self.legal(state)}"
        )


def _outcome(own: int, other: int) -> float:
    difference = own.bit_count() - other.bit_count()
    return float((difference > 0) - (difference < 0))


def _moves(own: int, other: int) -> int:
    """Free cells from which a run of the other's discs leads to one of one's own: four directions, both ways each."""
    found = 0
    for shift, through in ((1, other & INNER), (5, other & INNER), (6, other), (7, other & INNER)):
        run = through & own << shift
        if run:
            run |= through & run << shift
            run |= through & run << shift
            run |= through & run << shift
            found |= run << shift
        run = through & own >> shift
        if run:
            run |= through & run >> shift
            run |= through & run >> shift
            run |= through & run >> shift
            found |= run >> shift
    return found & ~(own | other) & FULL


def _flips(own: int, other: int, cell: int) -> int:
    """Discs of the other that a disc on `cell` turns over: on each ray those before the first cell that is not his,
    where that holds one of one's own."""
    rising, falling = RAYS[cell]
    flips = 0
    for ray, first in rising:
        if other & first:
            ends = ray & ~other
            end = ends & -ends
            if end & own:
                flips |= ray & end - 1
    for ray, first in falling:
        if other & first:
            ends = ray & ~other
            end = 1 << ends.bit_length() >> 1
            if end & own:
                flips |= ray & -(end << 1)
    return flips


# ------------------------------------------------------------------------------------------------------- on arrays

_BITS = np.array([*BIT, 0], np.uint64)  # a pass puts no disc
_SHIFTS = np.array([1, 5, 6, 7], np.uint64)
_INNER = np.array([INNER, INNER, FULL, INNER], np.uint64)
_SHIFT, _THROUGH = _SHIFTS[:, None], _INNER[:, None]
_FULL, _ZERO, _ONE, _PASSED = np.uint64(FULL), np.uint64(0), np.uint64(1), np.uint64(PASSED)
_LONGEST = SIZE - 2  # discs that one ray can flip

_QUARTERS = np.arange(len(_CHUNKS))
_QUARTER_SHIFTS = np.array(_CHUNKS, np.uint64)
_QUARTER_BITS = np.uint64((1 << CHUNK) - 1)


def _turned_quarters() -> np.ndarray:
    """uint64 `[8, 4, 512]`: what symmetry k makes of nine bits of a quarter of the board."""
    destination = np.argsort(_TURNS, axis=1).astype(np.uint64)  # of each cell
    chunk = np.arange(1 << CHUNK, dtype=np.uint64)
    table = np.zeros((len(_TURNS), len(_CHUNKS), 1 << CHUNK), np.uint64)
    for quarter, shift in enumerate(_CHUNKS):
        for i in range(CHUNK):
            table[:, quarter] |= (chunk >> np.uint64(i) & _ONE) << destination[:, shift + i, None]
    return table


_TURNED_TABLE = _turned_quarters()
_TURNED = _TURNED_TABLE.tolist()


def _turned(board: int, k: int) -> int:
    first, second, third, fourth = _TURNED[k]
    return first[board & 511] | second[board >> 9 & 511] | third[board >> 18 & 511] | fourth[board >> 27]


def _planes(states: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(states[:, :2], "<u8").view(np.uint8).reshape(-1, 2, 8)
    bits = np.unpackbits(words, axis=2, count=CELLS, bitorder="little")
    return bits.reshape(-1, 2, SIZE, SIZE).astype(np.float32)


def _shift_both(run: np.ndarray) -> np.ndarray:
    shifted = np.empty_like(run)
    np.left_shift(run[0], _SHIFT, out=shifted[0])
    np.right_shift(run[1], _SHIFT, out=shifted[1])
    return shifted


def _runs(seeds: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other's discs in unbroken runs from the seeds `[n]`, and the cells behind them, per direction `[2, 4, n]`."""
    through = other & _THROUGH  # [4, n]
    run = np.empty((2, *through.shape), np.uint64)
    np.left_shift(seeds, _SHIFT, out=run[0])
    np.right_shift(seeds, _SHIFT, out=run[1])
    run &= through
    for _ in range(_LONGEST - 1):
        further = _shift_both(run)
        further &= through
        run |= further
    return run, _shift_both(run)


def _moves_of(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    _, behind = _runs(own, other)
    return np.bitwise_or.reduce(behind, axis=(0, 1)) & ~(own | other) & _FULL


def compiled_functions() -> tuple[Callable[..., Any], ...]:
    """(step, legal, encode), compiled by numba, over one state's three words.

    `step(state, action, out) -> (reward, done, to_play)` writes the next state to `out`, another array than `state`;
    `legal(state, mask)` fills bool [37]; `encode(state, planes)` fills the flat float32 observation. Illegal actions
    are not looked for. Raises MissingExtra without numba.
    """
    return compile_functions(_step, _legal, _encode)


class OthelloBatch:
    """The same game as a `BatchGame`: states uint64 `[n, 3]`. Illegal actions are not looked for."""

    players = 2
    actions = CELLS + 1
    observation_shape = (2, SIZE, SIZE)
    words = 3
    compiled_functions = staticmethod(compiled_functions)

    def initial(self, n: int) -> np.ndarray:
        return np.tile(np.array([BLACK, WHITE, 0], np.uint64), (n, 1))

    def legal(self, states: np.ndarray) -> np.ndarray:
        moves = _moves_of(states[:, 0], states[:, 1])
        mask = np.empty((len(states), CELLS + 1), np.bool_)
        words = moves.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)
        mask[:, :CELLS] = np.unpackbits(words, axis=1, count=CELLS, bitorder="little")
        mask[:, PASS] = moves == _ZERO
        return mask

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        own, other, flags = states[:, 0], states[:, 1], states[:, 2]
        disc = _BITS[actions]
        run, behind = _runs(disc, other)
        run *= (behind & own) != _ZERO
        flips = np.bitwise_or.reduce(run, axis=(0, 1))
        own, other = own | flips | disc, other ^ flips
        passes = disc == _ZERO
        done = (passes & (flags >= _PASSED)) | (own | other == _FULL)
        rewards = np.sign(np.bitwise_count(own).astype(np.float64) - np.bitwise_count(other)) * done
        to_play = flags & _ONE ^ _ONE
        following = np.empty((len(states), 3), np.uint64)
        following[:, 0] = other
        following[:, 1] = own
        following[:, 2] = to_play | passes * _PASSED
        return following, rewards, done, to_play.astype(np.int8)

    def observe(self, states: np.ndarray) -> np.ndarray:
        return _planes(states)

    def keys(self, states: np.ndarray) -> list[bytes]:
        return _bytes(states[:, :2])

    def canonical(self, states: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        quarters = (states[:, :2, None] >> _QUARTER_SHIFTS & _QUARTER_BITS).astype(np.intp)
        boards = np.bitwise_or.reduce(_TURNED_TABLE[:, _QUARTERS, quarters], axis=-1)  # [8, n, 2]
        own = boards[..., 0]
        tied = own == own.min(axis=0)
        k = np.where(tied, boards[..., 1], ~_ZERO).argmin(axis=0)
        return _bytes(boards[k, np.arange(len(states))]), k

    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES


def _bytes(boards: np.ndarray) -> list[bytes]:
    """The 16 bytes of each row of two words, as `Othello.key` makes them."""
    return np.ascontiguousarray(boards, "<u8").view("V16").ravel().tolist()


# ------------------------------------------------------------------------------------------------ for the compiler


def _step(state: np.ndarray, action: int, out: np.ndarray) -> tuple[float, bool, int]:
    own, other = state[0], state[1]
    disc = _BITS[action]
    flips = _ZERO
    for i in range(len(_SHIFTS)):
        shift, through = _SHIFTS[i], state[1] & _INNER[i]
        up, down = through & (disc << shift), through & (disc >> shift)
        for _ in range(_LONGEST - 1):
            up |= through & (up << shift)
            down |= through & (down >> shift)
        if (up << shift) & own:
            flips |= up
        if (down >> shift) & own:
            flips |= down
    own, other = own | flips | disc, other ^ flips
    to_play = (state[2] & _ONE) ^ _ONE
    out[0] = other
    out[1] = own
    out[2] = to_play
    if disc == _ZERO:
        out[2] |= _PASSED
    if not ((disc == _ZERO and state[2] & _PASSED) or (own | other) == _FULL):
        return 0.0, False, int(to_play)
    difference = 0
    for cell in range(CELLS):
        if own & _BITS[cell]:
            difference += 1
        if other & _BITS[cell]:
            difference -= 1
    return float((difference > 0) - (difference < 0)), True, int(to_play)


def _legal(state: np.ndarray, mask: np.ndarray) -> None:
    own, moves = state[0], _ZERO
    for i in range(len(_SHIFTS)):
        shift, through = _SHIFTS[i], state[1] & _INNER[i]
        up, down = through & (own << shift), through & (own >> shift)
        for _ in range(_LONGEST - 1):
            up |= through & (up << shift)
            down |= through & (down >> shift)
        moves |= (up << shift) | (down >> shift)
    moves &= ~(own | state[1]) & _FULL
    for cell in range(CELLS):
        mask[cell] = (moves & _BITS[cell]) != _ZERO
    mask[PASS] = moves == _ZERO


def _encode(state: np.ndarray, planes: np.ndarray) -> None:
    for cell in range(CELLS):
        planes[cell] = 1.0 if state[0] & _BITS[cell] else 0.0
        planes[CELLS + cell] = 1.0 if state[1] & _BITS[cell] else 0.0
