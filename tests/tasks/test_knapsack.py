"""Knapsacks: the game's rules worked by hand, the optimum against all subsets."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.knapsack import KnapsackGame, best_value, knapsack_task, make_knapsack, solves_knapsack

DATA = {"weights": [3, 5, 2], "values": [4, 9, 1], "capacity": 7}


def task(data: dict[str, object] = DATA) -> Task:
    return knapsack_task(dict(data), "Choose.", 0.5)


def test_a_game_worked_by_hand() -> None:
    game = KnapsackGame()
    state = game.begin(task().problem)
    assert game.legal(state) == (0, 1, 2)
    # Item i of weight w and value v is token 2 + 12 (w - 1) + (v - 1); a room of c is token 146 + c.
    assert game.observe(state).tolist() == [29, 58, 14, *[0] * 9, 153]
    assert game.describe(state, 1) == "take item 1 (weight 5, value 9): room for 2 is left"
    state, reward, done, _ = game.step(state, 1)
    assert (reward, done, game.legal(state), game.answer(state)) == (0.0, False, (2,), None)
    assert game.observe(state).tolist() == [1, 1, 14, *[0] * 9, 148]
    state, reward, done, _ = game.step(state, 2)
    # Dearest per weight first: 9 (room 2), then 2/3 of 4: the bound is 11 2/3.
    assert done and reward == pytest.approx(10 / (9 + 4 * 2 / 3))
    assert game.answer(state) == "1 2" and solves_knapsack(task(), "1 2")


def test_the_optimum_is_that_of_all_subsets() -> None:
    rng = random.Random(0)
    for _ in range(60):
        data, _ = make_knapsack(rng, rng.randint(1, 8), rng.randint(0, 6))
        items = list(zip(data["weights"], data["values"], strict=True))
        subsets = [part for size in range(len(items) + 1) for part in combinations(items, size)]
        fitting = [part for part in subsets if sum(weight for weight, _ in part) <= data["capacity"]]
        best = max(sum(value for _, value in part) for part in fitting)
        found = knapsack_task(data, "Choose.", 0.0)
        assert found.answer == str(best) == str(best_value(*map(tuple, items_of(data)), data["capacity"]))
        assert solves_knapsack(found, found.solution)


def items_of(data: dict[str, list[int]]) -> tuple[list[int], list[int]]:
    return data["weights"], data["values"]


@pytest.mark.parametrize(
    "answer", ["1", "0 2", "0 1", "1 1 2", "1 3", "1, 2 and 0", "-1 2", "", "1.2", "2 " + "1" * 5000, "2 \u0661"]
)
def test_what_is_not_best_or_does_not_fit_fails(answer: str) -> None:
    assert not solves_knapsack(task(), answer)
    assert solves_knapsack(task(), " 2, 1 ")


def test_the_same_items_in_another_order_have_one_key() -> None:
    turned = {"weights": [5, 2, 3], "values": [9, 1, 4], "capacity": 7}
    assert task(turned).id == task().id
    assert task({**DATA, "capacity": 8}).id != task().id


def test_bad_input_is_one_sentence() -> None:
    game = KnapsackGame()
    with pytest.raises(DataError, match="as many weights as values"):
        game.begin(Problem("t", "knapsack", "", {**DATA, "values": [1]}))
    with pytest.raises(DataError, match="'capacity' is missing"):
        game.begin(Problem("t", "knapsack", "", {"weights": [1], "values": [1]}))
    with pytest.raises(DataError, match="holds 12 items of weights to 12"):
        game.begin(Problem("t", "knapsack", "", {**DATA, "capacity": 49}))
    with pytest.raises(DataError, match="no item fits"):
        game.begin(Problem("t", "knapsack", "", {**DATA, "capacity": 1}))
    with pytest.raises(DataError, match=r"item 7 cannot be taken; take one of \(0, 1, 2\)"):
        game.step(game.initial(), 7)
