"""The front by hand and against brute force; a sweep that is stopped, goes on, and keeps what is finished."""

from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from troupe.config import load
from troupe.errors import ConfigError, DataError, StorageError, TrainingError
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import judge
from troupe.systems.trading.pareto import ParetoPoint, ParetoResult, pareto_front, pareto_svg, pareto_sweep
from troupe.systems.trading.phase1 import Phase1Trainer
from troupe.systems.trading.phase3 import Phase3JointTrainer
from troupe.systems.trading.phase_metrics import portfolio_metrics

SMALL: dict[str, Any] = {
    "market": {
        "features": ["extra"], "simulation": {"scenario": "rotation", "paths": 2, "bars": 300},
        "rules": {"transaction_cost": 0.003, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 40},
    },
    "reward": {"kind": "mean_variance"},
    "net": {"meta_hidden": [8], "specialist_hidden": [8]},
    "ppo": {"n_steps": 8, "batch_size": 64, "n_epochs": 2, "learning_rate": 1e-2},
    "phase1": {"total_timesteps": 256}, "phase2": {"total_timesteps": 256},
    "phase3": {"total_timesteps": 256, "specialist_update_freq": 1, "learning_rate": 1e-2},
    "evaluation": {"paths": 2, "episodes": 12},
    "trainer": {"n_envs": 16, "processes": 1, "logger": ["jsonl"]},
}  # fmt: skip


def config_in(folder: Path, **changes: Any) -> TradingConfig:
    trainer = SMALL["trainer"] | {"output_dir": str(folder)}
    return load(TradingConfig, preset=SMALL | {"trainer": trainer} | changes).config


