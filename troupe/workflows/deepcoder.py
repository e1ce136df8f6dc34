"""Generator -> test runner -> refiner, repeated until the public tests pass.

The loop ends when the program passes the public tests or `max_refinement_iterations` refinements were made; the truth
about the hidden tests is never read, so a trained team runs the same in deployment. What each agent is paid for
(document 004: one reward per agent), afterwards and by `reward` alone:

    generator     1 when its program passes all hidden tests (or what another `reward_function` pays for it)
    test_runner   1 when its diagnosis is right: `ok`, or the number of the first public test that fails
    refiner       the same for its own program

A test runner calls its tool, which shows what each public test gave, and compares that with what was asked for. What it
says beyond the number (`2: the sign is wrong`) goes to the refiner and is not paid. Every analysis and every refinement
is a trajectory of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from troupe.agents import Reply, Team
from troupe.episode import Message, Outcome, Problem, StopReason, Task, message
from troupe.errors import ConfigError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.protocols import Reward, Tool
from troupe.sandbox.cases import Case, as_case, case_text, entry_of, program_in
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts, word_of

__all__ = ["DeepCoderWorkflow", "PublicRun", "first_failure", "public_tests"]

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "generator": (
            "You write Python programs. Reply with the whole program in one block that begins with ```python and ends "
            "with ```. Tests such as f(2)==5 show what is expected; other tests will be run, too."
        ),
        "test_runner": (
            "You test a program. Call the tool run_tests once to see what each test gave, and compare it with what the "
            "test expects. Then reply with <ans>ok</ans> if all tests pass, otherwise with the number of the first "
            "that fails and what is wrong, for example <ans>2: the last item is missing</ans>."
        ),
        "refiner": (
            "You repair a Python program that fails a test. Reply with the whole repaired program in one block that "
            "begins with ```python and ends with ```."
        ),
    },
    "compact": {"generator": "write", "test_runner": "test", "refiner": "repair"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""

_DIAGNOSIS = re.compile(r"(ok|\d+)\s*(?::.*)?", re.DOTALL)
_MOST_TURNS = 2  # of a test runner: it looks once, then says what it saw


class PublicRun(Tool, Protocol):
    """A program's run on public tests: a tool that shows what each gave."""

    passed: Sequence[bool]


class RunsTests(Protocol):
    """What runs them: `troupe.tools.run_tests.RunTests`. May block; it is called in a thread."""

    def __call__(self, program: str, entry: str | None, cases: Sequence[Case], setup: str) -> PublicRun: ...


@dataclass(slots=True)
class _Version:
    """A program, who wrote it, and what was found out about it."""

    program: str | None
    author: TrajectoryHandle
    run: PublicRun | None = None
    analyst: TrajectoryHandle | None = None
    diagnosis: str | None = None

    @property
    def accepted(self) -> bool:
        return self.run is not None and all(self.run.passed)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """What the team works on: the problem with its public tests, as text and as cases."""

    problem: str
    text: str  # with the public tests
    entry: str | None
    cases: Sequence[Case]
    setup: str


