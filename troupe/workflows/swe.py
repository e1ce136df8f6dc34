"""Analyzer -> writer -> validator, repeated until the validator accepts: a team that repairs a file tree.

The analyzer names the line at fault, the writer sees that region and writes the patch, the validator runs the visible
test on the patched tree and gives a verdict. The loop ends on that verdict, never on the ground truth: a trained team
runs the same in deployment. What each agent is paid for (document 004), afterwards and by `reward` alone:

    analyzer    1 when it names a line that the reference fix changes
    writer      1 when its patch applies and the hidden tests pass (or what another `reward_function` pays for it)
    validator   1 when its verdict agrees with the hidden tests about the patch that it saw

Every attempt is a trajectory of its own. The writer's answer is a unified diff, or the short form of one: lines
`3: return x+2`, the new text of line 3 of the file that the analyzer named (`b.py:3: ...` for another one), indented as
the line that it replaces. With the tool `edit` it may also change its working copy and say that it is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from troupe.agents import Reply, Team
from troupe.episode import Message, Outcome, Problem, Task, message
from troupe.errors import ConfigError, DataError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.protocols import Reward, Tool
from troupe.sandbox.listings import read_listing, read_test
from troupe.sandbox.patches import PatchError, Tree, apply_patch, make_patch
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts, word_of

__all__ = ["RUN", "SWEWorkflow", "as_patch", "location_in", "region"]

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "analyzer": (
            "You find the fault in a program. Read and search its files with the tools where the problem does not show "
            "them. Reply with the file and the line that must change between <ans> and </ans>, for example "
            "<ans>src/a.py:3</ans>."
        ),
        "writer": (
            "You repair a program at the place that an analyst named. Reply with a patch between <ans> and </ans>: a "
            "unified diff, or for each changed line its number, a colon and its new text, for example "
            "<ans>3: return x + 2</ans>. Or change the files with the tool `edit`, then reply without a patch. If "
            "nothing is wrong at that place, reply <ans>?</ans>."
        ),
        "validator": (
            "You judge whether a patch solves a problem. Run the visible test on the patched program with the tool "
            "`run`, and think of inputs that it does not try. Reply <ans>ok</ans> if the patch is right and "
            "<ans>bad</ans> if it is not."
        ),
    },
    "compact": {"analyzer": "find", "writer": "fix", "validator": "judge"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""

RUN = '<tool_call>{"name": "run"}</tool_call>'
"""What a validator trained from scratch says to run the visible test."""

_PLACE = re.compile(r"(?:(?P<path>[^\s:]+):)?(?P<line>\d{1,7})")
_EDIT = re.compile(rf"{_PLACE.pattern}:(?P<text>.*)")


def location_in(answer: str | None, files: Tree) -> tuple[str, int] | None:
    """(path, line) of `src/a.py:3`; a lone number is a line of the only file. None for what is no line of the tree."""
    match = _PLACE.match(answer.strip()) if answer else None
    if match is None:
        return None
    path = match["path"] or (next(iter(files)) if len(files) == 1 else "")
    line = int(match["line"])
    return (path, line) if path in files and 1 <= line <= len(_lines(files[path])) else None


def region(files: Tree, path: str, line: int, context: int) -> str:
    """Numbered lines around a place, under the place itself."""
    lines = _lines(files[path])
    shown = range(max(1, line - context), min(len(lines), line + context) + 1)
    return "\n".join([f"Fault: {path}:{line}", *(f"{n} {lines[n - 1]}" for n in shown)])


def as_patch(files: Tree, answer: str, path: str) -> str:
    """The unified diff that a writer's answer stands for; `path` is the file of edits that name none.

    Raises PatchError where it does not apply to the files, or changes nothing.
    """
    if re.match(r"diff --git |--- ", answer):
        patch = answer if answer.endswith("\n") else f"{answer}\n"
        changed = apply_patch(files, patch)
    else:
        changed, patch = _edited(files, answer, path), ""
    if changed == files:
        raise PatchError("the answer changes nothing")
    return patch or make_patch(files, changed)


def _edited(files: Tree, answer: str, path: str) -> dict[str, str]:
    changed = {name: _lines(text) for name, text in files.items()}
    for edit in answer.split("\n"):
        match = _EDIT.fullmatch(edit.strip())
        if match is None:
            raise PatchError(f"{edit[:60]!r} is neither part of a patch nor an edit such as '3: return x'")
        name, line = match["path"] or path, int(match["line"])
        if not 1 <= line <= len(changed.get(name, ())):
            raise PatchError(f"there is no line {name}:{line}")
        old = changed[name][line - 1]
        changed[name][line - 1] = old[: len(old) - len(old.lstrip())] + match["text"].strip()
    return {name: "\n".join(lines) + "\n" * files[name].endswith("\n") for name, lines in changed.items()}


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


@dataclass(slots=True)
class _Attempt:
    """One cycle, and the trajectories to pay for it."""

    analyzer: TrajectoryHandle
    place: tuple[str, int] | None = None
    answer: str | None = None  # the writer's own words
    patch: str | None = None  # what they stand for; None where that applies to nothing
    verdict: str | None = None
    writer: TrajectoryHandle | None = None
    validator: TrajectoryHandle | None = None

    @property
    def rejected(self) -> str:
        """What the analyzer hears of it."""
        return self.answer if self.patch and self.answer else ":".join(map(str, self.place or "?"))


class SWEWorkflow:
    """The SWE team of document 004.

    `workspace(files, tests)` makes a working copy whose tools `read`, `search`, `edit` and `run` the agents get;
    `location_function(task, path, line)` says whether a line is at fault. `max_refinement_iterations` bounds the
    analyzer -> writer -> validator cycles, `max_tool_calls` the turns of one agent, `context_lines` how much the
    writer sees around the place; `prompts` is `instruct`, `compact` or a mapping of agent to system prompt.
    A problem has its files and its visible tests in `data`, or else in its text, as `troupe.sandbox.listings` writes
    them; the tasks of repositories get theirs from a checkout.
    """

    agent_names = ("analyzer", "writer", "validator")
    credit: Mapping[str, str] = {
        "analyzer": "1 if it names a line that the reference fix changes",
        "writer": "1 if its patch applies and passes the hidden tests",
        "validator": "1 if its verdict agrees with the hidden tests",
    }
    vocabulary = (*PROMPTS["compact"].values(), "Fault: ", "Patch: ", "Rejected: ", "ok", "bad", "?", RUN)

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        location_function: Callable[[Task, str, int], bool],
        workspace: Callable[..., Any],
        max_refinement_iterations: int = 3,
        max_tool_calls: int = 12,
        context_lines: int = 10,
        prompts: str | Mapping[str, str] = "instruct",
    ) -> None:
        if max_refinement_iterations < 1:
            raise ConfigError(f"max_refinement_iterations must be at least 1, found {max_refinement_iterations}")
        self.prompts = system_prompts(prompts, PROMPTS, self.agent_names)
        self.reward_function = reward_function
        self.location_function = location_function
        self.workspace = workspace
        self.max_refinement_iterations = max_refinement_iterations
        self.max_tool_calls = max_tool_calls
        self.context_lines = context_lines
        self._attempts: list[_Attempt] = []
        self._judged: dict[str | None, Reward] = {}
        self._tool_calls = 0

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """Cycles until the validator accepts. Returns metrics; the last patch stands in the episode's metadata."""
        problem = _with_files(problem)
        asked: list[Message] = [message("system", self.prompts["analyzer"]), message("user", problem.prompt)]
        for _ in range(self.max_refinement_iterations):
            attempt = _Attempt(agents.analyzer.new_trajectory())
            self._attempts.append(attempt)
            await self._analyze(problem, agents, asked, attempt)
            if attempt.place is not None:
                await self._write(problem, agents, attempt)
            if attempt.patch is not None:
                await self._validate(problem, agents, attempt)
            if attempt.verdict == "ok":
                break
            asked.append(message("user", f"Rejected: {attempt.rejected}"))
        agents.episode.metadata["answer"] = self._attempts[-1].patch
        return self._metrics()

    async def _analyze(self, problem: Problem, agents: Team, asked: list[Message], attempt: _Attempt) -> None:
        tools = self._tools(problem, "read", "search")
        reply, asked[:] = await self._act(agents, "analyzer", asked, tools)
        attempt.place = location_in(answer_in(reply), problem.data["files"])

    async def _write(self, problem: Problem, agents: Team, attempt: _Attempt) -> None:
        assert attempt.place is not None
        attempt.writer = agents.writer.new_trajectory()
        files, (path, line) = problem.data["files"], attempt.place
        workspace = self.workspace(files, problem.data.get("tests"))
        asked = f"{_issue(problem)}\n{region(files, path, line, self.context_lines)}"
        tools = [workspace[name] for name in ("read", "search", "edit", "run")]
        reply, _ = await self._act(agents, "writer", self._opening("writer", asked), tools)
        attempt.answer = answer_in(reply)
        try:
            if attempt.answer is not None:
                attempt.patch = as_patch(files, attempt.answer, path)
            elif not reply.truncated and not reply.tool_calls:
                attempt.answer = attempt.patch = workspace.patch() or None
        except PatchError:
            attempt.patch = None

    async def _validate(self, problem: Problem, agents: Team, attempt: _Attempt) -> None:
        attempt.validator = agents.validator.new_trajectory()
        workspace = self.workspace(problem.data["files"], problem.data.get("tests"))
        workspace.apply(attempt.patch)
        asked = self._opening("validator", f"{_issue(problem)}\nPatch: {attempt.answer}")
        reply, _ = await self._act(agents, "validator", asked, [workspace["run"], workspace["read"]])
        attempt.verdict = word_of(answer_in(reply))

    def _opening(self, name: str, asked: str) -> list[Message]:
        return [message("system", self.prompts[name]), message("user", asked)]

    def _tools(self, problem: Problem, *names: str) -> list[Tool]:
        workspace = self.workspace(problem.data["files"], problem.data.get("tests"))
        return [workspace[name] for name in names]

    async def _act(
        self, agents: Team, name: str, asked: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[Reply, list[Message]]:
        reply, conversation = await agents[name].act(asked, tools, max_turns=self.max_tool_calls)
        self._tool_calls += sum(said["role"] == "tool" for said in conversation[len(asked) :])
        return reply, conversation

    def _metrics(self) -> dict[str, float]:
        answers = [attempt for attempt in self._attempts if attempt.writer is not None]
        return {
            "analyzer_runs": float(len(self._attempts)),
            "writer_attempts": float(len(answers)),
            "validator_checks": float(sum(a.validator is not None for a in self._attempts)),
            "total_iterations": float(len(self._attempts)),
            "tool_calls": float(self._tool_calls),
            "accepted": float(self._attempts[-1].verdict == "ok"),
        } | ({"patch_applies": sum(a.patch is not None for a in answers) / len(answers)} if answers else {})

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays every trajectory, and decides the outcome by the last patch."""
        for attempt in self._attempts:
            attempt.analyzer.reward = float(self._located(task, attempt))
            right = self._right(task, attempt.patch)
            if attempt.writer is not None:
                attempt.writer.reward = self._judge(task, attempt.patch).reward
            if attempt.validator is not None:
                attempt.validator.reward = float(attempt.verdict == ("ok" if right else "bad"))
        last = self._attempts[-1].patch if self._attempts else None
        solved = self._right(task, last)
        episode.outcome = Outcome.SUCCESS if solved else Outcome.FAILURE
        episode.metrics["final_success"] = float(solved)
        episode.metrics["analyzer_success"] = float(bool(self._attempts) and self._located(task, self._attempts[0]))
        written = [self._right(task, a.patch) for a in self._attempts if a.writer is not None]
        if written:
            episode.metrics["writer_success_rate"] = sum(written) / len(written)
        self._judge_validator(task, episode)

    def _judge_validator(self, task: Task, episode: EpisodeHandle) -> None:
        """How often right patches were accepted and wrong ones rejected, over this episode's checks."""
        checks = [(self._right(task, a.patch), a.verdict) for a in self._attempts if a.validator is not None]
        for name, truth, word in (("validator_true_accepts", True, "ok"), ("validator_true_rejects", False, "bad")):
            found = [verdict == word for right, verdict in checks if right is truth]
            if found:
                episode.metrics[name] = sum(found) / len(found)

    def _located(self, task: Task, attempt: _Attempt) -> bool:
        return attempt.place is not None and self.location_function(task, *attempt.place)

    def _right(self, task: Task, patch: str | None) -> bool:
        return self._judge(task, patch).is_correct

    def _judge(self, task: Task, patch: str | None) -> Reward:
        if patch not in self._judged:
            self._judged[patch] = self.reward_function(task, patch)
        return self._judged[patch]


def _issue(problem: Problem) -> str:
    """What is wrong, without the listing of the files that a short problem shows."""
    return str(problem.data.get("issue", problem.prompt))


def _with_files(problem: Problem) -> Problem:
    """The problem with its files and visible tests; those of a problem that is a text alone are read out of it."""
    if problem.data.get("files"):
        return problem
    if problem.data.get("repository"):
        repository = problem.data["repository"]
        raise DataError(f"task {problem.id} lacks a checkout of {repository}; add one with with_checkout(task, folder)")
    files, issue = read_listing(problem.prompt)
    if not files:
        raise DataError(
            f"task {problem.id} lacks its files; put them into data['files'], or into the problem as lines such as "
            "'a.py', '1 def f(x):', '2  return x'"
        )
    return replace(problem, data={**problem.data, "files": files, "issue": issue, "tests": read_test(issue, files)})
