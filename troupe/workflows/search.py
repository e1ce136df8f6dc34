"""Query optimizer -> search -> retriever -> answerer, repeated while the answerer says that it lacks facts.

The loop ends on the answerer's word, never on the ground truth: a trained team runs the same in deployment. What each
agent is paid for (document 004: one reward per agent), afterwards and by `reward` alone:

    query_optimizer   1 when its query finds a passage that the answer needs and the team did not hold;
                      nothing (the attempt teaches nothing) when it held them all
    retriever         F1 of the passages that it picks against those of the results that the answer needs;
                      to pick none where none is needed is worth 1
    answerer          1 for the right answer; for "unknown" while a passage that the answer needs was lacking 1 as
                      long as the team goes on looking, and 0.5 in the end; a wrong answer is worth the small share
                      of F1 that the reward function gives it

Where a task names no passages (`task.answer["passages"]`), query optimizer and retriever are paid 1 for the right final
answer, and so is "unknown" never. Every attempt is a trajectory of its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from troupe.agents import Team
from troupe.episode import Message, Outcome, Problem, Task, message
from troupe.errors import ConfigError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.protocols import Reward
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts, word_of

__all__ = ["Found", "Library", "SearchWorkflow", "library_for", "look_up"]

UNKNOWN = "unknown"
HONEST = 0.5
"""Pay for a final "unknown" while facts lack: more than a guess, less than an answer."""
NONE = "none"

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "query_optimizer": (
            "You write queries for a search engine that finds passages by their words. Given a question and what was "
            "found so far, reply with the few words that the next missing passage should hold, between <ans> and "
            "</ans>, for example <ans>Marie Curie born</ans>."
        ),
        "retriever": (
            "You choose among search results. Reply with the numbers of the passages that help to answer the question, "
            "between <ans> and </ans>, for example <ans>2</ans> or <ans>1, 3</ans>, or with <ans>none</ans>."
        ),
        "answerer": (
            "You answer a question from the facts that are given. Reply with the answer alone, as short as possible, "
            "between <ans> and </ans>, or with <ans>unknown</ans> if the facts do not suffice."
        ),
    },
    "compact": {"query_optimizer": "query", "retriever": "pick", "answerer": "answer"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""

_NUMBERS = re.compile(r"\d{1,9}(?:\s*,\s*\d{1,9})*")  # int() refuses thousands of digits


@runtime_checkable
class Found(Protocol):
    """A passage that a search found."""

    @property
    def id(self) -> str: ...

    @property
    def whole(self) -> str:
        """What is shown of it."""
        ...


@runtime_checkable
class Library(Protocol):
    """What a team searches in: `troupe.tools.search.SearchTool`, or any object with this method, which may be a
    coroutine. One that also has `on(corpus)` serves tasks that name their corpus in `data["corpus"]`."""

    def search(self, query: str, k: int | None = None) -> Any: ...


@dataclass(slots=True)
class _Cycle:
    """One query, what it found, what was picked of it, and what was answered; with the trajectories to pay."""

    optimizer: TrajectoryHandle
    held: frozenset[str]  # ids of the passages that the team held before
    query: str | None = None
    results: Sequence[Found] = ()
    retriever: TrajectoryHandle | None = None
    picked: Sequence[Found] | None = ()  # None: the reply named no passages
    answerer: TrajectoryHandle | None = None
    answer: str | None = None

    @property
    def held_after(self) -> frozenset[str]:
        return self.held | {passage.id for passage in self.picked or ()}


@dataclass(slots=True)
class _Talk:
    """The conversations that go on from cycle to cycle, and what the team holds."""

    asked: list[Message]  # with the query optimizer
    answering: list[Message]  # with the answerer
    held: list[Found] = field(default_factory=list)
    untold: list[Found] = field(default_factory=list)  # what the answerer has not been told


class SearchWorkflow:
    """The search team of document 004.

    `search_tool` is a `Library`; `corpus` names the collection for tasks that name none. `max_refinement_iterations`
    bounds the cycles, `top_k` the results of a query; `prompts` is `instruct`, `compact` or a mapping of agent to
    system prompt.
    """

    agent_names = ("query_optimizer", "retriever", "answerer")
    credit: Mapping[str, str] = {
        "query_optimizer": "1 if its query finds a needed passage that the team did not hold",
        "retriever": "F1 of the passages it picks against the needed ones among the results",
        "answerer": "1 if the answer is right, or 'unknown' (0.5 in the end) while a needed passage was lacking",
    }
    vocabulary = (*PROMPTS["compact"].values(), "Found: ", "Known: ", "Query: ", "Facts: ", "nothing", UNKNOWN, NONE)

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        search_tool: Library,
        max_refinement_iterations: int = 2,
        top_k: int = 4,
        corpus: str | None = None,
        prompts: str | Mapping[str, str] = "instruct",
    ) -> None:
        if max_refinement_iterations < 1 or top_k < 1:
            raise ConfigError(
                f"max_refinement_iterations={max_refinement_iterations} and top_k={top_k} must be at least 1"
            )
        if not isinstance(search_tool, Library):
            raise ConfigError(f"search_tool={search_tool!r} has no method search(query, k); give a SearchTool")
        self.prompts = system_prompts(prompts, PROMPTS, self.agent_names)
        self.reward_function = reward_function
        self.search_tool = search_tool
        self.max_refinement_iterations = max_refinement_iterations
        self.top_k = top_k
        self.corpus = corpus
        self._cycles: list[_Cycle] = []
        self._judged: dict[str, Reward] = {}

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """Cycles until the answerer answers. Returns metrics; the answer stands in the episode's metadata."""
        library = library_for(self.search_tool, problem, self.corpus)
        opening = message("user", problem.prompt)
        talk = _Talk(
            asked=[message("system", self.prompts["query_optimizer"]), opening],
            answering=[message("system", self.prompts["answerer"])],
        )
        for number in range(self.max_refinement_iterations):
            cycle = await self._look(problem, agents, library, talk)
            last = number == self.max_refinement_iterations - 1
            if cycle.picked or last:  # nothing new: there is nothing new to say
                await self._answer(problem, agents, cycle, talk)
            if cycle.answer not in (None, UNKNOWN):
                break
            talk.asked.append(message("user", f"Found: {_listed(cycle.picked)}"))
        answer = self._cycles[-1].answer
        agents.episode.metadata["answer"] = None if answer == UNKNOWN else answer
        return self._metrics()

    async def _look(self, problem: Problem, agents: Team, library: Library, talk: _Talk) -> _Cycle:
        """One query and what is picked of its results."""
        held = frozenset(passage.id for passage in talk.held)
        cycle = _Cycle(optimizer=agents.query_optimizer.new_trajectory(), held=held)
        self._cycles.append(cycle)
        reply = await agents.query_optimizer.chat(talk.asked)
        talk.asked.append(reply.message)
        cycle.query = answer_in(reply)
        if cycle.query is None:
            return cycle
        found = await look_up(agents, library, cycle.query, self.top_k + len(held))
        cycle.results = [passage for passage in found if passage.id not in held][: self.top_k]
        if cycle.results:
            cycle.retriever = agents.retriever.new_trajectory()
            cycle.picked = await self._pick(problem, agents, cycle, talk.held)
            talk.held += cycle.picked or ()
            talk.untold += cycle.picked or ()
        return cycle

    async def _pick(
        self, problem: Problem, agents: Team, cycle: _Cycle, held: Sequence[Found]
    ) -> Sequence[Found] | None:
        known = f"\nKnown: {_listed(held)}" if held else ""
        results = "\n".join(f"{number} {passage.whole}" for number, passage in enumerate(cycle.results, start=1))
        question = f"{problem.prompt}{known}\nQuery: {cycle.query}\n{results}"
        asked = [message("system", self.prompts["retriever"]), message("user", question)]
        return _chosen(answer_in(await agents.retriever.chat(asked)), cycle.results)

    async def _answer(self, problem: Problem, agents: Team, cycle: _Cycle, talk: _Talk) -> None:
        told = f"Facts: {_listed(talk.untold)}"
        first = len(talk.answering) == 1
        talk.answering.append(message("user", f"{problem.prompt}\n{told}" if first else told))
        talk.untold.clear()
        cycle.answerer = agents.answerer.new_trajectory()
        reply = await agents.answerer.chat(talk.answering)
        talk.answering.append(reply.message)
        said = answer_in(reply)
        cycle.answer = UNKNOWN if word_of(said) == UNKNOWN else said

    def _metrics(self) -> dict[str, float]:
        return {
            "total_iterations": float(len(self._cycles)),
            "answerer_attempts": float(sum(cycle.answerer is not None for cycle in self._cycles)),
            "searches": float(sum(cycle.query is not None for cycle in self._cycles)),
            "empty_searches": float(sum(cycle.query is not None and not cycle.results for cycle in self._cycles)),
            "answered": float(self._cycles[-1].answer not in (None, UNKNOWN)),
        }

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays every trajectory, and decides the outcome by the last answer."""
        final = self._judge(task, self._cycles[-1].answer if self._cycles else None)
        needed = needed_passages(task)
        for cycle in self._cycles:
            self._pay(task, cycle, needed, final.is_correct)
        episode.outcome = Outcome.SUCCESS if final.is_correct else Outcome.FAILURE
        episode.metrics |= {"final_success": float(final.is_correct), "f1": float(final.metadata.get("f1", 0.0))}
        said = [self._is_right(task, cycle, needed) for cycle in self._cycles if cycle.answerer is not None]
        episode.metrics |= {"answerer_success_rate": sum(said) / len(said)} if said else {}
        if needed is not None:
            episode.metrics |= self._retrieval(needed)

    def _pay(self, task: Task, cycle: _Cycle, needed: frozenset[str] | None, solved: bool) -> None:
        found = {passage.id for passage in cycle.results}
        if needed is None:
            cycle.optimizer.reward = float(solved)
        elif needed - cycle.held:
            cycle.optimizer.reward = float(bool(needed & found))
        if cycle.retriever is not None:
            cycle.retriever.reward = float(solved) if needed is None else _f1(cycle.picked, needed & found)
        if cycle.answerer is not None:
            honest = HONEST if cycle is self._cycles[-1] else 1.0
            judged = self._judge(task, cycle.answer).reward
            cycle.answerer.reward = honest if _is_honest(cycle, needed) else judged

    def _is_right(self, task: Task, cycle: _Cycle, needed: frozenset[str] | None) -> bool:
        return _is_honest(cycle, needed) or self._judge(task, cycle.answer).is_correct

    def _retrieval(self, needed: frozenset[str]) -> dict[str, float]:
        """Success of the queries, precision and recall of the picks over this episode."""
        metrics: dict[str, float] = {}
        queries = [bool(needed & {p.id for p in c.results}) for c in self._cycles if needed - c.held]
        picks = [({p.id for p in c.picked or ()}, needed & {p.id for p in c.results}) for c in self._cycles]
        picked = sum(len(chosen) for chosen, _ in picks)
        there = sum(len(relevant) for _, relevant in picks)
        right = sum(len(chosen & relevant) for chosen, relevant in picks)
        if queries:
            metrics["query_success"] = sum(queries) / len(queries)
        if picked:
            metrics["retriever_precision"] = right / picked
        if there:
            metrics["retriever_recall"] = right / there
        metrics["evidence_recall"] = right / len(needed)
        return metrics

    def _judge(self, task: Task, answer: str | None) -> Reward:
        if answer in (None, UNKNOWN):
            return Reward(0.0, False, {})
        assert answer is not None
        if answer not in self._judged:
            self._judged[answer] = self.reward_function(task, answer)
        return self._judged[answer]


# ---------------------------------------------------------------------------------------------- parts


def needed_passages(task: Task) -> frozenset[str] | None:
    """Ids of the passages that the answer rests on; None where the task does not say."""
    found: Any = task.answer.get("passages") if isinstance(task.answer, Mapping) else None
    return frozenset(map(str, found)) if found else None


def _is_honest(cycle: _Cycle, needed: frozenset[str] | None) -> bool:
    """Whether the answerer said that it lacks facts, and did lack one."""
    return cycle.answer == UNKNOWN and needed is not None and bool(needed - cycle.held_after)


def library_for(library: Library, problem: Problem, corpus: str | None) -> Library:
    """The collection that a problem is answered from: the one it names, else `corpus`, else the library as it is.

    Raises ConfigError where a collection is named and the library knows only one.
    """
    named = problem.data.get("corpus") or corpus
    if not named:
        return library
    on = getattr(library, "on", None)
    if on is None:
        raise ConfigError(
            f"the task names the corpus {named!r}, but {type(library).__name__} has no on(corpus); give a SearchTool"
        )
    chosen: Library = on(str(named))
    return chosen


async def look_up(agents: Team, library: Library, query: str, k: int) -> Sequence[Found]:
    """The passages found; a search that is a coroutine (a server's) is awaited outside of the wave."""
    found: Any = library.search(query, k)
    answer: Sequence[Found] = await agents.external(found) if inspect.isawaitable(found) else found
    return answer


def _listed(passages: Sequence[Found] | None) -> str:
    return "\n".join(passage.whole for passage in passages) if passages else "nothing"


def _chosen(answer: str | None, results: Sequence[Found]) -> Sequence[Found] | None:
    """The results of the numbers in a reply such as `1, 3`; none for `none`, None for what is no choice among them."""
    if word_of(answer) == NONE:
        return ()
    if answer is None or not _NUMBERS.fullmatch(answer):
        return None
    numbers = dict.fromkeys(int(number) for number in answer.split(","))
    return [results[n - 1] for n in numbers] if all(1 <= n <= len(results) for n in numbers) else None


def _f1(picked: Sequence[Found] | None, relevant: frozenset[str]) -> float:
    """F1 of two sets; 1 where both are empty, 0 for a reply that was no choice."""
    if picked is None:
        return 0.0
    chosen = {passage.id for passage in picked}
    total = len(chosen) + len(relevant)
    return 2 * len(chosen & relevant) / total if total else 1.0
