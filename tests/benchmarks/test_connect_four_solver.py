from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the solver is compiled: pip install 'troupe-train[accel]'")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # as `python benchmarks/connect_four.py` has it

import connect_four as benchmark
from connect_four_solver import COLUMNS, ROWS, Solver, finished, from_columns, legal_columns, play

from troupe.errors import DataError
from troupe.maths.statistics import wilson

Cells = tuple[tuple[int, ...], ...]
"""Columns of stones from the bottom: 1 for the player to move, 2 for the other."""


@pytest.fixture(scope="module")
def solver() -> Solver:
    return Solver()


def cells(own: int, other: int) -> Cells:
    return tuple(
        tuple(
            1 if own >> (7 * column + row) & 1 else 2 for row in range(ROWS) if (own | other) >> (7 * column + row) & 1
        )
        for column in range(COLUMNS)
    )


def four(board: Cells, who: int) -> bool:
    """Looks along every line from every square, in coordinates: nothing of the bitboards."""
    held = {(c, r) for c, column in enumerate(board) for r, stone in enumerate(column) if stone == who}
    return any(
        all((c + k * dc, r + k * dr) in held for k in range(4))
        for c, r in held
        for dc, dr in ((1, 0), (0, 1), (1, 1), (1, -1))
    )


@cache
def brute_force(board: Cells) -> int:
    """Plain minimax without any pruning."""
    moves = [after(board, column) for column in range(COLUMNS) if len(board[column]) < ROWS]
    if not moves:
        return 0
    return max(1 if four(moved, 2) else -brute_force(moved) for moved in moves)


def after(board: Cells, column: int) -> Cells:
    """The board for the other player once `column` was played: his stones are now 1."""
    moved = tuple((*stones, 1) if c == column else stones for c, stones in enumerate(board))
    return tuple(tuple(3 - stone for stone in stones) for stones in moved)


def brute_force_values(board: Cells) -> dict[int, int]:
    values = {}
    for column in range(COLUMNS):
        if len(board[column]) < ROWS:
            moved = after(board, column)
            values[column] = 1 if four(moved, 2) else -brute_force(moved)
    return values


# --- the solver -------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("stones", "n"), [((34, 35, 36), 60), ((37, 38, 39, 40, 41), 60), ((32,), 6)])
def test_late_positions_are_those_of_brute_force(solver: Solver, stones: Sequence[int], n: int) -> None:
    seen = set()
    for board in benchmark.positions(np.random.default_rng(sum(stones)), stones, n, loud=True):
        expected = brute_force_values(cells(*board))
        assert solver.move_values(*board) == expected
        assert solver.solve(*board) == max(expected.values())
        seen.add(solver.solve(*board))
    assert len(seen) > 1


@pytest.mark.oracle
def test_early_threats_are_those_of_an_unpruned_search(solver: Solver) -> None:
    """Where three more moves decide, a search to that depth over coordinates must agree with the solver."""

    def forced(board: Cells, depth: int) -> int:
        """1 or -1 if proven within `depth` moves, else 0."""
        moves = [after(board, column) for column in range(COLUMNS) if len(board[column]) < ROWS]
        if any(four(moved, 2) for moved in moves):
            return 1
        return max((-forced(moved, depth - 1) for moved in moves), default=0) if depth > 1 else 0

    proven = 0
    for board in benchmark.positions(np.random.default_rng(4), range(14, 24), 150, loud=True):
        value = forced(cells(*board), 4)
        if value:
            proven += 1
            assert solver.solve(*board) == value
    assert proven > 40


def test_parents_follow_from_children_in_the_middle_game(solver: Solver) -> None:
    """A fresh table, a tiny one and one full of other positions prove the same values, and a position is worth
    its best move."""
    tiny, fresh = Solver(bits=10), Solver()
    for own, other in benchmark.positions(np.random.default_rng(5), range(15, 21), 25):
        values = solver.move_values(own, other)
        assert tiny.move_values(own, other) == fresh.move_values(own, other) == values
        assert tiny.solve(own, other) == max(values.values())


def test_mirrored_positions_have_mirrored_values(solver: Solver) -> None:
    for board in benchmark.positions(np.random.default_rng(6), range(16, 28), 40):
        mirrored = {6 - column: value for column, value in solver.move_values(*board).items()}
        assert solver.move_values(*benchmark._mirrored(board)) == mirrored


def test_threats_by_hand(solver: Solver) -> None:
    # Three below one another: the mover takes the fourth; the other one can only stop it.
    assert solver.move_values(*from_columns([0, 6, 0, 6, 0, 6]))[0] == 1
    # Three in the bottom row with both ends open cannot be stopped.
    board = from_columns([2, 2, 3, 3, 4])
    assert set(solver.move_values(*board).values()) == {-1}
    assert solver.solve(*board) == -1
    # The last square: nobody has a line, and the game is drawn.
    full = [0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 2, 3, 2, 3, 2, 3, 3, 2, 3, 2, 3, 2, 4, 5, 4, 5, 4, 5, 5, 4, 5, 4, 5, 4]
    last = from_columns([*full, 6, 6, 6, 6, 6])
    assert solver.move_values(*last) == {6: 0}


