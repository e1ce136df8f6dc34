"""The game of writing programs: what is seen, what is paid, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from troupe.episode import Problem
from troupe.errors import DataError
from troupe.tasks.grammar import INDEX, KINDS, PRODUCTIONS
from troupe.tasks.program_game import (
    EXACT,
    FIRST_NUMBER,
    FIRST_PRODUCTION,
    FREE,
    INSIDE,
    LOWEST,
    ProgramGame,
    ProgramState,
)
from troupe.testing import check_game

GAME = ProgramGame("function")


def problem(shown: list[tuple[list[Any], Any]], names: str, **others: Any) -> Problem:
    data = {
        "language": "python", "signature": [["a", "list"]], "returns": "int", "size": 9, "parts": names.split(),
        "public": [{"args": args, "value": value} for args, value in shown],
    }  # fmt: skip
    return Problem("p", "function", "", {**data, **others})


SUMS = [([[1, 2]], 5), ([[4]], 8), ([[0, 3]], 6), ([[5, 5]], 15)]  # the sum, and the last item


def written(state: ProgramState, names: str) -> tuple[ProgramState, float, bool]:
    paid, done = 0.0, False
    for name in names.split():
        state, reward, done, _ = GAME.step(state, INDEX[name])
        paid += reward
    return state, paid, done


def hole(state: ProgramState) -> list[tuple[int, float]]:
    """Of each example the flag and the first token of what is wanted, as a number."""
    rows = GAME.observe(state)[:-2].reshape(-1)[: 4 * 13].reshape(4, 13)
    return [(int(row[6]), float(row[7]) - FIRST_NUMBER + LOWEST) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_game(kind: str) -> None:
    check_game(ProgramGame(kind), np.random.default_rng(0), 20)


def test_a_program_that_passes_is_paid_and_submitted() -> None:
    state = GAME.begin(problem(SUMS, "a 0 add sum last first"))
    end, paid, done = written(state, "add sum a last a")
    assert (paid, done) == (1.0, True)
    assert GAME.answer(end) == "def f(a):\n    return sum(a) + a[-1]\n"
    end, paid, done = written(state, "add sum a first a")
    assert (paid, done, GAME.answer(end)) == (0.0, True, None)


def test_the_open_part_is_told_what_it_has_to_be() -> None:
    state = GAME.begin(problem(SUMS, "a 0 add sum last if even"))
    assert hole(state) == [(EXACT, 5), (EXACT, 8), (EXACT, 6), (EXACT, 15)]
    state, _, _ = written(state, "add")
    assert hole(state) == [(INSIDE, 5), (INSIDE, 8), (INSIDE, 6), (INSIDE, 15)]  # the other part could be anything
    state, _, _ = written(state, "sum a")
    assert hole(state) == [(EXACT, 2), (EXACT, 4), (EXACT, 3), (EXACT, 5)]  # what the sum leaves
    state, _, _ = written(state, "if even sum a")
    assert [flag for flag, _ in hole(state)] == [FREE, EXACT, FREE, EXACT]  # sums 3, 4, 3, 10


def test_tokens_name_the_program_and_the_key_stands_for_it() -> None:
    first = GAME.begin(problem(SUMS, "a 0 add sum last"))
    state, _, _ = written(first, "add sum")
    tokens = GAME.observe(state)
    assert tokens[52:55].tolist() == [FIRST_PRODUCTION + INDEX["add"], FIRST_PRODUCTION + INDEX["sum"], 0]
    assert GAME.key(state) != GAME.key(first)
    assert GAME.key(written(first, "add sum")[0]) == GAME.key(state)
    assert written(first, "add sum")[0] == state and hash(state) == hash(written(first, "add sum")[0])


def test_the_size_is_kept() -> None:
    state = GAME.begin(problem(SUMS, "a 0 add sum last", size=3))
    assert [PRODUCTIONS[index].name for index in GAME.legal(state)] == ["0", "add", "sum", "last"]
    state, _, _ = written(state, "add")
    assert [PRODUCTIONS[index].name for index in GAME.legal(state)] == ["0"]


def test_what_is_given_is_written_already() -> None:
    state = GAME.begin(problem(SUMS, "a 0 add sum last", given=["add", "sum", "a"]))
    assert written(state, "last a")[1] == 1.0
    assert GAME.describe(state, INDEX["last"]) == "return (the sum of a) + (the last item of ...)"


def test_states_of_a_class_are_shown_once_put_is_written() -> None:
    game = ProgramGame("class")
    state = game.initial()  # running sums
    for name in ("number_state", "0", "add", "total", "x"):
        state = game.step(state, INDEX[name])[0]
    assert game.observe(state)[:4].tolist() == [FIRST_NUMBER - LOWEST + total for total in (1, 3, 6)] + [0]
    assert game.step(state, INDEX["total"])[1:3] == (1.0, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": ["a", "sums"]}, "a function has no part 'sums' \\(did you mean 'sum'"),
        ({"parts": ["a", "reverse"]}, "its parts make no program within size 9"),
        ({"public": []}, "write 4 public examples"),
        ({"size": 99}, "a size from 1 to 12"),
        ({"language": "cobol"}, "no function in 'cobol'"),
        ({"signature": [["z", "list"]]}, "no argument 'z'"),
        ({"given": ["sum", "a"]}, "'given' is a whole program"),
        ({"given": ["first"]}, "is not legal"),
        ({"public": [{"args": [[1] * 9], "value": 1}] * 4}, "longer than 5"),
    ],
)
def test_what_the_game_cannot_hold(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GAME.begin(problem(SUMS, "a sum", **change))


def test_data_that_lacks_something() -> None:
    with pytest.raises(DataError, match="there is no 'language'"):
        GAME.begin(Problem("p", "function", "", {}))
    with pytest.raises(DataError, match="did you mean 'function'"):
        ProgramGame("functions")
