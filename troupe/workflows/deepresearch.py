"""Planner -> researchers, as many as the plan has questions and all at once -> writer -> critic, repeated until the
critic accepts.

The planner splits the question; each researcher searches, reads and cites on its own; the writer makes a report of what
was cited; the critic accepts it or sends the team back, what was cited so far kept. The loop ends on the critic's word,
never on the ground truth. What each agent is paid for (document 004: one reward per agent), afterwards and by `reward`
alone:

    planner      F1 of its questions against the facts that were still missing: a question counts where its
                 researcher cited a passage of a missing fact that no earlier question brought
    researcher   share of what it cites that some asked fact rests on: 1 for one such passage and nothing else,
                 0 for none
    writer       0.7 times coverage and citation precision over the facts whose passages it was given,
                 and 0.3 for a report that is right as a whole; nothing where it was given none of them
    critic       1 when its verdict agrees with the hidden truth about the report that it saw

Coverage and precision are the reward function's: the same function judges the report against the facts that the writer
could know, and against all of them. Every attempt is a trajectory of its own; researchers of one cycle run at the same
time.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from troupe.agents import Reply, Team
from troupe.episode import Message, Outcome, Problem, StopReason, Task, message
from troupe.errors import ConfigError, DataError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.protocols import Tool
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts, word_of
from troupe.workflows.search import library_for

__all__ = ["DeepResearchWorkflow"]

NONE = "none"

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "planner": (
            "You plan research. Split the request into short questions that can be looked up one by one, one for each "
            "fact that a complete report needs, and reply with them between <ans> and </ans>, separated by '; '. After "
            "a rejected report ask for what it lacks, or reply with <ans>none</ans> if it only has to be written again."
        ),
        "researcher": (
            "You look up one question in a library. Search with <call>words of a passage</call>; read a long passage "
            "with <call>read id</call>. Then reply with the ids of the passages that hold the answer, between <ans> "
            "and </ans>, for example <ans>17</ans>, or with <ans>none</ans>."
        ),
        "writer": (
            "You write a short report from sources. Use only sentences that the sources hold, put the id of its source "
            "in brackets after each one, for example 'The mill burned down in 1890 [17].', and leave out what was not "
            "asked. Reply with the report between <ans> and </ans>."
        ),
        "critic": (
            "You check a report against the request and its sources. Reply with <ans>ok</ans> if it states all that "
            "was asked, nothing else, and every statement stands in the source that it cites; with <ans>bad</ans> if "
            "not."
        ),
    },
    "compact": {"planner": "plan", "researcher": "research", "writer": "write", "critic": "check"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""

_BRACKET = re.compile(r"[\[\]]")
_BARE_CALL = re.compile(r"<call>(.*?)</call>", re.DOTALL)
_VERB = re.compile(r"(read|cite) +\[?([^\[\]]+)\]?")


@dataclass(slots=True)
class _Finding:
    """What one researcher was asked and what it cited."""

    question: str
    researcher: TrajectoryHandle
    cited: dict[str, str] = field(default_factory=dict)  # passage id -> text

    def note(self, cited: str) -> bool:
        """Whether this answer of the citing tool holds a passage, which is then a finding."""
        found = re.match(r"\[([^\[\]]+)\] ", cited)
        if found:
            self.cited[found[1]] = cited[found.end() :]
        return found is not None


@dataclass(slots=True)
class _Cycle:
    """One plan, its research, one report and the verdict; with the trajectories to pay."""

    planner: TrajectoryHandle
    held: frozenset[str]  # ids of the passages cited before
    findings: list[_Finding] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # what the writer was given
    writer: TrajectoryHandle | None = None
    report: str | None = None
    critic: TrajectoryHandle | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class _Desk:
    """The tools of a researcher, over one collection."""

    search: Tool
    read: Tool
    cite: Tool

    @property
    def tools(self) -> tuple[Tool, ...]:
        return (self.search, self.read, self.cite)


class DeepResearchWorkflow:
    """The research team of document 004.

    `search_tool`, `read_tool` and `cite_tool` are over one library: `search_tool` is a tool that also has `on(corpus)`,
    the others are made from it by calling `read_tool(library)` and `cite_tool(library)`. `corpus` names the collection
    for tasks that name none. `max_refinement_iterations` bounds the cycles, `max_researchers` the questions of a plan
    that are looked up, `max_tool_calls` the turns of a researcher; `prompts` is `instruct`, `compact` or a mapping of
    agent to system prompt.
    """

    agent_names = ("planner", "researcher", "writer", "critic")
    credit: Mapping[str, str] = {
        "planner": "F1 of its questions against the facts that were missing",
        "researcher": "share of the passages it cites that an asked fact rests on",
        "writer": "0.7 coverage x citation precision of what it was given + 0.3 if the whole report is right",
        "critic": "1 if its verdict agrees with the hidden truth",
    }
    vocabulary = (*PROMPTS["compact"].values(), "Sources:", "Report: ", "Rejected: ", "nothing", NONE, "ok", "bad")

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        search_tool: Any,
        read_tool: Any,
        cite_tool: Any,
        max_refinement_iterations: int = 2,
        max_researchers: int = 4,
        max_tool_calls: int = 6,
        corpus: str | None = None,
        prompts: str | Mapping[str, str] = "instruct",
    ) -> None:
        for name, value in (
            ("max_refinement_iterations", max_refinement_iterations),
            ("max_researchers", max_researchers),
            ("max_tool_calls", max_tool_calls),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, found {value}")
        self.prompts = system_prompts(prompts, PROMPTS, self.agent_names)
        self.reward_function = reward_function
        self.search_tool, self.read_tool, self.cite_tool = search_tool, read_tool, cite_tool
        self.max_refinement_iterations = max_refinement_iterations
        self.max_researchers = max_researchers
        self.max_tool_calls = max_tool_calls
        self.corpus = corpus
        self._cycles: list[_Cycle] = []
        self._results: list[str] = []  # what the tools answered

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """Cycles until the critic accepts. Returns metrics; the report stands in the episode's metadata."""
        library = library_for(self.search_tool, problem, self.corpus)
        desk = _Desk(cast(Tool, library), self.read_tool(library), self.cite_tool(library))
        asked: list[Message] = [message("system", self.prompts["planner"]), message("user", problem.prompt)]
        sources: dict[str, str] = {}
        for _ in range(self.max_refinement_iterations):
            cycle = _Cycle(planner=agents.planner.new_trajectory(), held=frozenset(sources))
            self._cycles.append(cycle)
            await self._plan(agents, cycle, asked)
            await self._look_up(agents, cycle, desk)
            for finding in cycle.findings:
                sources |= finding.cited
            if sources:
                await self._write(problem, agents, cycle, sources)
            if cycle.verdict == "ok":
                break
            asked.append(message("user", f"Rejected: {cycle.report or 'nothing'}"))
        agents.episode.metadata["answer"] = next((c.report for c in reversed(self._cycles) if c.report), None)
        return self._metrics(len(sources))

    async def _plan(self, agents: Team, cycle: _Cycle, asked: list[Message]) -> None:
        reply = await agents.planner.chat(asked)
        asked.append(reply.message)
        questions = dict.fromkeys(part.strip() for part in (answer_in(reply) or "").split(";"))
        chosen = [question for question in questions if word_of(question) not in ("", NONE)][: self.max_researchers]
        cycle.findings = [_Finding(question, agents.researcher.new_trajectory()) for question in chosen]

    async def _look_up(self, agents: Team, cycle: _Cycle, desk: _Desk) -> None:
        """All researchers at once; one that fails ends the episode and the others with it."""
        async with asyncio.TaskGroup() as group:
            for finding in cycle.findings:
                group.create_task(self._research(agents, finding, desk))

    async def _research(self, agents: Team, finding: _Finding, desk: _Desk) -> None:
        talk: list[Message] = [message("system", self.prompts["researcher"]), message("user", finding.question)]
        for turn in range(self.max_tool_calls):
            reply = await _speak(agents, finding.researcher, talk, desk)
            talk.append(reply.message)
            if reply.truncated or not reply.tool_calls:
                for named in _BRACKET.split(answer_in(reply) or ""):  # an id may hold a comma itself
                    if not finding.note(desk.cite(passage=named.strip(" ,"))):
                        for id in named.split(","):
                            finding.note(desk.cite(passage=id.strip()))
                return
            if turn < self.max_tool_calls - 1:
                talk += [await self._use(agents, finding, desk, call) for call in _calls(reply)]
        finding.researcher.stop_reason = StopReason.MAX_TURNS

    async def _use(self, agents: Team, finding: _Finding, desk: _Desk, call: Mapping[str, Any]) -> Message:
        """The answer of a tool, as a message; a passage that the citing tool accepts is a finding."""
        said = await agents.answer(call, desk.tools)
        self._results.append(str(said["content"]))
        if call["function"]["name"] == desk.cite.name:
            finding.note(str(said["content"]))
        return said

    async def _write(self, problem: Problem, agents: Team, cycle: _Cycle, sources: Mapping[str, str]) -> None:
        cycle.sources = dict(sources)
        cycle.writer = agents.writer.new_trajectory()
        given = f"{problem.prompt}\nSources:\n{_listed(sources)}"
        opening = [message("system", self.prompts["writer"]), message("user", given)]
        cycle.report = answer_in(await agents.writer.chat(opening))
        if cycle.report is None:
            return
        cycle.critic = agents.critic.new_trajectory()
        cited = {id: text for id, text in sources.items() if f"[{id}]" in cycle.report}
        shown = f"{problem.prompt}\nReport: {cycle.report}\nSources:\n{_listed(cited)}"
        opening = [message("system", self.prompts["critic"]), message("user", shown)]
        cycle.verdict = word_of(answer_in(await agents.critic.chat(opening)))

    def _metrics(self, sources: int) -> dict[str, float]:
        valid = [not result.startswith("error") for result in self._results]
        return {
            "planner_runs": float(len(self._cycles)),
            "researchers": float(sum(len(cycle.findings) for cycle in self._cycles)),
            "writer_attempts": float(sum(cycle.writer is not None for cycle in self._cycles)),
            "critic_checks": float(sum(cycle.critic is not None for cycle in self._cycles)),
            "total_iterations": float(len(self._cycles)),
            "sources": float(sources),
            "tool_calls": float(len(valid)),
            "accepted": float(self._cycles[-1].verdict == "ok"),
        } | ({"tool_call_validity": sum(valid) / len(valid)} if valid else {})

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays every trajectory, and decides the outcome by the last report."""
        facts = _facts(task)
        report = next((cycle.report for cycle in reversed(self._cycles) if cycle.report), None)
        final = self.reward_function(task, report)
        for cycle in self._cycles:
            self._pay(task, facts, cycle)
        episode.outcome = Outcome.SUCCESS if final.is_correct else Outcome.FAILURE
        episode.metrics |= {"final_success": float(final.is_correct), "report_reward": final.reward}
        episode.metrics |= {
            name: float(final.metadata[name]) for name in ("coverage", "precision") if name in final.metadata
        }
        first = self._cycles[0].planner.reward if self._cycles else None
        found = [finding.researcher.reward for cycle in self._cycles for finding in cycle.findings]
        episode.metrics |= {"planner_success": first} if first is not None else {}
        episode.metrics |= {"researcher_success": sum(r == 1.0 for r in found) / len(found)} if found else {}
        self._judge_reports(task, episode)

    def _pay(self, task: Task, facts: Sequence[Mapping[str, Any]], cycle: _Cycle) -> None:
        gold = [frozenset(map(str, fact["passages"])) for fact in facts]
        cycle.planner.reward = _planned(cycle, [passages for passages in gold if not passages & cycle.held])
        every = frozenset().union(*gold)
        for finding in cycle.findings:
            right = len(every & set(finding.cited))
            finding.researcher.reward = right / len(finding.cited) if right else 0.0
        if cycle.writer is None:
            return
        whole = self.reward_function(task, cycle.report)
        known = [fact for fact, passages in zip(facts, gold, strict=True) if passages & set(cycle.sources)]
        if known:
            own = self.reward_function(replace(task, answer={**task.answer, "facts": known}), cycle.report)
            cycle.writer.reward = 0.7 * own.reward + 0.3 * whole.is_correct
        if cycle.critic is not None:
            cycle.critic.reward = float(cycle.verdict == ("ok" if whole.is_correct else "bad"))

    def _judge_reports(self, task: Task, episode: EpisodeHandle) -> None:
        """How often the writer was right, right reports were accepted and wrong ones rejected, over this episode."""
        written = [self.reward_function(task, cycle.report).is_correct for cycle in self._cycles if cycle.writer]
        episode.metrics |= {"writer_success_rate": sum(written) / len(written)} if written else {}
        checks = [
            (self.reward_function(task, cycle.report).is_correct, cycle.verdict)
            for cycle in self._cycles
            if cycle.critic is not None
        ]
        for name, truth, word in (("critic_true_accepts", True, "ok"), ("critic_true_rejects", False, "bad")):
            found = [verdict == word for right, verdict in checks if right is truth]
            if found:
                episode.metrics[name] = sum(found) / len(found)


# ---------------------------------------------------------------------------------------------- parts


async def _speak(agents: Team, home: TrajectoryHandle, talk: Sequence[Message], desk: _Desk) -> Reply:
    """One turn of a researcher, recorded in its own trajectory.

    An agent records into the trajectory that it began last, and other researchers begin theirs meanwhile; so each turn
    begins one, and what was recorded goes home at once.
    """
    turn = agents.researcher.new_trajectory()
    try:
        return await agents.researcher.chat(talk, desk.tools)
    finally:
        home.steps += turn.steps
        home.stop_reason = turn.stop_reason
        turn.steps.clear()


def _calls(reply: Reply) -> list[Mapping[str, Any]]:
    """The reply's calls. A bare <call>, which names no tool, searches, or reads or cites an id."""
    bare = _BARE_CALL.findall(reply.text)  # they come first
    calls = list(reply.tool_calls)
    for number, text in enumerate(bare[: len(calls)]):
        verb = _VERB.fullmatch(text.strip())
        name, given = (verb[1], {"passage": verb[2].strip()}) if verb else ("search", {"query": text.strip()})
        calls[number] = {**calls[number], "function": {"name": name, "arguments": json.dumps(given)}}
    return calls


def _listed(sources: Mapping[str, str]) -> str:
    return "\n".join(f"[{id}] {text}" for id, text in sources.items()) or "nothing"


def _facts(task: Task) -> Sequence[Mapping[str, Any]]:
    facts: Any = task.answer.get("facts") if isinstance(task.answer, Mapping) else None
    if not facts or not all(isinstance(fact, Mapping) and fact.get("passages") for fact in facts):
        raise DataError(f"task {task.id} does not say in answer['facts'] which passages a report must cite")
    return list(facts)


def _planned(cycle: _Cycle, missing: list[frozenset[str]]) -> float | None:
    """F1 of a plan's questions against the missing facts, one for one; None where none was missing."""
    if not missing:
        return None
    left = list(missing)
    for finding in cycle.findings:
        brought = next((passages for passages in left if passages & set(finding.cited)), None)
        if brought is not None:
            left.remove(brought)
    return 2 * (len(missing) - len(left)) / (len(cycle.findings) + len(missing))
