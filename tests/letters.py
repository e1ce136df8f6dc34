"""A team that earns something even with random weights: pay is the share of letters in what an agent wrote.

Untrained models never solve a math problem, and where every reward is 0 two runs end alike whatever went wrong
between them. Here every update changes the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from troupe.agents import Team
from troupe.episode import Outcome, Problem, Task, message
from troupe.handles import EpisodeHandle
from troupe.protocols import GenerationRequest

__all__ = ["Letters", "LettersTeacher", "register"]


class Letters:
    """writer -> editor -> writer. Each is paid for its own letters; the team succeeds where the last text has many."""

    agent_names = ("writer", "editor")
    credit: ClassVar[Mapping[str, str]] = {"writer": "share of letters", "editor": "share of letters"}

    def __init__(self, *, enough: float = 0.6) -> None:
        self.enough = enough

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        asked = [message("user", problem.prompt)]
        draft = await agents.writer.chat(asked)
        remark = await agents.editor.chat([message("user", f"{problem.prompt} {draft.text}")])
        final = await agents.writer.chat([*asked, draft.message, message("user", remark.text)])
        agents.episode.metadata["answer"] = final.text
        return {"characters": float(len(final.text))}

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        for trajectory in episode.trajectories:
            trajectory.reward = _letters("".join(str(step.action["content"]) for step in trajectory.steps))
        enough = _letters(str(episode.metadata.get("answer", ""))) >= self.enough
        episode.outcome = Outcome.SUCCESS if enough else Outcome.FAILURE


class LettersTeacher:
    """Says the beginning of the problem."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._prompts = {task.id: task.prompt for task in tasks}

    @staticmethod
    def can_teach(task: Task) -> bool:
        return True

    def __call__(self, request: GenerationRequest) -> str:
        *_, task, _, agent, call = request.key
        return f"{agent[0]}{call} {self._prompts[task][:6]}"


def _letters(text: str) -> float:
    return sum(c.isalpha() for c in text) / max(1, len(text))


def register(workflows: dict[str, Any], teachers: dict[str, Any]) -> None:
    """Makes `workflow.name=letters` known to this process."""
    workflows["letters"] = Letters
    teachers["letters"] = LettersTeacher
