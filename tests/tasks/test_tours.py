"""Round trips: the game's rules worked by hand, the optimum against all orders."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.tours import TourGame, make_tour, shortest_tour, solves_tour, tour_length, tour_task

SQUARE = {"cities": [[0, 0], [4, 3], [4, 0], [0, 3]]}


def task(data: dict[str, object] = SQUARE) -> Task:
    return tour_task(dict(data), "Travel.", 0.5)


def test_a_game_worked_by_hand() -> None:
    game = TourGame()
    state = game.begin(task().problem)
    assert game.legal(state) == (0, 1, 2)
    # A city at (x, y) is token 2 + 10 x + y; then where the trip stands, and where it goes back to.
    assert game.observe(state).tolist() == [45, 42, 5, 0, 0, 0, 0, 0, 2, 2]
    state, reward, done, _ = game.step(state, 1)
    assert (reward, done, game.legal(state)) == (0.0, False, (0, 2))
    assert game.observe(state).tolist() == [45, 1, 5, 0, 0, 0, 0, 0, 42, 2]
    assert game.describe(state, 0) == "go to city 1 at (4, 3), 3.0 away, then to city 3 and back"
    ended, reward, done, _ = game.step(state, 0)
    # Round a rectangle of 4 by 3 the two shortest ways at each corner are its sides: the bound is reached.
    assert done and reward == pytest.approx(1.0) and game.answer(ended) == "0 2 1 3"
    assert solves_tour(task(), "0 2 1 3") and task().answer == "14.000000"
    crossed, reward, done, _ = game.step(state, 2)  # 4 + 5 + 4 + 5 = 18
    assert done and reward == pytest.approx(14 / 18) and not solves_tour(task(), str(game.answer(crossed)))


def test_the_optimum_is_that_of_all_orders_and_the_bound_is_below_it() -> None:
    rng, game = random.Random(1), TourGame()
    for _ in range(20):
        data, _ = make_tour(rng, rng.randint(3, 7))
        found = tour_task(data, "Travel.", 0.0)
        cities = tuple(tuple(city) for city in data["cities"])
        best = min(tour_length(cities, (0, *order)) for order in permutations(range(1, len(cities))))
        assert float(found.answer) == pytest.approx(best, abs=1e-6) and solves_tour(found, found.solution)
        assert 0 < game.begin(found.problem).bound <= best + 1e-9


def test_the_length_of_a_triangle() -> None:
    assert tour_length([(0, 0), (3, 0), (3, 4)], [0, 1, 2]) == 12.0
    assert shortest_tour(((0, 0), (3, 0), (3, 4)))[0] == 12.0
    assert math.isclose(shortest_tour(((0, 0), (1, 0), (2, 0), (3, 0)))[0], 6.0)


@pytest.mark.parametrize(
    "answer",
    [
        "0 1 2 3",
        "0 2 1",
        "2 1 3 0 1",
        "0 2 1 3 3",
        "0 2 2 3",
        "a",
        "",
        "0 -2 1 3",
        "0 2 1 " + "3" * 5000,
        "0 2 1 \u0663",
    ],
)
def test_what_is_no_shortest_trip_fails(answer: str) -> None:
    assert not solves_tour(task(), answer)
    assert solves_tour(task(), "0, 3, 1, 2") and solves_tour(task(), "0 2 1 3 0")


def test_the_same_places_have_one_key() -> None:
    turned = {"cities": [[4, 0], [0, 0], [0, 3], [4, 3]]}
    assert task(turned).id == task().id
    assert task({"cities": [[4, 0], [0, 0], [0, 3], [4, 4]]}).id != task().id


def test_bad_input_is_one_sentence() -> None:
    game = TourGame()
    for cities, words in (
        ([[0, 0], [1, 1]], "three or more pairs"),
        ([[0, 0], [1, 1], [0, 0]], "two cities stand at one place"),
        ([[0, 0], [1, 1], [2]], "a pair of whole numbers"),
        ([[0, 0], [1, 1], [2, 10]], "at coordinates 0 to 9; found 3 cities, the farthest at 10"),
    ):
        with pytest.raises(DataError, match=words):
            game.begin(Problem("t", "tour", "", {"cities": cities}))
    with pytest.raises(DataError, match="action 5 is not legal"):
        game.step(game.initial(), 5)
