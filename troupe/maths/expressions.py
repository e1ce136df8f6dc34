"""Exact arithmetic on short texts: what a calculator tool computes and what answers are checked with.

    expression := product (("+" | "-") product)*
    product    := signed (("*" | "/") signed)*
    signed     := ("-" | "+") signed | power
    power      := atom (("^" | "**") signed)?             right-associative: 2^3^2 = 2^9, -2^2 = -4
    atom       := (number | "(" expression ")" | ("sqrt" | "abs") "(" expression ")") "%"*
    number     := 12 | 1,000 | 2.5 | .5                   15% = 15/100

Rational values stay `Fraction`s; an irrational root becomes a sympy number, and sympy is imported only then. Nothing is
ever passed to `eval` or `sympify`. The text's length, its nesting, the digits of every number and the bits of every
result are bounded, so no expression can use more than a few milliseconds or kilobytes:

    evaluate("(20-5)/3")           Fraction(5, 1)
    steps("48+48/2")               ["48/2", "48+24"]
    substitute("3*{0}+5-20", "5")  "3*5+5-20"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import Any

__all__ = ["MAX_BITS", "MAX_DIGITS", "MAX_LENGTH", "ExpressionError", "evaluate", "render", "steps", "substitute"]

MAX_LENGTH = 500
"""Longest expression, in characters."""

MAX_DIGITS = 60
"""Most digits of one written number."""

MAX_BITS = 1024
"""Most bits of the numerator or the denominator of any result; 2**1023 is the largest power of two."""

MAX_DEPTH = 80
"""Deepest nesting of brackets, signs and powers: what keeps the parser inside Python's stack."""

MAX_TERMS = 60
"""Most sympy operations in an irrational value."""

MAX_PLACES = 6
"""Decimals that `render` writes out before it prefers a fraction; also the significant digits of irrational numbers."""


class ExpressionError(ValueError):
    """A text that is no expression, or one whose value is undefined or too large. Its message fits a tool's answer."""


# A node is ("number", text), ("neg" | "%" | "sqrt" | "abs", node) or ("+" | "-" | "*" | "/" | "^" | "**", left, right).
_Node = tuple[Any, ...]

_TOKEN = re.compile(
    r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+|\*\*|[-+*/^%()]|sqrt|abs"
)
_DIGITS = frozenset("0123456789.")
_FUNCTIONS = frozenset({"sqrt", "abs"})
_SUM, _PRODUCT, _SIGN, _POWER = 1, 2, 3, 4
_BINDING = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "^": _POWER, "**": _POWER}
_RATIONAL = (int, Fraction)
_SLOT = re.compile(r"\{([0-9])\}")


def evaluate(text: str) -> Any:
    """The exact value of `text`: a `Fraction`, or a sympy number where a root is irrational.

    Raises ExpressionError for anything outside the grammar, division by zero, roots of negative numbers, and values
    beyond the limits above.
    """
    return _evaluate(text)  # the cache is not the public function, so that `evaluate` keeps its signature


def render(value: Any) -> str:
    """`value` as short text: `15`, `2.5` (at most six decimals), else `7/3`; irrational numbers to six significant
    digits, without an exponent (`1.41421`)."""
    if not isinstance(value, Fraction):
        return format(Decimal(f"{float(value):.{MAX_PLACES}g}"), "f")
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**MAX_PLACES
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    whole, decimals = divmod(abs(scaled.numerator), 10**MAX_PLACES)
    return f"{'-' if value < 0 else ''}{whole}.{decimals:0{MAX_PLACES}d}".rstrip("0")


def steps(text: str) -> list[str]:
    """`text` as calls of one operation each, in evaluation order, earlier results written in as numbers.

    `(20-5)/3` is `["20-5", "15/3"]`; the last call's value is the value of `text`. A lone number needs no call.
    Negative numbers and fractions are put in brackets where they are operands: `2*(-3)`, `(7/3)*3`. An irrational
    result enters later calls with six digits, as a calculator would show it.
    """
    return list(_steps(text))


def substitute(template: str, *components: str) -> str:
    """`template` with each `{i}` replaced by the value of `components[i]`, in brackets unless it is a plain number.

    A component is evaluated by itself first, so it cannot smuggle an operator into the template. Raises ExpressionError
    for a component that is no expression, or a slot that has no component.
    """
    values = [_exact_text(evaluate(component)) for component in components]

    def fill(slot: re.Match[str]) -> str:
        index = int(slot[1])
        if index >= len(values):
            raise ExpressionError(f"no value for slot {{{index}}}")
        return values[index]

    return _SLOT.sub(fill, template)


