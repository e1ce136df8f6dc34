"""The whole evaluation on small markets, its record, and a run that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.envs.market.samples import bars_of, core_of, random_bars
from tests.systems.trading.killing import kill_at
from troupe.config import load
from troupe.envs.market.build import market_of
from troupe.envs.market.config import MarketConfig
from troupe.envs.market.instruments import Instrument
from troupe.errors import ConfigError, StorageError
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import backtest
from troupe.systems.trading.baselines import cash, equal_weight
from troupe.systems.trading.comparison import cost_point
from troupe.systems.trading.config import WalkForwardConfig
from troupe.systems.trading.walkforward import WalkForward

SMALL = {
    "market": {
        "instruments": ["PLANTED"], "features": ["extra"],
        "simulation": {"scenario": "planted", "paths": 1, "bars": 1500},
        "rules": {"transaction_cost": 0.003, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 100},
    },
    "ppo": {"n_steps": 16, "batch_size": 128, "n_epochs": 2},
    "folds": {"count": 2, "embargo": 5},
    "trainer": {"total_timesteps": 1024, "n_envs": 16, "seeds": 2, "save_freq": 1, "cost_sweep": [0.0, 1.0]},
}  # fmt: skip


def evaluation(folder: Path, **changes) -> WalkForward:
    config = {**SMALL, **changes}
    config["trainer"] = {**SMALL["trainer"], **changes.get("trainer", {}), "default_local_dir": str(folder)}
    return WalkForward(config)


def test_everything_is_out_of_sample_and_compared(tmp_path):
    result = evaluation(tmp_path / "run").run()
    track = result.track
    first, last = result.folds[0].test[0], result.folds[-1].test[1]
    assert track.returns.shape == (2, last - first) == result.tracks["momentum"].returns.repeat(2, 0).shape
    assert track.times.tolist() == result.market.bars[0].times[first + 1 : last + 1].tolist()
    assert set(result.assessments) == {
        "PPO", "cash", "buy and hold", "1/N", "inverse volatility", "equal risk contribution", "momentum",
        "random, same turnover",
    }  # fmt: skip
    assert result.trials == 1 and result.learned.deflated is None
    free, charged = (point.annual_return.mean for point in result.costs)
    assert free > charged
    random = result.tracks["random, same turnover"].turnover.mean()
    assert random == pytest.approx(float(track.turnover.mean()), rel=0.25)


def test_a_second_configuration_is_a_second_trial_and_the_same_one_is_not(tmp_path):
    evaluation(tmp_path / "a").run()
    assert evaluation(tmp_path / "b").run().trials == 1
    assert evaluation(tmp_path / "a").run().trials == 1
    found = evaluation(tmp_path / "c", reward={"kind": "log_return"}).run()
    assert found.trials == 2 and found.learned.deflated is not None
    with pytest.raises(StorageError, match="reward"):
        evaluation(tmp_path / "a", reward={"kind": "log_return"}).run()


def test_policies_learn_from_nothing_behind_their_fold(tmp_path):
    """Bars after the first test stretch are replaced: the first fold's policies stay the same to the bit."""
    config = load(WalkForwardConfig, preset=SMALL).config
    bars = random_bars(0, 400, 1)
    known = [Instrument("A", "equity", "USD", "A")]
    hashes = []
    for name, seed in (("one", 1), ("two", 2)):
        generator = np.random.default_rng(seed)
        changed = {n: getattr(bars, n).copy() for n in ("open", "high", "low", "close")}
        factor = np.exp(generator.normal(0, 0.05, (200, 1)).cumsum(0))
        for values in changed.values():
            values[200:] *= factor
        settings = config.market.model_copy(update={"instruments": ("A",), "features": ("instruments",)})
        market = market_of([replace(bars, **changed)], known, settings)
        run = config.model_copy(
            update={"trainer": config.trainer.model_copy(update={"default_local_dir": str(tmp_path / name)})}
        )
        WalkForward(run, market=market).run()
        hashes.append([_hash(tmp_path / name / f"fold_{k}" / "seed_0") for k in (0, 1)])
    assert hashes[0][0] == hashes[1][0] and hashes[0][1] != hashes[1][1]


def test_the_sweep_multiplies_the_costs_that_the_rules_name(tmp_path):
    """With cost_scale 3 the policies are charged three times as much, and so is everybody they are compared with."""
    market = {**SMALL["market"], "rules": {**SMALL["market"]["rules"], "cost_scale": 3.0}}
    result = evaluation(tmp_path / "run", market=market).run()
    for track in (result.track, result.tracks["random, same turnover"]):
        assert track.cost.sum() == pytest.approx(3 * 0.003 * track.turnover.sum(), rel=0.01)


def given(bars, features=("instruments",), **changes):
    config = load(WalkForwardConfig, preset=SMALL).config
    settings = config.market.model_copy(update={"instruments": ("A",), "features": features})
    return market_of([replace(bars, **changes)], [Instrument("A", "equity", "USD", "A")], settings)


