"""A key that somebody wrote and that nothing would read is a problem, unless nobody chose it for this run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from troupe.config import Frozen, ReadWhen, load
from troupe.errors import ConfigError


class Agent(Frozen):
    kind: str = "talker"
    volume: int = 1


class Critic(Frozen):
    lr: float = 1e-3
    clip: float | None = None


class Config(Frozen):
    read_when = (
        ReadWhen(("critic",), lambda config: config.method == "ppo", "is for ppo, not {method}; write method=ppo"),
        ReadWhen(("steps",), lambda config: config.on, "needs on=true", switch="on"),
        ReadWhen(
            ("agents.*.volume",),
            lambda config, agent: config.agents[agent].kind == "talker",
            "is for talkers; write agents.{0}.kind=talker",
        ),
    )

    method: str = "ppo"
    on: bool = False
    steps: int = 1
    width: int = 1
    critic: Critic = Critic()
    agents: dict[str, Agent] = {}  # noqa: RUF012  # pydantic copies it


def problems(**sources: object) -> list[str]:
    """The lines of the error that loading raises, none where it does not."""
    try:
        load(Config, **sources)  # type: ignore[arg-type]
    except ConfigError as error:
        return str(error).splitlines()
    return []


def written(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_what_an_override_a_file_or_a_mapping_says_is_read_or_refused(tmp_path: Path) -> None:
    said = "critic.lr: is for ppo, not pg; write method=ppo"
    assert problems(overrides=["method=pg", "critic.lr=0.1"]) == [f"override 'critic.lr=0.1': {said}"]
    path = written(tmp_path, "method: pg\ncritic:\n  lr: 0.1\n")
    assert problems(files=[path]) == [f"{path}:3: {said}"]
    assert problems(preset={"method": "pg", "critic": {"lr": 0.1}}) == [f"preset: {said}"]
    assert problems(files=[path], overrides=["method=ppo"]) == []


def test_a_value_that_is_the_default_is_refused_too() -> None:
    assert len(problems(overrides=["method=pg", "critic.clip=null"])) == 1


def test_defaults_and_presets_stay_silent_where_what_the_user_says_leaves_them_unread(tmp_path: Path) -> None:
    preset = written(tmp_path, "critic: {lr: 0.5}", "preset.yaml")
    assert problems(preset=preset, overrides=["method=pg"]) == []
    assert len(problems(preset=preset, overrides=["method=pg", "critic.lr=0.5"])) == 1
    assert problems(preset=preset, overrides=["method=pg", "~critic.lr"]) == []


def test_a_layer_that_gives_every_key_is_a_record_and_what_is_said_above_it_is_not(tmp_path: Path) -> None:
    whole = load(Config, overrides=["agents={a: {volume: 3}}", "critic.lr=0.5"]).to_dict() | {"method": "pg"}
    path = written(tmp_path, json.dumps(whole, indent=1), "config.json")
    for source in ({"files": [path]}, {"preset": whole}):
        assert problems(**source) == []
        assert len(problems(**source, overrides=["critic.lr=0.1"])) == 1
    del whole["width"]
    assert len(problems(preset=whole)) == 2  # one key is missing, so somebody chose the others: lr and clip, too


def test_a_stage_that_is_switched_off_by_name_may_keep_its_settings() -> None:
    assert problems(overrides=["steps=3"]) == ["override 'steps=3': steps: needs on=true"]
    assert problems(overrides=["steps=3", "on=false"]) == problems(overrides=["steps=3", "on=true"]) == []


def test_entries_of_a_dict_are_judged_one_by_one() -> None:
    agents = "agents={a: {volume: 2}, b: {volume: 2, kind: listener}}"
    assert problems(overrides=[agents]) == [
        f"override '{agents}': agents.b.volume: is for talkers; write agents.b.kind=talker"
    ]


def test_it_is_listed_with_everything_else_that_is_wrong() -> None:
    found = problems(overrides=["method=pg", "critic.lr=0.1", "wdith=3", "width=wide", "critic.clip=low", "=1"])
    assert [line.partition("': ")[2] for line in found] == [
        "wdith: unknown key (did you mean 'width'?)",
        "width: expected an integer, found 'wide'",
        "critic.clip: expected a number, found 'low'",
        "critic.lr: is for ppo, not pg; write method=ppo",
        "'' is not a key; write names joined by dots, such as a.b=VALUE",
    ]


@pytest.mark.parametrize("wrong", ["method=[pg]", "method={a: 1}"])
def test_what_depends_on_a_wrong_key_is_left_alone(wrong: str) -> None:
    class Strict(Config):
        read_when = (ReadWhen(("critic",), lambda config: config.method != "ppo", "is not for ppo"),)

    with pytest.raises(ConfigError) as caught:
        load(Strict, overrides=[wrong, "critic.lr=0.1"])
    assert str(caught.value).startswith(f"override '{wrong}': method: expected a string")
    assert len(str(caught.value).splitlines()) == 1
