"""An imperfect teacher of the coding workflow: it knows a right program and programs with one mistake.

Demonstrations are episodes of the same workflow, spoken by this teacher through a scripted engine. `noise` is the
chance that a program, the generator's or the refiner's, is one with a mistake. The test runner is never spoiled: it
calls its tool and compares what came back with what the tests expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from troupe.episode import Message, Task
from troupe.errors import ConfigError
from troupe.protocols import GenerationRequest
from troupe.sandbox.cases import MAX_SHOWN, case_text
from troupe.sandbox.values import literal
from troupe.workflows.deepcoder import public_tests
from troupe.workflows.roles import keyed_random

__all__ = ["DeepCoderTeacher"]


class DeepCoderTeacher:
    """`respond(request)` for a `ScriptedEngine`; tasks need `solution["program"]`, with noise also `["mutants"]`."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed
        bare = next((task.id for task in self._tasks.values() if noise and not task.solution.get("mutants")), None)
        if bare is not None:
            raise ConfigError(f"task {bare} comes without wrong programs to spoil demonstrations; write sft.noise=0")

    @staticmethod
    def can_teach(task: Task) -> bool:
        """Whether the task comes with a right program."""
        return bool(isinstance(task.solution, Mapping) and task.solution.get("program"))

    def __call__(self, request: GenerationRequest) -> str:
        *_, task, _, agent, _ = request.key
        if agent == "test_runner":
            return self._analyse(self._tasks[task], request.messages)
        solution: Mapping[str, Any] = self._tasks[task].solution
        rng = keyed_random(self._seed, *request.key)
        spoiled = rng.random() < self._noise
        return f"<ans>{rng.choice(solution['mutants']) if spoiled else solution['program']}</ans>"

    @staticmethod
    def _analyse(task: Task, messages: Sequence[Message]) -> str:
        """The call, then the number of the first test that does not give what it expects."""
        if messages[-1]["role"] != "tool":
            return "<call>run</call>"
        entry, cases = public_tests(task.problem)
        rest = f"{messages[-1]['content']}\n"
        for number, case in enumerate(cases, start=1):
            expected = case["stdout"].strip() if "stdin" in case else literal(case["value"])
            right = f"{case_text(entry or 'f', case)} gives {expected[:MAX_SHOWN]}\n"
            if not rest.startswith(right):
                return f"<ans>{number}</ans>"
            rest = rest.removeprefix(right)
        return "<ans>ok</ans>"
