"""An imperfect teacher of the search workflow: it knows which passages to look for and spoils some of what it says.

Demonstrations are episodes of the same workflow, spoken by this teacher through a scripted engine. `noise` is the
chance that a query is spoiled (the question's word for the corpus's, another relation, another person) and half of it
the chance that another passage is picked. Whether the facts suffice is never spoiled: a team whose answerer cannot tell
learns to ignore it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from troupe.episode import Message, Task
from troupe.protocols import GenerationRequest
from troupe.workflows.roles import keyed_random

__all__ = ["Queries", "SearchTeacher", "said_by_others"]

_EMPTY = ("name", "the", "of", "report", "and")
_RESULT = re.compile(r"^(\d+) (.+)$", re.MULTILINE)


class SearchTeacher:
    """`respond(request)` for a `ScriptedEngine`; tasks need `solution["plan"]` (queries) and `solution["check"]` (the
    passages' texts), one of each per hop, and `solution["answer"]`."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed
        self._queries = Queries(query for task in self._tasks.values() for query in task.solution["plan"])

    @staticmethod
    def can_teach(task: Task) -> bool:
        """Whether the task comes with queries, the passages that they should find, and the answer."""
        solution = task.solution
        return (
            isinstance(solution, Mapping)
            and bool(solution.get("plan") and solution.get("answer"))
            and len(solution["plan"]) == len(solution.get("check") or ())
        )

    def __call__(self, request: GenerationRequest) -> str:
        *_, task_id, _, agent, _ = request.key
        task = self._tasks[task_id]
        rng = keyed_random(self._seed, *request.key)
        if agent == "query_optimizer":
            return f"<ans> {self._query(task, request.messages, rng)}</ans>"
        if agent == "retriever":
            return f"<ans>{self._pick(task, request.messages, rng)}</ans>"
        return f"<ans> {self._answer(task, request.messages)}</ans>"

    def _query(self, task: Task, messages: Sequence[Message], rng: random.Random) -> str:
        """For the first passage that was not found yet."""
        found = said_by_others(messages)
        missing = [hop for hop, text in enumerate(task.solution["check"]) if text not in found]
        query = str(task.solution["plan"][missing[0] if missing else -1])
        return self._queries.spoiled(query, task.prompt, rng) if rng.random() < self._noise else query

    def _pick(self, task: Task, messages: Sequence[Message], rng: random.Random) -> str:
        results = _RESULT.findall(str(messages[-1]["content"]))
        right = [number for number, text in results if text in task.solution["check"]]
        wrong = [number for number, _ in results if number not in right]
        if wrong and rng.random() < self._noise / 2:
            return rng.choice(wrong)
        return ", ".join(right) or "none"

    @staticmethod
    def _answer(task: Task, messages: Sequence[Message]) -> str:
        told = said_by_others(messages)
        if all(text in told for text in task.solution["check"]):
            return str(task.solution["answer"])
        return "unknown"


def said_by_others(messages: Sequence[Message]) -> str:
    """What an agent was told, its own words and the system prompt left out."""
    return "\n".join(str(said["content"]) for said in messages if said["role"] not in ("assistant", "system"))


class Queries:
    """Queries of two words or more, by their first word (who is meant) and by their last (which relation)."""

    def __init__(self, queries: Iterable[str]) -> None:
        self._all = sorted(set(queries))
        self._by_end: dict[tuple[str, int], list[str]] = {}
        for query in self._all:
            for end in (0, -1):
                self._by_end.setdefault((query.split()[end], end), []).append(query)

    def another(self, query: str, rng: random.Random) -> str:
        """A query that shares only the first or only the last word."""
        words = query.split()
        end = rng.choice((0, -1))
        alike = [other for other in self._by_end.get((words[end], end), ()) if other != query]
        return rng.choice(alike or self._all)

    def spoiled(self, query: str, question: str, rng: random.Random) -> str:
        """The question's word for the corpus's (30 %), or another query."""
        first, *rest = query.split()
        others = [word for word in re.findall(r"\w+", question) if word.lower() not in (*_EMPTY, first.lower(), *rest)]
        return f"{first} {rng.choice(others)}" if others and rng.random() < 0.3 else self.another(query, rng)
