"""What each kind of mismatch is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from troupe.config import Frozen, load
from troupe.errors import ConfigError


class Mode(StrEnum):
    JOINT = "joint"
    SEPARATE = "separate"


class Ppo(Frozen):
    kind: Literal["ppo"] = "ppo"
    clip: float = Field(default=0.2, gt=0, lt=1)


class Grpo(Frozen):
    kind: Literal["grpo"] = "grpo"
    n: int = Field(default=8, ge=2)


class Config(Frozen):
    count: int = 0
    rate: float = 0.0
    flag: bool = False
    maybe: bool | None = None
    text: str = ""
    path: Path = Path(".")
    mode: Mode = Mode.JOINT
    pair: tuple[float, float] = (0.0, 1.0)
    names: list[str] = Field(default_factory=list, max_length=2)
    table: dict[str, int] = Field(default_factory=dict)
    either: int | str = 0
    lists: list[int] | int = 1
    loss: Annotated[Ppo | Grpo, Field(discriminator="kind")] = Ppo()
    stages: list[Ppo] = Field(default_factory=list)
    share: float = Field(default=0.5, ge=0, le=1)


def config(text: str, folder: Path) -> Config:
    path = folder / "my.yaml"
    path.write_text(text)
    return load(Config, files=[path]).config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("count: 1.5", "count: expected an integer, found 1.5"),
        ("count: true", "count: expected an integer, found true"),
        ("count: null", "count: expected an integer, found null"),
        ("rate: fast", "rate: expected a number, found 'fast'"),
        ("rate: [1]", "rate: expected a number, found [1]"),
        ("rate: false", "rate: expected a number, found false"),
        ("flag: yes", "flag: expected true or false, found 'yes'"),
        ("flag: 1", "flag: expected true or false, found 1"),
        ("maybe: off", "maybe: expected true or false, found 'off'"),
        ("text: null", "text: expected a string, found null"),
        ("text: [a]", "text: expected a string, found ['a']"),
        ("mode: jont", "mode: expected one of 'joint', 'separate', found 'jont' (did you mean 'joint'?)"),
        ("pair: [1]", "pair: expected more items, found [1]"),
        ("pair: 1", "pair: expected a list, found 1"),
        ("names: [a, [1]]", "names.1: expected a string, found [1]"),
        ("names: [a, b, c]", "names: list should have at most 2 items after validation, not 3"),
        ("table: 3", "table: expected keys with values, found 3"),
        ("table: {a: x}", "table.a: expected an integer, found 'x'"),
        ("either: [1]", "either: expected an integer or a string, found [1]"),
        ("loss: {kind: ppo, clip: 2}", "loss.clip: must be < 1, found 2"),
        (
            "loss: {kind: dpo}",
            "loss: tag 'dpo' found using 'kind' does not match any of the expected tags: 'ppo', 'grpo'",
        ),
        ("loss: {kind: grpo, clip: 0.1}", "loss.clip: unknown key; only another kind of loss has it"),
        ("stages: [{clip: 0.1}, {clip: 0}]", "stages.1.clip: must be > 0, found 0"),
        ("stages: [{clap: 0.1}]", "stages.0.clap: unknown key (did you mean 'clip'?)"),
        ("share: 2", "share: must be <= 1, found 2"),
        ("share: -1", "share: must be >= 0, found -1"),
        ("share: ???", "share: has to be given a value in place of '???'"),
        ("loss.n: 2", "loss.n: unknown key; write it nested, loss: {n: ...}"),
        ("defaults: [x]", "defaults: unknown key; in place of Hydra's defaults list write 'extends: other.yaml'"),
    ],
)
def test_mismatches(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(text, tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path}/my.yaml:1: {problem}")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("rate: 1e-3", "rate", 1e-3),
        ("rate: 1", "rate", 1.0),
        ("count: 1e3", "count", 1000),
        ("flag: TRUE", "flag", True),
        ("maybe: null", "maybe", None),
        ("text: 1.10", "text", "1.10"),
        ("text: 007", "text", "007"),
        ("text: yes", "text", "yes"),
        ("text: true", "text", "true"),
        ("path: 2024", "path", Path("2024")),
        ("names: [1.10, a]", "names", ["1.10", "a"]),
        ("mode: separate", "mode", Mode.SEPARATE),
        ("pair: [1, 2]", "pair", (1.0, 2.0)),
        ("either: 3", "either", 3),
        ("either: x", "either", "x"),
        ("lists: [1]", "lists", [1]),
        ("loss: {kind: grpo, n: 4}", "loss", Grpo(n=4)),
        ("stages: [{clip: 0.5}]", "stages", [Ppo(clip=0.5)]),
    ],
)
def test_values_that_fit(text: str, name: str, value: Any, tmp_path: Path) -> None:
    found = getattr(config(text, tmp_path), name)
    assert found == value
    assert type(found) is type(value)
