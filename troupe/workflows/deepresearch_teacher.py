"""An imperfect teacher of the research workflow: it knows the facts of a good report and spoils some of what it says.

`noise` is the chance that a plan loses or distorts a question, that a query is spoiled and that a report loses or
miscites a statement, and half of it the chance that another passage is cited. The critic is never spoiled: a team
whose critic is incompetent learns to ignore it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from troupe.episode import Message, Task
from troupe.protocols import GenerationRequest
from troupe.workflows.roles import keyed_random
from troupe.workflows.search_teacher import Queries, said_by_others

__all__ = ["DeepResearchTeacher"]

_SOURCE = re.compile(r"^\[([^\[\]]+)\] (.+)$", re.MULTILINE)
_STATEMENT = re.compile(r"\s*([^\[\]]*?) \[([^\[\]]+)\]\.?")


class DeepResearchTeacher:
    """`respond(request)` for a `ScriptedEngine`; tasks need, for each fact, one entry of `solution["plan"]` (a
    question), `solution["calls"]` (a query) and `solution["check"]` (the passage's text)."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed
        worked = [task.solution for task in self._tasks.values()]
        self._queries = Queries(query for solution in worked for query in solution["calls"])
        self._questions = Queries(question for solution in worked for question in solution["plan"])
        self._known = {
            question: (query, text)
            for solution in worked
            for question, query, text in zip(solution["plan"], solution["calls"], solution["check"], strict=True)
        }

    @staticmethod
    def can_teach(task: Task) -> bool:
        """Whether the task comes with questions, queries and passages, one of each per fact."""
        solution = task.solution
        if not isinstance(solution, Mapping) or not solution.get("plan"):
            return False
        return all(len(solution.get(key) or ()) == len(solution["plan"]) for key in ("calls", "check"))

    def __call__(self, request: GenerationRequest) -> str:
        *_, task_id, _, agent, _ = request.key
        solution: Mapping[str, Sequence[str]] = self._tasks[task_id].solution
        rng = keyed_random(self._seed, *request.key)
        speak = {
            "planner": self._plan,
            "researcher": self._research,
            "writer": self._write,
            "critic": self._check,
        }[agent]
        return speak(solution, request.messages, rng)

    def _errs(self, rng: random.Random, share: float = 1.0) -> bool:
        return rng.random() < self._noise * share

    def _plan(self, solution: Mapping[str, Any], messages: Sequence[Message], rng: random.Random) -> str:
        """Questions for what no report has stated yet."""
        told = said_by_others(messages)
        facts = zip(solution["plan"], solution["check"], strict=True)
        missing = [question for question, text in facts if f"{text} [" not in told] or ["none"]
        if missing != ["none"] and self._errs(rng):
            spoiled = rng.randrange(len(missing))
            if len(missing) > 1 and rng.random() < 0.5:
                del missing[spoiled]
            else:
                missing[spoiled] = self._questions.another(missing[spoiled], rng)
        return f"<ans> {'; '.join(missing)}</ans>"

    def _research(self, solution: Mapping[str, Any], messages: Sequence[Message], rng: random.Random) -> str:
        """A query, and then the passage that answers the question among its results."""
        question = str(messages[1]["content"])
        own = zip(solution["plan"], zip(solution["calls"], solution["check"], strict=True), strict=True)
        query, text = dict(own).get(question) or self._known[question]  # a spoiled plan has another task's question
        results = [str(said["content"]) for said in messages if said["role"] == "tool"]
        if not results:
            return f"<call> {self._queries.spoiled(query, question, rng) if self._errs(rng) else query}</call>"
        found = _SOURCE.findall(results[-1])
        right = [id for id, shown in found if shown == text]
        wrong = [id for id, _ in found if id not in right]
        if wrong and self._errs(rng, 0.5):
            return f"<ans>{rng.choice(wrong)}</ans>"
        return f"<ans>{right[0] if right else 'none'}</ans>"

    def _write(self, solution: Mapping[str, Any], messages: Sequence[Message], rng: random.Random) -> str:
        sources = _SOURCE.findall(str(messages[-1]["content"]))
        told = [[text, id] for id, text in sources if text in solution["check"]]
        if told and self._errs(rng):
            spoiled = rng.randrange(len(told))
            others = [id for id, _ in sources if id != told[spoiled][1]]
            if others and rng.random() < 0.5:
                told[spoiled][1] = rng.choice(others)
            elif len(told) > 1:
                del told[spoiled]
        return f"<ans>{''.join(f' {text} [{id}].' for text, id in told) or ' nothing'}</ans>"

    @staticmethod
    def _check(solution: Mapping[str, Any], messages: Sequence[Message], rng: random.Random) -> str:
        """ok for all facts, nothing else, each as its source has it."""
        _, _, shown = str(messages[-1]["content"]).partition("\nReport:")
        report, _, rest = shown.partition("\nSources:")
        sources = dict(_SOURCE.findall(rest))
        statements = _STATEMENT.findall(report)
        right = sorted(text for text, _ in statements) == sorted(solution["check"])
        cited = all(sources.get(id) == text for text, id in statements)
        return f"<ans>{'ok' if right and cited else 'bad'}</ans>"
