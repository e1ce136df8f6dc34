"""The knapsack problem: which items to take so that their weights fit and their values are highest.

    {"weights": [3, 5, 2], "values": [4, 9, 1], "capacity": 7}        answer "10", solution "1 2"

A `TaskGame`: action i takes item i, until none fits; to stop sooner would be worse, as every value is above 0. What it
pays at the end is public, the value over what a knapsack that may hold a part of an item would reach (Dantzig 1957,
Operations Research 5:266); success is the optimum, by dynamic programming over the capacities, and the game does not
know it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.splits import content_id

__all__ = ["KnapsackGame", "KnapsackState", "best_value", "knapsack_task", "make_knapsack", "solves_knapsack"]

ITEMS = 12
"""Items at most."""
HEAVIEST, DEAREST, LARGEST = 12, 12, 48
"""The largest weight, value and capacity that an observation has a token for."""

GONE = 1
"""The token of an item that cannot be taken any more."""
FIRST_ITEM = 2
FIRST_CAPACITY = FIRST_ITEM + HEAVIEST * DEAREST


class KnapsackState(NamedTuple):
    """`room` is the capacity that is left, `open` the items that fit into it, in increasing order."""

    weights: tuple[int, ...]
    values: tuple[int, ...]
    bound: float
    room: int
    taken: tuple[int, ...]
    open: tuple[int, ...]


class KnapsackGame:
    """Items are taken one after another, in any order, until none fits."""

    players = 1
    actions = ITEMS
    observation_shape = (ITEMS + 1,)
    vocabulary = FIRST_CAPACITY + LARGEST + 1
    pointers = ITEMS

    def initial(self) -> KnapsackState:
        return _first((3, 5, 2), (4, 9, 1), 7)

    def begin(self, problem: Problem) -> KnapsackState:
        weights, values, capacity = _read(problem.data, problem.id)
        if len(weights) > ITEMS or max(weights) > HEAVIEST or max(values) > DEAREST or capacity > LARGEST:
            raise DataError(
                f"{problem.id}: the knapsack game holds {ITEMS} items of weights to {HEAVIEST}, values to {DEAREST} "
                f"and capacities to {LARGEST}; found {len(weights)} items, {max(weights)}, {max(values)}, {capacity}"
            )
        if min(weights) > capacity:
            raise DataError(f"{problem.id}: no item fits into a knapsack of {capacity}; write a larger capacity")
        return _first(weights, values, capacity)

    def legal(self, state: KnapsackState) -> tuple[int, ...]:
        return state.open

    def step(self, state: KnapsackState, action: int) -> tuple[KnapsackState, float, bool, int]:
        weights, values, bound, room, taken, still = state
        if action not in still:
            raise DataError(f"KnapsackGame.step: item {action} cannot be taken; take one of {still}")
        room -= weights[action]
        taken = (*taken, action)
        still = tuple(item for item in still if item != action and weights[item] <= room)
        after = KnapsackState(weights, values, bound, room, taken, still)
        if still:
            return after, 0.0, False, 0
        return after, sum(values[item] for item in taken) / bound, True, 0

    def observe(self, state: KnapsackState) -> np.ndarray:
        """float32 `[13]`: an item's weight and value as one token, or that it is gone; the room that is left."""
        tokens = np.zeros(ITEMS + 1, np.float32)
        tokens[: len(state.weights)] = GONE
        for item in state.open:
            tokens[item] = FIRST_ITEM + (state.weights[item] - 1) * DEAREST + state.values[item] - 1
        tokens[ITEMS] = FIRST_CAPACITY + state.room
        return tokens

    def key(self, state: KnapsackState) -> Any:
        return state.weights, state.values, state.open, state.room

    def answer(self, state: KnapsackState) -> str | None:
        return None if state.open else " ".join(map(str, sorted(state.taken)))

    def describe(self, state: KnapsackState, action: int) -> str:
        weight, value = state.weights[action], state.values[action]
        return f"take item {action} (weight {weight}, value {value}): room for {state.room - weight} is left"

    def render(self, state: KnapsackState) -> str:
        marks = {item: "taken" for item in state.taken} | {item: "fits" for item in state.open}
        items = zip(state.weights, state.values, strict=True)
        lines = [f"{i}: weight {w}, value {v} {marks.get(i, '')}".rstrip() for i, (w, v) in enumerate(items)]
        return "\n".join([*lines, f"room {state.room}"])