class DeepCoderWorkflow:
    """The coding team of document 004.

    `reward_function` pays a program, `run_tests` runs one on public tests (`troupe.tools.run_tests.RunTests`).
    `max_refinement_iterations` bounds the refinements; `prompts` is `instruct`, `compact` or a mapping of agent to
    system prompt. Public tests stand in `problem.data["public"]`; where there are none, lines of the prompt such as
    `f(4)==14` are taken for them. Without any, nothing can be run and the generator's program is the answer.
    """

    agent_names = ("generator", "test_runner", "refiner")
    credit: Mapping[str, str] = {
        "generator": "1 if its program passes all hidden tests",
        "test_runner": "1 if it names the first public test that fails, or says ok where all pass",
        "refiner": "1 if its own program passes all hidden tests",
    }
    vocabulary = (
        *PROMPTS["compact"].values(),
        *("Program:", "Tests: ", "ok", "failed", "none", "run", " gives ", " gives error: NameError", "=="),
        *("def f(x):", "def f(s):", "def f(a):", " return x", " if len(s)>", " else s", " return [i for i in a if i>"),
        *(f"{before}{name}(" for before in (" ", "(") for name in ("len", "sum", "min", "max", "abs", "sorted")),
        *(" return (x+", ")+", ")*", ")//", ")%", "**", ".upper()", ".capitalize()", ".count('", ".replace('", "','')"),
        *("'+s", "+'", "')", "[::-", ")[::-", "[-", "[:", ":]", "[i+", "[i*", "('", "')=='", "('')=='", "([", "])==["),
    )  # fmt: skip

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        run_tests: RunsTests,
        max_refinement_iterations: int = 3,
        prompts: str | Mapping[str, str] = "instruct",
    ) -> None:
        if max_refinement_iterations < 1:
            raise ConfigError(f"max_refinement_iterations must be at least 1, found {max_refinement_iterations}")
        self.prompts = system_prompts(prompts, PROMPTS, self.agent_names)
        self.reward_function = reward_function
        self.run_tests = run_tests
        self.max_refinement_iterations = max_refinement_iterations
        self._versions: list[_Version] = []
        self._judged: dict[str | None, Reward] = {}

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """Writes, then tests and repairs. Returns metrics; the last program is the answer in the episode's metadata."""
        work = _assignment(problem)
        self._versions.append(await self._write(agents, "generator", work.text))
        for _ in range(self.max_refinement_iterations):
            version = self._versions[-1]
            if not work.cases or await self._passes(agents, work, version):
                break
            asked = f"Program:\n{version.program or 'none'}\nTests: {version.diagnosis or 'failed'}\n{work.text}"
            self._versions.append(await self._write(agents, "refiner", asked))
        agents.episode.metadata["answer"] = self._versions[-1].program
        refinements = float(len(self._versions) - 1)
        return {
            "test_runner_analyses": float(sum(version.analyst is not None for version in self._versions)),
            "refiner_attempts": refinements,
            "total_iterations": refinements,
        }

    async def _write(self, agents: Team, name: str, asked: str) -> _Version:
        author = agents[name].new_trajectory()
        reply = await agents[name].chat([message("system", self.prompts[name]), message("user", asked)])
        return _Version(None if reply.truncated else program_in(reply.text), author)

    async def _passes(self, agents: Team, work: _Assignment, version: _Version) -> bool:
        """Runs and analyses a program; whether it passes the public tests."""
        if version.program is None:
            return False
        version.run = await agents.in_thread(self.run_tests, version.program, work.entry, work.cases, work.setup)
        version.analyst = agents.test_runner.new_trajectory()
        reply = await self._analysis(agents, version, f"{work.problem}\nProgram:\n{version.program}")
        version.diagnosis = answer_in(reply)
        return version.accepted

    async def _analysis(self, agents: Team, version: _Version, asked: str) -> Reply:
        """What the test runner says in the end. Its one tool takes no arguments: whatever it calls, it is that one."""
        assert version.run is not None and version.analyst is not None
        conversation: list[Message] = [message("system", self.prompts["test_runner"]), message("user", asked)]
        reply = await agents.test_runner.chat(conversation, [version.run])
        for _ in range(_MOST_TURNS - 1):
            if not reply.tool_calls or reply.truncated:
                return reply
            shown = version.run()
            results = [message("tool", shown, tool_call_id=c["id"], name=version.run.name) for c in reply.tool_calls]
            conversation += [reply.message, *results]
            reply = await agents.test_runner.chat(conversation, [version.run])
        if reply.tool_calls:
            version.analyst.stop_reason = StopReason.MAX_TURNS
        return reply

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays every trajectory, and decides the outcome by the last program."""
        judged = [self._judge(task, version.program) for version in self._versions]
        right = [verdict.is_correct for verdict in judged]
        for version, verdict in zip(self._versions, judged, strict=True):
            version.author.reward = verdict.reward
            if version.analyst is not None and version.run is not None:
                version.analyst.reward = float(_says(version.diagnosis) == first_failure(version.run.passed))
        solved = bool(right) and right[-1]
        episode.outcome = Outcome.SUCCESS if solved else Outcome.FAILURE
        episode.metrics |= {"generator_success": float(bool(right) and right[0]), "final_success": float(solved)}
        if len(right) > 1:  # where nothing was refined there is no rate
            episode.metrics["refiner_success_rate"] = sum(right[1:]) / len(right[1:])

    def _judge(self, task: Task, program: str | None) -> Reward:
        if program not in self._judged:
            self._judged[program] = self.reward_function(task, program)
        return self._judged[program]


# ---------------------------------------------------------------------------------------------- parts


def public_tests(problem: Problem) -> tuple[str | None, list[Case]]:
    """(function, cases) of `problem.data`, else of the lines of the prompt that are tests of one function."""
    given: Any = problem.data.get("public")
    if given:
        return problem.data.get("entry"), list(given)
    found = [case for line in problem.prompt.splitlines() if (case := as_case(line)) is not None]
    if not found:
        return problem.data.get("entry"), []
    entry = found[-1][0]
    return entry, [case for name, case in found if name == entry]


def first_failure(passed: Sequence[bool]) -> str:
    """`ok`, or the number of the first test that failed, counted from 1."""
    return next((str(number) for number, good in enumerate(passed, start=1) if not good), "ok")


def _says(diagnosis: str | None) -> str | None:
    """The part of a diagnosis that can be right or wrong."""
    found = _DIAGNOSIS.fullmatch(word_of(diagnosis) or "")
    return found[1] if found else None


def _assignment(problem: Problem) -> _Assignment:
    entry, cases = public_tests(problem)
    shown = [case_text(entry or "f", case) for case in cases] if problem.data.get("public") else []
    text = "\n".join([*shown, problem.prompt])  # what has to be copied stands next to the reply
    return _Assignment(
        problem.prompt, text, entry or entry_of(problem.prompt), cases, str(problem.data.get("setup", ""))
    )
