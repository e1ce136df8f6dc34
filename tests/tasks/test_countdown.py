"""The Game of 24: the game's rules worked by hand, and how many hands of cards can be solved."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.countdown import (
    TwentyFourGame,
    make_twentyfour,
    odds,
    read_game24,
    solution,
    solves_twentyfour,
    twentyfour_task,
)

DATA = {"numbers": [4, 6, 7, 1], "target": 24}


def task(data: dict[str, object] = DATA) -> Task:
    return twentyfour_task(data, "Make it.", 0.5)


def whole(*numbers: int) -> tuple[tuple[int, int], ...]:
    return tuple((n, 1) for n in sorted(numbers, reverse=True))


def test_a_game_worked_by_hand() -> None:
    game = TwentyFourGame()
    state = game.begin(task().problem)
    # Numbers fall: 7 6 4 1. A numerator n is token 1 + n, a denominator d is token 171 + d, padding 0.
    assert game.observe(state).tolist() == [8, 7, 5, 2, 0, 172, 172, 172, 172, 0, 25]
    minus = (2 * 4 + 3 - 1) * 5 + 1  # the third number minus the fourth: 4 - 1 = 3
    assert game.describe(state, minus) == "4 - 1 = 3; left: 7 6 3"
    state, reward, done, _ = game.step(state, minus)
    assert (reward, done, state.values) == (0.0, False, whole(7, 6, 3))
    state, _, _, _ = game.step(state, (0 * 4 + 2 - 1) * 5 + 1)  # 7 - 3 = 4
    state, reward, done, _ = game.step(state, (0 * 4 + 1 - 1) * 5 + 2)  # 6 * 4
    assert (reward, done, game.answer(state)) == (1.0, True, "6 * (7 - (4 - 1))")
    assert solves_twentyfour(task(), "6 * (7 - (4 - 1))")


def test_fractions_are_kept_exactly() -> None:
    game = TwentyFourGame()
    state = game.begin(Problem("t", "twentyfour", "", {"numbers": [8, 8, 3, 3], "target": 24}))
    state, _, _, _ = game.step(state, (0 * 4 + 2 - 1) * 5 + 3)  # 8 / 3
    assert state.values == ((8, 1), (3, 1), (8, 3))
    assert game.observe(state).tolist()[:8] == [9, 4, 9, 0, 0, 172, 172, 174]
    state, _, _, _ = game.step(state, (1 * 4 + 2 - 1) * 5 + 1)  # 3 - 8/3 = 1/3
    state, reward, done, _ = game.step(state, (0 * 4 + 1 - 1) * 5 + 3)  # 8 / (1/3)
    assert (reward, done, game.answer(state)) == (1.0, True, "8 / (3 - (8 / 3))")


def reachable(numbers: tuple[Fraction, ...]) -> set[Fraction]:
    """All that can be made, negative or not, by trying every pair in both orders."""
    if len(numbers) == 1:
        return {numbers[0]}
    found: set[Fraction] = set()
    for i, j in combinations(range(len(numbers)), 2):
        rest = tuple(n for place, n in enumerate(numbers) if place not in (i, j))
        a, b = numbers[i], numbers[j]
        made = {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
        for value in made:
            found |= reachable((*rest, value))
    return found


def test_three_numbers_make_what_they_make_without_bounds() -> None:
    rng = random.Random(0)
    for _ in range(25):
        numbers = tuple(rng.randint(1, 13) for _ in range(3))
        made = {n for n in reachable(tuple(map(Fraction, numbers))) if n.denominator == 1 and 0 < n <= 100}
        assert {n for n in range(1, 101) if solution(whole(*numbers), n) is not None} == made
        assert {n for n in odds(whole(*numbers)) if n <= 100} == made


def test_1362_of_the_1820_hands_make_24() -> None:
    hands = list(combinations_with_replacement(range(1, 14), 4))
    assert len(hands) == 1820
    assert sum(solution(whole(*hand), 24) is not None for hand in hands) == 1362


def test_odds_of_two_numbers() -> None:
    # 3 and 2: the sum, the difference and the product are whole, 3/2 and 2/3 are not.
    assert odds(whole(3, 2)) == {5: 0.2, 1: 0.2, 6: 0.2}


@pytest.mark.parametrize(
    "answer",
    [
        "4*6",
        "(7-4+1)*6*1",
        "6*(7-4-1)",
        "24",
        "6**4",
        "",
        "6*(7-(4-1)",
        "(7-(4-1))*6=24",
        "6*4*(7-1)/6",
        "46/1-7",
        "4*6*7*" + "1" * 5000,
        "(7-(4-1))*\n*6",
    ],
)
def test_what_is_not_24_or_uses_other_numbers_fails(answer: str) -> None:
    assert not solves_twentyfour(task(), answer)
    assert solves_twentyfour(task(), "(7-(4-1))*6") and solves_twentyfour(task(), "\n(7 - (4-1))\n* 6\t")


def test_five_numbers_have_a_solution_too() -> None:
    rng = random.Random(3)
    for _ in range(5):
        data, prompt = make_twentyfour(rng, 5, (10, 100), (0.0002, 0.002))
        found = twentyfour_task(data, prompt, 1.0)
        assert len(data["numbers"]) == 5 and solves_twentyfour(found, found.solution)


def test_the_order_of_numbers_does_not_matter_to_the_key() -> None:
    assert task({"numbers": [1, 4, 6, 7], "target": 24}).id == task().id
    assert task({"numbers": [1, 4, 6, 7], "target": 23}).id != task().id


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    game = TwentyFourGame()
    with pytest.raises(DataError, match="nothing makes 24 from"):
        task({"numbers": [1, 1, 1, 1], "target": 24})
    with pytest.raises(DataError, match="two or more whole numbers"):
        game.begin(Problem("t", "twentyfour", "", {"numbers": [1], "target": 24}))
    with pytest.raises(DataError, match="target is 0"):
        game.begin(Problem("t", "twentyfour", "", {"numbers": [1, 2], "target": 0}))
    with pytest.raises(DataError, match="holds 5 numbers up to 169"):
        game.begin(Problem("t", "twentyfour", "", {"numbers": [1, 2], "target": 170}))
    with pytest.raises(DataError, match="action 79 is not legal in '7, 6, 4, 1 for 24'"):
        game.step(game.initial(), 79)
    with pytest.raises(DataError, match="does not exist"):
        read_game24(tmp_path / "none.csv")
    (tmp_path / "puzzles.csv").write_text("Rank,Puzzles,Solved rate\n1,1 1 4 6,99.20%\n2,1 1 x,99%\n")
    with pytest.raises(DataError, match=r"puzzles.csv:3: Puzzles is '1 1 x'"):
        read_game24(tmp_path)


def test_puzzles_are_read(tmp_path: Path) -> None:
    (tmp_path / "puzzles.csv").write_text("Rank,Puzzles,Solved rate\n1,1 1 4 6,99.20%\n")
    (found,) = read_game24(tmp_path)
    assert found.data["numbers"] == [1, 1, 4, 6] and found.difficulty == 0.008 and found.answer == "24"
    assert solves_twentyfour(found, found.solution)


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA names no folder of public data")
def test_the_public_puzzles_are_solved() -> None:
    tasks = read_game24(Path(os.environ["TROUPE_DATA"]) / "game24")
    assert len(tasks) == len({task.id for task in tasks}) == 1262
    assert all(solves_twentyfour(found, found.solution) for found in tasks)
