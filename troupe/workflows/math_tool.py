"""Analyzer -> executor (with a calculator) -> verifier, repeated until the verifier accepts.

The loop ends on the verifier's word, never on the ground truth: a trained team runs the same in deployment. What each
agent is paid for (document 004: one reward per agent), afterwards and by `reward` alone:

    analyzer   1 when its plan, computed exactly, gives the right answer;
               a plan in prose is worth what the executor made of it
    executor   0.7 for the right answer and 0.3 for the value that its plan has:
               wrong work is never worth more than right work
    verifier   1 when its verdict agrees with the hidden truth about the answer that it saw

Every attempt is a trajectory of its own, so a second plan's success does not pay for the first one's failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from troupe.agents import Team
from troupe.episode import Message, Outcome, Problem, Task, message
from troupe.errors import ConfigError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.maths.expressions import ExpressionError, evaluate, render
from troupe.protocols import Tool
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts, word_of

__all__ = ["MathToolWorkflow", "plan_value"]

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "analyzer": (
            "You plan the solution of a math problem. Reply with one arithmetic expression of numbers whose value is "
            "the answer, between <ans> and </ans>, for example <ans>(20-5)/3</ans>. For several answers write several "
            "expressions, separated by ', '."
        ),
        "executor": (
            "You carry out a plan with your tools. Compute step by step, then reply with the final answer "
            "between <ans> and </ans>."
        ),
        "verifier": (
            "You check a proposed answer with your tools, best by putting it back into the problem. Reply "
            "with <ans>ok</ans> if it is right and <ans>bad</ans> if it is not."
        ),
    },
    "compact": {"analyzer": "plan", "executor": "compute", "verifier": "check"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""


@dataclass(slots=True)
class _Attempt:
    """One cycle, and the trajectories to pay for it."""

    plan: str | None
    answer: str | None
    verdict: str | None
    analyzer: TrajectoryHandle
    executor: TrajectoryHandle | None = None
    verifier: TrajectoryHandle | None = None


def plan_value(plan: str | None) -> str | None:
    """The exact value of a plan, its components joined by ', '; None where it is no arithmetic."""
    if plan is None:
        return None
    try:
        return ", ".join(render(evaluate(part)) for part in plan.split(","))
    except ExpressionError:
        return None


class MathToolWorkflow:
    """The math team of document 004.

    `max_refinement_iterations` bounds the analyzer -> executor -> verifier cycles, `max_tool_calls` the turns of an
    agent that calls its tools: the calculator and, with `use_python`, `python_tool`, which runs programs. `prompts` is
    `instruct`, `compact` or a mapping of agent to system prompt.
    """

    agent_names = ("analyzer", "executor", "verifier")
    credit: Mapping[str, str] = {
        "analyzer": "1 if its plan computes to the right answer",
        "executor": "0.7 if the answer is right + 0.3 if it is what the plan computes to",
        "verifier": "1 if its verdict agrees with the hidden truth",
    }
    vocabulary = (*PROMPTS["compact"].values(), "Plan: ", "Answer: ", "Rejected: ", "ok", "bad", "error")

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        calculator: Tool,
        max_refinement_iterations: int = 3,
        max_tool_calls: int = 6,
        prompts: str | Mapping[str, str] = "instruct",
        python_tool: Tool | None = None,
        use_python: bool = False,
    ) -> None:
        if max_refinement_iterations < 1:
            raise ConfigError(f"max_refinement_iterations must be at least 1, found {max_refinement_iterations}")
        self.prompts = system_prompts(prompts, PROMPTS, self.agent_names)
        if use_python and python_tool is None:
            raise ConfigError("use_python=true needs python_tool, such as PythonTool(lambda: Sandbox())")
        self.reward_function = reward_function
        self.tools = [calculator, *([python_tool] if use_python and python_tool is not None else [])]
        self.max_refinement_iterations = max_refinement_iterations
        self.max_tool_calls = max_tool_calls
        self._attempts: list[_Attempt] = []
        self._judged: dict[str, bool] = {}
        self._results: list[str] = []  # what the tools answered

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """Cycles until the verifier accepts. Returns metrics; the answer stands in the episode's metadata."""
        asked: list[Message] = [message("system", self.prompts["analyzer"]), message("user", problem.prompt)]
        for _ in range(self.max_refinement_iterations):
            attempt = await self._attempt(problem, agents, asked)
            self._attempts.append(attempt)
            if attempt.verdict == "ok":
                break
            asked.append(message("user", f"Rejected: {attempt.answer}"))
        agents.episode.metadata["answer"] = self._attempts[-1].answer
        return self._metrics()

    async def _attempt(self, problem: Problem, agents: Team, asked: list[Message]) -> _Attempt:
        planner = agents.analyzer.new_trajectory()
        reply = await agents.analyzer.chat(asked)
        asked.append(reply.message)
        plan = answer_in(reply)
        attempt = _Attempt(plan=plan, answer=None, verdict=None, analyzer=planner)
        if plan is None:
            return attempt
        attempt.executor = agents.executor.new_trajectory()
        attempt.answer = await self._use_tool(agents, "executor", f"{problem.prompt}\nPlan: {plan}")
        if attempt.answer is None:
            return attempt
        attempt.verifier = agents.verifier.new_trajectory()
        verdict = await self._use_tool(agents, "verifier", f"{problem.prompt}\nAnswer: {attempt.answer}")
        attempt.verdict = word_of(verdict)
        return attempt

    async def _use_tool(self, agents: Team, name: str, question: str) -> str | None:
        opening = [message("system", self.prompts[name]), message("user", question)]
        reply, conversation = await agents[name].act(opening, self.tools, max_turns=self.max_tool_calls)
        self._results += [str(said["content"]) for said in conversation if said["role"] == "tool"]
        return answer_in(reply)

    def _metrics(self) -> dict[str, float]:
        valid = [not result.startswith("error") for result in self._results]
        return {
            "analyzer_runs": float(len(self._attempts)),
            "executor_attempts": float(sum(a.executor is not None for a in self._attempts)),
            "verifier_checks": float(sum(a.verifier is not None for a in self._attempts)),
            "total_iterations": float(len(self._attempts)),
            "tool_calls": float(len(valid)),
            "accepted": float(self._attempts[-1].verdict == "ok"),
        } | ({"tool_call_validity": sum(valid) / len(valid)} if valid else {})

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays every trajectory, and decides the outcome by the last answer."""
        for attempt in self._attempts:
            self._pay(task, attempt)
        last = self._attempts[-1].answer if self._attempts else None
        solved = self._right(task, last)
        episode.outcome = Outcome.SUCCESS if solved else Outcome.FAILURE
        first = self._attempts[0] if self._attempts else None
        episode.metrics |= {
            "final_success": float(solved),
            "analyzer_success": float(first is not None and self._right(task, plan_value(first.plan))),
            "first_answer_success": float(first is not None and self._right(task, first.answer)),
        }
        self._judge_verifier(task, episode)

    def _pay(self, task: Task, attempt: _Attempt) -> None:
        right = self._right(task, attempt.answer)
        value = plan_value(attempt.plan)
        attempt.analyzer.reward = float(right if value is None and attempt.plan else self._right(task, value))
        if attempt.executor is not None:
            faithful = attempt.answer is not None and attempt.answer == value
            attempt.executor.reward = float(right) if value is None else 0.7 * right + 0.3 * faithful
        if attempt.verifier is not None:
            attempt.verifier.reward = float(attempt.verdict == ("ok" if right else "bad"))

    def _judge_verifier(self, task: Task, episode: EpisodeHandle) -> None:
        """How often right answers were accepted and wrong ones rejected, over this episode's checks."""
        checks = [(self._right(task, a.answer), a.verdict) for a in self._attempts if a.verifier is not None]
        for name, truth, word in (("verifier_true_accepts", True, "ok"), ("verifier_true_rejects", False, "bad")):
            found = [verdict == word for right, verdict in checks if right is truth]
            if found:
                episode.metrics[name] = sum(found) / len(found)

    def _right(self, task: Task, answer: str | None) -> bool:
        if answer is None:
            return False
        if answer not in self._judged:
            self._judged[answer] = self.reward_function(task, answer).is_correct
        return self._judged[answer]