def _first(weights: tuple[int, ...], values: tuple[int, ...], capacity: int) -> KnapsackState:
    fitting = tuple(item for item, weight in enumerate(weights) if weight <= capacity)
    return KnapsackState(weights, values, _fractional(weights, values, capacity), capacity, (), fitting)


def _fractional(weights: Sequence[int], values: Sequence[int], capacity: int) -> float:
    """The value where the last item may be taken in part: the dearest per weight first. Never below the optimum."""
    total, room = 0.0, capacity
    for weight, value in sorted(zip(weights, values, strict=True), key=lambda pair: pair[1] / pair[0], reverse=True):
        if weight > room:
            return total + value * room / weight
        total, room = total + value, room - weight
    return total


@lru_cache(maxsize=65536)
def best_value(weights: tuple[int, ...], values: tuple[int, ...], capacity: int) -> int:
    """The highest value that fits: best[c] = max(best[c], best[c - w] + v), item by item (Bellman 1957)."""
    best = [0] * (capacity + 1)
    for weight, value in zip(weights, values, strict=True):
        for room in range(capacity, weight - 1, -1):
            best[room] = max(best[room], best[room - weight] + value)
    return best[capacity]


def _best_items(weights: tuple[int, ...], values: tuple[int, ...], capacity: int) -> list[int]:
    """Items that reach `best_value`: one is left out wherever the others do as well without it."""
    taken: list[int] = []
    for item in reversed(range(len(weights))):
        if best_value(weights[:item], values[:item], capacity) < best_value(
            weights[: item + 1], values[: item + 1], capacity
        ):
            taken.append(item)
            capacity -= weights[item]
    return taken[::-1]


def make_knapsack(rng: random.Random, items: int, spread: int) -> tuple[dict[str, Any], str]:
    """(data, prompt) of a random instance: weights 1 to 12, values at most `spread` away from them, room for half.

    The closer values are to weights, the less a greedy choice helps (Pisinger 2005, Computers & OR 32:2271).
    """
    weights = [rng.randint(1, HEAVIEST) for _ in range(items)]
    values = [min(max(weight + rng.randint(-spread, spread), 1), DEAREST) for weight in weights]
    capacity = max(min(sum(weights) // 2, LARGEST), *weights)
    listed = "; ".join(f"{i}: weight {w}, value {v}" for i, (w, v) in enumerate(zip(weights, values, strict=True)))
    prompt = f"Choose items of the highest total value whose weights add up to at most {capacity}. Items {listed}."
    return {"weights": weights, "values": values, "capacity": capacity}, prompt


def knapsack_task(data: dict[str, Any], prompt: str, difficulty: float) -> Task:
    """The task of an instance; the same items in another order have the same key."""
    weights, values, capacity = _read(data, "knapsack")
    pairs = sorted(zip(weights, values, strict=True))
    key = f"{capacity}: {' '.join(f'{weight}/{value}' for weight, value in pairs)}"
    best, chosen = best_value(weights, values, capacity), _best_items(weights, values, capacity)
    solution = " ".join(map(str, chosen))
    return Task(content_id("knapsack", key), "knapsack", prompt, {**data, "key": key}, difficulty, str(best), solution)


def solves_knapsack(task: Task, answer: str) -> bool:
    """Whether the text names items, each once, that fit and have the highest value that can be had."""
    weights, values, capacity = _read(task.data, task.id)
    if not re.fullmatch(r"\s*(0|[1-9][0-9]{0,8})([\s,]+(0|[1-9][0-9]{0,8}))*\s*", answer):
        return False
    items = [int(number) for number in re.findall(r"[0-9]+", answer)]
    if len(set(items)) < len(items) or any(item >= len(weights) for item in items):
        return False
    best = best_value(weights, values, capacity)
    fits = sum(weights[item] for item in items) <= capacity
    return fits and sum(values[item] for item in items) == best and str(best) == task.answer


def _read(data: Any, where: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    try:
        weights, values, capacity = tuple(data["weights"]), tuple(data["values"]), data["capacity"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: a knapsack needs weights, values and capacity; {error} is missing") from error
    numbers = (*weights, *values, capacity)
    if not weights or len(weights) != len(values) or any(type(n) is not int or n < 1 for n in numbers):
        raise DataError(f"{where}: write as many weights as values, and whole numbers from 1 for them and the capacity")
    return weights, values, capacity
