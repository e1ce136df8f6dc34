"""Problems solved line by line: the state is what stands on the paper, an action is one legal rewriting of it.

    game = RewritingGame(Equation())
    line = game.begin(task.problem)              # 2(x + 3) = x + 10
    line, reward, done, _ = game.step(line, 2)   # expand 2(x + 3):  2x + 6 = x + 10

A set of `Rules` says what may be written under what; each rule keeps the set of solutions, so that whoever reaches a
solved form has the answer. Rules are legal wherever they are true, helpful or not, and lines are few: choosing matters.
Numbers stay within the bounds of the rules; a line that would leave them ends the attempt.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from troupe.errors import DataError
from troupe.protocols import Problem

__all__ = ["COUNTED", "Line", "RewritingGame", "Rules", "frozen", "replay", "signed"]

COUNTED = 15
"""Lines left that are told apart; more look like this many."""

_REMEMBERED = 1 << 16
"""Forms whose legal rules and tokens a game keeps."""


class Line(NamedTuple):
    """What stands on the last line, and how many more may be written: 0 once the attempt has ended."""

    form: Any  # hashable, of the rules' own make; None where numbers have left their bounds
    left: int


class Rules(Protocol):
    """What may be written under what. Forms are hashable values; every rule keeps the set of solutions."""

    actions: int
    pointers: int
    length: int  # tokens of a form
    vocabulary: int  # of these tokens
    example: Any  # a small form

    def read(self, data: Mapping[str, Any]) -> Any:
        """The form that `data["form"]` describes. Raises ValueError, TypeError or LookupError where there is none."""
        ...

    def legal(self, form: Any) -> tuple[int, ...]:
        """Rules that apply, rising."""
        ...

    def apply(self, form: Any, action: int) -> Any | None:
        """The next form; None where its numbers leave the bounds."""
        ...

    def solved(self, form: Any) -> str | None:
        """The answer where the form shows it."""
        ...

    def tokens(self, form: Any) -> tuple[int, ...]: ...

    def text(self, form: Any) -> str: ...

    def words(self, form: Any, action: int) -> str:
        """What a rule does, in a few words."""
        ...


class RewritingGame:
    """The `troupe.protocols.TaskGame` of a set of rules: reward 1 for a solved form, 0 for every other end.

    Observations are the rules' tokens, then one for the lines left. `data["lines"]` of a problem is how many it gets.
    """

    players = 1

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.actions, self.pointers = rules.actions, rules.pointers
        self.observation_shape = (rules.length + 1,)
        self.vocabulary = rules.vocabulary + COUNTED + 1
        self._legal = lru_cache(_REMEMBERED)(rules.legal)
        self._tokens = lru_cache(_REMEMBERED)(self._numbers)

    def initial(self) -> Line:
        return Line(self.rules.example, COUNTED)

    def begin(self, problem: Problem) -> Line:
        """The problem as it was set. Raises DataError where `data["form"]` or `data["lines"]` is not of this game."""
        try:
            form, lines = self.rules.read(problem.data), problem.data["lines"]
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(
                f"problem {problem.id}: data['form'] and data['lines'] are not a problem of {self._name()} ({error}); "
                "take them from MathProblemGenerator"
            ) from None
        if not isinstance(lines, int) or lines < 1 or not self.rules.legal(form):
            raise DataError(
                f"problem {problem.id}: nothing can be written under {self.rules.text(form)!r} in {lines!r} lines; "
                "write data['lines'] of 1 or more and a form that is not solved"
            )
        return Line(form, lines)

    def legal(self, state: Line) -> Sequence[int]:
        return self._legal(state.form) if state.left else ()

    def step(self, state: Line, action: int) -> tuple[Line, float, bool, int]:
        form = self.rules.apply(state.form, action)
        if form is None:
            return Line(None, 0), 0.0, True, 0
        if self.rules.solved(form) is not None:
            return Line(form, 0), 1.0, True, 0
        if state.left == 1 or not self._legal(form):
            return Line(form, 0), 0.0, True, 0
        return Line(form, state.left - 1), 0.0, False, 0

    def observe(self, state: Line) -> np.ndarray:
        observation = np.zeros(self.observation_shape, np.float32)
        if state.form is not None:
            observation[:-1] = self._tokens(state.form)
        observation[-1] = self.rules.vocabulary + min(state.left, COUNTED)
        return observation

    def key(self, state: Line) -> Hashable:
        return state.form, min(state.left, COUNTED)

    def answer(self, state: Line) -> str | None:
        return None if state.form is None or state.left else self.rules.solved(state.form)

    def render(self, state: Line) -> str:
        shown = "numbers out of bounds" if state.form is None else self.rules.text(state.form)
        return f"{shown}   [{state.left} lines left]"

    def describe(self, state: Line, action: int) -> str:
        """`subtract 5 from both sides: 3x = 15`."""
        form = self.rules.apply(state.form, action)
        shown = "numbers out of bounds" if form is None else self.rules.text(form)
        return f"{self.rules.words(state.form, action)}: {shown}"

    def _numbers(self, form: Any) -> np.ndarray:
        return np.array(self.rules.tokens(form), np.float32)

    def _name(self) -> str:
        return type(self.rules).__name__


def replay(rules: Rules, form: Any, actions: Sequence[int]) -> list[Any] | None:
    """Every form on the way, the first included; None where a rule is not legal or numbers leave their bounds."""
    forms = [form]
    for action in actions:
        following = rules.apply(forms[-1], action) if action in rules.legal(forms[-1]) else None
        if following is None:
            return None
        forms.append(following)
    return forms


def frozen(value: Any) -> Any:
    """Lists of JSON as tuples. Raises TypeError for anything but lists, whole numbers and texts."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{value!r} is neither a list, a whole number nor a text")
    return value


def signed(parts: Sequence[tuple[int, str]]) -> str:
    """`3x - y + 1/2` of `((3, "x"), (-1, "y"), (1, "/2"))`; parts of 0 are left out, and no parts are `0`."""
    shown = ""
    for number, what in parts:
        if number:
            size = "" if abs(number) == 1 and what and what[0] != "/" else str(abs(number))
            sign = ("-" if number < 0 else "") if not shown else (" - " if number < 0 else " + ")
            shown += f"{sign}{size}{what}"
    return shown or "0"
