"""What `=`, `+`, `++` and `~` do to fields and to entries of dicts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from troupe.config import Frozen, load
from troupe.errors import ConfigError


class Agent(Frozen):
    policy: str = "base"
    turns: int = 1


class Config(Frozen):
    seed: int = 0
    limit: int | None = None
    agents: dict[str, Agent] = Field(default_factory=lambda: {"solver": Agent(turns=2)})
    extra: dict[str, Any] = Field(default_factory=dict)
    team: list[Agent] = Field(default_factory=list)
    agent: Agent = Agent(turns=5)


def config(*overrides: str) -> Config:
    return load(Config, overrides=overrides).config


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_field_is_set_by_any_sign() -> None:
    assert config("seed=1").seed == config("+seed=1").seed == config("++seed=1").seed == 1
    assert config("+limit=3").limit == 3
    assert config("limit=3", "limit=null").limit is None


def test_the_last_override_of_a_key_wins() -> None:
    assert config("seed=1", "seed=2").seed == 2


def test_an_entry_that_exists_is_set_and_a_new_one_is_added() -> None:
    assert config("agents.solver.policy=x").agents["solver"] == Agent(policy="x", turns=2)
    assert config("+agents.judge.turns=3").agents["judge"] == Agent(turns=3)
    assert config("++agents.judge.turns=3", "agents.judge.turns=4").agents["judge"] == Agent(turns=4)
    assert config("+extra.a.b=1", "+extra.a.c=[x]").extra == {"a": {"b": 1, "c": ["x"]}}
    assert config("extra.a.b=1", "extra.a.b=2", "extra.c=3").extra == {"a": {"b": 2}, "c": 3}  # nothing is known of it


def test_dicts_are_merged_and_lists_replaced() -> None:
    assert set(config("agents={judge: {turns: 3}}").agents) == {"solver", "judge"}
    assert config("team=[{turns: 2}]", "team=[{policy: x}]").team == [Agent(policy="x")]


def test_a_new_entry_needs_a_plus() -> None:
    assert refusal("agents.judge.turns=3") == (
        "override 'agents.judge.turns=3': agents.judge: there is no such entry yet (known: solver); "
        "write '+agents.judge.turns=3' to add it"
    )
    assert "(did you mean 'solver'?)" in refusal("agents.solvr.turns=3")


def test_a_plus_needs_a_new_entry() -> None:
    assert refusal("+agents.solver={turns: 3}") == (
        "override '+agents.solver={turns: 3}': agents.solver: there is such an entry already; "
        "write 'agents.solver={turns: 3}' to change it"
    )


def test_a_tilde_removes_an_entry_and_resets_a_field() -> None:
    assert config("~agents.solver").agents == {}
    assert config("seed=3", "~seed").seed == 0
    assert config("agent.turns=9", "~agent.turns").agent == Agent(turns=5)
    assert config("agent.policy=x", "~agent").agent == Agent(turns=5)
    assert config("+extra.a=1", "~extra.a").extra == {}
    assert refusal("~agents.solvr") == (
        "override '~agents.solvr': agents.solvr: there is no such entry to remove (did you mean 'solver'?)"
    )


def test_a_tilde_with_a_value_removes_only_that_value() -> None:
    assert config("seed=3", "~seed=3").seed == 0
    assert config("agents.solver.turns=9", "~agents.solver.turns=9").agents["solver"].turns == 2
    assert config("+extra.a=1", "~extra.a=1").extra == {}
    assert refusal("seed=3", "~seed=4") == "override '~seed=4': seed: is 3, not 4; write ~seed to remove it anyway"


@pytest.mark.parametrize(
    ("override", "end"),
    [
        ("sed=1", "sed: unknown key (did you mean 'seed'?)"),
        ("policy=1", "policy: unknown key (did you mean 'agents.*.policy' or 'team.*.policy' or 'agent.policy'?)"),
        ("+nothing=1", "'+' adds entries to dicts only"),
        ("agent.turn=1", "agent.turn: unknown key (did you mean 'turns'?)"),
        ("seed.x=1", "seed.x: unknown key; seed holds a single value"),
        ("team.0.turns=1", "team.0: lists are assigned whole; write team=[...]"),
        ("agents.solver.polcy=1", "agents.solver.polcy: unknown key (did you mean 'policy'?)"),
        ("~agent.turn", "agent.turn: unknown key (did you mean 'turns'?)"),
        ("defaults=[a]", "in place of Hydra's defaults list write 'extends: other.yaml'"),
    ],
)
def test_a_key_that_does_not_exist(override: str, end: str) -> None:
    assert refusal(override).endswith(end)