def _exact_text(value: Any) -> str:
    if isinstance(value, Fraction) and value.denominator == 1 and value >= 0:
        return str(value)
    return f"({value})"  # sympy writes its numbers in this grammar: 1/2 + sqrt(5)/2


# --- text to nodes -------------------------------------------------------------------------------------------------


def _parse(text: str) -> _Node:
    tokens = _tokens(text)
    tokens.append("")  # the end; no other token is empty
    tokens.reverse()  # the next token is the last, so that taking one is a pop
    node = _climb(tokens, _SUM, 0)
    if tokens[-1]:
        raise ExpressionError(f"unexpected {tokens[-1]!r}")
    return node


def _tokens(text: str) -> list[str]:
    if not isinstance(text, str):
        raise ExpressionError("an expression must be text")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    tokens: list[str] = _TOKEN.findall(text)
    if len("".join(tokens)) != len(text) and "".join(tokens) != "".join(text.split()):
        raise ExpressionError(f"unexpected {_TOKEN.sub('', text).strip()[0]!r}")
    if not tokens:
        raise ExpressionError("empty expression")
    return tokens


def _climb(tokens: list[str], floor: int, depth: int) -> _Node:
    """Precedence climbing: an expression whose operators bind at least as tightly as `floor`."""
    if depth > MAX_DEPTH:
        raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
    node = _atom(tokens, depth)
    while (binding := _BINDING.get(tokens[-1], 0)) >= floor:
        operator = tokens.pop()
        # A power takes a sign and further powers on its right; the others associate to the left.
        right = _climb(tokens, _SIGN if binding == _POWER else binding + 1, depth + 1)
        node = (operator, node, right)
    return node


def _atom(tokens: list[str], depth: int) -> _Node:
    """A number, a bracket, a function or a signed expression, with the percent signs behind it."""
    token = tokens.pop()
    if token[:1] in _DIGITS:
        node: _Node = ("number", token.replace(",", ""))
    elif token == "(":
        node = _bracket(tokens, depth)
    elif token in _FUNCTIONS:
        if tokens.pop() != "(":
            raise ExpressionError(f"{token} needs brackets: {token}(9)")
        node = (token, _bracket(tokens, depth))
    elif token in ("-", "+"):
        node = _climb(tokens, _SIGN, depth + 1)
        return ("neg", node) if token == "-" else node
    else:
        raise ExpressionError(f"unexpected {token!r}" if token else "a number is missing at the end")
    while tokens[-1] == "%":
        node = (tokens.pop(), node)
    return node


def _bracket(tokens: list[str], depth: int) -> _Node:
    node = _climb(tokens, _SUM, depth + 1)
    if tokens.pop() != ")":
        raise ExpressionError("a bracket is not closed")
    return node


# --- nodes to values -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 16)
def _evaluate(text: str) -> Any:
    value = _value(_parse(text))
    return Fraction(value) if type(value) is int else value


def _value(node: _Node) -> Any:
    """An int, a Fraction or a sympy number; ints are the fast path."""
    kind = node[0]
    if kind == "number":
        return _number(node[1])
    if len(node) == 2:
        return _unary(kind, _value(node[1]))
    return _binary(kind, _value(node[1]), _value(node[2]))


def _number(text: str) -> int | Fraction:
    if len(text) > MAX_DIGITS:
        raise ExpressionError(f"a number has more than {MAX_DIGITS} digits")
    return Fraction(text) if "." in text else int(text)


def _unary(kind: str, x: Any) -> Any:
    if kind == "neg":
        return -x
    if kind == "abs":
        return abs(x)
    if kind == "sqrt":
        return _root(x)
    return _bounded(Fraction(x, 100) if isinstance(x, int) else x / 100)


def _binary(kind: str, x: Any, y: Any) -> Any:
    if kind in ("^", "**"):
        return _power(x, y)
    if kind == "/":
        return _quotient(x, y)
    if type(x) is not int or type(y) is not int:
        x, y = _aligned(x, y)
    return _bounded(x + y if kind == "+" else x - y if kind == "-" else x * y)


def _quotient(x: Any, y: Any) -> Any:
    if not y:
        raise ExpressionError("division by zero")
    if type(x) is int and type(y) is int:
        whole, rest = divmod(x, y)
        return Fraction(x, y) if rest else whole
    x, y = _aligned(x, y)
    return _bounded(x / y)


