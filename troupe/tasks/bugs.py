"""Bugs made by mutation in small modules whose comments say what each line should do.

    Task(id="operator-5b0c9c9a41d2", kind="operator", difficulty=0.5,
         prompt="a.py\\n1 def f(x):\\n2  y=x*3 # times 3\\n3  return y-2 # plus 2\\n...\\ntest_f: f(4) is 10, not 14",
         data={"files": {"a.py": "def f(x):\\n y=x*3 # times 3\\n return y-2 # plus 2\\n", "b.py": "..."},
               "issue": "test_f: f(4) is 10, not 14",
               "tests": {"calls": [{"module": "a", "function": "f", "args": [4], "value": 14}]}, "key": "..."},
         answer={"tests": {"calls": [...]}, "fault": [["a.py", 3]]},
         solution={"path": "a.py", "line": 3, "text": " return y+2 # plus 2", "patch": "diff --git a/a.py ..."})

One line of one function is another than its author meant. `data` is what a team may see: the files, and one visible
test that fails. `answer` holds the hidden tests: the visible one, inputs that tell the fixed function from every other
single mutation of it, and inputs of the functions that were right. Each module is built from steps whose meaning is
known here, so that every value is computed without running a program; that programs and meanings agree is tested in the
sandbox. Names and bystanders make no new task: the fingerprint is that of the faulty function and its fault.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from troupe.episode import Task
from troupe.sandbox.listings import listing
from troupe.sandbox.patches import make_patch
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.splits import content_id

__all__ = ["KINDS", "BugGenerator"]

KINDS = ("operator", "constant", "comparison", "order", "index", "function")
"""What was mutated."""

NAMES = ("f", "g", "h", "k", "p", "q", "r", "t")
FILES = ("a", "b", "c", "d", "m", "n", "u", "w")
CALLS = 3
"""Hidden calls of each function that was right."""

SMALL = 41
"""Numbers below it are preferred in visible tests."""

TRIED = 8
"""Failing inputs among which the visible test is chosen."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """One way to go on from a value: the expression, the comment, the meaning. `n` is the line's own constant."""

    family: str
    takes: str  # int, pair or list
    gives: str  # int, list or bool
    code: str
    words: str
    value: Callable[..., Any]  # (what it takes, n)


def _table(family: str, takes: str, gives: str, *rows: tuple[str, str, Callable[..., Any]]) -> list[_Operation]:
    return [_Operation(family, takes, gives, *row) for row in rows]


