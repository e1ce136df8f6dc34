"""Quadratic equations with rational roots, by factoring or by completing the square.

    2x^2 + 3x = x + 12  ->  2x^2 + 2x = 12  ->  x^2 + x = 6  ->  4x^2 + 4x = 24  ->  (2x + 1)^2 = 25
    ->  2x + 1 = 5 or 2x + 1 = -5  ->  2x = 4 or 2x + 1 = -5  ->  x = 2 or ...

A form is (shape, six whole numbers):

    SUM       a x^2 + b x + c = d x^2 + e x + f
    SPLIT     a x^2 + m x + n x + c = 0              the middle term in two, to factor by grouping
    PRODUCT   (p x + q)(r x + s) = 0
    SQUARE    (s x + h)^2 = d
    CASES     p x + q = u or r x + s = v             (0, n, u) for a case that is done: x = u / n
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import gcd, isqrt
from typing import Any

from troupe.tasks.rewriting import frozen, replay, signed

__all__ = ["BOUND", "PARTS", "Roots", "draw", "worked"]

BOUND = 999
"""Largest size of a number."""

PARTS = 24
"""Largest size of the first part of a middle term that is split."""

Form = tuple[int, ...]

SUM, SPLIT, PRODUCT, SQUARE, CASES = range(5)

# Actions. Six terms of a sum come first, and the splits, by -PARTS to PARTS without 0, last.
SIGNS, SWAP, LOWEST, TIMES_4A, COMPLETE, GROUP, COLLECT, ZERO, MULTIPLY_OUT, ROOT = range(6, 16)
CASE_TERM, CASE_DIVIDE, CASE_SIGNS = 16, 18, 20  # of the first case; one more is the second
PART = 22

_BASE = 32  # of the two digits by which numbers are shown
_LOW = 1 + len(range(5))
_HIGH = _LOW + _BASE
_POWERS = ("x^2", "x", "")


class Roots:
    """Rules of quadratic equations (`troupe.tasks.rewriting.Rules`)."""

    pointers = 0
    actions = PART + 2 * PARTS
    length = 1 + 2 * 6
    vocabulary = _HIGH + 2 * _BASE
    example = (SUM, 1, 1, -6, 0, 0, 0)

    def read(self, data: Mapping[str, Any]) -> Form:
        form: Form = frozen(data["form"])
        shape, *numbers = form
        if len(numbers) != 6 or shape not in (SUM, PRODUCT, SQUARE) or max(map(abs, numbers)) > BOUND:
            raise ValueError("a shape and six numbers are an equation")
        if not all({SUM: (True,), PRODUCT: (form[1], form[3]), SQUARE: (form[1], form[3] > 0)}[shape]):
            raise ValueError("it is not a quadratic equation")
        return form

    def legal(self, form: Form) -> tuple[int, ...]:
        return tuple(_LEGAL[form[0]](*form[1:]))

    def apply(self, form: Form, action: int) -> Form | None:
        following = _APPLIED[form[0]](action, *form[1:])
        return following if max(following) <= BOUND and min(following) >= -BOUND else None

    def solved(self, form: Form) -> str | None:
        if form[0] != CASES or form[1] or form[4]:
            return None
        return ", ".join(str(root) for root in sorted((Fraction(form[3], form[2]), Fraction(form[6], form[5]))))

    def tokens(self, form: Form) -> tuple[int, ...]:
        digits = [divmod(number, _BASE) for number in form[1:]]
        return (1 + form[0], *(_LOW + low for _, low in digits), *(_HIGH + _BASE + high for high, _ in digits))

    def text(self, form: Form) -> str:
        shape, a, b, c, d, e, f = form
        if shape == SUM:
            return f"{_polynomial(a, b, c)} = {_polynomial(d, e, f)}"
        if shape == SPLIT:
            return f"{signed(((a, 'x^2'), (b, 'x'), (c, 'x'), (d, '')))} = 0"
        if shape == PRODUCT:
            return f"({_polynomial(0, a, b)})({_polynomial(0, c, d)}) = 0"
        if shape == SQUARE:
            return f"({_polynomial(0, a, b)})^2 = {c}"
        return f"{_case(a, b, c)} or {_case(d, e, f)}"

    def words(self, form: Form, action: int) -> str:
        if action >= PART:
            return f"write the middle term as {signed(((_part(action), 'x'), (form[2] - _part(action), 'x')))}"
        if action >= CASE_TERM:
            case = 1 + (action - CASE_TERM) % 2
            return f"{_CASE_WORDS[(action - CASE_TERM) // 2]} of case {case}"
        if action >= SIGNS:
            return _WORDS[action - SIGNS]
        return f"subtract {signed(((form[1 + action], _POWERS[action % 3]),))} from both sides"


_WORDS = (
    "change all signs",
    "swap the sides",
    "divide both sides by the common factor",
    "multiply both sides by 4 times the first coefficient",
    "complete the square",
    "factor by grouping",
    "collect the middle terms",
    "set each factor to zero",
    "multiply out",
    "take both roots",
)
_CASE_WORDS = ("move the number", "divide by the coefficient", "change the signs")


def _polynomial(a: int, b: int, c: int) -> str:
    return signed(((a, "x^2"), (b, "x"), (c, "")))


def _case(p: int, q: int, u: int) -> str:
    return f"{_polynomial(0, p, q)} = {u}" if p else f"x = {Fraction(u, q)}"


def _part(action: int) -> int:
    number = action - PART - PARTS
    return number + (number >= 0)


def _of_part(part: int) -> int:
    return PART + PARTS + part - (part > 0)


# ------------------------------------------------------------------------------------------------------- what is legal


def _legal_sum(a: int, b: int, c: int, d: int, e: int, f: int) -> Iterator[int]:
    yield from (at for at, number in enumerate((a, b, c, d, e, f)) if number)
    yield from (SIGNS, SWAP)
    if gcd(a, b, c, d, e, f) > 1:
        yield LOWEST
    if a:
        yield TIMES_4A
    if not (c or d or e) and a > 0 and isqrt(a) ** 2 == a and b % (2 * isqrt(a)) == 0:
        yield COMPLETE
    if a and not (d or e or f):
        if not c and b:
            yield GROUP
        product = abs(a * c)
        if product:
            limit = range(-PARTS, PARTS + 1)
            yield from (_of_part(part) for part in limit if part and product % part == 0 and part != b)


def _legal_split(a: int, m: int, n: int, c: int, *_: int) -> Iterator[int]:
    if m * n == a * c:
        yield GROUP
    yield COLLECT


def _legal_product(*_: int) -> Iterator[int]:
    yield from (ZERO, MULTIPLY_OUT)


def _legal_square(s: int, h: int, d: int, *_: int) -> Iterator[int]:
    yield MULTIPLY_OUT
    if d >= 0 and isqrt(d) ** 2 == d:
        yield ROOT


def _legal_cases(p: int, q: int, u: int, r: int, s: int, v: int) -> Iterator[int]:
    open_cases = [(case, *rest) for case, rest in enumerate(((p, q, u), (r, s, v))) if rest[0]]
    yield from (CASE_TERM + case for case, _, number, _ in open_cases if number)
    for case, coefficient, number, value in open_cases:
        if (not number or number % coefficient == value % coefficient == 0) and coefficient != 1:
            yield CASE_DIVIDE + case
    yield from (CASE_SIGNS + case for case, *_ in open_cases)


_LEGAL = (_legal_sum, _legal_split, _legal_product, _legal_square, _legal_cases)


# -------------------------------------------------------------------------------------------------------- what it does


def _apply_sum(action: int, *numbers: int) -> Form:
    a, b, c, d, e, f = numbers
    if action < 6:
        moved = list(numbers)
        moved[(action + 3) % 6] -= moved[action]
        moved[action] = 0
        return (SUM, *moved)
    if action == SIGNS:
        return (SUM, *(-number for number in numbers))
    if action == SWAP:
        return SUM, d, e, f, a, b, c
    if action == LOWEST:
        return (SUM, *(number // gcd(*numbers) for number in numbers))
    if action == TIMES_4A:
        return (SUM, *(4 * a * number for number in numbers))
    if action == COMPLETE:
        s = isqrt(a)
        h = b // (2 * s)
        return SQUARE, s, h, f + h * h, 0, 0, 0
    if action == GROUP:
        return PRODUCT, 1, 0, a, b, 0, 0
    part = _part(action)
    return SPLIT, a, part, b - part, c, 0, 0


def _apply_split(action: int, a: int, m: int, n: int, c: int, *_: int) -> Form:
    if action == COLLECT:
        return SUM, a, m + n, c, 0, 0, 0
    # a x^2 + m x + n x + c = (a/g x + m/g)(g x + n g/a); m n = a c makes n g/a whole
    shared = gcd(a, m)
    return PRODUCT, a // shared, m // shared, shared, n * shared // a, 0, 0


def _apply_product(action: int, p: int, q: int, r: int, s: int, *_: int) -> Form:
    if action == ZERO:
        return (CASES, *_tidy(p, q, 0), *_tidy(r, s, 0))
    return SUM, p * r, p * s + q * r, q * s, 0, 0, 0


def _apply_square(action: int, s: int, h: int, d: int, *_: int) -> Form:
    if action == ROOT:
        return (CASES, *_tidy(s, h, isqrt(d)), *_tidy(s, h, -isqrt(d)))
    return SUM, s * s, 2 * s * h, h * h, 0, 0, d


def _apply_cases(action: int, *numbers: int) -> Form:
    case = (action - CASE_TERM) % 2
    p, q, u = numbers[3 * case : 3 * case + 3]
    rule = action - case
    if rule == CASE_TERM:
        changed = _tidy(p, 0, u - q)
    elif rule == CASE_SIGNS:
        changed = _tidy(-p, -q, -u)
    elif q:
        changed = _tidy(1, q // p, u // p)
    else:
        share = Fraction(u, p)
        changed = 0, share.denominator, share.numerator
    return (CASES, *changed, *numbers[3:]) if case == 0 else (CASES, *numbers[:3], *changed)


def _tidy(p: int, q: int, u: int) -> tuple[int, int, int]:
    """A case, which is done where it says x = u."""
    return (0, 1, u) if p == 1 and q == 0 else (p, q, u)


_APPLIED = (_apply_sum, _apply_split, _apply_product, _apply_square, _apply_cases)


# ------------------------------------------------------------------------------------------------------------- problems


def worked(form: Form) -> list[int] | None:
    """Rules that solve the equation, by the shorter of factoring and completing the square; None where both leave the
    bounds or the parts that can be tried."""
    ways = [way for route in (_factoring, _squaring) if (way := _followed(form, route)) is not None]
    return min(ways, key=len, default=None)


def _followed(form: Form, route: Any) -> list[int] | None:
    rules = Roots()
    steps: list[int] = []
    while rules.solved(form) is None:
        action = _finishing(form) if form[0] > SPLIT else route(form)
        forms = None if action is None else replay(rules, form, [action])
        if action is None or forms is None:
            return None
        steps.append(action)
        form = forms[-1]
    return steps


def _factoring(form: Form) -> int | None:
    shape, a, b, c, d, e, f = form
    if shape == SPLIT:
        return GROUP
    for at, number in ((3, d), (4, e), (5, f)):
        if number:
            return at
    if not c:
        return GROUP
    shared = gcd(a, b, c)
    root = isqrt(max(0, b * b - 4 * a * c))
    part = (b + root) // 2 if abs(b + root) <= abs(b - root) else (b - root) // 2
    if shared > 1 and abs(part) > PARTS:
        return LOWEST
    return _of_part(part) if 0 < abs(part) <= PARTS else None


def _squaring(form: Form) -> int | None:
    _, a, b, c, d, e, f = form
    for at, number in ((3, d), (4, e), (2, c)):
        if number:
            return at
    if COMPLETE in Roots().legal(form):
        return COMPLETE
    return LOWEST if gcd(a, b, f) > 1 and not _is_squared(a, b) else TIMES_4A


def _is_squared(a: int, b: int) -> bool:
    return a > 0 and isqrt(a) ** 2 == a and b % (2 * isqrt(a)) == 0


def _finishing(form: Form) -> int:
    shape, *numbers = form
    if shape == PRODUCT:
        return ZERO
    if shape == SQUARE:
        return ROOT
    case = 0 if numbers[0] else 1
    return (CASE_TERM if numbers[3 * case + 1] else CASE_DIVIDE) + case


def draw(rng: random.Random, size: int, denominator: int, spread: int, expanded: int) -> tuple[Form, list[int]]:
    """(equation, rules that solve it). Roots are at most `size` over at most `denominator`, and different.

    With `expanded` 0 the equation is a product or a square, otherwise it is multiplied out, and `spread` of its terms
    stand on both sides."""
    shapes = (SUM,) if expanded else (PRODUCT, SQUARE)
    while True:
        (p, q), (r, s) = (_factor(rng, size, denominator) for _ in range(2))
        if p * s == r * q:
            continue
        form = _shaped(rng, rng.choice(shapes), (p, q, r, s), spread)
        steps = worked(form) if max(map(abs, form)) <= BOUND else None
        if steps is not None:
            return form, steps


def _factor(rng: random.Random, size: int, denominator: int) -> tuple[int, int]:
    p, q = rng.randint(1, denominator), rng.choice((-1, 1)) * rng.randint(1, size)
    return p // gcd(p, q), q // gcd(p, q)


def _shaped(rng: random.Random, shape: int, factors: tuple[int, int, int, int], spread: int) -> Form:
    p, q, r, s = factors
    if shape == PRODUCT:
        return PRODUCT, p, q, r, s, 0, 0
    if shape == SQUARE:  # both factors have the first's coefficient
        return SQUARE, p, q, s * s, 0, 0, 0
    numbers = [p * r, p * s + q * r, q * s, 0, 0, 0]
    for at in rng.sample(range(3), spread):
        shift = rng.choice((-1, 1)) * rng.randint(1, 9)
        numbers[at] += shift
        numbers[at + 3] += shift
    if rng.random() < 0.5 and spread:
        numbers = numbers[3:] + numbers[:3]
    return (SUM, *numbers)
