"""`troupe train env=ID`: short and long form, presets, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import ROOT
from troupe.cli import main, parse
from troupe.cli.env import PRESETS, resolve_env
from troupe.errors import ConfigError


def test_the_first_key_names_the_system() -> None:
    for words in (["train", "env=CartPole-v1", "seed=1"], ["train", "env", "env=CartPole-v1", "seed=1"]):
        arguments = parse(words)
        assert arguments.command == ("troupe.cli.env", "train_env")
        assert arguments.overrides == ["env=CartPole-v1", "seed=1"]


def test_an_environment_brings_its_preset_along() -> None:
    assert resolve_env(None, [], ["env=Pendulum-v1"]).config.ppo.gamma == 0.9
    assert resolve_env(None, [], []).config.env.id == "CartPole-v1"
    other = resolve_env(None, [], ["env=Acrobot-v1", "gamma=0.95"]).config
    assert (other.env.id, other.ppo.gamma, other.ppo.n_steps) == ("Acrobot-v1", 0.95, 256)
    with pytest.raises(ConfigError, match="did you mean 'CartPole-v1'"):
        resolve_env("CartPole", [], [])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    config = resolve_env(name, [], []).config
    assert config.env.id == name and config.trainer.default_local_dir == f"runs/{name}"
    assert {path.stem for path in (ROOT / "troupe" / "configs" / "env").iterdir()} == set(PRESETS)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["total_timesteps=512", "evaluation.episodes=2", f"trainer.default_local_dir={tmp_path}"]
    assert main(["train", "env=CartPole-v1", *words, "trainer.logger=[jsonl]"]) == 0
    said = capsys.readouterr().out
    assert "95 % interval" in said and "2 episodes; 512 steps" in said and "weights: " in said


def test_the_config_can_be_looked_at(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "env=CartPole-v1", "--print-config"]) == 0
    assert "gae_lambda" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("env=CartPol-v1", "does not make the environment 'CartPol-v1'"),
        ("n_stepz=3", "n_stepz"),
        ("batch_size=100", "is no multiple of ppo.batch_size=100"),
        ("env.n_envs=0", "env.n_envs"),
        ("env=Blackjack-v1", "observations of the space Tuple"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, override: str, said: str) -> None:
    words = ["train", "env=CartPole-v1", f"trainer.default_local_dir={tmp_path}", override]
    assert main(words) == 2
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.startswith("error: ") and "Traceback" not in complaint
