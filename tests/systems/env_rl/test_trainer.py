"""`EnvTrainer`: what it learns, what it leaves behind, and every key of the config that a run reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from troupe.config import load
from troupe.errors import ConfigError, DataError, StorageError
from troupe.stores.checkpoints import CheckpointStore
from troupe.systems.env_rl.config import ALIASES, EnvRLConfig
from troupe.systems.env_rl.trainer import EnvTrainer
from troupe.training.vector_envs import GymnasiumEnvs

TINY: dict[str, Any] = {
    "env": {"id": "CartPole-v1", "n_envs": 2},
    "net": {"hidden": [8]},
    "ppo": {"n_steps": 32, "batch_size": 32, "n_epochs": 2},
    "evaluation": {"episodes": 2, "every": 2},
    "trainer": {"total_timesteps": 256, "save_freq": 2, "logger": ["jsonl"]},
}
"""Four rollouts, two evaluations, two checkpoints."""


def config(folder: Path, *overrides: str) -> EnvRLConfig:
    words = [f"trainer.default_local_dir={folder}", *overrides]
    return load(EnvRLConfig, preset=TINY, overrides=words, aliases=ALIASES).config


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_metrics_checkpoints_and_a_summary(tmp_path: Path) -> None:
    seen = []
    trainer = EnvTrainer(config(tmp_path), progress=lambda *said: seen.append(said[:3]))
    result = trainer.train()
    assert seen == [("env", step, 256) for step in (64, 128, 192, 256)]
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [64, 128, 192, 256]
    assert [("eval/return" in row) for row in found] == [False, True, False, True]
    assert {"train/approx_kl", "train/explained_variance", "train/entropy", "rollout/ep_rew_mean"} <= set(found[-1])
    assert result.timesteps == 256 and result.returns.n == 2
    assert result.returns.mean == found[-1]["eval/return"] == pytest.approx(trainer.evaluate().returns.mean())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["parameter_hash"] == result.parameter_hash and summary["timesteps"] == 256
    assert CheckpointStore(tmp_path, metric="eval/return").steps() == [2, 4]
    timing = (tmp_path / "timing.jsonl").read_text()
    assert "cpu/learn_s" in timing and "cpu/" not in (tmp_path / "metrics.jsonl").read_text()


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    hashes = [
        EnvTrainer(config(tmp_path / name, f"seed={seed}")).train().parameter_hash
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_finished_run_is_found_finished(tmp_path: Path) -> None:
    first, again = (EnvTrainer(config(tmp_path)).train() for _ in range(2))
    assert first.parameter_hash == again.parameter_hash and first.returns == again.returns
    assert len(rows(tmp_path)) == 4
    with pytest.raises(StorageError, match=r"was begun with ppo\.gamma=0\.99, this run has 0\.5"):
        EnvTrainer(config(tmp_path, "gamma=0.5")).train()
    with pytest.raises(StorageError, match=r"write trainer\.resume=auto"):
        EnvTrainer(config(tmp_path, "trainer.resume=never")).train()


def test_environments_may_be_given_in_code(tmp_path: Path) -> None:
    made: list[int] = []

    def make(n: int) -> GymnasiumEnvs:
        made.append(n)
        return GymnasiumEnvs.make("Acrobot-v1", n, max_episode_steps=40)

    trainer = EnvTrainer(config(tmp_path), make=make)
    assert trainer.train().returns.mean == -40.0 and made == [2, 2, 2]
    assert trainer.ppo.collector.observation_shape == (6,)


READ = [
    "seed=5", "env.args={max_episode_steps: 9}", "env.n_envs=4", "env.carry=false", "env.norm_obs=true",
    "env.norm_reward=true", "net.hidden=[8,8]", "net.activation=relu", "net.shared_trunk=true", "n_steps=64",
    "batch_size=16", "n_epochs=1", "gamma=0.5", "gae_lambda=0.5", "clip_range=0.001", "clip_range_vf=0.01",
    "normalize_advantage=false", "ent_coef=0.5", "vf_coef=2", "max_grad_norm=0.01", "learning_rate=0.01",
    "ppo.schedule=[learning_rate]", "ppo.schedule=[clip_range,learning_rate]", "target_kl=1e-9",
    "total_timesteps=512",
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return EnvTrainer(config(tmp_path_factory.mktemp("plain"))).train().parameter_hash


@pytest.mark.parametrize("override", READ)
def test_every_key_is_read(tmp_path: Path, plain: str, override: str) -> None:
    """Another value, another network."""
    assert EnvTrainer(config(tmp_path, override)).train().parameter_hash != plain


def test_log_std_is_read(tmp_path: Path) -> None:
    hashes = []
    for name, start in (("a", 0.0), ("b", -1.0)):
        chosen = config(tmp_path / name, "env.id=Pendulum-v1", f"net.log_std={start}", "total_timesteps=64")
        hashes.append(EnvTrainer(chosen).train().parameter_hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ppo.n_step=3", "did you mean 'n_steps'"),
        ("batch_size=48", "ppo.n_steps \\* env.n_envs = 64 is no multiple of ppo.batch_size=48"),
        ("gamma=2", "ppo.gamma"),
        ("ppo.schedule=[gamma]", "ppo.schedule"),
    ],
)
def test_bad_keys_are_refused(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, override)


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["env.id=CartPol-v1"], ConfigError, "does not make the environment 'CartPol-v1'"),
        (["env.id=Blackjack-v1"], ConfigError, "observations of the space Tuple"),
        (["evaluation.max_steps=2"], DataError, "is not over after 2 steps"),
    ],
)
def test_bad_environments_are_refused(tmp_path: Path, overrides: list[str], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        EnvTrainer(config(tmp_path, *overrides)).train()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "least"), [("CartPole-v1", 475.0), ("Pendulum-v1", -250.0)])
def test_it_learns(tmp_path: Path, name: str, least: float, seed: int) -> None:
    """As stable-baselines3 does with the same settings; `benchmarks/ppo.py` shows both."""
    from troupe.cli.env import resolve_env

    words = [f"env={name}", f"seed={seed}", f"trainer.default_local_dir={tmp_path}", "trainer.logger=[jsonl]"]
    result = EnvTrainer(resolve_env(None, [], [*words, "evaluation.episodes=50"]).config).train()
    assert result.returns.mean >= least