def test_bitboards_by_hand() -> None:
    # own 3 and 3 (rows 0, 2), other 3 (row 1) after three moves; the player to move owns row 1.
    assert from_columns([3, 3, 3]) == (1 << 22, 1 << 21 | 1 << 23)
    assert play(0, 1, 0) == 2 and play(0, 1, 6) == 1 << 42
    assert legal_columns(*from_columns([5] * 6)) == [0, 1, 2, 3, 4, 6]
    row, column, rising, falling = (
        1 | 1 << 7 | 1 << 14 | 1 << 21,
        15,
        1 | 1 << 8 | 1 << 16 | 1 << 24,
        8 | 1 << 9 | 1 << 15 | 1 << 21,
    )
    assert all(map(finished, (row, column, rising, falling)))
    # Rows 4 and 5 of a column and the two lowest of the next are no line.
    assert not finished(1 << 4 | 1 << 5 | 1 << 7 | 1 << 8) and not finished(0)


def test_what_the_solver_refuses(solver: Solver) -> None:
    for own, other, why in [
        (1 << 6, 0, "outside the board"),
        (1, 1, "both players hold"),
        (2, 0, "above empty squares"),
        (1, 0, "1 and 0 stones"),
        (0, 15, "0 and 4 stones"),
        (*from_columns([0, 1, 0, 1, 0, 1, 0]), "is finished"),
    ]:
        with pytest.raises(DataError, match=why):
            solver.solve(own, other)
        with pytest.raises(DataError, match=why):
            solver.move_values(own, other)
    with pytest.raises(DataError, match="move 6 plays column 0"):
        from_columns([0] * 7)
    with pytest.raises(DataError, match="bits=24"):
        Solver(bits=24)


# --- the benchmark ----------------------------------------------------------------------------------------------


def test_positions_are_reachable_different_and_seeded() -> None:
    found = benchmark.positions(np.random.default_rng(0), range(8, 13), 200)
    assert found == benchmark.positions(np.random.default_rng(0), range(8, 13), 200)
    assert found != benchmark.positions(np.random.default_rng(1), range(8, 13), 200)
    assert len({min(board, benchmark._mirrored(board)) for board in found}) == 200
    assert {(own | other).bit_count() for own, other in found} == set(range(8, 13))
    for own, other in found:
        assert own & other == 0 and other.bit_count() - own.bit_count() in (0, 1)
        assert not four(cells(own, other), 1) and not four(cells(own, other), 2)
    with pytest.raises(DataError, match="gave 4 different positions"):  # 7 first moves, 4 of them not mirrored
        benchmark.positions(np.random.default_rng(0), [1], 5)


def test_quiet_positions_leave_nobody_four_at_once() -> None:
    def threatened(board: benchmark.Board) -> bool:
        return any(
            finished(play(own, other, column))
            for own, other in (board, board[::-1])
            for column in legal_columns(*board)
        )

    quiet = benchmark.positions(np.random.default_rng(0), range(24, 31), 60)
    loud = benchmark.positions(np.random.default_rng(0), range(24, 31), 60, loud=True)
    assert not any(map(threatened, quiet)) and sum(map(threatened, loud)) > 30
    assert all(benchmark.quiet(*board) != threatened(board) for board in loud)


def test_scores_by_hand() -> None:
    won, lost, open_ = (
        benchmark.Labelled((0, 0), {0: 1, 1: 0, 2: -1}),
        benchmark.Labelled((0, 0), {0: -1, 1: -1, 2: -1}),
        benchmark.Labelled((0, 0), {0: -1, 1: 0, 2: 0}),
    )
    assert (won.right, lost.right, open_.right) == ({0}, {0, 1, 2}, {1, 2})
    assert (won.strict, lost.strict, open_.strict) == (True, False, True)
    kept = benchmark.score(lambda boards: [1] * len(boards), {"a": [won, lost, open_], "b": [lost]})
    assert kept["a"] == benchmark.Kept(wilson(2, 3), wilson(1, 2))
    assert kept["b"] == benchmark.Kept(wilson(1, 1), None)
    with pytest.raises(DataError, match="answered 0 of 1"):
        benchmark.score(lambda boards: [], {"a": [won]})
    with pytest.raises(DataError, match=r"chose 3 in .* legal are"):
        benchmark.score(lambda boards: [3], {"a": [won]})
    with pytest.raises(DataError, match="n=0"):
        benchmark.score(lambda boards: [], {"a": []})


def test_the_best_and_the_worst_player(solver: Solver) -> None:
    boards = benchmark.positions(np.random.default_rng(2), range(24, 31), 60)
    sets = {"end": [benchmark.Labelled(board, solver.move_values(*board)) for board in boards]}

    def extreme(pick: Callable[..., int]) -> benchmark.Player:
        return lambda asked: [pick((v := solver.move_values(*board)), key=v.__getitem__) for board in asked]

    best, worst = benchmark.score(extreme(max), sets)["end"], benchmark.score(extreme(min), sets)["end"]
    random = benchmark.score(benchmark.random_player(np.random.default_rng(0)), sets)["end"]
    assert best.all.mean == best.strict.mean == 1
    assert worst.strict.mean == 0 and worst.all.mean == pytest.approx(1 - best.strict.n / 60)
    assert 0 < random.strict.mean < random.all.mean < 1
