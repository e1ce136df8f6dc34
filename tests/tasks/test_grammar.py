"""The grammar of programs: what they do, by hand and against Python's own, and what may be written where."""

from __future__ import annotations

import bisect
import math
import random
from typing import Any

import pytest

from troupe.tasks.grammar import (
    INDEX,
    KINDS,
    PRODUCTIONS,
    ROOTS,
    Fault,
    Parts,
    Tree,
    evaluate,
    fits,
    grammar_of,
    inner_scope,
    prefix,
    tree_of,
)

X, Y, A = ("x",), ("y",), ("a",)
GCD: Tree = ("euclid", ("less", ("0",), ("v",)), ("v",), ("mod", ("v",), ("u",)))
SEARCH: Tree = ("bisect", ("count", A), ("less", ("item", ("m",), A), X))
ROOT: Tree = ("bisect", X, ("less", ("mul", ("m",), ("m",)), X))
MERGE: Tree = ("merge", ("less", ("p",), ("q",)))
MOST: Tree = ("fold", A, ("0",), ("larger", ("r",), ("i",)))
COUNT_EVEN: Tree = ("fold", A, ("0",), ("if", ("even", ("i",)), ("add", ("r",), ("1",)), ("r",)))
FACTORIAL: Tree = ("fold", ("up_to", X), ("1",), ("mul", ("r",), ("i",)))
REVERSED: Tree = ("build", A, ("join", ("append", ("i",), ("take", ("0",), A)), ("out",)))
COUNTER: Tree = ("number_state", ("0",), ("add", ("total",), ("1",)), ("total",))
MEAN: Tree = ("list_state", ("append", X, ("items",)), ("div", ("count", ("items",)), ("sum", ("items",))))


def test_expressions_by_hand() -> None:
    assert evaluate(("sum", A), {"a": (1, 2, 4)}) == 7
    assert evaluate(("backwards", ("start", ("2",), ("s",))), {"s": "abc"}) == "ba"
    assert evaluate(("mod", ("5",), ("sub", ("1",), ("4",))), {}) == 2  # -3 mod 5
    assert evaluate(("div", ("2",), ("sub", ("0",), ("3",))), {}) == -2  # -1.5, rounded down
    assert evaluate(("append", ("last", A), ("above", ("2",), A)), {"a": (1, 5, 3)}) == (5, 3, 3)


def test_loops_are_the_algorithms_that_they_are_called_after() -> None:
    rng = random.Random(0)
    for _ in range(200):
        x, y = rng.randint(1, 60), rng.randint(1, 60)
        a = tuple(sorted(rng.randint(0, 20) for _ in range(rng.randint(1, 6))))
        b = tuple(sorted(rng.randint(0, 20) for _ in range(rng.randint(1, 6))))
        assert evaluate(GCD, {"x": x, "y": y}) == math.gcd(x, y)
        assert evaluate(SEARCH, {"a": a, "x": x}) == bisect.bisect_left(a, x)
        assert evaluate(ROOT, {"x": x}) == math.isqrt(x - 1) + 1  # rounded up
        assert evaluate(MERGE, {"a": a, "b": b}) == tuple(sorted(a + b))
        assert evaluate(MOST, {"a": a}) == max(a)
        assert evaluate(COUNT_EVEN, {"a": a}) == sum(v % 2 == 0 for v in a)
        assert evaluate(REVERSED, {"a": a}) == a[::-1]
    assert evaluate(FACTORIAL, {"x": 5}) == 120


def test_classes_give_what_get_returns_after_each_put() -> None:
    assert evaluate(COUNTER, {"a": (7, 7, 2)}) == (1, 2, 3)
    assert evaluate(MEAN, {"a": (4, 2, 9)}) == (4, 3, 5)


