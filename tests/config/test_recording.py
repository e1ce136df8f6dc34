"""Keys that nothing reads are found."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from troupe.config import Frozen, Recording, leaf_paths, unread


class Optim(Frozen):
    lr: float = 1.0
    warmup: int = 2

    @property
    def first(self) -> float:
        return self.lr / self.warmup

    def scaled(self, factor: float) -> float:
        return self.lr * factor


class Agent(Frozen):
    policy: str = "base"
    turns: int = 1


class Config(Frozen):
    seed: int = 0
    lambda_: float = Field(default=0.9, alias="lambda")
    optim: Optim = Optim()
    critic: Optim | None = None
    agents: dict[str, Agent] = Field(default_factory=lambda: {"a": Agent(), "b": Agent(turns=2)})
    team: list[Agent] = Field(default_factory=lambda: [Agent()])
    table: dict[str, int] = Field(default_factory=dict)


def test_leaf_paths_go_into_sections_dicts_and_lists() -> None:
    assert leaf_paths(Config) == [
        *("seed", "lambda", "optim.lr", "optim.warmup", "critic.lr", "critic.warmup"),
        *("agents.*.policy", "agents.*.turns", "team.*.policy", "team.*.turns", "table"),
    ]


def test_a_section_that_holds_itself_is_followed_once() -> None:
    assert leaf_paths(Branch) == ["name", "left", "others"]


class Branch(Frozen):
    name: str = ""
    left: Branch | None = None
    others: list[Branch] = Field(default_factory=list)


def test_only_what_is_read_counts() -> None:
    recording = Recording(Config())
    assert recording.unread() == unread(Config(), ())
    assert recording.optim.lr == 1.0
    assert recording.lambda_ == 0.9
    assert recording.critic is None
    assert [agent.turns for agent in recording.agents.values()] == [1, 2]
    assert recording.unread() == ["seed", "optim.warmup", "agents.*.policy", "team.*.policy", "team.*.turns", "table"]


def test_everything_read_leaves_nothing() -> None:
    recording = Recording(Config())
    for agent in (*recording.agents.values(), *recording.team):
        assert agent == Agent(policy=agent.policy, turns=agent.turns)
    assert (recording.seed, recording.lambda_, recording.optim.first) == (0, 0.9, 0.5)
    assert (recording.critic, recording.table) == (None, {})
    assert recording.unread() == []


def test_properties_and_methods_read_what_they_use_and_dumping_reads_nothing() -> None:
    recording = Recording(Optim())
    assert recording.model_dump() == {"lr": 1.0, "warmup": 2}
    assert recording.unread() == ["lr", "warmup"]
    assert recording.scaled(2) == 2.0
    assert recording.unread() == ["warmup"]
    assert recording.first == 0.5
    assert recording.unread() == []


def test_a_recording_stands_in_for_its_config() -> None:
    recording = Recording(Config())
    assert isinstance(recording, Config)
    assert isinstance(recording.optim, Optim)
    assert recording == Config()
    assert "Optim" in repr(recording.optim)
    with pytest.raises(ValidationError, match="frozen"):
        recording.seed = 1
    with pytest.raises(AttributeError, match="nothing"):
        recording.nothing  # noqa: B018
