"""The configuration of a run on verifiable tasks; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen
from troupe.models.config import PolicyValueConfig, TokenNetConfig
from troupe.search.config import SearchConfig, read_when
from troupe.systems.selfplay.config import LearningConfig, PlayConfig, RunConfig, board_net

__all__ = ["AttemptsConfig", "CurriculumConfig", "JudgeConfig", "TasksConfig", "VerifiableConfig", "token_net_rules"]

Range = tuple[float, float]


class TasksConfig(Frozen):
    """Which tasks are attempted."""

    family: str = "math"
    """A family of `troupe.systems.selfplay.verifiable.families.FAMILIES`, or your own generator as
    package.module:Class."""
    kinds: tuple[str, ...] = ()
    """Kinds of tasks, each with a network of its own; empty: all that the family's generator searches."""
    difficulty: dict[str, Range] = Field(default_factory=dict)
    """Kind -> least and greatest difficulty, of training and of held-out tasks; (0, 1) for kinds that are not named."""
    gate: int = Field(200, ge=10)
    """Held-out tasks, in equal shares of the kinds, on which candidates are judged during the run."""
    final: int = Field(400, ge=10)
    """Further held-out tasks, attempted once at the end by the champion and by the network that the run began with."""
    control: Literal["none", "permuted", "corrupted"] = "none"
    """A run that must not improve: `permuted` shows the learner each position with the observation of another one and
    its policy shuffled among the legal actions; `corrupted` trains on tasks with wrong answers."""


class AttemptsConfig(PlayConfig):
    """How tasks are attempted."""

    tasks: int = Field(512, ge=1)
    """Tasks per iteration, in equal shares of the kinds."""
    failure_weight: float = Field(0.0, ge=0, le=1)
    """Weight of the policies of attempts whose verdict was failure; those of successes weigh 1. Values are learned from
    all attempts."""


class CurriculumConfig(Frozen):
    """Difficulty follows success, kind by kind, within `tasks.difficulty`."""

    enabled: bool = False
    """Off, training tasks come from the whole of `tasks.difficulty`."""
    width: float = Field(0.2, gt=0, le=1)
    """Width of the window that tasks are drawn from; it begins at the easy end."""
    low: float = Field(0.4, ge=0, le=1)
    """The window moves down where a smaller share of an iteration's attempts succeeds."""
    high: float = Field(0.7, ge=0, le=1)
    """And up where a larger one does."""
    step: float = Field(0.1, gt=0, le=1)
    """By so much."""

    @model_validator(mode="after")
    def _fits(self) -> CurriculumConfig:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must lie below high={self.high}")
        return self


class JudgeConfig(Frozen):
    """How candidates are judged."""

    every: int = Field(10, ge=1)
    """Iterations between judgements on the gate's tasks; the last iteration is always judged."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the paired intervals: the gate's, and the final one."""
    after_rejection: Literal["incumbent", "candidate"] = "candidate"
    """Where learning goes on after a rejection: from the incumbent's weights, or from the candidate's, which is judged
    again after further iterations."""


def token_net_rules(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a `TokenNetConfig` at `prefix` depend on its kind."""

    def when(kinds: tuple[str, ...], *names: str) -> ReadWhen:
        def holds(config: Any) -> bool:
            net = getattr(config, prefix)
            return net is not None and net.kind in kinds

        told = ", ".join(f"{prefix}.kind={kind}" for kind in kinds)
        keys = tuple(f"{prefix}.{name}" for name in names)
        return ReadWhen(keys, holds, f"is for {told}; write one of them, or leave it out")

    return (
        when(("mlp",), "embedding"),
        when(("transformer", "hrm", "trm"), "heads"),
        when(("transformer", "mixer", "hrm", "trm"), "expansion"),
        when(("hrm", "trm"), "segments", "cycles", "updates"),
    )


class VerifiableConfig(Frozen):
    """Everything a run on verifiable tasks depends on (document 001)."""

    read_when = (
        *read_when("search"),
        *token_net_rules("net"),
        *token_net_rules("value_net"),
        *board_net("image_net"),
        ReadWhen(
            ("image_net",),
            lambda config: config.tasks.family == "picture" or ":" in config.tasks.family,
            "is for families whose observations are images, such as tasks.family=picture; leave it out",
        ),
        ReadWhen(
            ("net", "value_net"),
            lambda config: config.tasks.family != "picture",
            "is for families whose observations are tokens; tasks.family=picture has image_net",
        ),
        ReadWhen(
            ("tasks.difficulty.*",),
            lambda config, kind: not config.tasks.kinds or kind in config.tasks.kinds,
            "is for runs whose tasks.kinds name {0}; add it there, or leave this out",
        ),
        ReadWhen(
            ("curriculum.width", "curriculum.low", "curriculum.high", "curriculum.step"),
            lambda config: config.curriculum.enabled,
            "is for curriculum.enabled=true; write that, or leave it out",
        ),
    )

    seed: int = Field(0, ge=0)
    """Seeds tasks, weights, searches and minibatches."""
    tasks: TasksConfig = TasksConfig()
    net: TokenNetConfig = TokenNetConfig()
    """Network of kinds whose observations are token ids: policy and value, or the policy alone beside `value_net`."""
    value_net: TokenNetConfig | None = None
    """A second network, for the values: document 001's "with both agents"."""
    image_net: PolicyValueConfig = PolicyValueConfig()
    """Network of kinds whose observations are numbers or images."""
    search: SearchConfig = SearchConfig(simulations=16, c_scale=1.0)
    acting: AttemptsConfig = AttemptsConfig()
    learning: LearningConfig = LearningConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    judge: JudgeConfig = JudgeConfig()
    trainer: RunConfig = RunConfig(default_local_dir="runs/tasks", experiment_name="tasks")

    @model_validator(mode="after")
    def _fits(self) -> VerifiableConfig:
        if self.learning.final_lr > self.learning.lr:
            raise ValueError("learning.final_lr is larger than learning.lr; the rate falls over the run")
        if self.learning.first > self.learning.window:
            raise ValueError("learning.first is larger than learning.window; learning would never begin")
        for kind, (low, high) in self.tasks.difficulty.items():
            if not 0.0 <= low <= high <= 1.0:
                raise ValueError(f"tasks.difficulty.{kind} is {[low, high]}; write two rising numbers within [0, 1]")
        return self


ALIASES: dict[str, str] = {"family": "tasks.family"}
"""Short spellings."""
