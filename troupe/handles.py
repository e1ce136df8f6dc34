"""A running episode: mutable handles that freeze into the records of `troupe.episode`.

Document 004 assigns rewards while an episode runs (`trajectory.steps[0].reward = r`); a frozen record could not be
assigned to, and a mutable one could not be trusted afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from troupe.episode import Episode, Outcome, Step, StopReason, Tokens, Trajectory

__all__ = ["EpisodeHandle", "StepHandle", "TrajectoryHandle"]


@dataclass(slots=True)
class StepHandle:
    """A step of a running episode. `reward` and `info` may be set until the episode completes."""

    id: str
    agent: str
    parent: str | None
    observation: Any
    action: Any
    tokens: Tokens | None
    reward: float | None = None
    done: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    def freeze(self) -> Step:
        return Step(
            id=self.id,
            agent=self.agent,
            parent=self.parent,
            observation=self.observation,
            action=self.action,
            reward=None if self.reward is None else float(self.reward),
            done=self.done,
            info=dict(self.info),
            tokens=self.tokens,
        )


@dataclass(slots=True)
class TrajectoryHandle:
    """One attempt of one agent in a running episode. `reward` may be set until the episode completes."""

    agent: str
    steps: list[StepHandle] = field(default_factory=list)
    reward: float | None = None
    stop_reason: StopReason = StopReason.UNKNOWN

    def freeze(self) -> Trajectory:
        reward = None if self.reward is None else float(self.reward)
        if self.steps:
            self.steps[-1].done = True
        return Trajectory(self.agent, tuple(step.freeze() for step in self.steps), reward, self.stop_reason)


@dataclass(slots=True)
class EpisodeHandle:
    """A running episode."""

    id: str
    task_id: str
    group: str = ""
    seed: int = 0
    trajectories: list[TrajectoryHandle] = field(default_factory=list)
    outcome: Outcome = Outcome.FAILURE
    metrics: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def of(self, agent: str) -> list[TrajectoryHandle]:
        """The trajectories of one agent, in the order in which they began."""
        return [t for t in self.trajectories if t.agent == agent]

    def freeze(self) -> Episode:
        """The episode as a value. Trajectories without a step are dropped: nothing happened in them."""
        return Episode(
            id=self.id,
            task_id=self.task_id,
            trajectories=tuple(t.freeze() for t in self.trajectories if t.steps),
            outcome=self.outcome,
            metrics={name: float(value) for name, value in self.metrics.items()},
            group=self.group,
            seed=self.seed,
            metadata=dict(self.metadata),
        )
