"""Three phases on small markets: who learns when, what is handed on, and runs that are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.systems.trading.killing import kill_at
from troupe.config import load
from troupe.envs.market.build import market_of
from troupe.envs.market.config import MarketConfig
from troupe.envs.market.instruments import instrument
from troupe.envs.market.planted import planted_market
from troupe.envs.market.team import META
from troupe.errors import ConfigError, StorageError, TrainingError
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.state import parameter_hash
from troupe.systems.trading.hierarchy_config import EpisodesConfig, TradingConfig
from troupe.systems.trading.phase import device_of, module_hashes
from troupe.systems.trading.phase1 import Phase1Trainer
from troupe.systems.trading.phase2 import Phase2Trainer
from troupe.systems.trading.phase3 import Phase3JointTrainer
from troupe.systems.trading.pipeline import HierarchyTrainer

TINY: dict[str, Any] = {
    "market": {
        "features": ["extra"], "simulation": {"scenario": "rotation", "paths": 2, "bars": 400},
        "rules": {"transaction_cost": 0.001, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 30},
    },
    "reward": {"kind": "mean_variance", "aversion": 20},
    "net": {"meta_hidden": [8], "specialist_hidden": [8]},
    "ppo": {"n_steps": 8, "batch_size": 32, "n_epochs": 2, "learning_rate": 1e-3},
    "phase1": {"total_timesteps": 128}, "phase2": {"total_timesteps": 128},
    "phase3": {"total_timesteps": 128, "specialist_update_freq": 2},
    "evaluation": {"episodes": 12, "paths": 2},
    "trainer": {"n_envs": 8, "save_freq": 1, "processes": 1, "logger": ["jsonl"]},
}  # fmt: skip
"""Two rollouts of four minibatches in every phase."""


def config(folder: Path, *overrides: str) -> TradingConfig:
    return load(TradingConfig, preset=TINY, overrides=[f"trainer.output_dir={folder}", *overrides]).config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    HierarchyTrainer(config(folder)).train()
    return folder


# ---------------------------------------------------------------------------------------------- who learns when


def test_each_phase_changes_whom_it_trains_and_nobody_else(finished: Path) -> None:
    untrained = module_hashes(Phase1Trainer(config(finished)).net)
    first, second, third = (json.loads((finished / f"phase{n}_results.json").read_text()) for n in (1, 2, 3))
    after1 = {sector: each["parameter_hash"] for sector, each in first["specialists"].items()}
    assert set(after1) == {"forex", "commodities", "equity"}
    assert all(after1[sector] != untrained[sector] for sector in after1)
    assert len(set(after1.values())) == 3
    after2 = second["parameter_hashes"]
    assert all(after2[sector] == after1[sector] for sector in after1) and after2[META] != untrained[META]
    assert third["parameter_hashes_before"] == after2
    assert all(third["parameter_hashes"][agent] != after2[agent] for agent in after2)


def test_phase_1_leaves_the_meta_controller_as_it_was(tmp_path: Path) -> None:
    trainer = Phase1Trainer(config(tmp_path / "run"))
    before = module_hashes(trainer.net)
    trainer.train()
    after = module_hashes(trainer.net)
    assert after[META] == before[META] and all(after[s] != before[s] for s in trainer.team.sectors)


def test_a_specialist_that_was_never_told_anything_does_not_listen(finished: Path) -> None:
    """Weights from its messages are 0 until phase 3 varies them."""
    trainer = Phase3JointTrainer(config(finished))
    trainer.load_pretrained_models()
    for sector in trainer.team.sectors:
        assert not trainer.net.module(sector).towers.weights[0][:, :, -2:].any()
    trainer.load()
    for sector in trainer.team.sectors:
        assert trainer.net.module(sector).towers.weights[0][:, :, -2:].all()


def test_phase_2_sees_detached_embeddings_and_phase_3_live_ones(finished: Path) -> None:
    trainer = Phase3JointTrainer(config(finished))
    trainer.load_pretrained_models()
    observations = torch.randn(5, trainer.team.observation_size)
    encoder = trainer.net.module("forex").towers.weights[0]
    for live in (True, False):
        numbers, values = trainer.net(observations, live=live)
        loss = numbers[0].sum() + values[0].sum()  # the meta-controller's
        (gradient,) = torch.autograd.grad(loss, [encoder], allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == live


def test_what_phase_3_begins_with_acts_as_phases_1_and_2_left_it(finished: Path) -> None:
    """The networks that learned in their seats fit into the team as they are."""
    second, third = Phase2Trainer(config(finished)), Phase3JointTrainer(config(finished))
    third.load_pretrained_models()
    second.load_pretrained_specialists()
    second.net.module(META).load_state_dict(third.net.module(META).state_dict())
    import numpy as np

    seat = second.create_portfolio_environment()
    seen = seat.reset(np.random.default_rng(0))
    acted = second.net.module(META).act(torch.as_tensor(seen), None)
    played = third.net.act(torch.as_tensor(seat._whole), None)
    torch.testing.assert_close(played.actions[:, second.team.parts[META]], acted.actions)
    torch.testing.assert_close(played.values[:, 0], acted.values)


def test_update_periods_are_those_of_the_config(tmp_path: Path, finished: Path) -> None:
    """Eight minibatches: the meta-controller steps at each of them, the specialists at the last."""
    import shutil

    folder = tmp_path / "run"
    for part in ("phase1", "phase2"):
        shutil.copytree(finished / part, folder / part)
        shutil.copy(finished / f"{part}_results.json", folder)
    Phase3JointTrainer(config(folder, "phase3.specialist_update_freq=8")).train()
    groups = CheckpointStore(folder / "phase3").load("latest").state["run"]["learner"]["groups"]
    assert {agent: group["steps"] for agent, group in groups.items()} == {
        META: 8, "forex": 1, "commodities": 1, "equity": 1,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="would never learn"):
        config(folder, "phase3.specialist_update_freq=9")


# ---------------------------------------------------------------------------------------------- results


def test_results_say_what_was_compared_and_what_was_measured(finished: Path) -> None:
    first, second, third = (json.loads((finished / f"phase{n}_results.json").read_text()) for n in (1, 2, 3))
    assert first["timesteps_each"] == 128
    for each in first["specialists"].values():
        assert each["gate"]["reasons"] and each["metrics"]["episodes"] == 12
        assert set(each["metrics"]["instruments"]) <= {"EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500",
                                                       "NAS100", "US30"}  # fmt: skip
    assert set(first["specialists"]["commodities"]["metrics"]["instruments"]) == {"XAUUSD", "WTIUSD"}
    for results in (second, third):
        found = results["metrics"]
        assert {"sharpe", "allocation_efficiency", "risk_compliance", "specialist_utilization", "coordination_quality",
                "robustness"} <= set(found)  # fmt: skip
        shares = found["specialist_utilization"]["share"]
        assert sum(each["mean"] for each in shares.values()) == pytest.approx(1.0)
    summary = json.loads((finished / "training_summary.json").read_text())
    assert summary["edge"]["alpha"] == 0.01 and "sharpe" in summary["test"]


def test_logs_lie_where_document_002_has_them(finished: Path) -> None:
    for number in (1, 2, 3):
        assert "checkpoint_2" in (finished / "logs" / f"phase{number}" / "training.log").read_text()
    lines = (finished / "logs" / "phase3" / "metrics.jsonl").read_text().splitlines()
    found = json.loads(lines[-1])
    assert {"loss/meta", "loss/forex"} <= {key.removeprefix("train/") for key in found}
    assert any(key.startswith("coordination/cosine/") for key in found)
    assert any(key.startswith("risk/") for key in found)
    assert (finished / "logs" / "phase1" / "forex" / "metrics.jsonl").exists()


def test_a_second_call_changes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(finished.glob("phase*_results.json"))}
    HierarchyTrainer(config(finished)).train()
    assert before == {path: path.read_bytes() for path in sorted(finished.glob("phase*_results.json"))}


def test_the_curriculum_moves_markets_and_is_exact(tmp_path: Path, finished: Path) -> None:
    import shutil

    changes = (
        "market.simulation.scenario=trending", "market.features=[instruments]", "phase3.curriculum_learning=true",
        "phase3.scenario_rollouts=5", "phase3.adaptive_learning_rates=true", "phase3.total_timesteps=768",
        "curriculum.min_episodes=2", "curriculum.threshold=-10", "curriculum.lower=-20", "curriculum.max_error=100",
    )  # fmt: skip
    whole = tmp_path / "whole"
    HierarchyTrainer(config(whole, *changes)).train()
    lines = [json.loads(line) for line in (whole / "logs" / "phase3" / "metrics.jsonl").read_text().splitlines()]
    assert len({line["curriculum/cost_scale"] for line in lines}) > 1
    assert all(f"coordination/rate/{agent}" in lines[-1] for agent in (META, "forex"))
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    (part / "phase3_results.json").unlink()
    shutil.rmtree(part / "phase3" / "checkpoint_12")
    HierarchyTrainer(config(part, *changes)).train()
    assert _team_hash(part) == _team_hash(whole)


# ---------------------------------------------------------------------------------------------- processes


def test_specialists_in_processes_are_those_that_learn_one_after_the_other(tmp_path: Path, finished: Path) -> None:
    results = Phase1Trainer(config(tmp_path / "run", "trainer.processes=3")).train()
    alone = json.loads((finished / "phase1_results.json").read_text())
    for sector, each in alone["specialists"].items():
        assert results["specialists"][sector]["parameter_hash"] == each["parameter_hash"]


def test_a_failing_child_fails_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chosen = config(folder, "trainer.processes=3")
    Phase1Trainer(chosen).train_specialist("equity")
    broken = next((folder / "phase1" / "equity").glob("checkpoint_*/equity.safetensors"))
    broken.write_bytes(b"torn")
    with pytest.raises(StorageError, match="equity"):
        Phase1Trainer(chosen).train()
    assert not (folder / "phase1_results.json").exists()


def test_where_one_child_fails_the_others_end_at_once(tmp_path: Path) -> None:
    """They would learn for hours."""
    folder = tmp_path / "run"
    (folder / "phase1").mkdir(parents=True)
    (folder / "phase1" / "equity").write_text("in the way")
    began = time.monotonic()
    with pytest.raises(StorageError, match="equity"):
        Phase1Trainer(config(folder, "trainer.processes=3", "phase1.total_timesteps=1000000000")).train()
    assert time.monotonic() - began < 90


PROGRAM = """
import sys
from tests.systems.trading.test_phases import config
from troupe.systems.trading.pipeline import HierarchyTrainer
from pathlib import Path
HierarchyTrainer(config(Path(sys.argv[1]), *sys.argv[2:])).train()
"""
LONGER = ("phase1.total_timesteps=512", "phase2.total_timesteps=512", "phase3.total_timesteps=512")


def start(folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), *LONGER], cwd=root, env=environment)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "run"
    HierarchyTrainer(config(folder, *LONGER)).train()
    return folder


@pytest.mark.parametrize(
    "checkpoint", ["phase1/commodities/checkpoint_3", "phase2/checkpoint_4", "phase3/checkpoint_3"]
)
def test_a_run_killed_in_any_phase_ends_as_the_one_that_was_left_alone(
    tmp_path: Path, calm: Path, checkpoint: str
) -> None:  # fmt: skip
    killed = tmp_path / "killed"
    kill_at(start(killed), killed / checkpoint)
    assert not (killed / "training_summary.json").exists()
    HierarchyTrainer(config(killed, *LONGER)).train()
    assert _team_hash(killed) == _team_hash(calm)
    for name in ("phase1_results.json", "phase2_results.json", "phase3_results.json"):
        assert (killed / name).read_bytes() == (calm / name).read_bytes()


def _team_hash(folder: Path) -> str:
    return parameter_hash(CheckpointStore(folder / "phase3").load("latest").tensors["team"])


# ---------------------------------------------------------------------------------------------- what cannot be done


def test_phases_need_those_before_them(tmp_path: Path) -> None:
    for kind, what in ((Phase2Trainer, "phase 1 has not ended"), (Phase3JointTrainer, "phase 1 has not ended")):
        with pytest.raises(StorageError, match=what):
            kind(config(tmp_path / kind.__name__)).train()


def test_another_specialist_than_the_one_of_phase_1_is_refused(tmp_path: Path) -> None:
    chosen = config(tmp_path / "run")
    trainer = Phase1Trainer(chosen)
    trainer.train()
    results = tmp_path / "run" / "phase1_results.json"
    record = json.loads(results.read_text())
    record["specialists"]["forex"]["parameter_hash"] = "0" * 16
    results.write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="forex"):
        Phase2Trainer(chosen).train()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["ppo.batch_size=33"], "no multiple of ppo.batch_size"),
        (["phase3.desired_kl=0.02"], "adaptive_learning_rates"),
        (["curriculum.step=0.2"], "curriculum_learning"),
        (["phase3.curriculum_learning=true"], "none of them"),
        (
            ["market.simulation.scenario=trending", "phase3.curriculum_learning=true", "phase3.scenario_rollouts=3"],
            "no episode would end",
        ),
        (["evaluation.validation=0.1"], "market.data.files"),
        (["phase4.total_timesteps=1"], "phase4"),
        (["phase1.total_timesteps=0"], "phase1.total_timesteps"),
    ],
)
def test_bad_configurations_are_one_sentence(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, *overrides)


def test_bad_requests_are_one_sentence(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'forex'"):
        Phase1Trainer(config(tmp_path / "run")).train_specialist("forx")
    with pytest.raises(StorageError, match="seed"):
        HierarchyTrainer(config(finished, "seed=1")).train()
    with pytest.raises(ConfigError, match="was begun with 128 steps"):
        HierarchyTrainer(config(finished, "phase1.total_timesteps=256")).train()
    with pytest.raises(StorageError, match="holds a run"):
        HierarchyTrainer(config(finished, "trainer.resume=never")).train()
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA GPU"):
            device_of(config(finished, "trainer.device=cuda"))


def test_a_history_is_split_in_time(tmp_path: Path) -> None:
    """What a gate sees lies behind what is learned from, and the test behind both."""
    import numpy as np

    names = ("EURUSD", "XAUUSD", "SPX500")
    from troupe.envs.market.planted import PlantedMarket

    bars = planted_market(900, 1, np.random.default_rng(0), PlantedMarket(names))
    chosen = config(tmp_path / "run")
    chosen = chosen.model_copy(update={"evaluation": EpisodesConfig(bars=20, validation=0.3)})
    market = market_of(bars, [instrument(n, quote="USD") for n in names],
                       MarketConfig(instruments=names, features=("extra",), rules=chosen.market.rules))  # fmt: skip
    trainer = HierarchyTrainer(chosen, market=market)
    data = trainer.data
    learned = len(data.markets["train"].bars[0])
    (validation, length), (test, _) = data.episodes("validation"), data.episodes("test")
    assert learned < validation.min() and validation.max() + length < test.min() and test.max() + length < 900
    np.testing.assert_array_equal(
        data.markets["train"].bars[0].close, bars[0].close[:learned]
    )  # fmt: skip
    with pytest.raises(ConfigError, match="longer bars"):
        HierarchyTrainer(chosen, market=market.between(0, 90))
