"""The Game of 24: combine some numbers by + - * / into a target, each used once; and a reader of public puzzles.

    {"numbers": [4, 6, 7, 1], "target": 24}        answer "24", solution "4 / ((7 / 6) - 1)"

A `TaskGame`: an action merges two of the numbers that are left into one, larger op smaller or a quotient either way.
Numbers stay between 0 and 169, with denominators up to 13: nothing below 0 is ever needed for a target above it, as
a - b and b - a differ in sign alone, and each of the 1,262 public puzzles is solved within these bounds.

`read_game24` reads the puzzles of Yao et al. 2023, Tree of Thoughts, arXiv:2305.10601 (MIT licence): real ones, from
4nums.com, with the rate at which people solve them.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.maths.expressions import ExpressionError, evaluate
from troupe.tasks.splits import content_id

__all__ = [
    "TwentyFourGame",
    "TwentyFourState",
    "make_twentyfour",
    "read_game24",
    "solution",
    "solves_twentyfour",
    "twentyfour_task",
]

NUMBERS = 5
"""Numbers at most."""
LARGEST, DEEPEST = 169, 13
"""The largest numerator, and the largest denominator."""

FIRST_NUMERATOR = 1
FIRST_DENOMINATOR = FIRST_NUMERATOR + LARGEST + 1
OPERATIONS = ("+", "-", "*", "/", "\\")
"""The last is the quotient the other way: smaller by larger."""
PARTNERS = NUMBERS - 1
WAYS = PARTNERS * len(OPERATIONS)

Value = tuple[int, int]
"""A fraction in lowest terms."""


class TwentyFourState(NamedTuple):
    """`values` fall; `texts` say how each came about."""

    values: tuple[Value, ...]
    texts: tuple[str, ...]
    target: int


class TwentyFourGame:
    """Action (i * 4 + j - 1) * 5 + o merges the i-th largest number with the j-th, i < j, by the o-th operation."""

    players = 1
    actions = PARTNERS * WAYS
    observation_shape = (2 * NUMBERS + 1,)
    vocabulary = FIRST_DENOMINATOR + DEEPEST + 1
    pointers = PARTNERS

    def initial(self) -> TwentyFourState:
        return _first((4, 6, 7, 1), 24)

    def begin(self, problem: Problem) -> TwentyFourState:
        numbers, target = _read(problem.data, problem.id)
        if len(numbers) > NUMBERS or max(*numbers, target) > LARGEST:
            raise DataError(
                f"{problem.id}: the game holds {NUMBERS} numbers up to {LARGEST}; found {list(numbers)} for {target}"
            )
        return _first(numbers, target)

    def legal(self, state: TwentyFourState) -> tuple[int, ...]:
        return _merges(state.values)[0]

    def step(self, state: TwentyFourState, action: int) -> tuple[TwentyFourState, float, bool, int]:
        merged = _merges(state.values)[1].get(action)
        if merged is None:
            raise DataError(f"TwentyFourGame.step: action {action} is not legal in {self.render(state)!r}")
        first, second, _ = parts(action)
        rest = [
            pair
            for place, pair in enumerate(zip(state.values, state.texts, strict=True))
            if place not in (first, second)
        ]
        rest.append((merged, f"({_equation(state, action)})"))
        rest.sort(key=lambda pair: pair[0][0] / pair[0][1], reverse=True)
        values, texts = zip(*rest, strict=True)
        after = TwentyFourState(values, texts, state.target)
        if len(values) > 1 and _merges(values)[0]:
            return after, 0.0, False, 0
        return after, float(values == ((state.target, 1),)), True, 0

    def observe(self, state: TwentyFourState) -> np.ndarray:
        """float32 `[11]`: numerators of the numbers, largest first; their denominators; the target."""
        tokens = np.zeros(2 * NUMBERS + 1, np.float32)
        for place, (numerator, denominator) in enumerate(state.values):
            tokens[place] = FIRST_NUMERATOR + numerator
            tokens[NUMBERS + place] = FIRST_DENOMINATOR + denominator
        tokens[-1] = FIRST_NUMERATOR + state.target
        return tokens

    def key(self, state: TwentyFourState) -> Any:
        return state.values, state.target

    def answer(self, state: TwentyFourState) -> str | None:
        return _bare(state.texts[0]) if len(state.texts) == 1 else None

    def describe(self, state: TwentyFourState, action: int) -> str:
        first, second, operation = parts(action)
        left, right = (_written(state.values[place]) for place in (first, second))
        rest = [v for place, v in enumerate(state.values) if place not in (first, second)]
        result = _merges(state.values)[1][action]
        shown = f"{right} / {left}" if operation == "\\" else f"{left} {operation} {right}"
        remain = " ".join(_written(value) for value in sorted([*rest, result], key=lambda v: v[0] / v[1], reverse=True))
        return f"{shown} = {_written(result)}; left: {remain}"

    def render(self, state: TwentyFourState) -> str:
        return f"{', '.join(_bare(text) for text in state.texts)} for {state.target}"


def parts(action: int) -> tuple[int, int, str]:
    """(i, j, operation) of an action: the places of the larger and the smaller number."""
    pair, operation = divmod(action, len(OPERATIONS))
    first, partner = divmod(pair, PARTNERS)
    return first, partner + 1, OPERATIONS[operation]


def _first(numbers: Sequence[int], target: int) -> TwentyFourState:
    falling = sorted(numbers, reverse=True)
    return TwentyFourState(tuple((n, 1) for n in falling), tuple(map(str, falling)), target)


def _equation(state: TwentyFourState, action: int) -> str:
    first, second, operation = parts(action)
    left, right = state.texts[first], state.texts[second]
    return f"{right} / {left}" if operation == "\\" else f"{left} {operation} {right}"


def _bare(text: str) -> str:
    """Without the brackets round the whole."""
    return text[1:-1] if text.startswith("(") else text


def _written(value: Value) -> str:
    return str(value[0]) if value[1] == 1 else f"{value[0]}/{value[1]}"


@lru_cache(maxsize=65536)
def _merges(values: tuple[Value, ...]) -> tuple[tuple[int, ...], dict[int, Value]]:
    """(legal actions, what each makes). Equal numbers are merged from their first places alone."""
    made: dict[int, Value] = {}
    seen: set[tuple[Value, Value]] = set()
    for i, left in enumerate(values):
        for j in range(i + 1, len(values)):
            if (left, values[j]) in seen:
                continue
            seen.add((left, values[j]))
            for o, value in enumerate(_results(left, values[j])):
                if value is not None:
                    made[(i * PARTNERS + j - 1) * len(OPERATIONS) + o] = value
    return tuple(made), made


@lru_cache(maxsize=65536)
def _results(left: Value, right: Value) -> tuple[Value | None, ...]:
    """left + - * / right and right / left, for left >= right; None for what is undefined, out of bounds, or the same
    as an operation before it."""
    a, b = Fraction(*left), Fraction(*right)
    made = (a + b, a - b, a * b, a / b if b else None, b / a if b and a != b else None)
    return tuple(
        None if value is None or value.numerator > LARGEST or value.denominator > DEEPEST
        else (value.numerator, value.denominator)
        for value in made
    )  # fmt: skip


@lru_cache(maxsize=65536)
def solution(values: tuple[Value, ...], target: int) -> tuple[int, ...] | None:
    """Actions that lead from these numbers, falling, to the target, by trying all; None where there are none."""
    if len(values) == 1:
        return () if values[0] == (target, 1) else None
    for action, value in _merges(values)[1].items():
        then = solution(_after(values, action, value), target)
        if then is not None:
            return (action, *then)
    return None


def _after(values: tuple[Value, ...], action: int, value: Value) -> tuple[Value, ...]:
    first, second, _ = parts(action)
    rest = [*values[:first], *values[first + 1 : second], *values[second + 1 :], value]
    return tuple(sorted(rest, key=lambda v: v[0] / v[1], reverse=True))


@lru_cache(maxsize=4096)
def odds(values: tuple[Value, ...]) -> dict[int, float]:
    """How likely merging at random is to end with each whole number above 0: a measure of how easy they are to make."""
    if len(values) == 1:
        return {values[0][0]: 1.0} if values[0][1] == 1 and values[0][0] else {}
    found: dict[int, float] = {}
    made = _merges(values)[1]
    for action, value in made.items():
        for target, probability in odds(_after(values, action, value)).items():
            found[target] = found.get(target, 0.0) + probability / len(made)
    return found


def make_twentyfour(
    rng: random.Random, count: int, targets: tuple[int, int], luck: tuple[float, float]
) -> tuple[dict[str, Any], str]:
    """(data, prompt) of `count` numbers from 1 to 13, and a target between the two that merging them at random makes
    with a probability within `luck`; of five numbers, once the first two have been merged at random."""
    while True:
        numbers = [rng.randint(1, 13) for _ in range(count)]
        values = _first(numbers, 0).values
        if count == NUMBERS:  # all that may come of five numbers takes too long to list
            values = _after(values, *rng.choice(list(_merges(values)[1].items())))
        found = sorted(odds(values).items())
        fitting = [n for n, chance in found if targets[0] <= n <= targets[1] and luck[0] <= chance <= luck[1]]
        if fitting:
            target = rng.choice(fitting)
            return {"numbers": numbers, "target": target}, _prompt(numbers, target)


def _prompt(numbers: Sequence[int], target: int) -> str:
    return f"Make {target} from {' '.join(map(str, numbers))} with + - * / and brackets, using each number once."


def twentyfour_task(data: Mapping[str, Any], prompt: str, difficulty: float) -> Task:
    """The task of some numbers; in another order they have the same key. Raises DataError where nothing makes the
    target."""
    numbers, target = _read(data, "twentyfour")
    state = _first(numbers, target)
    actions = solution(state.values, target)
    if actions is None:
        raise DataError(f"nothing makes {target} from {list(numbers)}; write other numbers")
    game = TwentyFourGame()
    for action in actions:
        state = game.step(state, action)[0]
    key = f"{target}: {' '.join(map(str, sorted(numbers)))}"
    data = {**data, "key": key}
    text = _bare(state.texts[0])
    return Task(content_id("twentyfour", key), "twentyfour", prompt, data, difficulty, str(target), text)


def solves_twentyfour(task: Task, answer: str) -> bool:
    """Whether the text is an expression in + - * / and brackets that uses the numbers once each and is the target."""
    numbers, target = _read(task.data, task.id)
    answer = " ".join(answer.split())
    if not re.fullmatch(r"[-+*/() 0-9]+", answer) or re.search(r"\*\*|[0-9]{10}", answer):
        return False
    if sorted(map(int, re.findall(r"[0-9]+", answer))) != sorted(numbers):
        return False
    try:
        value = evaluate(answer)
    except ExpressionError:
        return False
    return value == target and str(target) == task.answer


def _read(data: Mapping[str, Any], where: str) -> tuple[tuple[int, ...], int]:
    numbers, target = data.get("numbers"), data.get("target")
    if not isinstance(numbers, Sequence) or len(numbers) < 2 or any(type(n) is not int or n < 1 for n in numbers):
        raise DataError(f"{where}: numbers are {numbers!r}; write two or more whole numbers from 1")
    if type(target) is not int or target < 1:
        raise DataError(f"{where}: target is {target!r}; write a whole number from 1")
    return tuple(numbers), target


# ------------------------------------------------------------------------------------------- public puzzles


def read_game24(path: str | Path) -> list[Task]:
    """Tasks of kind `twentyfour`, easiest for people first; the difficulty is the share of them who failed.

    `path` is a CSV file with the columns Puzzles ("1 1 4 6") and Solved rate ("99.20%"), or its folder. Raises
    DataError for a file that is missing, a line of another shape, or a puzzle without a solution.
    """
    path = Path(path)
    path = next(iter(sorted(path.glob("*.csv"))), path / "*.csv") if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return [_puzzle(row, f"{path}:{number}") for number, row in enumerate(csv.DictReader(lines), start=2)]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the CSV file of puzzles, or the folder that holds it") from error


def _puzzle(row: Mapping[str, str | None], where: str) -> Task:
    puzzle, rate = row.get("Puzzles") or "", row.get("Solved rate") or ""
    if not re.fullmatch(r"\d+( \d+)+", puzzle) or not re.fullmatch(r"\d+(\.\d+)?%", rate):
        raise DataError(f"{where}: Puzzles is {puzzle!r}, Solved rate {rate!r}; write them as '1 1 4 6' and '99.2%'")
    numbers = [int(number) for number in puzzle.split()]
    difficulty = round(1 - float(rate[:-1]) / 100, 4)
    return twentyfour_task({"numbers": numbers, "target": 24}, _prompt(numbers, 24), difficulty)
