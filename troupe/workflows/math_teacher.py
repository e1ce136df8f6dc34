"""An imperfect teacher of the math workflows: it knows the worked solutions and spoils some of what it says.

Demonstrations are episodes of the same workflow, spoken by this teacher through a scripted engine; so prompts, turns
and retries look exactly as they will in training. `noise` is the chance that a plan or a calculator call is corrupted
(another operator, another digit, swapped operands). It is the knob that leaves reinforcement learning something to
do. The verifier is never spoiled: a team whose verifier is incompetent learns to ignore it. The solver of `math_solo`
is shown what analyzer and executor are shown, with the plan unspoken.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from troupe.episode import Message, Task
from troupe.maths.expressions import ExpressionError, evaluate, render, steps, substitute
from troupe.protocols import GenerationRequest
from troupe.workflows.roles import keyed_random

__all__ = ["MathTeacher"]

_OPERATOR = re.compile(r"(?<=[0-9)])[-+*/]")
_MOST_CALLS = 3
_SIMPLE = re.compile(r"^(\d+(?:\.\d+)?)([-+*/])(\d+(?:\.\d+)?)$")


class MathTeacher:
    """`respond(request)` for a `ScriptedEngine`; tasks need `solution["plan"]` and `solution["check"]`."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed

    @staticmethod
    def can_teach(task: Task) -> bool:
        """Whether the task comes with a worked plan and a check."""
        return bool(isinstance(task.solution, Mapping) and task.solution.get("plan") and task.solution.get("check"))

    def __call__(self, request: GenerationRequest) -> str:
        *conversation, _ = request.key
        *_, task, _, agent = conversation
        solution: Mapping[str, Sequence[str]] = self._tasks[task].solution
        rng = keyed_random(self._seed, *request.key)
        if agent == "analyzer":
            return f"<ans>{self._plan(solution, rng)}</ans>"
        if agent == "executor":
            plan = str(request.messages[1]["content"]).rsplit("\nPlan: ", 1)[-1]
            return self._execute(plan, request.messages, rng, solution)
        if agent == "solver":  # one plan for the whole conversation
            plan = self._plan(solution, keyed_random(self._seed, *conversation, "plan"))
            return self._execute(plan, request.messages, rng, solution)
        unordered = len(self._tasks[task].data.get("unknowns", solution["check"])) < len(solution["check"])
        return self._verify(request.messages, solution["check"], distinct=unordered)

    def _plan(self, solution: Mapping[str, Sequence[str]], rng: random.Random) -> str:
        plan = ", ".join(solution["plan"])
        return _corrupt(plan, rng) if rng.random() < self._noise else plan

    def _execute(
        self, plan: str, messages: Sequence[Message], rng: random.Random, solution: Mapping[str, Sequence[str]]
    ) -> str:
        """The next calculator call of the plan, or the answer once all calls are made."""
        own = solution.get("calls") if plan == ", ".join(solution["plan"]) else None
        try:
            parts = [list(own)] if own else [_calls(part.strip()) for part in plan.split(",")]
        except ExpressionError:
            return "<ans>?</ans>"
        results = [str(said["content"]) for said in messages if said["role"] == "tool"]
        made, real = 0, []
        for part in parts:
            expected: dict[str, str] = {}  # what a call should have given -> what it gave
            last = part[0]
            for call in part:
                call = _replace(call, expected)
                if made == len(results):
                    spoiled = _corrupt(call, rng) if rng.random() < self._noise else call
                    return f"<call>{spoiled}</call>"
                if results[made].startswith("error"):
                    return "<ans>?</ans>"
                expected[_value(call)] = results[made]
                last = results[made]
                made += 1
            real.append(last)
        return f"<ans>{', '.join(real)}</ans>"

    def _verify(self, messages: Sequence[Message], checks: Sequence[str], *, distinct: bool) -> str:
        """Puts the answer back into the problem, one check at a time; all must give 0. Roots must be `distinct`."""
        answer = str(messages[1]["content"]).rsplit("\nAnswer: ", 1)[-1]
        results = [str(said["content"]) for said in messages if said["role"] == "tool"]
        components = [part.strip() for part in answer.split(",")]
        try:
            values = {evaluate(part) for part in components}
            if any(result != "0" for result in results) or (distinct and len(values) < len(checks)):
                return "<ans>bad</ans>"
            if len(results) == len(checks):
                return "<ans>ok</ans>"
            return f"<call>{substitute(checks[len(results)], *components)}</call>"
        except ExpressionError:  # no number, or too few of them
            return "<ans>bad</ans>"


def _calls(part: str) -> list[str]:
    """One call per operation; a long expression is one call, or its conversation would not end."""
    calls = steps(part)
    return calls if 0 < len(calls) <= _MOST_CALLS else [part]


def _value(call: str) -> str:
    try:
        return render(evaluate(call))
    except ExpressionError:
        return "error"


def _replace(call: str, expected: Mapping[str, str]) -> str:
    """The call with results that came out differently put in the place of the expected ones."""
    for should, was in expected.items():
        if should != was:
            call = re.sub(rf"(?<![\d.]){re.escape(should)}(?![\d.])", was, call, count=1)
    return call


def _corrupt(expression: str, rng: random.Random) -> str:
    """Another operator (half of the time), another last digit, or swapped operands."""
    draw = rng.random()
    operators = list(_OPERATOR.finditer(expression))
    if draw < 0.5 and operators:
        at = rng.choice(operators)
        return expression[: at.start()] + rng.choice([c for c in "+-*/" if c != at.group()]) + expression[at.end() :]
    simple = _SIMPLE.match(expression)
    if draw > 0.75 and simple and simple[1] != simple[3]:
        return f"{simple[3]}{simple[2]}{simple[1]}"
    digits = [i for i, c in enumerate(expression) if c.isdigit()]
    if not digits:
        return expression
    i = rng.choice(digits)
    return expression[:i] + rng.choice([d for d in "123456789" if d != expression[i]]) + expression[i + 1 :]
