"""Systems of two or three linear equations in as many unknowns, solved by elimination.

    2x + 3y = 12;  x - y = 1   ->   5y = 10;  x - y = 1   ->   y = 2;  x - y = 1   ->   y = 2;  x = 3

A form is a tuple of rows (coefficients, then the right side). An action points at a number. At a coefficient: eliminate
its unknown from its equation with one or the other of the other equations, or divide the equation by it. At a right
side: add one or the other of the other equations, or change signs. Eliminating is legal wherever the other equation has
the unknown, even where there is nothing left to eliminate; in which order it is done decides what comes back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import permutations
from math import gcd
from typing import Any

from troupe.tasks.rewriting import frozen, replay, signed

__all__ = ["BOUND", "UNKNOWNS", "Elimination", "draw", "worked"]

BOUND = 90
"""Largest size of a number."""

UNKNOWNS = ("x", "y", "z")

Rows = tuple[tuple[int, ...], ...]

_SIZE = len(UNKNOWNS)
_CELLS = _SIZE * (_SIZE + 1)
FIRST, SECOND, OWN = range(3)
"""With the first or the second of the other equations, or with the equation itself."""
_RULES = 3


class Elimination:
    """Rules of systems of linear equations (`troupe.tasks.rewriting.Rules`)."""

    pointers = length = _CELLS
    actions = _CELLS * _RULES
    vocabulary = 2 * BOUND + 2
    example = ((2, 3, 12), (1, -1, 1))

    def read(self, data: Mapping[str, Any]) -> Rows:
        rows = frozen(data["form"])
        if len(rows) not in (2, 3) or any(len(row) != len(rows) + 1 for row in rows):
            raise ValueError("two rows of three numbers, or three of four, are a system")
        if any(abs(number) > BOUND for row in rows for number in row):
            raise ValueError(f"a number is larger than {BOUND}")
        return rows

    def legal(self, form: Rows) -> tuple[int, ...]:
        n = len(form)
        actions: list[int] = []
        for i, row in enumerate(form):
            others = [form[j] for j in range(n) if j != i]
            for v in range(n):
                first = (i * (_SIZE + 1) + v) * _RULES
                actions.extend(first + place for place, other in enumerate(others) if other[v])
                pivot = row[v]
                if pivot not in (0, 1) and all(number % pivot == 0 for number in row):
                    actions.append(first + OWN)
            first = (i * (_SIZE + 1) + _SIZE) * _RULES
            actions.extend((*range(first, first + n - 1), first + OWN))
        return tuple(actions)

    def apply(self, form: Rows, action: int) -> Rows | None:
        i, v, rule = _pointed(action)
        row = form[i]
        if rule == OWN:
            new = tuple(-number for number in row) if v == _SIZE else tuple(number // row[v] for number in row)
        else:
            other = form[_other(i, rule)]
            new = tuple(a + b for a, b in zip(row, other, strict=True)) if v == _SIZE else _eliminated(row, other, v)
        if max(new) > BOUND or min(new) < -BOUND:
            return None
        return (*form[:i], new, *form[i + 1 :])

    def solved(self, form: Rows) -> str | None:
        values: dict[int, int] = {}
        for row in form:
            coefficients = row[:-1]
            if coefficients.count(0) != len(form) - 1 or 1 not in coefficients:
                return None
            values[coefficients.index(1)] = row[-1]
        return ", ".join(str(values[v]) for v in range(len(form))) if len(values) == len(form) else None

    def tokens(self, form: Rows) -> tuple[int, ...]:
        n = len(form)
        rest = (0,) * (_SIZE - n)
        rows = [(*(a + BOUND + 1 for a in row[:-1]), *rest, row[-1] + BOUND + 1) for row in form]
        return (*(token for row in rows for token in row), *(0,) * ((_SIZE - n) * (_SIZE + 1)))

    def text(self, form: Rows) -> str:
        return "; ".join(f"{signed(list(zip(row[:-1], UNKNOWNS, strict=False)))} = {row[-1]}" for row in form)

    def words(self, form: Rows, action: int) -> str:
        i, v, rule = _pointed(action)
        if rule == OWN:
            return f"change the signs of equation {i + 1}" if v == _SIZE else f"divide equation {i + 1} by {form[i][v]}"
        other = _other(i, rule) + 1
        if v == _SIZE:
            return f"add equation {other} to equation {i + 1}"
        return f"eliminate {UNKNOWNS[v]} from equation {i + 1} with equation {other}"


def _pointed(action: int) -> tuple[int, int, int]:
    """(equation, unknown or the right side, rule)."""
    cell, rule = divmod(action, _RULES)
    return cell // (_SIZE + 1), cell % (_SIZE + 1), rule


def _other(i: int, rule: int) -> int:
    return rule + (rule >= i)


def _eliminated(row: tuple[int, ...], other: tuple[int, ...], v: int) -> tuple[int, ...]:
    """The smallest multiple of the row less what of the other takes the unknown away, in lowest terms."""
    if not row[v]:
        return row
    shared = gcd(row[v], other[v])
    keep, take = other[v] // shared, row[v] // shared
    if keep < 0:
        keep, take = -keep, -take
    new = [keep * a - take * b for a, b in zip(row, other, strict=True)]
    lowest = gcd(*new)
    return tuple(a // lowest for a in new) if lowest > 1 else tuple(new)


# ------------------------------------------------------------------------------------------------------------- problems


def worked(form: Rows) -> list[int] | None:
    """Rules that solve the system by Gauss-Jordan elimination, in the order of pivots that takes the fewest lines.

    None where every order meets a pivot of 0 or leaves the bounds."""
    n = range(len(form))
    orders = [list(zip(rows, unknowns, strict=True)) for rows in permutations(n) for unknowns in permutations(n)]
    ways = [way for order in orders if (way := _way(form, order)) is not None]
    return min(ways, key=len, default=None)


def _way(form: Rows, order: list[tuple[int, int]]) -> list[int] | None:
    """Pivot by pivot, (equation, unknown) each; the pivots become 1 at the end."""
    rules, steps = Elimination(), []
    cells = [(i, v, pivot) for pivot, v in order for i in range(len(form)) if i != pivot]
    for i, v, pivot in cells + [(pivot, v, pivot) for pivot, v in order]:
        if form[i][v] == (i == pivot):
            continue
        action = (i * (_SIZE + 1) + v) * _RULES + (OWN if i == pivot else pivot - (pivot > i))
        forms = replay(rules, form, [action])
        if forms is None:
            return None
        steps.append(action)
        form = forms[-1]
    return steps if rules.solved(form) is not None else None


def draw(rng: random.Random, unknowns: int, fill: int, size: int) -> tuple[Rows, list[int]]:
    """(system, rules that solve it): a pivot for every unknown and `fill` further coefficients, each at most `size`;
    the solution is whole and at most 5."""
    fill = min(fill, unknowns * (unknowns - 1))
    while True:
        form = _drawn(rng, unknowns, fill, size)
        if all(abs(row[-1]) <= BOUND for row in form) and any(row[-1] for row in form):
            steps = worked(form)
            if steps is not None and len(steps) >= max(1, fill):
                return form, steps


def _drawn(rng: random.Random, unknowns: int, fill: int, size: int) -> Rows:
    def coefficient() -> int:
        return rng.choice((-1, 1, 1, 1)) * rng.randint(1, size)

    columns = rng.sample(range(unknowns), unknowns)
    cells = [(i, v) for i in range(unknowns) for v in range(unknowns) if v != columns[i]]
    filled = {*enumerate(columns), *rng.sample(cells, fill)}
    solution = [rng.randint(-5, 5) for _ in range(unknowns)]
    rows = [[coefficient() if (i, v) in filled else 0 for v in range(unknowns)] for i in range(unknowns)]
    return tuple((*row, sum(a * x for a, x in zip(row, solution, strict=True))) for row in rows)
