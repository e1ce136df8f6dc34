"""Mental arithmetic: a nested expression is worked out one operation at a time, in whole numbers of at most `BOUND`.

    7 * 9 - 7 * 5  ->  7 * (9 - 5)  ->  7 * 4  ->  28        7 * 9 is too large to be written

An operation can be carried out where both operands are numbers and the result is a whole number within the bound. Where
that leads nowhere the expression has to be regrouped first, by the associative and distributive laws; they may be used
everywhere, in both directions, and mostly do not help. A form is a number or (operation, form, form); its tokens are
in prefix order, and an action points at an operation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from troupe.tasks.rewriting import frozen, replay

__all__ = ["BOUND", "Arithmetic", "draw", "written"]

BOUND = 60
"""Largest size of a number."""

OPERATIONS = 10
"""Most operations of an expression."""

EVALUATE, SWAP, RIGHT, LEFT, DISTRIBUTE, FACTOR = range(6)
_RULES = 6
_UNDONE_BY = {SWAP: SWAP, RIGHT: LEFT, LEFT: RIGHT, DISTRIBUTE: FACTOR, FACTOR: DISTRIBUTE}

# (a . b) : c = a . (b ' c), by ". :" to "'"
_REGROUPED = {"++": "+", "+-": "-", "-+": "-", "--": "+", "**": "*", "*/": "/", "/*": "/", "//": "*"}
# a . (b ' c) = (a . b) : c, by ". '" to ":"
_BACK = {dots[0] + inner: dots[1] for dots, inner in _REGROUPED.items()}

_TOKEN = {"+": 2 * BOUND + 2, "-": 2 * BOUND + 3, "*": 2 * BOUND + 4, "/": 2 * BOUND + 5}
_WORDS = {
    SWAP: "swap the operands of",
    RIGHT: "regroup to the right",
    LEFT: "regroup to the left",
    DISTRIBUTE: "multiply out",
    FACTOR: "factor",
}


class Arithmetic:
    """Rules of mental arithmetic (`troupe.tasks.rewriting.Rules`)."""

    pointers = length = 2 * OPERATIONS + 1
    actions = pointers * _RULES
    vocabulary = 2 * BOUND + 6
    example = ("-", ("*", 7, 9), ("*", 7, 5))

    def read(self, data: Mapping[str, Any]) -> Any:
        form = frozen(data["form"])
        _check(form)
        if _size(form) > self.length:
            raise ValueError(f"more than {OPERATIONS} operations")
        return form

    def legal(self, form: Any) -> tuple[int, ...]:
        room = _size(form) < self.length - 1
        return tuple(at * _RULES + rule for at, node in _operations(form, 0) for rule in _applicable(node, room))

    def apply(self, form: Any, action: int) -> Any:
        at, rule = divmod(action, _RULES)
        return _replaced(form, at, rule)

    def solved(self, form: Any) -> str | None:
        return str(form) if isinstance(form, int) else None

    def tokens(self, form: Any) -> tuple[int, ...]:
        shown = tuple(_prefix(form))
        return shown + (0,) * (self.length - len(shown))

    def text(self, form: Any) -> str:
        return written(form)

    def words(self, form: Any, action: int) -> str:
        at, rule = divmod(action, _RULES)
        node = dict(_operations(form, 0))[at]
        return f"work out {written(node)}" if rule == EVALUATE else f"{_WORDS[rule]} {written(node)}"


# ---------------------------------------------------------------------------------------------------------- expressions


@lru_cache(1 << 16)
def _size(form: Any) -> int:
    return 1 if isinstance(form, int) else 1 + _size(form[1]) + _size(form[2])


def _operations(form: Any, at: int) -> Iterator[tuple[int, Any]]:
    """(position, node) of every operation, in prefix order."""
    if not isinstance(form, int):
        yield at, form
        yield from _operations(form[1], at + 1)
        yield from _operations(form[2], at + 1 + _size(form[1]))


def _prefix(form: Any) -> Iterator[int]:
    if isinstance(form, int):
        yield form + BOUND + 1
    else:
        yield _TOKEN[form[0]]
        yield from _prefix(form[1])
        yield from _prefix(form[2])


def _check(form: Any) -> None:
    if isinstance(form, int):
        if abs(form) > BOUND:
            raise ValueError(f"{form} is larger than {BOUND}")
    elif isinstance(form, str) or len(form) != 3 or form[0] not in _TOKEN:
        raise ValueError(f"{form!r} is neither a number nor an operation and its two operands")
    else:
        _check(form[1])
        _check(form[2])


@lru_cache(1 << 16)
def _applicable(node: Any, room: bool) -> tuple[int, ...]:
    operation, a, b = node
    rules = []
    if isinstance(a, int) and isinstance(b, int) and _result(operation, a, b) is not None:
        rules.append(EVALUATE)
    if operation in "+*" and a != b:
        rules.append(SWAP)
    # (a / b) * c = a / (b / c) needs a c that is surely not 0
    if not isinstance(a, int) and a[0] + operation in _REGROUPED and (a[0] + operation != "/*" or _is_not_zero(b)):
        rules.append(RIGHT)
    if not isinstance(b, int) and operation + b[0] in _BACK:
        rules.append(LEFT)
    if room and _splits(operation, a, b):
        rules.append(DISTRIBUTE)
    if operation in "+-" and _shared(a, b):
        rules.append(FACTOR)
    return tuple(rules)


def _is_not_zero(form: Any) -> bool:
    return isinstance(form, int) and form != 0


def _splits(operation: str, a: Any, b: Any) -> bool:
    """n * (b + c), or (a + b) / n."""
    if operation == "*":
        return isinstance(a, int) and not isinstance(b, int) and b[0] in "+-"
    return operation == "/" and not isinstance(a, int) and a[0] in "+-" and _is_not_zero(b)


def _shared(a: Any, b: Any) -> bool:
    """n * a + n * b, or a / n + b / n."""
    if isinstance(a, int) or isinstance(b, int) or a[0] != b[0]:
        return False
    return (a[0] == "*" and a[1] == b[1] and isinstance(a[1], int)) or (
        a[0] == "/" and a[2] == b[2] and _is_not_zero(a[2])
    )


def _result(operation: str, a: int, b: int) -> int | None:
    """What can be written down: a whole number within the bound."""
    if operation == "/":
        return a // b if b and a % b == 0 else None
    value = a + b if operation == "+" else a - b if operation == "-" else a * b
    return value if abs(value) <= BOUND else None


def _replaced(form: Any, at: int, rule: int) -> Any:
    if at == 0:
        return _rewritten(form, rule)
    operation, a, b = form
    if at <= _size(a):
        return operation, _replaced(a, at - 1, rule), b
    return operation, a, _replaced(b, at - 1 - _size(a), rule)


def _rewritten(node: Any, rule: int) -> Any:
    operation, a, b = node
    if rule == EVALUATE:
        return _result(operation, a, b)
    if rule == SWAP:
        return operation, b, a
    if rule == RIGHT:
        return a[0], a[1], (_REGROUPED[a[0] + operation], a[2], b)
    if rule == LEFT:
        return _BACK[operation + b[0]], (operation, a, b[1]), b[2]
    if rule == DISTRIBUTE:
        if operation == "*":
            return b[0], ("*", a, b[1]), ("*", a, b[2])
        return a[0], ("/", a[1], b), ("/", a[2], b)
    if a[0] == "*":
        return "*", a[1], (operation, a[2], b[2])
    return "/", (operation, a[1], b[1]), a[2]


def written(form: Any) -> str:
    """`7 * (9 - 5)`: brackets around every inner operation and every negative operand."""
    if isinstance(form, int):
        return str(form)
    return f"{_operand(form[1])} {form[0]} {_operand(form[2])}"


def _operand(form: Any) -> str:
    return f"({written(form)})" if not isinstance(form, int) or form < 0 else str(form)


# ------------------------------------------------------------------------------------------------------------- problems


def draw(rng: random.Random, operations: int, knots: int) -> tuple[Any, list[int]]:
    """(expression, rules that work it out), grown backwards from its value.

    Numbers become operations, `operations` times, and as often as `knots` says an operation that could be carried out
    is tied up by regrouping. The way back is a solution, though not always the shortest.
    """
    while True:
        form, undo = _grown(rng, operations, knots)
        steps = undo[::-1]
        fits = _size(form) <= Arithmetic.length and len(steps) == operations + knots
        if fits and replay(Arithmetic(), form, steps) is not None:
            return form, steps


def _grown(rng: random.Random, operations: int, knots: int) -> tuple[Any, list[int]]:
    form: Any = rng.randint(2, BOUND // 2)
    undo: list[int] = []
    ties = sorted(rng.choices(range(2, operations + 1), k=knots)) if operations > 1 else []
    for count in range(1, operations + 1):
        leaves = [at for at, value in enumerate(_prefix(form)) if value <= 2 * BOUND + 1]
        at = rng.choice(leaves)
        form = _split(rng, form, at)
        undo.append(at * _RULES + EVALUATE)
        for _ in range(ties.count(count)):
            form = _tied(rng, form, undo)
    return form, undo


def _split(rng: random.Random, form: Any, at: int) -> Any:
    """The number at this position as an operation that gives it."""
    if isinstance(form, int):
        return rng.choice(_ways(form))
    operation, a, b = form
    if at <= _size(a):
        return operation, _split(rng, a, at - 1), b
    return operation, a, _split(rng, b, at - 1 - _size(a))


@lru_cache(None)
def _ways(value: int) -> list[Any]:
    """Operations with this result; as many of each kind as there are products, so that none is rare."""
    small = range(2, BOUND + 1)
    products = [("*", n, value // n) for n in small if value and value % n == 0 and abs(value) > n]
    quotients = [("/", value * n, n) for n in small if value and abs(value * n) <= BOUND]
    sums = [("+", value - n, n) for n in small if abs(value - n) <= BOUND and value != n]
    differences = [("-", value + n, n) for n in small if abs(value + n) <= BOUND and value + n]
    most = max(3, len(products))
    return [way for ways in (products, quotients, sums, differences) for way in ways[:: -(-len(ways) // most) or 1]]


def _tied(rng: random.Random, form: Any, undo: list[int]) -> Any:
    """The expression regrouped so that fewer operations can be carried out; as it was where no rule does that."""
    rules = Arithmetic()
    ready = _ready(form)
    actions = [action for action in rules.legal(form) if action % _RULES not in (EVALUATE, SWAP)]
    rng.shuffle(actions)
    for action in actions:
        tied = rules.apply(form, action)
        if _ready(tied) < ready and _size(tied) < rules.length:
            undo.append(action - action % _RULES + _UNDONE_BY[action % _RULES])
            return tied
    return form


def _ready(form: Any) -> int:
    return sum(action % _RULES == EVALUATE for action in Arithmetic().legal(form))