OPERATIONS = (
    *_table(
        "arithmetic", "int", "int",
        ("{y}+{n}", "plus {n}", operator.add),
        ("{y}-{n}", "minus {n}", operator.sub),
        ("{y}*{n}", "times {n}", operator.mul),
        ("{y}//{n}", "over {n}", operator.floordiv),
    ),
    *_table(
        "comparison", "int", "bool",
        ("{y}>{n}", "above {n}", operator.gt),
        ("{y}>={n}", "at least {n}", operator.ge),
        ("{y}<{n}", "below {n}", operator.lt),
        ("{y}<={n}", "at most {n}", operator.le),
    ),
    *_table(
        "order minus", "pair", "int",
        ("a-b", "a minus b", lambda y, n: y[0] - y[1]),
        ("b-a", "b minus a", lambda y, n: y[1] - y[0]),
    ),
    *_table(
        "order over", "pair", "int",
        ("a//b", "a over b", lambda y, n: y[0] // y[1]),
        ("b//a", "b over a", lambda y, n: y[1] // y[0]),
    ),
    *_table(
        "order times", "pair", "int",
        ("a*{n}+b", "{n} a and b", lambda y, n: y[0] * n + y[1]),
        ("b*{n}+a", "{n} b and a", lambda y, n: y[1] * n + y[0]),
    ),
    *_table(
        "index", "list", "int",
        ("{y}[0]", "first", lambda y, n: y[0]),
        ("{y}[1]", "second", lambda y, n: y[1]),
        ("{y}[-1]", "last", lambda y, n: y[-1]),
    ),
    *_table(
        "index slice", "list", "list",
        ("{y}[1:]", "all but first", lambda y, n: y[1:]),
        ("{y}[:-1]", "all but last", lambda y, n: y[:-1]),
    ),
    *_table(
        "function of list", "list", "int",
        ("sum({y})", "total", lambda y, n: sum(y)),
        ("len({y})", "count", lambda y, n: len(y)),
        ("max({y})", "largest", lambda y, n: max(y)),
        ("min({y})", "smallest", lambda y, n: min(y)),
    ),
    *_table(
        "function of pair", "pair", "int",
        ("max(a,b)", "larger", lambda y, n: max(y)),
        ("min(a,b)", "smaller", lambda y, n: min(y)),
    ),
)  # fmt: skip

PARAMETERS = {"int": "x", "pair": "a,b", "list": "s"}


@dataclass(frozen=True, slots=True)
class _Step:
    """An operation with its constant, or the call of an earlier function."""

    operation: _Operation
    n: int

    def code(self, y: str) -> str:
        return self.operation.code.format(y=y, n=self.n)

    @property
    def words(self) -> str:
        return self.operation.words.format(n=self.n)

    @property
    def has_constant(self) -> bool:
        return "{n}" in self.operation.code

    def mutations(self, kind: str, largest: int) -> list[_Step]:
        """The other steps that a mutation of this kind may make of it."""
        if kind == "constant":
            return [replace(self, n=n) for n in range(2, largest + 1) if n != self.n] if self.has_constant else []
        family = {"operator": "arithmetic"}.get(kind, kind)
        if not self.operation.family.startswith(family):
            return []
        same = [o for o in OPERATIONS if o.family == self.operation.family and o is not self.operation]
        return [replace(self, operation=other) for other in same]


@dataclass(frozen=True, slots=True)
class _Function:
    """A pipeline of steps, the first of which takes the parameters."""

    name: str
    takes: str
    steps: tuple[_Step, ...]

    def __call__(self, value: Any) -> Any:
        for step in self.steps:
            value = step.operation.value(value, step.n)
        return value

    def with_step(self, i: int, step: _Step) -> _Function:
        return replace(self, steps=(*self.steps[:i], step, *self.steps[i + 1 :]))

    def lines(self, meant: _Function, by_line: bool) -> list[str]:
        """Source lines. Comments say what `meant` does: at each line, or all of it behind the `def`."""
        head = f"def {self.name}({PARAMETERS[self.takes]}):"
        out = [head if by_line else f"{head} # {', '.join(step.words for step in meant.steps)}"]
        for i, (step, should) in enumerate(zip(self.steps, meant.steps, strict=True)):
            code = step.code("y" if i else PARAMETERS[self.takes])
            start = "return " if i == len(self.steps) - 1 else "y="
            out.append(f" {start}{code}" + (f" # {should.words}" if by_line else ""))
        return out


class BugGenerator(BaseTaskGenerator):
    """Mutated operators, constants, comparisons, argument orders, indices and functions."""

    KINDS = KINDS

    def make(self, difficulty: float) -> Task:
        """One bug of a kind drawn by weight."""
        kind, limits = self.draw_kind(), self._difficulty_to_params(difficulty)
        while True:
            meant = self._functions(limits)
            at = self.rng.randrange(len(meant))
            places = [
                (i, mutation)
                for i, step in enumerate(meant[at].steps)
                for mutation in step.mutations(kind, limits["largest"])
            ]
            if not places:
                continue
            i, mutation = self.rng.choice(places)
            buggy = [f.with_step(i, mutation) if j == at else f for j, f in enumerate(meant)]
            buggy = _relinked(buggy)
            task = self._task(kind, difficulty, limits, meant, buggy, at, i)
            if task is not None:
                return task

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """How much there is to read. From 0.75 on the second function calls the first, and the test is the second's."""
        return {
            "functions": 1 if difficulty < 0.25 else 2 if difficulty < 0.9 else 3,
            "steps": (1, 2) if difficulty < 0.25 else (2, 2) if difficulty <= 0.5 else (2, 3),
            "largest": 9 if difficulty <= 0.6 else 30,  # constant
            "by_line": difficulty <= 0.5,  # comments at each line, or one for the whole function
            "linked": difficulty >= 0.75,
        }

    def _functions(self, limits: Mapping[str, Any]) -> list[_Function]:
        names = self.rng.sample(NAMES, limits["functions"])
        made = [self._function(name, limits) for name in names]
        return _relinked([made[0], *(self._linked(made[0], f) for f in made[1:])] if limits["linked"] else made)

    def _function(self, name: str, limits: Mapping[str, Any]) -> _Function:
        takes = value = self.rng.choice(tuple(PARAMETERS))
        steps: list[_Step] = []
        count = self.rng.randint(*limits["steps"])
        while len(steps) < count:
            fitting = [o for o in OPERATIONS if o.takes == value and (o.gives != "bool" or len(steps) == count - 1)]
            if any(step.operation.gives == "list" for step in steps):
                fitting = [o for o in fitting if o.gives != "list"]  # a list may run empty
            family = self.rng.choice(sorted({o.family for o in fitting}))
            chosen = self.rng.choice([o for o in fitting if o.family == family])
            steps.append(_Step(chosen, self.rng.randint(2, limits["largest"])))
            value = chosen.gives
        return _Function(name, takes, tuple(steps))

    def _linked(self, first: _Function, function: _Function) -> _Function:
        """A function that begins with a call of the first one, where that gives a number."""
        if first.steps[-1].operation.gives != "int":
            return function
        rest = [step for step in function.steps if step.operation.takes == "int"]
        if not rest:
            return function
        call = _Operation(_CALL, first.takes, "int", f"{first.name}({PARAMETERS[first.takes]})", first.name, first)
        return _Function(function.name, first.takes, (_Step(call, 0), *rest))

    def _task(
        self,
        kind: str,
        difficulty: float,
        limits: Mapping[str, Any],
        meant: Sequence[_Function],
        buggy: Sequence[_Function],
        at: int,
        i: int,
    ) -> Task | None:
        """None where no input tells the bug from the function that was meant."""
        callers = [j for j in range(len(meant)) if _calls(meant[j], meant[at])]
        shown = callers[-1] if callers else at
        failing = [x for x in _inputs(meant[shown].takes) if meant[shown](x) != buggy[shown](x)]
        failing = [x for x in failing if not isinstance(x, int) or x < SMALL] or failing  # short tests if possible
        if not failing:
            return None
        where = self._files(len(meant))
        visible = self._telling(failing, meant, at, shown, limits)
        hidden = [(j, x) for j, f in enumerate(meant) for x in self._tests(f, at == j, limits)]
        hidden = [(shown, visible), *(pair for pair in hidden if pair != (shown, visible))]
        files = _sources(buggy, meant, where, limits["by_line"])
        fixed = _sources(meant, meant, where, limits["by_line"])
        path = f"{where[at]}.py"
        lines = zip(_split(files[path]), _split(fixed[path]), strict=True)
        line, text = next((number, b) for number, (a, b) in enumerate(lines, start=1) if a != b)
        call = _call(meant[shown], where[shown], visible)
        wrong = buggy[shown](visible)
        issue = f"test_{meant[shown].name}: {_called(call)} is {_compact(wrong)}, not {_compact(call['value'])}"
        return Task(
            id=content_id(kind, f"{listing(files)}\n{issue}"),
            kind=kind,
            prompt=f"{listing(files)}\n{issue}",
            difficulty=round(difficulty, 4),
            data={
                "files": files,
                "issue": issue,
                "tests": {"calls": [call]},
                "key": f"{_shape(meant[at])} {i} {buggy[at].steps[i].code('y')}",
            },
            answer={
                "tests": {"calls": [_call(meant[j], where[j], x) for j, x in hidden]},
                "fault": [[path, line]],
            },
            solution={
                "path": path,
                "line": line,
                "text": text,
                "patch": make_patch(files, fixed),
            },
        )

    def _telling(
        self, failing: Sequence[Any], meant: Sequence[_Function], at: int, shown: int, limits: Mapping[str, Any]
    ) -> Any:
        """Of some failing inputs the one that most mutants fail: a wrong patch rarely passes the visible test."""
        others = [[*meant[:at], mutant, *meant[at + 1 :]] for mutant in _mutants(meant[at], limits["largest"])]
        linked = [_relinked(functions)[shown] for functions in others]
        tried = self.rng.sample(list(failing), min(TRIED, len(failing)))
        return max(tried, key=lambda x: sum(function(x) != meant[shown](x) for function in linked))

    def _files(self, functions: int) -> list[str]:
        """The module of each function: two modules where there are several, the first function alone in its own."""
        first, second = self.rng.sample(FILES, 2)
        return [first] + [second] * (functions - 1)

    def _tests(self, meant: _Function, faulty: bool, limits: Mapping[str, Any]) -> list[Any]:
        """Inputs that tell a function from its mutants, or a few of one that was right."""
        inputs = _inputs(meant.takes)
        self.rng.shuffle(inputs)
        chosen = inputs[:CALLS]
        if not faulty:
            return chosen
        for mutant in _mutants(meant, limits["largest"]):
            if all(mutant(x) == meant(x) for x in chosen):
                telling = (x for x in inputs if mutant(x) != meant(x))
                chosen += itertools.islice(telling, 1)  # none: the mutant is no bug
        return chosen


_CALL = "call"


def _mutants(function: _Function, largest: int) -> Iterator[_Function]:
    for i, step in enumerate(function.steps):
        for kind in KINDS:
            for mutation in step.mutations(kind, largest):
                yield function.with_step(i, mutation)


def _relinked(functions: Sequence[_Function]) -> list[_Function]:
    """The functions with their calls leading to the first of *these*, mutated or not."""
    first, *rest = functions
    for j, function in enumerate(rest):
        call = function.steps[0]
        if call.operation.family == _CALL:
            linked = replace(call, operation=replace(call.operation, value=lambda y, n, first=first: first(y)))
            rest[j] = function.with_step(0, linked)
    return [first, *rest]


def _calls(function: _Function, other: _Function) -> bool:
    step = function.steps[0]
    return step.operation.family == _CALL and step.operation.words == other.name


def _inputs(takes: str) -> list[Any]:
    """What functions are tried on."""
    if takes == "int":
        return [*range(SMALL), *range(SMALL, 100), *range(100, 1000, 7)]
    if takes == "pair":
        return [(a, b) for a in range(1, 10) for b in range(1, 10)]
    return [[(7 * i + 3 * j * j + i * j) % 17 + 1 for j in range(3 + i % 2)] for i in range(40)]


def _call(function: _Function, module: str, x: Any) -> dict[str, Any]:
    args = list(x) if function.takes == "pair" else [x]
    return {"module": module, "function": function.name, "args": args, "value": function(x)}


def _called(call: Mapping[str, Any]) -> str:
    return f"{call['function']}({','.join(map(_compact, call['args']))})"


def _compact(value: Any) -> str:
    return str(value).replace(" ", "")


def _sources(
    functions: Sequence[_Function], meant: Sequence[_Function], where: Sequence[str], by_line: bool
) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    for function, should, module in zip(functions, meant, where, strict=True):
        lines = parts.setdefault(f"{module}.py", [])
        needed = f"from {where[0]} import {functions[0].name}"
        if _calls(function, functions[0]) and needed not in lines:
            lines.insert(0, needed)
        lines += function.lines(should, by_line)
    return {path: "\n".join(lines) + "\n" for path, lines in sorted(parts.items())}


def _shape(function: _Function) -> str:
    return f"{function.takes} " + " ".join(step.code("y") for step in function.steps if step.operation.family != _CALL)


def _split(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")