def _power(x: Any, y: Any) -> Any:
    if isinstance(y, Fraction) and y.denominator == 1:
        y = y.numerator
    if y == Fraction(1, 2):
        return _root(x)
    if not isinstance(y, int):
        raise ExpressionError("an exponent must be a whole number or 1/2")
    if x == 0 and y < 0:
        raise ExpressionError("division by zero")
    if abs(y) * (_bits(x) - 1) > MAX_BITS:  # checked before the work; x**y has at least so many bits
        raise ExpressionError("the result is too large")
    if not isinstance(x, _RATIONAL):
        return _irrational_power(x, y)
    return _bounded(Fraction(x) ** y if isinstance(x, int) and y < 0 else x**y)


def _irrational_power(x: Any, y: int) -> Any:
    """Factor by factor, as x**y is short to write and long to expand: every product is checked before its expansion."""
    product: Any = 1
    for _ in range(abs(y)):
        product = _binary("*", product, x)
    return _quotient(1, product) if y < 0 else product


def _root(x: Any) -> Any:
    if x < 0:
        raise ExpressionError("square root of a negative number")
    if isinstance(x, _RATIONAL):
        numerator, denominator = isqrt(x.numerator), isqrt(x.denominator)
        if numerator**2 == x.numerator and denominator**2 == x.denominator:
            return Fraction(numerator, denominator)
    import sympy

    return _bounded(sympy.sqrt(_symbolic(x)))


def _aligned(x: Any, y: Any) -> tuple[Any, Any]:
    """Both as Python numbers, or both as sympy's, which does not add to Fractions."""
    if isinstance(x, _RATIONAL) and isinstance(y, _RATIONAL):
        return x, y
    return _symbolic(x), _symbolic(y)


def _symbolic(x: Any) -> Any:
    import sympy

    return sympy.Rational(x.numerator, x.denominator) if isinstance(x, _RATIONAL) else x


def _bits(x: Any) -> int:
    """Size of a value; an irrational one counts all its integers, so that powers of it stay small too."""
    if type(x) is int:
        return x.bit_length()
    if isinstance(x, Fraction):
        return max(x.numerator.bit_length(), x.denominator.bit_length())
    import sympy

    return 8 * sum(int(part.p).bit_length() + int(part.q).bit_length() for part in x.atoms(sympy.Rational))


def _bounded(x: Any) -> Any:
    """`x` within the limits; a sympy value is brought to lowest terms, and back to a Fraction where it is rational."""
    if type(x) is int and x.bit_length() <= MAX_BITS:
        return x
    if not isinstance(x, _RATIONAL):
        x = _reduced(x)
    if _bits(x) > MAX_BITS:
        raise ExpressionError("the result is too large")
    return x


def _reduced(x: Any) -> Any:
    import sympy

    if sympy.count_ops(x) > MAX_TERMS:
        raise ExpressionError("too many roots to combine exactly")
    x = sympy.expand(sympy.radsimp(x))
    return Fraction(int(x.p), int(x.q)) if x.is_Rational else x


# --- nodes to calls ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def _steps(text: str) -> tuple[str, ...]:
    evaluate(text)  # raises before any call is listed
    calls: list[str] = []
    _collect(_parse(text), calls)
    return tuple(calls)


def _collect(node: _Node, calls: list[str]) -> str:
    """Append the calls that `node` needs; returns the number that stands for its result."""
    kind = node[0]
    if kind == "number":
        return str(node[1])
    if kind in ("neg", "%") and node[1][0] == "number":
        return f"-{node[1][1]}" if kind == "neg" else f"{node[1][1]}%"
    operands = [_collect(child, calls) for child in node[1:]]
    call = _call(kind, operands)
    calls.append(call)
    return render(evaluate(call))


def _call(kind: str, operands: Sequence[str]) -> str:
    if kind in _FUNCTIONS:
        return f"{kind}({operands[0]})"
    if kind == "neg":
        return f"0-{_operand(operands[0])}"
    if kind == "%":
        return f"{_operand(operands[0])}%"
    left = operands[0] if kind in ("+", "-") else _operand(operands[0])  # -3+5 needs no brackets, (-3)^2 does
    return f"{left}{kind}{_operand(operands[1])}"


def _operand(number: str) -> str:
    return f"({number})" if number.startswith("-") or "/" in number else number