@pytest.fixture(scope="module")
def specialists(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phase1") / "run"
    Phase1Trainer(config_in(folder)).train()
    return folder


@pytest.fixture(scope="module")
def swept(specialists, tmp_path_factory) -> ParetoResult:
    return pareto_sweep(config_in(tmp_path_factory.mktemp("swept") / "sweep"), [500, 0], specialists=specialists)


# --------------------------------------------------------------------------------------------- the front


def test_the_front_by_hand():
    # volatility (less is better), return (more is better)
    points = [(0.1, 0.05), (0.2, 0.10), (0.2, 0.08), (0.3, 0.10), (0.3, 0.12), (0.05, 0.05)]
    # 0 loses to 5 (less risk, same return); 2 to 1 (same risk, more return); 3 to 1 (less risk, same return)
    assert pareto_front(points, (False, True)) == (1, 4, 5)
    assert pareto_front(points, (True, True)) == (4,)
    assert pareto_front(points, (False, False)) == (5,)


def test_equal_points_share_their_fate():
    assert pareto_front([(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (0.0, 0.0), (0.0, 0.0)], (True, True)) == (0, 1, 2)


def test_ties_in_one_number_are_decided_by_the_others():
    assert pareto_front([(1, 1, 3), (1, 2, 3), (1, 2, 2), (2, 0, 0)], (True, True, True)) == (1, 3)
    assert pareto_front([(3.0,), (5.0,), (5.0,)], (True,)) == (1, 2)
    assert pareto_front([], (True, False)) == ()
    assert pareto_front([(-math.inf, 0.0), (math.inf, 0.0)], (True, False)) == (1,)


def test_the_front_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = generator.integers(0, 4, (12, 3)).astype(float)  # with ties and duplicates
        sign = np.where(maximize := generator.integers(0, 2, 3).astype(bool), 1.0, -1.0)
        gaps = (points[:, None] - points[None]) * sign  # [b, a]: by how much b is better than a
        dominated = ((gaps >= 0).all(2) & (gaps > 0).any(2)).any(0)
        assert pareto_front(points.tolist(), maximize.tolist()) == tuple(np.flatnonzero(~dominated).tolist())


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match=r"point 1 is"):
        pareto_front([(1.0, 2.0), (1.0, math.nan)], (True, True))
    with pytest.raises(DataError, match=r"give 2 numbers"):
        pareto_front([(1.0,)], (True, True))


# --------------------------------------------------------------------------------------------- the sweep


def test_points_differ_in_their_weight_alone(specialists, swept):
    result = swept
    assert [point.weight for point in result.points] == [0.0, 500.0]
    assert [point.folder for point in result.points] == ["aversion_0", "aversion_500"]
    phase1 = json.loads((specialists / "phase1_results.json").read_text())["specialists"]
    hashes = {sector: each["parameter_hash"] for sector, each in phase1.items()}
    for point in result.points:
        folder = result.folder / point.folder
        assert json.loads((folder / "config.json").read_text())["reward"]["aversion"] == point.weight
        second, third = (json.loads((folder / f"phase{n}_results.json").read_text()) for n in (2, 3))
        assert {s: second["parameter_hashes"][s] for s in hashes} == hashes
        assert third["parameter_hashes"] == point.hashes and point.promoted == third["gate"]["promote"]
    assert result.points[0].hashes["meta"] != result.points[1].hashes["meta"]
    record = json.loads((result.folder / "pareto.json").read_text())
    assert record["objectives"] == {"annual_volatility": "min", "annual_return": "max"}
    assert record["front"] == [result.points[i].weight for i in result.front] and len(result.front) >= 1
    assert [each["on_front"] for each in record["points"]] == [i in result.front for i in range(2)]


def test_a_point_is_what_its_team_does_on_the_validation_episodes(swept):
    result = swept
    config = config_in(result.folder / "aversion_500", reward={"kind": "mean_variance", "aversion": 500})
    third = Phase3JointTrainer(config)
    third.load()
    track = judge(TradingData.of(config), config, third.net, "validation")[0].track
    expected, found = portfolio_metrics(track), dict(result.points[1].measures)
    earned = found.pop("annual_return")
    assert {name: expected[name] for name in found} == found
    yearly = track.returns.mean(1) * track.periods_per_year  # not compounded
    assert (earned["mean"], earned["n"]) == (pytest.approx(yearly.mean()), 12)
    half = 2.200985 * yearly.std(ddof=1) / math.sqrt(12)  # t of 11 degrees
    assert (earned["low"], earned["high"]) == pytest.approx((yearly.mean() - half, yearly.mean() + half), rel=1e-5)
    assert result.points[1].measures["sharpe"]["n"] == 12


def test_a_sweep_that_was_stopped_goes_on_and_keeps_its_points(specialists, tmp_path, monkeypatch):
    whole = pareto_sweep(config_in(tmp_path / "whole"), [0, 20, 500], specialists=specialists)
    config, train, begun = config_in(tmp_path / "parts"), Phase3JointTrainer.train, []

    def stops(self: Phase3JointTrainer) -> dict[str, Any]:
        begun.append(self.config.reward.aversion)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(Phase3JointTrainer, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        pareto_sweep(config, [0, 500], specialists=specialists)
    assert not (tmp_path / "parts" / "pareto.json").exists()
    second = pareto_sweep(config, [0, 500], specialists=specialists)
    assert begun == [0.0, 500.0, 500.0] and [point.weight for point in second.points] == [0.0, 500.0]
    third = pareto_sweep(config, [0, 20, 500], specialists=specialists)  # one more point
    assert begun == [0.0, 500.0, 500.0, 20.0]
    assert third.points == whole.points and third.front == whole.front
    files = [(tmp_path / name / "pareto.json").read_bytes() for name in ("parts", "whole")]
    assert files[0] == files[1]


def test_weights_of_the_portfolio_reward(specialists, tmp_path):
    config = config_in(tmp_path / "sweep", reward={"kind": "portfolio"})
    result = pareto_sweep(
        config, [0.0, 3.0], key="reward.diversification_bonus_weight", specialists=specialists,
        objectives=("max_drawdown", "sharpe", "turnover_per_bar"),
    )  # fmt: skip
    assert [point.folder for point in result.points] == [
        "diversification_bonus_weight_0", "diversification_bonus_weight_3",
    ]  # fmt: skip
    assert result.objectives == ("max_drawdown", "sharpe", "turnover_per_bar")


def test_weights_that_nothing_reads_are_refused(specialists, tmp_path):
    def sweep(weights: Any = (0, 1), reward: Any = None, **options: Any) -> None:
        config = config_in(tmp_path / "sweep", reward=reward or {"kind": "mean_variance"})
        pareto_sweep(config, weights, specialists=specialists, **options)

    with pytest.raises(ConfigError, match=r"reward.risk_penalty_weight is for reward.kind=portfolio"):
        sweep(key="reward.risk_penalty_weight")
    with pytest.raises(ConfigError, match=r"reward.risk_penalty_weight is for reward.max_drawdown_target"):
        sweep(key="reward.risk_penalty_weight", reward={"kind": "portfolio", "max_drawdown_target": None})
    with pytest.raises(ConfigError, match=r"no weight 'reward.averson' \(did you mean 'reward.aversion'\?\)"):
        sweep(key="reward.averson")
    with pytest.raises(ConfigError, match=r"there is no weight 'reward.kind'"):
        sweep(key="reward.kind")
    with pytest.raises(ConfigError, match=r"reward.aversion=-1.0 is no weight"):
        sweep((-1, 1))
    for weights in ([1], [1, 1.0, 2]):
        with pytest.raises(ConfigError, match=r"two or more different numbers"):
            sweep(weights)
    with pytest.raises(ConfigError, match=r"no objective 'sharp'"):
        sweep(objectives=("sharp", "annual_return"))
    with pytest.raises(ConfigError, match=r"two or more different ones"):
        sweep(objectives=("sharpe", "sharpe"))
    assert not (tmp_path / "sweep").exists()


def test_specialists_must_fit(specialists, tmp_path):
    other = SMALL["market"] | {"simulation": SMALL["market"]["simulation"] | {"seed": 5}}
    with pytest.raises(ConfigError, match=r"trained with market.simulation.seed=0, and the sweep has 5"):
        pareto_sweep(config_in(tmp_path / "a", market=other), [0, 1], specialists=specialists)
    with pytest.raises(StorageError, match=r"holds no run of `troupe train trading`"):
        pareto_sweep(config_in(tmp_path / "a"), [0, 1], specialists=tmp_path / "nowhere")
    config_file = tmp_path / "unfinished" / "config.json"
    config_file.parent.mkdir()
    config_file.write_text((specialists / "config.json").read_text())
    with pytest.raises(StorageError, match=r"phase 1 has not ended"):
        pareto_sweep(config_in(tmp_path / "b"), [0, 1], specialists=config_file.parent)


def test_specialists_that_changed_since_are_refused(specialists, tmp_path):
    shutil.copytree(specialists, tmp_path / "run")
    store = ModelCheckpointingSystem(tmp_path / "run" / "phase1" / "forex")
    found = store.load_checkpoint("latest")
    changed = {name: value + 1 for name, value in found.tensors["forex"].items()}
    store.save_checkpoint({"forex": changed}, {}, found.step, found.state)
    with pytest.raises(TrainingError, match=r"specialist of forex in .* is not the one that phase 1 ended with"):
        pareto_sweep(config_in(tmp_path / "sweep"), [0, 1], specialists=tmp_path / "run")


def test_another_sweep_needs_another_folder(specialists, swept, tmp_path):
    shutil.copytree(swept.folder, tmp_path / "sweep")
    config = config_in(tmp_path / "sweep")
    longer = config_in(tmp_path / "sweep", phase3=SMALL["phase3"] | {"total_timesteps": 512})
    with pytest.raises(StorageError, match=r"begun with config.phase3.total_timesteps=256, this run has 512"):
        pareto_sweep(longer, [0, 500], specialists=specialists)
    quieter = config_in(
        tmp_path / "sweep", trainer=SMALL["trainer"] | {"output_dir": str(tmp_path / "sweep"), "keep_last": 5}
    )
    pareto_sweep(quieter, [0, 500], specialists=specialists)
    (tmp_path / "sweep" / "aversion_0" / "point.json").write_text("{}")
    with pytest.raises(StorageError, match=r"point.json holds no point"):
        pareto_sweep(config, [0, 500], specialists=specialists)


# --------------------------------------------------------------------------------------------- the picture


def made(*points: tuple[float, float, float, float]) -> ParetoResult:
    """(weight, volatility, return, half an interval)."""

    def measure(mean: float, half: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": 9}

    return ParetoResult(
        Path("x"), "reward.aversion", ("annual_volatility", "annual_return"),
        tuple(
            ParetoPoint(w, "", {"annual_volatility": measure(v, h), "annual_return": measure(r, h)}, True, {})
            for w, v, r, h in points
        ),
    )  # fmt: skip


def circles(svg: str) -> list[tuple[str, float, float]]:
    root = ElementTree.fromstring(svg)
    return [
        (c.attrib["class"], float(c.attrib["cx"]), float(c.attrib["cy"]))
        for c in root.iter("{http://www.w3.org/2000/svg}circle")
    ]


def test_points_stand_where_their_numbers_are():
    # ticks of volatility 0.1 to 0.3 and of return 0.1 to 0.2 reach from border to border
    result = made((1.0, 0.3, 0.2, 0.0), (5.0, 0.2, 0.1, 0.0), (20.0, 0.1, 0.15, 0.0))
    assert result.front == (0, 2)  # 5.0 has more risk and less return than 20.0
    assert circles(pareto_svg(result)) == [("best", 616.0, 64.0), ("other", 347.0, 344.0), ("best", 78.0, 204.0)]
    assert '<path class="line" d="M78.0 204.0L616.0 64.0"/>' in pareto_svg(result)
    assert (
        "1: annual volatility 30.0\N{NO-BREAK SPACE}%, annual return 20.0\N{NO-BREAK SPACE}%, on the front"
        in pareto_svg(result)
    )


def test_whiskers_stay_inside():
    for result in (made((1.0, 0.3, 0.2, 0.4), (5.0, 0.2, -0.1, 0.1)), made((1.0, 0.2, 0.0, 0.0), (2.0, 0.2, 0.0, 0.0))):
        svg = pareto_svg(result)
        for _, x, y in circles(svg):
            assert 78 <= x <= 616 and 64 <= y <= 344


def test_points_that_nobody_can_tell_apart_share_a_label():
    result = made((1.0, 0.3, 0.2, 0.0), (2.0, 0.3001, 0.2, 0.0), (3.0, 0.295, 0.2, 0.0), (20.0, 0.1, 0.1, 0.0))
    found = [
        text for text in ElementTree.fromstring(pareto_svg(result)).iter("{http://www.w3.org/2000/svg}text")
        if "class" not in text.attrib
    ]  # fmt: skip
    assert [text.text for text in found] == ["20", "3, 1, 2"]  # from left to right
    assert float(found[1].attrib["x"]) + 7.5 * len("3, 1, 2") <= 640  # the page ends there


def test_risk_has_no_negative_whiskers():
    """An interval of volatility that reaches below 0 moves no axis there; one of returns does."""
    svg = pareto_svg(made((1.0, 0.1, 0.1, 0.3), (2.0, 0.2, 0.2, 0.0)))
    texts = [t.text for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("-20\N{NO-BREAK SPACE}%") == 1 and texts.count("0\N{NO-BREAK SPACE}%") == 2


def test_a_measure_that_is_not_defined_is_not_compared():
    result = made((1.0, 0.3, 0.2, 0.1), (5.0, 0.2, 0.1, 0.1))
    lost = replace(result.points[0], measures=result.points[0].measures | {"annual_return": None})
    bounds = {"mean": 0.2, "low": None, "high": None, "n": 1}
    alone = replace(result.points[1], measures=result.points[1].measures | {"annual_return": bounds})
    result = replace(result, points=(lost, alone))
    assert result.front == (1,) and len(circles(pareto_svg(result))) == 1
