"""Linear equations with brackets, fractions and the unknown on both sides, solved by moving terms.

    2(x + 3) = x + 10  ->  2x + 6 = x + 10  ->  x + 6 = 10  ->  x = 4

A form is (left, right), each a tuple of terms in the order in which they are written. A term is (kind, n, p, q): n x,
n, or n (p x + q) / d. An action points at a term: subtract it from both sides (where it joins its like), collect it
with a like term of its side, multiply it out, divide both sides by its coefficient, multiply them by its denominator.
Which term to move where is what has to be chosen: the terms are written in no particular order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from troupe.tasks.rewriting import frozen, replay, signed

__all__ = ["BOUND", "TERMS", "Equation", "balance", "draw", "worked"]

BOUND = 80
"""Largest size of a number."""

TERMS = 8
"""Most terms of both sides together."""

Term = tuple[int, int, int, int]
Sides = tuple[tuple[Term, ...], tuple[Term, ...]]

X, ONE, BRACKET = 0, 1, 2
"""Kinds of terms; BRACKET + d - 1 is a bracket over d. The p of a number is its denominator, 1 before the end."""

_LARGEST_DENOMINATOR = 4
_KINDS = BRACKET + _LARGEST_DENOMINATOR
MOVE, COLLECT, EXPAND, DIVIDE, MULTIPLY = range(5)
_RULES = 5
_NUMBERS = 2 * _KINDS + BOUND + 1  # the token of 0


class Equation:
    """Rules of linear equations (`troupe.tasks.rewriting.Rules`)."""

    pointers = TERMS
    actions = TERMS * _RULES
    length = 4 * TERMS  # kinds and sides of the terms, then their n, p and q
    vocabulary = _NUMBERS + BOUND + 1
    example = (((BRACKET, 2, 1, 3),), ((X, 1, 0, 0), (ONE, 10, 1, 0)))

    def read(self, data: Mapping[str, Any]) -> Sides:
        left, right = frozen(data["form"])
        for kind, n, p, q in left + right:
            fits = (p, q) == (0, 0) if kind == X else (p, q) == (1, 0) if kind == ONE else bool(p and q)
            if not (fits and n and 0 <= kind < _KINDS and max(abs(n), abs(p), abs(q)) <= BOUND):
                raise ValueError(f"{(kind, n, p, q)!r} is not a term")
        if len(left + right) > TERMS:
            raise ValueError(f"more than {TERMS} terms")
        return left, right

    def legal(self, form: Sides) -> tuple[int, ...]:
        left, right = form
        terms, cut = left + right, len(left)
        coefficients = [term[1] for term in terms]
        room = len(terms) < TERMS
        actions = []
        for at, (kind, n, _, _) in enumerate(terms):
            first = at * _RULES
            actions.append(first + MOVE)
            if kind < BRACKET:
                if any(term[0] == kind for term in terms[at + 1 : cut if at < cut else len(terms)]):
                    actions.append(first + COLLECT)
            elif kind == BRACKET and room:
                actions.append(first + EXPAND)
            if n != 1 and (all(m % n == 0 for m in coefficients) or (kind == X and _isolated(form))):
                actions.append(first + DIVIDE)
            if kind > BRACKET:
                actions.append(first + MULTIPLY)
        return tuple(actions)

    def apply(self, form: Sides, action: int) -> Sides | None:
        at, rule = divmod(action, _RULES)
        following = _APPLIED[rule](form, at)
        bounded = all(-BOUND <= number <= BOUND for side in following for term in side for number in term)
        return following if bounded else None

    def solved(self, form: Sides) -> str | None:
        for this, other in (form, form[::-1]):
            if this == ((X, 1, 0, 0),) and (not other or (len(other) == 1 and other[0][0] == ONE)):
                return str(Fraction(other[0][1], other[0][2]) if other else 0)
        return None

    def tokens(self, form: Sides) -> tuple[int, ...]:
        left, right = form
        terms, rest = left + right, (0,) * (TERMS - len(left) - len(right))
        kinds = [1 + 2 * term[0] + (at >= len(left)) for at, term in enumerate(terms)]
        n = [_NUMBERS + term[1] for term in terms]
        p = [_NUMBERS + term[2] if term[0] else 0 for term in terms]
        q = [_NUMBERS + term[3] if term[0] > ONE else 0 for term in terms]
        return (*kinds, *rest, *n, *rest, *p, *rest, *q, *rest)

    def text(self, form: Sides) -> str:
        return " = ".join(signed([(term[1], _body(term)) for term in side]) for side in form)

    def words(self, form: Sides, action: int) -> str:
        at, rule = divmod(action, _RULES)
        term = (form[0] + form[1])[at]
        shown = signed([(term[1], _body(term))])
        if rule == MOVE:
            opposite = signed([(-term[1], _body(term))])
            return f"add {opposite} to both sides" if term[1] < 0 else f"subtract {shown} from both sides"
        if rule == DIVIDE:
            return f"divide both sides by {term[1]}"
        if rule == MULTIPLY:
            return f"multiply both sides by {_denominator(term)}"
        return f"collect {shown} with its like" if rule == COLLECT else f"multiply out {shown}"


def _body(term: Term) -> str:
    kind, _, p, q = term
    if kind == X:
        return "x"
    if kind == ONE:
        return "" if p == 1 else f"/{p}"
    over = "" if kind == BRACKET else f"/{_denominator(term)}"
    return f"({signed([(p, 'x'), (q, '')])}){over}"


def _denominator(term: Term) -> int:
    return max(1, term[0] - BRACKET + 1)


def _isolated(form: Sides) -> bool:
    """n x = c."""
    for this, other in (form, form[::-1]):
        if len(this) == 1 and this[0][0] == X and len(other) < 2 and all(term[0] == ONE for term in other):
            return True
    return False


# --------------------------------------------------------------------------------------------------------------- rules


def _taken(form: Sides, at: int) -> tuple[bool, int, Term, list[Term], list[Term]]:
    """(whether the term stands left, its place, the term, its side, the other side)."""
    left, right = form
    is_left = at < len(left)
    side, other = (left, right) if is_left else (right, left)
    place = at if is_left else at - len(left)
    return is_left, place, side[place], list(side), list(other)


def _sides(is_left: bool, side: list[Term], other: list[Term]) -> Sides:
    return (tuple(side), tuple(other)) if is_left else (tuple(other), tuple(side))


def _moved(form: Sides, at: int) -> Sides:
    is_left, place, (kind, n, p, q), side, other = _taken(form, at)
    del side[place]
    _join(other, (kind, -n, p, q))
    return _sides(is_left, side, other)


def _join(side: list[Term], term: Term) -> None:
    """Adds a term to its like, or at the end of the side. Brackets are like where all but their factor agrees."""
    kind, n, p, q = term
    for place, (other, m, r, s) in enumerate(side):
        if (other, r, s) == (kind, p, q):
            side[place : place + 1] = [(kind, m + n, p, q)] if m + n else []
            return
    side.append(term)


def _collected(form: Sides, at: int) -> Sides:
    is_left, place, (kind, n, p, q), side, other = _taken(form, at)
    like = next(i for i in range(place + 1, len(side)) if side[i][0] == kind)
    total = n + side[like][1]
    del side[like]
    side[place : place + 1] = [(kind, total, p, q)] if total else []
    return _sides(is_left, side, other)


def _expanded(form: Sides, at: int) -> Sides:
    is_left, place, (_, n, p, q), side, other = _taken(form, at)
    side[place : place + 1] = [(X, n * p, 0, 0), (ONE, n * q, 1, 0)]
    return _sides(is_left, side, other)


def _divided(form: Sides, at: int) -> Sides:
    divisor = (form[0] + form[1])[at][1]
    return tuple(tuple(_over(term, divisor) for term in side) for side in form)  # type: ignore[return-value]


def _over(term: Term, divisor: int) -> Term:
    kind, n, p, q = term
    share = Fraction(n, divisor)
    return (kind, share.numerator, share.denominator, q) if kind == ONE else (kind, share.numerator, p, q)


def _multiplied(form: Sides, at: int) -> Sides:
    factor = _denominator((form[0] + form[1])[at])
    return tuple(tuple(_times(term, factor) for term in side) for side in form)  # type: ignore[return-value]


def _times(term: Term, factor: int) -> Term:
    kind, n, p, q = term
    if kind < BRACKET:
        return kind, n * factor, p, q
    share = Fraction(n * factor, _denominator(term))
    return BRACKET + share.denominator - 1, share.numerator, p, q


_APPLIED = (_moved, _collected, _expanded, _divided, _multiplied)


# ------------------------------------------------------------------------------------------------------------- problems


def balance(form: Sides) -> tuple[Fraction, Fraction]:
    """(a, b) such that left - right = a x + b."""
    a = b = Fraction(0)
    for sign, side in zip((1, -1), form, strict=True):
        for kind, n, p, q in side:
            if kind < BRACKET:
                a += sign * n * (kind == X)
                b += Fraction(sign * n * (kind == ONE), p or 1)
            else:
                share = Fraction(sign * n, kind - BRACKET + 1)
                a += share * p
                b += share * q
    return a, b


def worked(form: Sides) -> list[int] | None:
    """Rules that solve the equation: clear fractions, multiply out, collect, separate, divide; the unknown goes to the
    side where that takes fewer lines. None where numbers leave their bounds on the way."""
    ways = [way for x_left in (True, False) if (way := _way(form, x_left)) is not None]
    return min(ways, key=len, default=None)


def _way(form: Sides, x_left: bool) -> list[int] | None:
    rules, steps = Equation(), []
    while rules.solved(form) is None:
        action = _textbook(form, x_left)
        forms = replay(rules, form, [action])
        if forms is None:
            return None
        steps.append(action)
        form = forms[-1]
    return steps


def _textbook(form: Sides, x_left: bool) -> int:
    left, right = form
    terms = list(enumerate(left + right))
    legal = Equation().legal(form)
    for rule in (MULTIPLY, COLLECT, EXPAND):  # collected first, so that there is room for what is multiplied out
        for at, _ in terms:
            if at * _RULES + rule in legal:
                return at * _RULES + rule
    for at, term in terms:
        if (term[0] == X) != ((at < len(left)) == x_left):
            return at * _RULES + MOVE
    return next(at for at, term in terms if term[0] == X) * _RULES + DIVIDE


def draw(rng: random.Random, terms: int, brackets: int, fractions: int, size: int) -> tuple[Sides, list[int]]:
    """(equation, rules that solve it) of so many simple terms and brackets, `fractions` of which stand over a number.

    Coefficients are at most `size`; the solution is a whole number, or a half or a third where the last division asks
    for one."""
    while True:
        form = _drawn(rng, terms, brackets, fractions, size)
        a, b = balance(form)
        if a and abs(-b / a) <= 2 * size and (-b / a).denominator <= 3 and b:
            steps = worked(form)
            if steps is not None and len(steps) >= terms + brackets + fractions - 1:
                return form, steps


def _drawn(rng: random.Random, terms: int, brackets: int, fractions: int, size: int) -> Sides:
    def number(low: int = 1, high: int = size) -> int:
        return rng.choice((-1, 1)) * rng.randint(low, high)

    drawn: list[Term] = [(X, number(), 0, 0), (ONE, number(1, 3 * size), 1, 0)]
    drawn += [(X, number(), 0, 0) if rng.random() < 0.5 else (ONE, number(1, 3 * size), 1, 0) for _ in range(terms - 2)]
    for i in range(brackets):
        over = rng.randint(2, _LARGEST_DENOMINATOR) if i < fractions else 1
        n = number(1, 3) if over > 1 else number(2, max(3, size // 2))
        share = Fraction(n, over)
        bracket = (BRACKET + share.denominator - 1, share.numerator, number(1, 3), number(1, size))
        drawn.append(bracket)
    rng.shuffle(drawn)
    cut = rng.randint(1, len(drawn) - 1)
    return tuple(drawn[:cut]), tuple(drawn[cut:])
