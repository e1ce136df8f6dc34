"""Online learning on a short history: what is decided, what is kept, what nobody could have known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from troupe.config import load
from troupe.envs.market.build import Market, load_market
from troupe.errors import ConfigError, DataError, StorageError
from troupe.maths.finance import sharpe, total_return
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import backtest
from troupe.systems.trading.hierarchy_config import EpisodesConfig, TradingConfig
from troupe.systems.trading.online import OnlineConfig, OnlineLearner, OnlineResult, run_config
from troupe.systems.trading.pipeline import HierarchyTrainer
from troupe.training.evaluation import Decision, Gate

ROWS = 700
SMALL: dict[str, Any] = {
    "market": {
        "features": ["extra"], "simulation": {"scenario": "rotation", "paths": 1, "bars": 1000},
        "rules": {"transaction_cost": 0.003, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 40},
    },
    "reward": {"kind": "mean_variance", "aversion": 20},
    "net": {"meta_hidden": [8], "specialist_hidden": [8]},
    "ppo": {"n_steps": 8, "batch_size": 64, "n_epochs": 2},
    "phase1": {"total_timesteps": 256}, "phase2": {"total_timesteps": 128},
    "phase3": {"total_timesteps": 128, "specialist_update_freq": 2},
    "evaluation": {"bars": 20},
    "trainer": {"n_envs": 16, "processes": 1, "logger": ["jsonl"]},
}  # fmt: skip
ONLINE = OnlineConfig(timesteps=256, learning_rate=1e-3, bars=60, validation=121, episodes=12)


@cache
def history() -> Market:
    return load_market(load(TradingConfig, preset=SMALL).config.market)


def config_in(folder: Path) -> TradingConfig:
    config = load(TradingConfig, preset=SMALL | {"trainer": SMALL["trainer"] | {"output_dir": str(folder)}}).config
    return config.model_copy(update={"evaluation": EpisodesConfig(bars=20, validation=0.35)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    HierarchyTrainer(config_in(folder), market=history().between(0, ROWS)).train()
    return folder


def trainer_in(folder: Path, trained: Path) -> HierarchyTrainer:
    shutil.copytree(trained, folder)
    return HierarchyTrainer(config_in(folder), market=history().between(0, ROWS))


def decided(monkeypatch, *promote: bool) -> None:
    """The gate says so, in this order, and then no more."""
    answers = iter(promote)
    monkeypatch.setattr(
        Gate, "decide_scores", lambda self, a, b, unit="": Decision(next(answers), ("as the test says",))
    )


def told(result: OnlineResult) -> list[dict[str, Any]]:
    return [each.to_dict() for each in result.extensions]


def test_extensions_follow_one_another_and_are_measured_after(trained, tmp_path):
    result = OnlineLearner(trainer_in(tmp_path / "run", trained), ONLINE).learn(history().between(0, 900))
    assert [each.rows for each in result.extensions] == [760, 820, 880]
    assert [each.learned for each in result.extensions] == [760 - 121 - 11, 820 - 121 - 11, 880 - 121 - 11]
    assert [each.new is None for each in result.extensions] == [False, False, True]  # 880 + 60 bars are not there
    assert all(each.decision.difference.n == 12 for each in result.extensions)
    assert all(each.hashes["old"] != each.hashes["new"] for each in result.extensions)
    record = json.loads((tmp_path / "run" / "online.json").read_text())
    assert record["extensions"] == json.loads(json.dumps(told(result))) and record["rows"] == ROWS


def test_what_is_rejected_changes_nothing_and_what_is_adopted_trades(trained, tmp_path, monkeypatch):
    trainer = trainer_in(tmp_path / "run", trained)
    first = parameter_hash(trainer.traded().net.state_dict())
    decided(monkeypatch, False, True, False)
    learner = OnlineLearner(trainer, ONLINE)
    one, two, three = learner.learn(history().between(0, 890)).extensions
    assert one.hashes["old"] == one.hashes["traded"] == first == two.hashes["old"]
    assert two.hashes["traded"] == two.hashes["new"] == three.hashes["old"] == three.hashes["traded"]
    assert len({one.hashes["old"], one.hashes["new"], two.hashes["new"], three.hashes["new"]}) == 4
    result = learner.result()
    assert result.adopted == (2,) and parameter_hash(result.traded.net.state_dict()) == two.hashes["new"]
    assert (result.traded.mode, result.traded.phase) == ("team", 3)
    assert result.traded.active == ("forex", "commodities", "equity")


def test_a_rejected_run_trades_as_it_did(trained, tmp_path, monkeypatch):
    trainer = trainer_in(tmp_path / "run", trained)
    before = trainer.traded()
    decided(monkeypatch, False)
    result = OnlineLearner(trainer, ONLINE).learn(history().between(0, 770))
    assert (result.traded.mode, result.traded.active, result.traded.phase) == (before.mode, before.active, before.phase)
    for name, value in before.net.state_dict().items():
        assert torch.equal(value, result.traded.net.state_dict()[name])


def test_the_next_stretch_is_traded_by_both(trained, tmp_path, monkeypatch):
    """What the record says of the candidate, from a backtest of the strategy that was adopted."""
    decided(monkeypatch, True)
    trainer = trainer_in(tmp_path / "run", trained)
    old = trainer.strategy()
    learner = OnlineLearner(trainer, ONLINE)
    learner.learn(history().between(0, 760))
    new = learner.strategy()
    found = learner.learn(history().between(0, 820 - 1)).extensions[0]
    assert found.old is None and found.new is None
    decided(monkeypatch, False)
    found = learner.learn(history().between(0, 820)).extensions[0]
    core = history().between(0, 820).core(trainer.data.normaliser)
    for strategy, side in ((old, found.old), (new, found.new)):
        track = backtest(core, strategy, 759, 819)
        assert track.times[[0, -1]].tolist() == history().bars[0].times[[760, 819]].tolist()
        assert side.total_return == pytest.approx(float(total_return(track.returns[0])), abs=1e-12)
        ratio = 0.0 if not np.ptp(track.returns) else float(sharpe(track.returns[0], track.periods_per_year))
        assert side.sharpe == pytest.approx(ratio)
    assert found.new.total_return != 0


def test_later_bars_change_nothing_before_them(trained, tmp_path):
    """Other bars from row 760 on: the first decision and its weights are the same, its next stretch is another."""
    bars = history().bars[0]
    generator = np.random.default_rng(5)
    factor = np.ones(len(bars))[:, None]
    factor[760:] = np.exp(generator.normal(0, 0.02, (len(bars) - 760, 1)).cumsum(0))
    changed = replace(bars, **{n: getattr(bars, n) * factor for n in ("open", "high", "low", "close")})
    other = replace(history(), bars=(changed,))
    found = []
    for name, market in (("one", history()), ("two", other)):
        learner = OnlineLearner(trainer_in(tmp_path / name, trained), ONLINE)
        found.append(learner.learn(market.between(0, 820)).extensions[0])
    assert found[0].hashes == found[1].hashes and found[0].decision == found[1].decision
    assert found[0].new != found[1].new


def test_stopped_anywhere_it_ends_the_same(trained, tmp_path, monkeypatch):
    whole = OnlineLearner(trainer_in(tmp_path / "whole", trained), ONLINE).learn(history().between(0, 900))
    trainer = trainer_in(tmp_path / "parts", trained)
    learner = OnlineLearner(trainer, ONLINE)
    learner.learn(history().between(0, 790))
    save = learner.store.save_checkpoint

    def dies(*arguments: Any, **options: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(learner.store, "save_checkpoint", dies)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(history().between(0, 840))
    monkeypatch.setattr(learner.store, "save_checkpoint", save)
    # From the folder alone: everything that the first training knew is in the checkpoints.
    parts = OnlineLearner(tmp_path / "parts", ONLINE).learn(history().between(0, 900))
    assert told(parts) == told(whole)
    one, two = (json.loads((tmp_path / n / "online.json").read_text()) for n in ("parts", "whole"))
    assert one == two
    assert OnlineLearner(tmp_path / "parts", ONLINE).learn(history().between(0, 900)).extensions == parts.extensions


def test_an_extension_really_learns_for_its_steps(trained, tmp_path):
    seen: list[tuple[str, int, int]] = []
    trainer = trainer_in(tmp_path / "run", trained)
    learner = OnlineLearner(
        trainer, ONLINE, progress=lambda name, step, total, metrics: seen.append((name, step, total))
    )
    learner.learn(history().between(0, 760))
    assert seen == [("online 1", 128, 256), ("online 1", 256, 256)]


def test_old_bars_must_be_the_same(trained, tmp_path):
    trainer, market = trainer_in(tmp_path / "run", trained), history().between(0, 800)
    learner = OnlineLearner(trainer, ONLINE)
    close = market.bars[0].close.copy()
    close[300] *= 1.0001
    revised = replace(market, bars=(replace(market.bars[0], close=close),))
    with pytest.raises(
        DataError, match="first 700 bars are not those that were seen before: their instruments, times or closes"
    ):
        learner.learn(revised)
    dearer = replace(market, rules=market.rules.model_copy(update={"cost_scale": 2.0}))
    with pytest.raises(DataError, match="costs, rules or features differ; give the same bars"):
        learner.learn(dearer)
    with pytest.raises(DataError, match="has 600 bars, and 700 were seen before"):
        learner.learn(history().between(0, 600))
    learner.learn(market)
    close[300], close[750] = market.bars[0].close[300], close[750] * 1.0001
    with pytest.raises(DataError, match="first 760 bars"):
        learner.learn(replace(market, bars=(replace(market.bars[0], close=close),)))


def test_what_cannot_go_on(trained, tmp_path):
    with pytest.raises(StorageError, match="holds no run of `troupe train trading`"):
        OnlineLearner(tmp_path / "nothing", ONLINE)
    shutil.copytree(trained, tmp_path / "folder")
    with pytest.raises(ConfigError, match="simulated markets, which have no next bar"):
        OnlineLearner(tmp_path / "folder", ONLINE).learn(history())
    trainer = trainer_in(tmp_path / "run", trained)
    with pytest.raises(ConfigError, match="rows is for a run folder"):
        OnlineLearner(trainer, ONLINE, rows=10)
    with pytest.raises(ConfigError, match="leaves 39 of 760 bars to learn from"):
        OnlineLearner(trainer, ONLINE.model_copy(update={"validation": 710})).learn(history())
    with pytest.raises(StorageError, match="begun with validation=710"):
        OnlineLearner(trainer, ONLINE).learn(history())
    with pytest.raises(ConfigError, match="validation=20 bars are too few for episodes=20"):
        OnlineLearner(trainer, {"validation": 20})


def test_a_broken_config_is_said(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match="no config of `troupe train trading`"):
        run_config(tmp_path)


# --------------------------------------------------------------------------------------------- files that grow


NAMES = ("EURUSD", "XAUUSD", "SPX500")


def written(folder: Path, stop: int) -> dict[str, str]:
    bars, files = history().bars[0], {}
    stamps = [datetime.fromtimestamp(int(time) - 3600, UTC).isoformat() for time in bars.times[:stop]]
    for name in NAMES:
        prices = np.stack(
            [getattr(bars, n)[:stop, bars.instruments.index(name)] for n in ("open", "high", "low", "close")], 1
        )
        lines = [",".join([stamp, *map(repr, row), "1"]) for stamp, row in zip(stamps, prices.tolist(), strict=True)]
        files[name] = str(folder / f"{name}.csv")
        Path(files[name]).write_text("\n".join(["time,open,high,low,close,volume", *lines]) + "\n")
    return files


def test_a_run_on_files_goes_on_when_they_have_grown(tmp_path):
    preset = {**SMALL, "market": {**SMALL["market"], "features": ["return", "mean_5"], "instruments": NAMES}}
    preset["market"] = {k: v for k, v in preset["market"].items() if k != "simulation"}
    preset["market"]["data"] = {"files": written(tmp_path, ROWS)}
    preset["trainer"] = {**SMALL["trainer"], "output_dir": str(tmp_path / "run")}
    preset["evaluation"] = {"bars": 20, "validation": 0.35}
    trainer = HierarchyTrainer(load(TradingConfig, preset=preset).config)
    trainer.train()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    written(tmp_path, 830)
    by_trainer = OnlineLearner(trainer, ONLINE).learn()
    assert [each.rows for each in by_trainer.extensions] == [760, 820]
    with pytest.raises(DataError, match="files have changed or grown since; write rows"):
        OnlineLearner(tmp_path / "again", ONLINE).learn()
    by_folder = OnlineLearner(tmp_path / "again", ONLINE, rows=ROWS).learn()
    assert told(by_folder) == told(by_trainer)
    written(tmp_path, 880)
    assert [each.rows for each in OnlineLearner(tmp_path / "again", ONLINE).learn().extensions] == [760, 820, 880]
    with pytest.raises(ConfigError, match="rows=600, and this run was begun with 700"):
        OnlineLearner(tmp_path / "again", ONLINE, rows=600).learn()
