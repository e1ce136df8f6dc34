"""An exact solver of Connect Four (7 columns, 6 rows): is a position won, drawn or lost for the player to move?

    solver = Solver()
    solver.solve(own, other)         # 1, 0 or -1 for the player to move, who owns `own`
    solver.move_values(own, other)   # {column: value of playing it}

Positions are two 64-bit words of stones: bit = column * 7 + row, row 0 at the bottom; the seventh bit of a column stays
empty, so that shifted lines cannot run from one column into the next. The search is alpha-beta (Knuth and Moore 1975)
on whole boards at once, with two questions of width 1 ("a win?", else "a draw?"), a table of proven bounds, forced
answers to threats, no move below a square on which the opponent would win, and those moves first that leave most
winning squares, central ones before others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from troupe.errors import DataError, MissingExtra

try:
    from numba import njit
except ImportError as error:
    raise MissingExtra("numba", "accel", "the solver of Connect Four") from error

COLUMNS, ROWS = 7, 6
BOTTOM = np.uint64(sum(1 << 7 * column for column in range(COLUMNS)))
BOARD = np.uint64(int(BOTTOM) * (2**ROWS - 1))
CENTRE_FIRST = tuple(np.uint64(0x3F << 7 * column) for column in (3, 2, 4, 1, 5, 0, 6))
ONE, TWO, THREE, ZERO = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(0)
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplying mixes a key's bits into the upper ones

WIN, DRAW, LOSS = 1, 0, -1


@njit("uint64(uint64)", cache=True)
def _winning_squares(stones: np.uint64) -> np.uint64:
    """Squares that complete four in a line, whether they are empty or not."""
    found = ZERO
    for direction in (1, 6, 7, 8):
        d = np.uint64(direction)
        below1, below2, below3 = stones << d, stones << (TWO * d), stones << (THREE * d)
        above1, above2, above3 = stones >> d, stones >> (TWO * d), stones >> (THREE * d)
        found |= below1 & below2 & (below3 | above1) | above1 & above2 & (above3 | below1)
    return found & BOARD


@njit("boolean(uint64)", cache=True)
def _has_four(stones: np.uint64) -> bool:
    for direction in (1, 6, 7, 8):
        d = np.uint64(direction)
        pairs = stones & (stones >> d)
        if pairs & (pairs >> (TWO * d)):
            return True
    return False


@njit("int64(uint64)", cache=True)
def _count(bits: np.uint64) -> int:
    n = 0
    while bits:
        bits &= bits - ONE
        n += 1
    return n


@njit("int64(uint64, uint64, int64, int64, uint64[:], uint64[:, :], int64[:, :])", cache=True)
def _search(
    own: np.uint64,
    other: np.uint64,
    stones: int,
    alpha: int,
    table: np.ndarray,
    moves: np.ndarray,
    scores: np.ndarray,
) -> int:
    """Value of an unfinished position: at most alpha if it is not above alpha, at least alpha + 1 otherwise.

    `table[i]` packs a key of 49 bits and the proven bounds (each plus 1, 2 bits); `moves` and `scores` `[43, 7]` are
    scratch space for each depth.
    """
    mask = own | other
    legal = (mask + BOTTOM) & BOARD
    if _winning_squares(own) & legal:
        return 1
    # Squares on which the opponent wins next: one must be taken at once, two are one too many, and below none is safe.
    threats = _winning_squares(other) & ~mask
    forced = threats & legal
    if forced:
        if forced & (forced - ONE):
            return -1
        legal = forced
    legal &= ~(threats >> ONE)
    if not legal:
        return -1
    if stones >= 40:
        return 0  # neither this stone wins nor the other player's after it
    key = own + mask + ONE  # a column of h stones adds 2^h - 1 to 2^(h+1) - 2: no two positions share one, none has 0
    slot = np.int64((key * SPREAD) >> np.uint64(64 - 23)) & (len(table) - 1)
    entry, low, high = table[slot], -1, 1
    if entry >> np.uint64(4) == key:
        low, high = np.int64(entry & THREE) - 1, np.int64((entry >> TWO) & THREE) - 1
    else:
        free = BOARD & ~mask
        if not _has_four(own | free):
            high = 0
        if not _has_four(other | free):
            low = 0
    if low > alpha or low == high:
        return low
    if high <= alpha:
        return high
    n = 0
    for column in CENTRE_FIRST:
        move = legal & column
        if move:
            score = _count(_winning_squares(own | move) & ~mask)
            place = n
            while place > 0 and scores[stones, place - 1] < score:
                scores[stones, place], moves[stones, place] = scores[stones, place - 1], moves[stones, place - 1]
                place -= 1
            scores[stones, place], moves[stones, place] = score, move
            n += 1
    best = -1
    for i in range(n):
        value = -_search(other, own | moves[stones, i], stones + 1, -alpha - 1, table, moves, scores)
        if value > best:
            best = value
            if best > alpha:
                break
    # Above alpha the value is a lower bound; at or below it every move was refuted, and it is an upper one.
    if best > alpha:
        low = max(low, best)
    else:
        high = min(high, best)
    table[slot] = (key << np.uint64(4)) | (np.uint64(high + 1) << TWO) | np.uint64(low + 1)
    return best


class Solver:
    """Solves positions and remembers what it proved, for later ones too.

    `bits` sets the table to 2^bits entries of 8 bytes, 23 at most: 64 MB. The values do not depend on it.
    """

    def __init__(self, bits: int = 23) -> None:
        if not 10 <= bits <= 23:
            raise DataError(f"Solver(bits={bits}): give 10 to 23")
        self._table = np.zeros(2**bits, dtype=np.uint64)
        self._moves = np.zeros((43, COLUMNS), dtype=np.uint64)
        self._scores = np.zeros((43, COLUMNS), dtype=np.int64)

    def solve(self, own: int, other: int) -> int:
        """1, 0 or -1: won, drawn or lost for the player to move. Raises DataError for what is no position of the game,
        and for one that is finished."""
        check(own, other)
        return self._solve(own, other)

    def move_values(self, own: int, other: int) -> dict[int, int]:
        """The value of each legal column for the player to move. Raises DataError as `solve` does."""
        check(own, other)
        values = {}
        for column in legal_columns(own, other):
            moved = play(own, other, column)
            if _has_four(np.uint64(moved)):
                values[column] = WIN
            elif (moved | other).bit_count() == COLUMNS * ROWS:
                values[column] = DRAW
            else:
                values[column] = -self._solve(other, moved)
        return values

    def _solve(self, own: int, other: int) -> int:
        stones = (own | other).bit_count()
        for alpha in (DRAW, LOSS):
            value = _search(np.uint64(own), np.uint64(other), stones, alpha, self._table, self._moves, self._scores)
            if value > alpha:
                return int(value)
        return LOSS


def legal_columns(own: int, other: int) -> list[int]:
    """Columns that are not full, from the left."""
    full = own | other
    return [column for column in range(COLUMNS) if not full >> (7 * column + ROWS - 1) & 1]


def play(own: int, other: int, column: int) -> int:
    """The mover's stones after one more in `column`."""
    full = own | other
    return own | ((full + (1 << 7 * column)) & (0x3F << 7 * column) & ~full)


