"""A world for any problem in words: read quantities off it, combine them exactly, answer with something on the table.

    world = AnswerWorld("Ann has 12 books and buys 5 more. How many books?")
    state = world.initial()                        # on the table: 12, 5, and the words
    state, *_ = world.step(state, "12+5")          # 17 joins them
    state, *_ = world.step(state, "answer 17")
    world.answer(state)                            # "17"

The world does not know the answer. Finishing pays nothing here: an answered state stays as it is, and a search takes
its value from the evaluator each time it comes by. Whoever holds the answer pays afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from troupe.maths.expressions import ExpressionError, evaluate, render

__all__ = ["KEEP", "AnswerState", "AnswerWorld"]

MAX_NUMBERS = 6
"""Quantities that are read off a problem: its first."""
MAX_WORDS = 16
"""Different words that are read off a problem: its last, where the question stands."""
MAX_MADE = 3
"""Quantities that may be made; a proposer may make more, of which the newest are seen."""
MAX_BITS = 64
"""Size of numerator and denominator beyond which a quantity is not offered."""
LARGEST = Fraction(2) ** 1000
"""Larger quantities look alike."""

KEEP = "keep"
"""The only action once the answer is given; it changes nothing."""

_GROUPING = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_NUMBER = re.compile(r"(?<![\w.])[0-9]+(?:\.[0-9]+)?")
_TOKEN = re.compile(r"[A-Za-z]+|[-+*/=^<>]")
_WORD = re.compile(r"[A-Za-z]{2,}")
_OPERATORS = ("+", "-", "*", "/", "answer")

_PLACES = MAX_NUMBERS + MAX_MADE
_NUMBER_FEATURES = 6
_BUCKETS = 48
_OBSERVATION = _PLACES * _NUMBER_FEATURES + _BUCKETS + 2 + _NUMBER_FEATURES
_ENCODING = len(_OPERATORS) + 2 * _PLACES + 3 * _NUMBER_FEATURES + 8


class AnswerState(NamedTuple):
    """A plain value: texts alone."""

    problem: str
    made: tuple[str, ...] = ()  # the steps so far, in order
    table: tuple[str, ...] = ()  # quantities: those read off, then those made
    answered: str | None = None


class AnswerWorld:
    """A `Game` of one player with candidates, for one problem."""

    players = 1
    actions = None
    observation_shape = (_OBSERVATION,)
    encoding = _ENCODING

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def initial(self) -> AnswerState:
        return AnswerState(self.problem, (), _numbers(self.problem))

    def legal(self, state: AnswerState) -> Sequence[str]:
        """The candidates: combinations of two quantities, then the answers."""
        return (KEEP,) if state.answered is not None else tuple(_candidates(state.problem, state.table))

    def step(self, state: AnswerState, action: str) -> tuple[AnswerState, float, bool, int]:
        """`answer X`, or an expression, whose value joins the table; any other text (a proposer's) is noted alone."""
        if action == KEEP:
            return state, 0.0, False, 0
        problem, made, table, _ = state
        if action.startswith("answer "):
            return AnswerState(problem, (*made, action), table, action.removeprefix("answer ").strip()), 0.0, False, 0
        try:
            value = evaluate(action)
        except ExpressionError:
            value = None
        if not isinstance(value, Fraction):  # no expression, or a root that cannot be written down exactly
            return AnswerState(problem, (*made, action), table), 0.0, False, 0
        return AnswerState(problem, (*made, f"{action}={render(value)}"), (*table, render(value))), 0.0, False, 0

    def answer(self, state: AnswerState) -> str | None:
        """What has been answered; None before."""
        return state.answered

    def observe(self, state: AnswerState) -> np.ndarray:
        """float32 `[D]`: the quantities, the problem's words by hash, how far it is, and the answer given."""
        rows = [_features(text) for text in _seen(state.table)]
        numbers = np.zeros((_PLACES, _NUMBER_FEATURES), np.float32)
        numbers[: len(rows)] = rows or numbers[:0]
        progress = np.array([len(state.made) / MAX_MADE, float(state.answered is not None)], np.float32)
        answered = _features(state.answered) if state.answered is not None else np.zeros(_NUMBER_FEATURES, np.float32)
        return np.concatenate([numbers.reshape(-1), _bag(state.problem), progress, answered])

    def encode(self, state: AnswerState, action: str) -> np.ndarray:
        """float32 `[encoding]`: operator, which quantities, their sizes, that of the result, and the word by hash."""
        found = _candidates(state.problem, state.table).get(action)
        out = np.zeros(_ENCODING, np.float32)
        if found is None:  # KEEP, or a proposer's own words
            return out
        at = len(_OPERATORS)
        out[_OPERATORS.index(found.operator)] = 1.0
        for place in found.places:
            out[at + min(place, _PLACES - 1)] = 1.0
            at += _PLACES
        at = len(_OPERATORS) + 2 * _PLACES
        for text in (*found.operands, found.result):
            out[at : at + _NUMBER_FEATURES] = _features(text)
            at += _NUMBER_FEATURES
        if not found.places:
            out[len(out) - 8 + _hash(found.result) % 8] = 1.0
        return out


@dataclass(frozen=True, slots=True)
class _Candidate:
    operator: str
    places: tuple[int, ...]
    operands: tuple[str, str]
    result: str


def _numbers(problem: str) -> tuple[str, ...]:
    found = [text for text in _NUMBER.findall(_GROUPING.sub("", problem)) if len(text) <= 18]
    return tuple(render(Fraction(text)) for text in found[:MAX_NUMBERS])


def _words(problem: str) -> list[str]:
    """The last different words, in their order."""
    return list(dict.fromkeys(word.lower() for word in reversed(_WORD.findall(problem))))[:MAX_WORDS][::-1]


@lru_cache(maxsize=4096)
def _candidates(problem: str, table: tuple[str, ...]) -> dict[str, _Candidate]:
    """By text, in a fixed order; a result that lies on the table already is not made again."""
    found: dict[str, _Candidate] = {}
    values = [Fraction(text) for text in table]
    if len(table) - len(_numbers(problem)) < MAX_MADE:
        for i, a in enumerate(values):
            for j, b in enumerate(values):
                for operator in _OPERATORS[:4]:
                    if i != j and (i < j or operator in "-/"):
                        _add(found, operator, (i, j), (a, b), values)
    for i, text in enumerate(table):
        found.setdefault(f"answer {text}", _Candidate("answer", (i,), (text, "0"), text))
    for word in _words(problem):
        found.setdefault(f"answer {word}", _Candidate("answer", (), ("0", "0"), word))
    return found or {"answer nothing": _Candidate("answer", (), ("0", "0"), "nothing")}


def _add(
    found: dict[str, _Candidate],
    operator: str,
    places: tuple[int, int],
    pair: tuple[Fraction, Fraction],
    known: list[Fraction],
) -> None:
    a, b = pair
    if operator == "/" and b == 0:
        return
    value = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b
    if value in known or max(abs(value.numerator), value.denominator).bit_length() > MAX_BITS:
        return
    name = f"{_operand(a)}{operator}{_operand(b)}"
    found.setdefault(name, _Candidate(operator, places, (render(a), render(b)), render(value)))


def _operand(value: Fraction) -> str:
    text = render(value)
    return text if value >= 0 and "/" not in text else f"({text})"


def _seen(table: tuple[str, ...]) -> tuple[str, ...]:
    return table if len(table) <= _PLACES else (*table[:MAX_NUMBERS], *table[-MAX_MADE:])


@lru_cache(maxsize=16384)
def _features(text: str) -> np.ndarray:
    """float32 `[6]`: is it a number, its sign, two sizes, is it whole, is it one; all 0 for a word."""
    try:
        value = evaluate(text)
    except ExpressionError:
        return np.zeros(_NUMBER_FEATURES, np.float32)
    if isinstance(value, Fraction):  # a fraction may be larger than any float
        value = max(-LARGEST, min(value, LARGEST))
    size, whole = abs(float(value)), isinstance(value, Fraction) and value.denominator == 1
    return np.array(
        [1.0, np.sign(float(value)), np.log1p(size) / 5, min(size / 100, 2.0), float(whole), float(value == 1)],
        np.float32,
    )


@lru_cache(maxsize=4096)
def _bag(problem: str) -> np.ndarray:
    """float32 `[48]`: how often words and signs fall into each bucket, at most 1 counted."""
    counts = np.zeros(_BUCKETS, np.float32)
    for token in _TOKEN.findall(problem.lower()):
        counts[_hash(token) % _BUCKETS] = 1.0
    return counts


def _hash(token: str) -> int:
    return int.from_bytes(blake2b(token.encode(), digest_size=4).digest(), "big")
