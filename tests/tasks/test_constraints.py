"""Constraint games: what an assignment strikes, dead ends, and solvers against counts that are known."""

from __future__ import annotations

from itertools import product

import pytest

from troupe.episode import Problem
from troupe.errors import DataError
from troupe.tasks.constraints import (
    GAMES,
    ConstraintState,
    colouring_network,
    queens_network,
    solutions,
    sudoku_network,
)

GIVENS = [1, 0, 0, 4, 0, 4, 1, 0, 2, 0, 0, 3, 0, 3, 0, 0]
TRIANGLE = {"vertices": 3, "colours": 3, "edges": [[0, 1], [0, 2], [1, 2]], "fixed": {"0": 1}}


def begin(kind: str, **data: object) -> ConstraintState:
    return GAMES[kind].begin(Problem("p", kind, "", data))


@pytest.mark.parametrize(("size", "count"), [(4, 2), (5, 10), (6, 4), (7, 40), (8, 92)])
def test_boards_have_as_many_solutions_as_known(size: int, count: int) -> None:
    assert len(set(solutions(queens_network({"size": size, "closed": []}, "q"), limit=1000))) == count


def test_colourings_are_as_many_as_the_chromatic_polynomial_says() -> None:
    triangle = {**TRIANGLE, "fixed": {}}
    assert len(solutions(colouring_network(triangle, "c"), 100)) == 3 * 2 * 1
    ring = {"vertices": 4, "colours": 3, "edges": [[0, 1], [1, 2], [2, 3], [3, 0]], "fixed": {}}
    assert len(solutions(colouring_network(ring, "c"), 100)) == 2**4 + 2  # (k - 1)^n + (-1)^n (k - 1)


def test_empty_four_by_four_has_288_grids() -> None:
    assert len(solutions(sudoku_network({"size": 4, "givens": [0] * 16}, "s"), 1000)) == 288


def test_sudoku_is_played_by_cell_and_digit() -> None:
    game = GAMES["sudoku"]
    state = begin("sudoku", size=4, givens=GIVENS)
    # Row 1 is 1 . . 4: cell 1 may be 2 or 3, but column 2 holds 4 and 3, so only 2 is left.
    assert [action for action in game.legal(state) if action // 6 == 1] == [1 * 6 + 1]
    assert game.describe(state, 7) == "row 1, column 2, box 1: 2, the only one left"
    tokens = game.observe(state)
    assert tokens[:6].tolist() == [2, 1, 1, 5, 0, 0] and tokens[-1] == 8
    while True:
        action = next(a for a in game.legal(state) if state.left[a // 6].bit_count() == 1)
        state, reward, done, _ = game.step(state, action)
        if done:
            break
    # By hand: row 1 is 1 2 3 4, row 2 is 3 4 1 2, row 3 is 2 1 4 3, row 4 is 4 3 2 1.
    assert (reward, game.answer(state)) == (1.0, "1234341221434321")


def test_a_cell_without_digits_is_a_dead_end() -> None:
    game = GAMES["sudoku"]
    state = begin("sudoku", size=4, givens=[1, 2, *[0] * 14])
    state, _, done, _ = game.step(state, 2 * 6 + 2)  # row 1 is 1 2 3 . and wants a 4 in column 4
    assert not done and [action for action in game.legal(state) if action // 6 == 3] == [3 * 6 + 3]
    state, reward, done, _ = game.step(state, (2 * 6 + 3) * 6 + 3)  # which has one now, in row 3
    assert (reward, done, game.answer(state)) == (0.0, True, None)


def test_queens_strike_columns_and_diagonals() -> None:
    game = GAMES["queens"]
    state = begin("queens", size=4, closed=[])
    state, _, done, _ = game.step(state, 1)  # row 1, column 2
    assert not done and game.legal(state) == [8 + 3, 16 + 0, 16 + 2, 24 + 0, 24 + 2, 24 + 3]
    assert game.observe(state)[:8].tolist() == [2, 3, 2, 2, 0, 0, 0, 0]
    for action in (8 + 3, 16 + 0, 24 + 2):
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (1.0, True, "2 4 1 3")


def test_a_queen_in_the_corner_of_four_by_four_ends_in_a_dead_end() -> None:
    game = GAMES["queens"]
    state, _, _, _ = game.step(begin("queens", size=4, closed=[]), 0)
    results = []
    waiting = [state]
    while waiting:
        state = waiting.pop()
        for action in game.legal(state):
            after, reward, done, _ = game.step(state, action)
            results.append(reward)
            if not done:
                waiting.append(after)
    assert results and max(results) == 0.0


def test_every_solution_of_a_colouring_is_one_by_brute_force() -> None:
    data = {"vertices": 6, "colours": 3, "edges": [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 5], [1, 4]], "fixed": {}}
    right = {c for c in product(range(3), repeat=6) if all(c[a] != c[b] for a, b in data["edges"])}  # type: ignore[union-attr, attr-defined]
    assert set(solutions(colouring_network(data, "c"), 10_000)) == right


def test_colouring_tokens_show_edges() -> None:
    tokens = GAMES["colouring"].observe(begin("colouring", **TRIANGLE)).tolist()
    assert tokens[:4] == [2, 1, 1, 0]
    assert tokens[16:21] == [7 + 2, 11 + 0, 11 + 1, 11 + 15, 0]  # 3 colours; pairs 0-1, 0-2, 1-2


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("sudoku", {"size": 9, "givens": [0] * 81}, "size as 4 or 6"),
        ("sudoku", {"size": 4, "givens": [5, *[0] * 15]}, "digits from 0 to 4"),
        ("sudoku", {"size": 4, "givens": [1, 1, *[0] * 14]}, "exclude one another"),
        ("queens", {"size": 3, "closed": []}, "size as 4 to 8"),
        ("queens", {"size": 4, "closed": [0, 1, 2, 3]}, "row 0 is closed altogether"),
        ("queens", {"size": 4, "closed": [16]}, "cells from 0 to 15"),
        ("colouring", {**TRIANGLE, "edges": [[0, 0]]}, "joins something else"),
        ("colouring", {**TRIANGLE, "fixed": {"5": 1}}, "fixed names something else"),
        ("colouring", {**TRIANGLE, "vertices": 17}, "holds 16 vertices"),
        ("colouring", {**TRIANGLE, "fixed": {"0": 1, "1": 2, "2": 3}}, "nothing is left to decide"),
    ],
)
def test_errors(kind: str, data: dict[str, object], why: str) -> None:
    with pytest.raises(DataError, match=why):
        begin(kind, **data)
