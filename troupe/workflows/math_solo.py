"""One agent with a calculator: what a team is compared with.

The solver calls the calculator until it answers. It is paid 1 for the right answer, so it learns what the team's
analyzer and executor learn, with nobody to check it. `benchmarks/team.py` trains it with the team's demonstrations and
CPU time.
"""

from __future__ import annotations

from collections.abc import Mapping

from troupe.agents import Team
from troupe.episode import Outcome, Problem, Task, message
from troupe.handles import EpisodeHandle
from troupe.protocols import Tool
from troupe.workflows.roles import RewardFunction, answer_in, system_prompts

__all__ = ["MathSoloWorkflow"]

PROMPTS: dict[str, dict[str, str]] = {
    "instruct": {
        "solver": (
            "You solve a math problem with the calculator tool. Compute step by step, then reply with the final "
            "answer between <ans> and </ans>; separate several answers by ', '."
        ),
    },
    "compact": {"solver": "solve"},
}
"""System prompts: `instruct` for instruction-tuned models, `compact` for models trained on this workflow from
scratch."""


class MathSoloWorkflow:
    """The single agent. `max_tool_calls` bounds its turns; `prompts` is `instruct`, `compact` or a mapping of agent to
    system prompt."""

    agent_names = ("solver",)
    credit: Mapping[str, str] = {"solver": "1 if its answer is right"}
    vocabulary = (*PROMPTS["compact"].values(), "error")

    def __init__(
        self,
        *,
        reward_function: RewardFunction,
        calculator: Tool,
        max_tool_calls: int = 6,
        prompts: str | Mapping[str, str] = "instruct",
    ) -> None:
        self.reward_function = reward_function
        self.calculator = calculator
        self.max_tool_calls = max_tool_calls
        self.prompt = system_prompts(prompts, PROMPTS, self.agent_names)["solver"]
        self._answer: str | None = None

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """One conversation. Returns metrics; the answer stands in the episode's metadata."""
        opening = [message("system", self.prompt), message("user", problem.prompt)]
        reply, conversation = await agents.solver.act(opening, [self.calculator], max_turns=self.max_tool_calls)
        self._answer = agents.episode.metadata["answer"] = answer_in(reply)
        valid = [not str(said["content"]).startswith("error") for said in conversation if said["role"] == "tool"]
        validity = {"tool_call_validity": sum(valid) / len(valid)} if valid else {}
        return {"tool_calls": float(len(valid))} | validity

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays the conversation, and decides the outcome."""
        solved = self._answer is not None and self.reward_function(task, self._answer).is_correct
        for trajectory in episode.of("solver"):
            trajectory.reward = float(solved)
        episode.metrics["final_success"] = float(solved)
        episode.outcome = Outcome.SUCCESS if solved else Outcome.FAILURE