def finished(stones: int) -> bool:
    """Whether these stones of one player hold four in a line."""
    return bool(_has_four(np.uint64(stones)))


def quiet(own: int, other: int) -> bool:
    """Whether neither player could complete four with the next stone."""
    squares = _winning_squares(np.uint64(own)) | _winning_squares(np.uint64(other))
    full = np.uint64(own | other)
    return not squares & (full + BOTTOM) & ~full


def check(own: int, other: int) -> None:
    """Raises DataError unless the words are a position in which a move is due."""
    where = f"the position (own={own:#x}, other={other:#x})"
    full = own | other
    if own < 0 or other < 0 or full & ~int(BOARD):
        raise DataError(f"{where} has stones outside the board: bit = column * 7 + row, rows 0 to 5")
    if own & other:
        raise DataError(f"{where} has squares that both players hold")
    if full & (~full << 1) & ~int(BOTTOM):
        raise DataError(f"{where} has stones above empty squares")
    if not 0 <= other.bit_count() - own.bit_count() <= 1:
        raise DataError(
            f"{where} has {own.bit_count()} and {other.bit_count()} stones: the mover has as many or one less"
        )
    if finished(own) or finished(other) or full == int(BOARD):
        raise DataError(f"{where} is finished: give one in which a move is due")


def from_columns(columns: Sequence[int]) -> tuple[int, int]:
    """(own, other) after these columns were played from the empty board. Raises DataError for a full column."""
    own = other = 0
    for i, column in enumerate(columns):
        if column not in legal_columns(own, other):
            raise DataError(f"move {i} plays column {column}, which is full or none: columns are 0 to 6")
        own, other = other, play(own, other, column)
    return own, other
