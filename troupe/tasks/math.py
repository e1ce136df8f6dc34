"""Small algebra and word problems whose answers are checked by substitution into the problem.

    Task(id="linear-0b1b7e0b7a39", kind="linear", prompt="Solve 3x + 5 = 20", difficulty=0.5,
         data={"unknowns": ["x"], "key": "3x + 5 = 20"},
         answer="5", solution={"plan": ["(20-5)/3"], "check": ["3*{0}+5-20"]})

`plan` holds one calculator expression per component of the answer. Each `check` is 0 exactly where the proposed
components, written into its slots, solve the original problem. The answer is text, its components joined by ", ": the
roots of a quadratic in rising order, the unknowns of a system in the order of `data["unknowns"]`. The last number of a
linear or word prompt is never its answer, so that an echo does not pay.

Kinds of `SEARCHED` are long enough to be searched for, and have a game each, whose actions are rules of algebra:

    arithmetic    7 * 9 - 7 * 5, in whole numbers of at most 60     troupe.tasks.algebra_arithmetic
    equation      3(2x + 5) - 4x = 7 - 2(x - 1)                     troupe.tasks.algebra_equation
    roots         2x^2 + 3x = x + 12                                troupe.tasks.algebra_roots
    elimination   2x + 3y = 12; x - y = 1                           troupe.tasks.algebra_elimination

Their `data` also has the `form` in which the game reads the problem and how many `lines` may be written; their
`solution` the `actions` of a worked solution and the `steps`, in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from troupe.episode import Task
from troupe.errors import ConfigError, DataError, did_you_mean
from troupe.maths.expressions import ExpressionError, evaluate, substitute
from troupe.protocols import TaskGame
from troupe.tasks import algebra_arithmetic, algebra_elimination, algebra_equation, algebra_roots
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.rewriting import Line, RewritingGame, Rules, replay
from troupe.tasks.splits import content_id

__all__ = ["KINDS", "SEARCHED", "MathProblemGenerator", "check_answer"]

SHORT = ("linear", "word", "quadratic", "system")
"""Kinds that a generator makes where nobody names any."""

SEARCHED: Mapping[str, type[Rules]] = {
    "arithmetic": algebra_arithmetic.Arithmetic,
    "equation": algebra_equation.Equation,
    "roots": algebra_roots.Roots,
    "elimination": algebra_elimination.Elimination,
}
"""Kinds that can be searched, and the rules of their games."""

KINDS = (*SHORT, *SEARCHED)

ROOTED = ("quadratic", "roots")
"""Kinds whose answers may be written with roots and operators; an answer to the others is numbers, worked out."""

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?(/[0-9]+)?")

NAMES = ("Ann", "Ben", "Eva", "Ida", "Leo", "Mia", "Noa", "Sam", "Tom", "Zoe")
THINGS = ("apples", "books", "cards", "coins", "cups", "eggs", "pens", "shells", "stamps", "toys")


def check_answer(task: Task, components: Sequence[str]) -> bool:
    """Whether the proposed components solve the task, by exact substitution into its `solution["check"]`.

    Components are texts such as `["2", "3"]`; fractions, decimals and roots count where they are exact. Fewer unknowns
    than components (a quadratic's roots) means that their order is free and a repeated one is wrong. What is no
    expression is wrong; a task without checks raises DataError.
    """
    if not isinstance(task.solution, Mapping) or not task.solution.get("check"):
        raise DataError(f"task {task.id} has no solution['check']; compare with its answer instead")
    templates = task.solution["check"]
    if len(components) != len(templates):
        return False
    try:
        values = [evaluate(component) for component in components]
        right = all(evaluate(substitute(template, *components)) == 0 for template in templates)
    except ExpressionError:
        return False
    ordered = len(task.data.get("unknowns", values)) == len(values)
    return right and (ordered or len(set(values)) == len(values))


class MathProblemGenerator(BaseTaskGenerator):
    """Linear equations, one-operation word problems, quadratics with whole roots, and systems of two equations; where
    they are named, also the kinds that are `SEARCHED`."""

    KINDS = KINDS
    DEFAULT_KINDS = ("linear", "word")
    SEARCHED = tuple(SEARCHED)

    def __init__(
        self,
        difficulty_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(difficulty_range, seed, SHORT if kinds is None else kinds, weights)

    @staticmethod
    def game(kind: str) -> TaskGame:
        """The game in which a kind is searched. Raises ConfigError for a kind without one."""
        if kind not in SEARCHED:
            known = f"{did_you_mean(kind, SEARCHED)}; write one of {', '.join(SEARCHED)}"
            raise ConfigError(f"kind {kind!r} of math problems has no game{known}")
        return RewritingGame(SEARCHED[kind]())

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        """Whether the answer solves the problem, by substitution, and has the values of the task's own answer.

        But for the kinds in `ROOTED` its components are plain numbers, such as 5, -2.5 or 7/3: who copies the
        expression to be worked out has not worked it out.
        """
        if answer is None or not isinstance(task.answer, str):
            return False
        components, known = (text.split(",") for text in (answer, task.answer))
        if task.kind not in ROOTED and not all(_NUMBER.fullmatch(component.strip()) for component in components):
            return False
        if not check_answer(task, components):
            return False
        try:
            values, wanted = ([evaluate(component) for component in each] for each in (components, known))
        except ExpressionError:
            return False
        ordered = len(task.data.get("unknowns", values)) == len(values)
        return values == wanted if ordered else set(values) == set(wanted)

    @staticmethod
    def corrupted(task: Task, rng: Any) -> Task:
        """The task with one component of its answer moved by 1 to 9; `rng` is asked for `random()` alone."""
        components = [Fraction(component) for component in task.answer.split(", ")]
        changed = int(rng.random() * len(components))
        shift = (1 + int(rng.random() * 9)) * (1 if rng.random() < 0.5 else -1)
        components[changed] += shift
        return replace(task, answer=", ".join(map(str, components)))

    def make(self, difficulty: float) -> Task:
        """One problem of a kind drawn by weight."""
        kind = self.draw_kind()
        problem: Mapping[str, Any] = getattr(self, f"_{kind}")(self._difficulty_to_params(difficulty))
        identity = content_id(kind, problem["prompt"])
        return Task(id=identity, kind=kind, difficulty=round(difficulty, 4), **problem)

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """Inclusive ranges of the numbers; half as large at difficulty 0 and twice as large at 1 as at 0.5."""
        scale = 4.0 ** (difficulty - 0.5)

        def up_to(low: int, high: int) -> tuple[int, int]:
            return low, max(low + 1, round(high * scale))

        return {
            "coefficient": up_to(2, 9),  # a in ax + b = c
            "unknown": up_to(2, 30),  # x, in equations and systems
            "constant": up_to(2, 60),  # b
            "count": up_to(12, 99),  # the larger number of a word problem
            "boxes": up_to(2, 9),  # and of friends
            "root": up_to(1, 9),  # size of a quadratic's roots
            "negative": difficulty > 0.5,  # whether roots may be negative
            "factor": (1, 1 if difficulty <= 0.5 else 3),  # coefficients of a system
            # Of searched kinds; between two whole numbers, one is drawn (`_about`). Worked solutions get longer, and
            # `slack`, the lines beyond them, fewer.
            "slack": 4 - 3 * difficulty,
            "arithmetic": {"operations": 2 + 4 * difficulty, "knots": 3 * difficulty},
            "equation": {
                "terms": 2 + 2 * difficulty,
                "brackets": 3 * difficulty,
                "fractions": max(0.0, 2 * difficulty - 1),
                "size": 5 + 5 * difficulty,
            },
            "roots": {
                "size": 12,  # fewer would be few equations
                "denominator": 1.2 + 1.8 * difficulty,
                "spread": max(0.0, 6 * difficulty - 3),
                "expanded": 2 * difficulty,
            },
            "elimination": {"unknowns": 2 + difficulty, "fill": 6 * difficulty, "size": 1 + 3 * difficulty},
        }

    def _asked(self, equations: str, unknowns: list[str]) -> dict[str, Any]:
        """With or without a leading word: people ask both ways, and it is one problem either way."""
        opening = self.rng.choice(("Solve ", ""))
        return {"prompt": f"{opening}{equations}", "data": {"unknowns": unknowns, "key": equations}}

    def _linear(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        draw = self.rng.randint
        a, x, b = draw(*limits["coefficient"]), draw(*limits["unknown"]), draw(*limits["constant"])
        minus = self.rng.random() < 0.5
        if minus:
            b = min(b, a * x - 1)
            b += b == (a - 1) * x  # otherwise c would be x
        c = a * x - b if minus else a * x + b
        sign, inverse = ("-", "+") if minus else ("+", "-")
        return {
            **self._asked(f"{a}x {sign} {b} = {c}", ["x"]),
            "answer": str(x),
            "solution": {"plan": [f"({c}{inverse}{b})/{a}"], "check": [f"{a}*{{0}}{sign}{b}-{c}"]},
        }

    def _word(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        operation = self.rng.choice(tuple(_STORIES))
        name, thing = self.rng.choice(NAMES), self.rng.choice(THINGS)
        a, b = self._word_numbers(operation, limits)
        prompt, plan, check = (text.format(a=a, b=b, name=name, thing=thing) for text in _STORIES[operation])
        return {
            "prompt": prompt,
            "data": {"key": f"{operation} {a} {b}"},  # names and things make no new problem
            "answer": str(evaluate(plan)),
            "solution": {"plan": [plan], "check": [check]},
        }

    def _word_numbers(self, operation: str, limits: Mapping[str, Any]) -> tuple[int, int]:
        draw = self.rng.randint
        if operation == "shares":
            b = draw(*limits["boxes"])
            return b * draw(2, max(3, limits["count"][1] // b)), b
        a = draw(*limits["count"])
        if operation == "boxes":
            return a, draw(*limits["boxes"])
        b = draw(2, a - 1)
        return a, b + (operation == "loses" and 2 * b == a)  # otherwise what is lost would be what is left

    def _quadratic(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        sizes = range(limits["root"][0], limits["root"][1] + 1)
        choices = [*sizes, *(-size for size in sizes)] if limits["negative"] else list(sizes)
        low, high = sorted(self.rng.sample(choices, 2))
        s, p = low + high, low * high  # x^2 - s x + p
        linear = f" {_sign(-s)} {_times(abs(s), 'x')}" if s else ""
        check = f"{{0}}^2{_sign(-s)}{abs(s)}*{{0}}{_sign(p)}{abs(p)}"
        root = f"sqrt({abs(s)}^2{_sign(-p)}4*{abs(p)})"
        return {
            **self._asked(f"x^2{linear} {_sign(p)} {abs(p)} = 0", ["x"]),
            "answer": f"{low}, {high}",
            "solution": {"plan": [f"({s}-{root})/2", f"({s}+{root})/2"], "check": [check, check.replace("{0}", "{1}")]},
        }

    def _system(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        draw = self.rng.randint
        a1, b1, a2, b2 = (draw(*limits["factor"]) for _ in range(4))
        x, y = draw(*limits["unknown"]), draw(*limits["unknown"])
        if a2 * x < b2 * y:
            a2, b2, x, y = b2, a2, y, x
        x += a2 * x == b2 * y  # the difference is positive
        c1, c2, determinant = a1 * x + b1 * y, a2 * x - b2 * y, a1 * b2 + a2 * b1
        left = f"{_times(a1, 'x')} + {_times(b1, 'y')} = {c1}"
        return {
            **self._asked(f"{left}; {_times(a2, 'x')} - {_times(b2, 'y')} = {c2}", ["x", "y"]),
            "answer": f"{x}, {y}",
            "solution": {
                "plan": [
                    f"({_times(b2, c1)}+{_times(b1, c2)})/{determinant}",  # Cramer's rule
                    f"({_times(a2, c1)}-{_times(a1, c2)})/{determinant}",
                ],
                "check": [
                    f"{_times(a1, '{0}')}+{_times(b1, '{1}')}-{c1}",
                    f"{_times(a2, '{0}')}-{_times(b2, '{1}')}-{c2}",
                ],
            },
        }

    # ------------------------------------------------------------------------------------------------- searched kinds

    def _arithmetic(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        form, actions = algebra_arithmetic.draw(self.rng, **self._about(limits["arithmetic"]))
        text = algebra_arithmetic.written(form)
        solution = {"plan": [text], "check": [f"{text}-{{0}}"]}
        return self._searched("arithmetic", f"Work out {text}", form, actions, limits, solution)

    def _equation(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        form, actions = algebra_equation.draw(self.rng, **self._about(limits["equation"]))
        a, b = algebra_equation.balance(form)
        left, right = _spelled(algebra_equation.Equation().text(form)).replace("x", "{0}").split("=")
        solution = {"plan": [f"({-b})/({a})"], "check": [f"{left}-({right})"]}
        return self._searched("equation", "Solve {}", form, actions, limits, solution, ["x"])

    def _roots(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        form, actions = algebra_roots.draw(self.rng, **self._about(limits["roots"]))
        left, right = _spelled(algebra_roots.Roots().text(form)).split("=")
        check = f"{left}-({right})"
        solution = {"plan": [], "check": [check.replace("x", slot) for slot in ("{0}", "{1}")]}
        return self._searched("roots", "Solve {}", form, actions, limits, solution, ["x"])

    def _elimination(self, limits: Mapping[str, Any]) -> dict[str, Any]:
        form, actions = algebra_elimination.draw(self.rng, **self._about(limits["elimination"]))
        unknowns = list(algebra_elimination.UNKNOWNS[: len(form)])
        checks = []
        for equation in _spelled(algebra_elimination.Elimination().text(form)).split(";"):
            left, right = equation.split("=")
            for place, unknown in enumerate(unknowns):
                left = left.replace(unknown, f"{{{place}}}")
            checks.append(f"{left}-({right})")
        solution = {"plan": [], "check": checks}
        return self._searched("elimination", "Solve {}", form, actions, limits, solution, unknowns)

    def _about(self, limits: Mapping[str, float]) -> dict[str, int]:
        """Each number as a whole one, drawn so that it is right on average."""
        return {name: int(number + self.rng.random()) for name, number in limits.items()}

    def _searched(
        self,
        kind: str,
        prompt: str,
        form: Any,
        actions: list[int],
        limits: Mapping[str, Any],
        solution: dict[str, Any],
        unknowns: list[str] | None = None,
    ) -> dict[str, Any]:
        """What the kinds share: the form as JSON, the lines allowed, the worked solution and the answer at its end."""
        rules = SEARCHED[kind]()
        game = RewritingGame(rules)
        forms = replay(rules, form, actions)
        answer = None if forms is None else rules.solved(forms[-1])
        assert forms is not None and answer is not None  # `draw` gives rules that solve the problem
        text = rules.text(form)
        lines = len(actions) + self._about({"slack": limits["slack"]})["slack"]
        words = [game.describe(Line(at, lines), action) for at, action in zip(forms, actions, strict=False)]
        return {
            "prompt": prompt.format(text),
            "data": {
                "key": str(_CANONICAL[kind](form)),
                "form": _listed(form),
                "lines": lines,
                **({"unknowns": unknowns} if unknowns else {}),
            },
            "answer": answer,
            "solution": {
                **solution,
                "plan": solution["plan"] or answer.split(", "),
                "actions": actions,
                "steps": words,
            },
        }


def _listed(form: Any) -> Any:
    """As JSON has it."""
    return [_listed(part) for part in form] if isinstance(form, tuple) else form


def _commuted(form: Any) -> Any:
    """An expression with the operands of sums and products in a fixed order."""
    if isinstance(form, int):
        return form
    operation, *operands = form[0], *map(_commuted, form[1:])
    return (operation, *(sorted(operands, key=str) if operation in "+*" else operands))


def _paired(form: tuple[int, ...]) -> tuple[Any, ...]:
    """An equation of `roots` with its sides, or the factors of its product, in a fixed order."""
    shape, *numbers = form
    if shape == algebra_roots.SQUARE:
        return form
    half = 3 if shape == algebra_roots.SUM else 2
    return shape, *sorted((tuple(numbers[:half]), tuple(numbers[half : 2 * half])))


_CANONICAL: Mapping[str, Callable[[Any], Any]] = {
    "arithmetic": _commuted,
    "equation": lambda sides: sorted(sorted(side) for side in sides),
    "roots": _paired,
    "elimination": sorted,
}
"""Kind -> one form for problems that differ only in the order in which they are written."""


def _spelled(text: str) -> str:
    """A prompt as calculator text: `3x` is `3*x` and `2(x + 1)(x - 2)` is `2*(x + 1)*(x - 2)`."""
    return re.sub(r"(?<=[0-9xyz)])(?=[xyz(])", "*", text)


# operation -> prompt, calculator expression, check; what was asked comes back as {0}
_STORIES = {
    "buys": ("{name} has {a} {thing} and buys {b} more. How many {thing}?", "{a}+{b}", "{a}+{b}-{{0}}"),
    "loses": ("{name} has {a} {thing} and loses {b}. How many {thing}?", "{a}-{b}", "{b}+{{0}}-{a}"),
    "boxes": ("{name} has {b} boxes of {a} {thing}. How many {thing}?", "{b}*{a}", "{b}*{a}-{{0}}"),
    "shares": ("{b} friends of {name} share {a} {thing} equally. How many each?", "{a}/{b}", "{b}*{{0}}-{a}"),
}


def _sign(number: int) -> str:
    return "-" if number < 0 else "+"


def _times(factor: int, what: object) -> str:
    """`x`, `3x` in a prompt; `{0}`, `3*{0}`, `3*12` in an expression."""
    if factor == 1:
        return str(what)
    return f"{factor}{what}" if str(what).isalpha() else f"{factor}*{what}"
