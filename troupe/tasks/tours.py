"""The travelling salesman: the shortest round trip through a handful of cities.

    {"cities": [[0, 0], [4, 3], [4, 0], [0, 3]]}        answer "14.000000", solution "0 3 1 2"

A `TaskGame`: action i goes to city i + 1 next, and the way back to city 0 closes the trip. What it pays at the end is
public, a lower bound of the length over the length; success is the optimum, by dynamic programming over sets of cities
(Held and Karp 1962, J. SIAM 10:196), and the game does not know it.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.splits import content_id

__all__ = ["TourGame", "TourState", "make_tour", "shortest_tour", "solves_tour", "tour_length", "tour_task"]

CITIES = 9
"""Cities at most."""
SIDE = 10
"""Cities stand on whole coordinates 0 to SIDE - 1."""
EXACT = 1e-6
"""Lengths this close are equal: far above rounding, far below what two different trips on the grid can differ by."""

GONE = 1
FIRST_PLACE = 2

City = tuple[int, int]


class TourState(NamedTuple):
    """`route` begins with city 0; `open` are the cities yet to be visited, in increasing order."""

    cities: tuple[City, ...]
    bound: float
    route: tuple[int, ...]
    open: tuple[int, ...]


class TourGame:
    """One city after another; with one left there is no choice, so that the trip ends one earlier."""

    players = 1
    actions = CITIES - 1
    observation_shape = (CITIES + 1,)
    vocabulary = FIRST_PLACE + SIDE * SIDE
    pointers = CITIES - 1

    def initial(self) -> TourState:
        return _first(((0, 0), (4, 3), (4, 0), (0, 3)))

    def begin(self, problem: Problem) -> TourState:
        cities = _read(problem.data, problem.id)
        if len(cities) > CITIES or not all(0 <= place < SIDE for city in cities for place in city):
            raise DataError(
                f"{problem.id}: the tour game holds {CITIES} cities at coordinates 0 to {SIDE - 1}; found "
                f"{len(cities)} cities, the farthest at {max(max(city) for city in cities)}"
            )
        return _first(cities)

    def legal(self, state: TourState) -> tuple[int, ...]:
        return tuple(city - 1 for city in state.open)

    def step(self, state: TourState, action: int) -> tuple[TourState, float, bool, int]:
        cities, bound, route, still = state
        city = action + 1
        if city not in still:
            raise DataError(f"TourGame.step: action {action} is not legal; take one of {self.legal(state)}")
        route, still = (*route, city), tuple(other for other in still if other != city)
        if len(still) > 1:
            return TourState(cities, bound, route, still), 0.0, False, 0
        ended = TourState(cities, bound, route + still, ())
        return ended, bound / tour_length(cities, ended.route), True, 0

    def observe(self, state: TourState) -> np.ndarray:
        """float32 `[10]`: the places of cities 1 to 8, or that they are gone; the place that the trip stands at, and
        the one that it goes back to."""
        cities, _, route, still = state
        tokens = np.zeros(CITIES + 1, np.float32)
        tokens[: len(cities) - 1] = GONE
        for city in still:
            tokens[city - 1] = FIRST_PLACE + cities[city][0] * SIDE + cities[city][1]
        for place, city in ((CITIES - 1, route[-1]), (CITIES, 0)):
            tokens[place] = FIRST_PLACE + cities[city][0] * SIDE + cities[city][1]
        return tokens

    def key(self, state: TourState) -> Any:
        return state.cities, state.open, state.route[-1]

    def answer(self, state: TourState) -> str | None:
        return None if state.open else " ".join(map(str, state.route))

    def describe(self, state: TourState, action: int) -> str:
        here, there = state.cities[state.route[-1]], state.cities[action + 1]
        last = [city for city in state.open if city != action + 1]
        then = f", then to city {last[0]} and back" if len(last) == 1 else ""
        return f"go to city {action + 1} at {there}, {math.dist(here, there):.1f} away{then}"

    def render(self, state: TourState) -> str:
        listed = ", ".join(f"{i} at {city}" for i, city in enumerate(state.cities))
        return f"cities {listed}\nroute {' '.join(map(str, state.route))}"


def _first(cities: tuple[City, ...]) -> TourState:
    return TourState(cities, _bound(cities), (0,), tuple(range(1, len(cities))))


def tour_length(cities: Sequence[City], route: Sequence[int]) -> float:
    """Of the round trip: Euclidean, the way back to the first included."""
    return math.fsum(math.dist(cities[route[i - 1]], cities[city]) for i, city in enumerate(route))


@lru_cache(maxsize=65536)
def _bound(cities: tuple[City, ...]) -> float:
    """No trip is shorter: each city is entered and left, at the least by its two shortest ways, and each way is
    counted at both its ends."""
    ways = [sorted(math.dist(city, other) for other in cities) for city in cities]
    return math.fsum(near[1] + near[2] for near in ways) / 2  # near[0] is the way to itself


@lru_cache(maxsize=65536)
def shortest_tour(cities: tuple[City, ...]) -> tuple[float, tuple[int, ...]]:
    """(length, a shortest round trip from city 0).

        best[S, j] = min over i in S - {j} of best[S - {j}, i] + d(i, j)

    O(2^n n^2) time for n cities; 9 take some milliseconds.
    """
    n = len(cities) - 1  # city 0 is the start; city j + 1 is bit j of a set
    far = [[math.dist(a, b) for b in cities] for a in cities]
    best: list[dict[int, tuple[float, int]]] = [{} for _ in range(1 << n)]
    for j in range(n):
        best[1 << j][j] = (far[0][j + 1], -1)
    for visited in range(1, 1 << n):
        for i, (length, _) in best[visited].items():
            for j in range(n):
                after = visited | 1 << j
                if after == visited:
                    continue
                total = length + far[i + 1][j + 1]
                if j not in best[after] or total < best[after][j][0]:
                    best[after][j] = (total, i)
    everyone = (1 << n) - 1
    length, last = min((total + far[j + 1][0], j) for j, (total, _) in best[everyone].items())
    return length, (0, *_traced(best, everyone, last))


def _traced(best: list[dict[int, tuple[float, int]]], visited: int, last: int) -> list[int]:
    route: list[int] = []
    while last >= 0:
        route.append(last + 1)
        visited, last = visited ^ 1 << last, best[visited][last][1]
    return route[::-1]


def make_tour(rng: random.Random, cities: int) -> tuple[dict[str, Any], str]:
    """(data, prompt) of `cities` different random places."""
    places = [divmod(place, SIDE) for place in rng.sample(range(SIDE * SIDE), cities)]
    listed = ", ".join(f"{i} at {place}" for i, place in enumerate(places))
    prompt = f"Find the shortest round trip from city 0 through all the others and back. Cities {listed}."
    return {"cities": [list(place) for place in places]}, prompt


def tour_task(data: dict[str, Any], prompt: str, difficulty: float) -> Task:
    """The task of an instance; the same places have the same key, wherever the trip begins."""
    cities = _read(data, "tour")
    key = " ".join(f"{x},{y}" for x, y in sorted(cities))
    length, route = shortest_tour(cities)
    solution = " ".join(map(str, route))
    data = {**data, "key": key}
    return Task(content_id("tour", key), "tour", prompt, data, difficulty, f"{length:.6f}", solution)


def solves_tour(task: Task, answer: str) -> bool:
    """Whether the text is a round trip that begins in city 0, visits each city once and is as short as can be.

    City 0 may be named again at the end.
    """
    cities = _read(task.data, task.id)
    if not re.fullmatch(r"\s*(0|[1-9][0-9]{0,8})([\s,]+(0|[1-9][0-9]{0,8}))*\s*", answer):
        return False
    route = [int(number) for number in re.findall(r"[0-9]+", answer)]
    if len(route) == len(cities) + 1 and route[-1] == 0:
        route.pop()
    if route[0] != 0 or sorted(route) != list(range(len(cities))):
        return False
    length, _ = shortest_tour(cities)
    return tour_length(cities, route) <= length + EXACT and f"{length:.6f}" == task.answer


def _read(data: Any, where: str) -> tuple[City, ...]:
    found = data.get("cities")
    if not isinstance(found, Sequence) or len(found) < 3:
        raise DataError(f"{where}: a tour needs cities, three or more pairs [x, y]; found {found!r}")
    cities = tuple(tuple(city) for city in found)
    if any(len(city) != 2 or any(type(place) is not int for place in city) for city in cities):
        raise DataError(f"{where}: write each city as a pair of whole numbers [x, y]; found {found!r}")
    if len(set(cities)) < len(cities):
        raise DataError(f"{where}: two cities stand at one place; write different places in {found!r}")
    return cities