def test_what_is_observed_is_part_of_a_trial(tmp_path):
    """The same bars with another extra column, which no key of the config shows."""
    bars = random_bars(0, 300, 1)
    for name, count in (("a", 1), ("b", 1), ("c", 2)):
        extra = np.random.default_rng(name == "c").normal(size=(300, 1))
        market = given(bars, ("instruments", "extra"), extra=extra, extra_names=("mood",))
        config = load(
            WalkForwardConfig, preset={**SMALL, "trainer": {**SMALL["trainer"], "total_timesteps": 256}}
        ).config
        config = config.model_copy(
            update={"trainer": config.trainer.model_copy(update={"default_local_dir": str(tmp_path / name)})}
        )
        assert WalkForward(config, market=market).run().trials == count


def test_policies_of_other_bars_do_not_trade_these(tmp_path):
    config = load(WalkForwardConfig, preset={**SMALL, "trainer": {**SMALL["trainer"], "total_timesteps": 256}}).config
    config = config.model_copy(
        update={"trainer": config.trainer.model_copy(update={"default_local_dir": str(tmp_path / "run")})}
    )
    bars = random_bars(0, 300, 1)
    WalkForward(config, market=given(bars)).run()
    WalkForward(config, market=given(bars)).run()
    with pytest.raises(StorageError, match="another market"):
        WalkForward(config, market=given(random_bars(1, 300, 1))).run()


def _hash(folder: Path) -> str:
    return parameter_hash(CheckpointStore(folder).load("latest").tensors["net"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"market": {**SMALL["market"], "simulation": {"scenario": "planted", "paths": 2}}}, "one history"),
        ({"market": {**SMALL["market"], "features": ["extra", "nonsense"]}}, "nonsense"),
        ({"market": {**SMALL["market"], "costs": {"GOLD": {"half_spread": 0.1}}}}, "GOLD"),
        ({"market": {**SMALL["market"], "instruments": ["EURUSD", "EURUSD"]}}, "different"),
        ({"folds": {"count": 5000}}, "do not fit"),
        ({"ppo": {"n_steps": 10, "batch_size": 128}}, "no multiple"),
        ({"trainer": {"cost_sweep": [2.0]}}, "cost_sweep"),
        ({"trainer": {"cost_sweep": [1.0, float("nan")]}}, "cost_sweep"),
        ({"trainer": {"cost_sweep": [1.0, float("inf")]}}, "cost_sweep"),
        ({"trainer": {"cost_sweep": [1.0, 1.0]}}, "cost_sweep"),
        ({"folds": {"count": 2, "first": 0.99}}, "14 bars out of sample are too few"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_learned(tmp_path, change, what):
    with pytest.raises(ConfigError, match=what):
        evaluation(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


SCRIPT = """
import json, sys
from troupe.systems.trading.walkforward import WalkForward
WalkForward(json.loads(sys.argv[1])).run()
"""


def start(folder: Path) -> subprocess.Popen:
    config = {**SMALL, "trainer": {**SMALL["trainer"], "default_local_dir": str(folder)}}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(config)], env=environment)


@pytest.mark.parametrize("checkpoint", ["fold_0/seed_0/checkpoint_2", "fold_1/seed_0/checkpoint_3"])
@pytest.mark.slow
def test_a_killed_evaluation_ends_as_the_one_that_was_left_alone(tmp_path, checkpoint):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert start(calm).wait(120) == 0
    kill_at(start(killed), killed / checkpoint)
    assert not (killed / "fold_1" / "seed_1" / "checkpoint_4").exists()
    assert start(killed).wait(120) == 0
    for fold in (0, 1):
        for seed in (0, 1):
            where = f"fold_{fold}/seed_{seed}"
            assert _hash(calm / where) == _hash(killed / where), where


def test_config_of_a_market_is_checked():
    assert MarketConfig().instruments[0] == "EURUSD"
    with pytest.raises(ConfigError, match="transaction_costs"):
        load(WalkForwardConfig, preset={"market": {"rules": {"transaction_costs": 0.1}}})
    with pytest.raises(ConfigError, match="var_confidence"):
        load(WalkForwardConfig, overrides=["market.rules.var_confidence=0.9"])


def test_a_damaged_market_file_is_one_sentence(tmp_path):
    evaluation(tmp_path / "run").run()
    (tmp_path / "run" / "market.json").write_text("{")
    with pytest.raises(StorageError, match="no market of a run"):
        evaluation(tmp_path / "run").run()


def test_a_sharpe_ratio_that_nobody_has_is_no_number_in_the_cost_sweep():
    """Cash has none, and neither has a strategy of which one seed lost everything."""
    core = core_of(bars_of([100, 100, 1e-3, 2e-3, 2e-3]), ruin=0.0, max_position_size=1.5)
    idle = backtest(core, cash, 0, 4)
    mixed = idle.beside(backtest(core, equal_weight, 0, 4))
    moved = backtest(core_of(random_bars(0, 60)), equal_weight, 0, 50)
    assert np.isnan(cost_point(1.0, idle).sharpe.mean) and np.isnan(cost_point(1.0, mixed).sharpe.mean)
    assert np.isfinite(cost_point(1.0, moved).sharpe.mean)
