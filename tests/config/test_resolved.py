"""The printed config, and the way back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from troupe.config import Frozen, Resolved, load


class Agent(Frozen):
    policy: str = "base"
    turns: int = 1


class Config(Frozen):
    seed: int = 0
    lr: float = 2e-5
    bound: float = math.inf
    name: str = "a run"
    limit: int | None = None
    root: Path = Path("/data")
    lambda_: float = Field(default=0.95, alias="lambda")
    agents: dict[str, Agent] = Field(default_factory=lambda: {"solver": Agent()})
    team: list[Agent] = Field(default_factory=list)
    extra: dict[str, Any] = Field(default_factory=dict)


OVERRIDES = ["seed=3", "lambda=0.9", "name=yes", "+agents.judge.turns=2", "team=[{policy: x}]"]


def test_describe_gives_each_value_with_its_origin() -> None:
    lines = [line.split("#") for line in load(Config, overrides=OVERRIDES).describe().splitlines()]
    rows = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    assert rows == {
        "seed: 3": "override 'seed=3'",
        "lr: 2.0e-05": "default",
        "bound: .inf": "default",
        'name: "yes"': "override 'name=yes'",
        "limit: null": "default",
        "root: /data": "default",
        "lambda: 0.9": "override 'lambda=0.9'",
        "policy: base": "default",
        "turns: 1": "default",
        "turns: 2": "override '+agents.judge.turns=2'",
        "team: [{policy: x, turns: 1}]": "override 'team=[{policy: x}]'",
        "extra: {}": "default",
    }


def test_the_dict_is_json_able_and_every_leaf_has_an_origin() -> None:
    resolved = load(Config, overrides=OVERRIDES)
    assert json.loads(json.dumps(resolved.to_dict()))["agents"]["judge"] == {"policy": "base", "turns": 2}
    assert set(resolved.origins) == {
        *("seed", "lr", "bound", "name", "limit", "root", "lambda", "team", "extra"),
        *(f"agents.{name}.{key}" for name in ("solver", "judge") for key in ("policy", "turns")),
    }


def test_printed_yaml_loads_to_the_same_config(tmp_path: Path) -> None:
    resolved = load(Config, overrides=[*OVERRIDES, '+extra.text="two\nlines"'])
    for text in (resolved.to_yaml(), resolved.describe()):
        path = tmp_path / "again.yaml"
        path.write_text(text, encoding="utf-8")
        assert load(Config, files=[path]).config == resolved.config
    assert yaml.safe_load(resolved.to_yaml())["lr"] == 2e-5  # YAML 1.1 readers agree


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"])),
    lr=st.floats(allow_nan=False),
    extra=st.dictionaries(
        st.text("ab.:#-' 1~", min_size=1),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text("a${}\\\"'# :-\n1e", max_size=8)
        | st.lists(st.floats(0, 1)),
        max_size=3,
    ),
)
def test_any_value_survives_printing(tmp_path_factory: Any, name: str, lr: float, extra: dict[str, Any]) -> None:
    config = Config(name=name, lr=lr, extra=extra)
    path = tmp_path_factory.mktemp("yaml") / "again.yaml"
    path.write_text(Resolved(config, {}).to_yaml(), encoding="utf-8")
    assert load(Config, files=[path]).config == config