@pytest.mark.parametrize(
    ("tree", "env"),
    [
        (("first", A), {"a": ()}),
        (("item", ("3",), A), {"a": (1, 2, 3)}),
        (("div", ("0",), X), {"x": 3}),
        (("mul", ("mul", X, X), X), {"x": 100}),
        (FACTORIAL, {"x": 12}),
        (("euclid", ("less", ("0",), ("u",)), ("u",), ("v",)), {"x": 1, "y": 1}),
        (("up_to", X), {"x": 1000}),
    ],
)
def test_what_has_no_value_faults(tree: Tree, env: dict[str, Any]) -> None:
    with pytest.raises(Fault):
        evaluate(tree, env)


def test_a_branch_that_is_not_taken_cannot_fault() -> None:
    tree = ("if", ("equal", ("count", A), ("0",)), ("0",), ("first", A))
    assert evaluate(tree, {"a": ()}) == 0 and evaluate(tree, {"a": (4,)}) == 4


def test_trees_and_prefixes_are_the_same_thing() -> None:
    for tree in (GCD, SEARCH, MERGE, MEAN, A):
        assert tree_of(prefix(tree)) == tree
    with pytest.raises(ValueError, match="ends before"):
        tree_of(prefix(GCD)[:-1])
    with pytest.raises(ValueError, match="of 1 productions has 2"):
        tree_of((INDEX["x"], INDEX["x"]))


@pytest.mark.parametrize("production", [p for p in PRODUCTIONS if p.inverse], ids=lambda p: p.name)
def test_what_a_part_has_to_be_gives_the_whole(production: Any) -> None:
    """Parts are drawn, the whole follows; told the parts before and the whole, `inverse` names a part that does it."""
    rng = random.Random(1)
    told = 0
    for _ in range(300):
        values = [_value(rng, of) for of in production.takes]
        whole = production.apply(*values)
        for k in range(len(values)):
            found = production.inverse(k, values[:k], whole)
            if found is not None:
                told += 1
                assert production.apply(*values[:k], found, *values[k + 1 :]) == whole
    assert told > 100


def _value(rng: random.Random, of: str) -> Any:
    if of == "str":
        return "".join(rng.choices("abc", k=rng.randint(0, 4)))
    if of == "list":
        return tuple(rng.randint(-5, 9) for _ in range(rng.randint(0, 4)))
    return rng.randint(1, 5) if of == "const" else rng.randint(-9, 9)


def _every(parts: Parts, wanted: str, scope: frozenset[str], room: int) -> set[tuple[int, ...]]:
    """All programs of a type within `room` productions, by writing out every one."""
    found = set()
    for index in parts.allowed:
        if fits(index, wanted, scope) and room > 0:
            rows: set[tuple[int, ...]] = {(index,)}
            for k, of in enumerate(PRODUCTIONS[index].takes):
                inner = inner_scope(PRODUCTIONS[index], k, scope)
                rows = {
                    (*row, *part)
                    for row in rows
                    if len(row) < room
                    for part in _every(parts, of, inner, room - len(row))
                }
            found |= rows
    return found


@pytest.mark.parametrize(
    ("names", "wanted", "given"),
    [
        (("a", "x", "2", "sum", "add", "take", "first"), "int", "ax"),
        (("a", "r", "i", "0", "add", "fold", "last"), "int program", "a"),
        (("x", "items", "append", "sum", "list_state", "count"), "class", ""),
        (("s", "concat", "upper", "a"), "str", "s"),
    ],
)
def test_legal_productions_are_those_that_begin_a_program_that_fits(
    names: tuple[str, ...], wanted: str, given: str
) -> None:
    parts, scope = Parts([INDEX[name] for name in names]), frozenset(given)
    for room in range(1, 8):
        programs = _every(parts, wanted, scope, room)
        assert set(parts.legal(wanted, scope, room)) == {program[0] for program in programs}
        if programs:
            assert min(map(len, programs)) == parts.shortest_root(wanted, scope)


def test_every_kind_has_its_own_roots() -> None:
    for kind in KINDS:
        gives = {PRODUCTIONS[index].gives for index in grammar_of(kind)}
        assert set(ROOTS[kind].values()) <= gives
    assert not any(PRODUCTIONS[index].binds for index in grammar_of("function"))
