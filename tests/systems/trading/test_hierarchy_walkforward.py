"""The three phases learn anew in every fold: on what, judged by what, and runs that are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.monitoring.test_report import Page
from tests.systems.trading.killing import kill_at
from tests.systems.trading.test_phases import config
from troupe.envs.market.build import Market, load_market
from troupe.errors import ConfigError, StorageError
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import backtest
from troupe.systems.trading.config import FoldsConfig
from troupe.systems.trading.folds import Fold
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.hierarchy_walkforward import HierarchyWalkForward, fold_data
from troupe.systems.trading.pipeline import HierarchyTrainer
from troupe.systems.trading.walkforward import Plan, WalkForward, WalkForwardResult

ONE = ("market.simulation.paths=1", "market.simulation.bars=900", "evaluation.bars=5")
FOLDS = FoldsConfig(count=2, embargo=5)


def chosen(folder: Path, *overrides: str) -> TradingConfig:
    return config(folder, *ONE, *overrides)


def evaluation(folder: Path, *overrides: str, **options: Any) -> HierarchyWalkForward:
    options = {"folds": FOLDS, "seeds": 2, "cost_sweep": (0.0, 1.0), **options}
    return HierarchyWalkForward(chosen(folder, *overrides), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[HierarchyWalkForward, WalkForwardResult]:
    found = evaluation(tmp_path_factory.mktemp("finished") / "run")
    return found, found.run()


def parts(folder: Path) -> dict[str, str]:
    """Hashes of all that was learned, by fold, seed and phase."""
    found = {}
    for path in sorted(folder.glob("fold_*/seed_*/phase3")):
        tensors = CheckpointStore(path).load("latest").tensors["team"]
        found[str(path.relative_to(folder))] = parameter_hash(tensors)
    return found


# ---------------------------------------------------------------------------------------------- what is learned from


def test_what_a_fold_learns_from_is_judged_by_and_trades() -> None:
    """By hand: 40 % of the 400 bars from row 50 on are for the gates, behind a warm-up of 10 bars and one more."""
    settings = chosen(Path("unused"))
    held = settings.model_copy(
        update={"evaluation": settings.evaluation.model_copy(update={"validation": 0.4, "bars": None})}
    )
    market = load_market(settings.market)
    data = fold_data(market, Fold(3, (50, 450), (460, 600)), held)
    times = market.bars[0].times
    assert data.markets["train"].bars[0].times.tolist() == times[50 : 450 - 160 - 11].tolist()
    assert data.markets["validation"].bars[0].times.tolist() == times[50:450].tolist()
    assert data.markets["test"].bars[0].times.tolist() == times[:601].tolist()
    assert data.first == {"train": 0, "validation": 240, "test": 460}
    rows, bars = data.episodes("validation")
    assert bars == 30 and rows.min() == 240 and rows.max() + bars <= 399
    learned = market.observations[0][50:279]
    np.testing.assert_allclose(data.normaliser(learned).mean(0), 0.0, atol=0.05)


def test_nothing_behind_a_fold_reaches_what_it_learned(tmp_path: Path) -> None:
    """Bars from the first test bar on are replaced: the first fold learns the same, to the bit; the second does not."""
    market = load_market(chosen(tmp_path).market)
    rows = evaluation(tmp_path / "rows").folds[0].test
    bars = market.bars[0]
    changed = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for values in changed.values():
        values[rows[0] :] *= np.exp(np.random.default_rng(0).normal(0, 0.01, (len(values) - rows[0], 1)).cumsum(0))
    seen = market.observations[0].copy()
    seen[rows[0] :] *= -1
    other = replace(market, bars=(replace(bars, **changed),), observations=(seen,))
    hashes = []
    for name, each in (("one", market), ("two", other)):
        evaluation(tmp_path / name, market=each, seeds=1, trials=tmp_path / f"{name}.jsonl").run()
        hashes.append(parts(tmp_path / name))
    one, two = hashes
    assert one["fold_0/seed_0/phase3"] == two["fold_0/seed_0/phase3"]
    assert one["fold_1/seed_0/phase3"] != two["fold_1/seed_0/phase3"]


# ---------------------------------------------------------------------------------------------- what is found


def test_test_stretches_of_all_seeds_are_stitched_and_compared(
    finished: tuple[HierarchyWalkForward, WalkForwardResult],
) -> None:
    found, result = finished
    start, stop = found.folds[0].test[0], found.folds[-1].test[1]
    assert len(found.folds) == 2 and result.name == "hierarchy" and result.trials == 1
    assert result.track.returns.shape == (2, stop - start) and result.rows == (start, stop)
    assert {"hierarchy", "cash", "buy and hold", "1/N", "momentum", "random, same turnover"} <= set(result.assessments)
    assert len(parts(found.plan.folder)) == 4 and len(set(parts(found.plan.folder).values())) == 4
    assert [point.factor for point in result.costs] == [0.0, 1.0]


def test_what_the_gates_let_through_trades_on_the_scale_that_it_learned_on(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "run", seeds=1)
    found.run()
    for folder in (tmp_path / "run").glob("fold_*/seed_0"):
        path = folder / "phase3_results.json"
        results = json.loads(path.read_text())
        results["gate"]["promote"] = True
        path.write_text(json.dumps(results))
    result = evaluation(tmp_path / "run", seeds=1).run()
    assert result.track.turnover.any(1).all()
    parts = []
    for fold in found.folds:
        data = fold_data(found.market, fold, found.config)
        folder = tmp_path / "run" / f"fold_{fold.number}" / "seed_0"
        config = found.config.model_copy(
            update={"trainer": found.config.trainer.model_copy(update={"output_dir": str(folder)})}
        )
        trainer = HierarchyTrainer(config, data=data)
        core = found.market.core(data.normaliser)
        parts.append(backtest(core, trainer.strategy(), *fold.test).returns)
    np.testing.assert_array_equal(result.track.returns, np.concatenate(parts, axis=1))


def test_what_is_not_let_through_is_not_traded(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "run", seeds=1, folds=FoldsConfig(count=1, embargo=5))
    found.run()
    folder = tmp_path / "run" / "fold_0" / "seed_0"
    for number in (1, 2, 3):
        path = folder / f"phase{number}_results.json"
        results = json.loads(path.read_text())
        results["improved"] = []
        results.get("gate", {})["promote"] = False
        path.write_text(json.dumps(results))
    result = evaluation(tmp_path / "run", seeds=1, folds=FoldsConfig(count=1, embargo=5)).run()
    assert not result.track.turnover.any() and result.learned.edge.p_value == 1.0


def test_the_record_and_the_page(finished: tuple[HierarchyWalkForward, WalkForwardResult]) -> None:
    found, result = finished
    page = found.write(result, ["python evaluate.py"], simulated=True)
    record = json.loads((page.parent / "evaluation.json").read_text())
    assert [row["runs"] for row in record["phases"]] == [4, 4, 4, 4, 4]
    stored = [json.loads(path.read_text()) for path in found.plan.folder.glob("fold_*/seed_*/phase2_results.json")]
    second = next(row for row in record["phases"] if row["phase"] == 2)
    assert second["promoted"] == sum(each["gate"]["promote"] for each in stored)
    assert second["targets"][0]["measured"] == f"{np.mean([each['metrics']['sharpe']['mean'] for each in stored]):.2f}"
    assert record["drivers"]["allocation"]["times"] == result.track.times.tolist()
    assert len(record["folds"]) == 2 and record["strategies"][0]["over"] == "seeds"
    shown = Page(page.read_text(encoding="utf-8"))
    assert {"drivers", "phases"} <= shown.ids() and "of 4 let through" in shown.text
    assert "2 seeds: the intervals over seeds say little." in shown.text


def test_progress_runs_from_the_first_phase_of_the_first_fold_to_the_last(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = evaluation(tmp_path / "run", progress=lambda name, step, total, _: seen.append((name, step, total)))
    found.run()
    steps = [step for _, step, _ in seen]
    assert steps == sorted(steps) and len(set(steps)) == len(steps) == 4 * 5 * 2
    assert {total for _, _, total in seen} == {steps[-1]} == {4 * 5 * 128}
    assert seen[0][0] == "fold 0 seed 0" and seen[-1][0] == "fold 1 seed 1"


def test_another_configuration_is_another_trial_and_needs_another_folder(tmp_path: Path) -> None:
    few = {"seeds": 1, "folds": FoldsConfig(count=1, embargo=5), "cost_sweep": (1.0,)}
    assert evaluation(tmp_path / "a", **few).run().trials == 1
    assert evaluation(tmp_path / "a", "trainer.save_freq=2", **few).run().trials == 1
    assert evaluation(tmp_path / "b", "ppo.gamma=0.5", **few).run().trials == 2
    with pytest.raises(StorageError, match=r"ppo\.gamma"):
        evaluation(tmp_path / "a", "ppo.gamma=0.5", **few).run()
    with pytest.raises(StorageError, match="seeds"):
        evaluation(tmp_path / "a", **{**few, "seeds": 2}).run()
    with pytest.raises(StorageError, match="holds a run"):
        evaluation(tmp_path / "a", "trainer.resume=never", **few).run()
    market = load_market(chosen(tmp_path, "market.simulation.seed=1").market)
    with pytest.raises(StorageError, match="another market"):
        evaluation(tmp_path / "a", market=market, **few).run()


# ---------------------------------------------------------------------------------------------- killed, in processes

PROGRAM = """
import sys
from pathlib import Path
from tests.systems.trading.test_hierarchy_walkforward import evaluation
if __name__ == "__main__":
    evaluation(Path(sys.argv[1]), processes=int(sys.argv[2])).run()
"""


def start(folder: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(processes)], cwd=root, env=environment)


@pytest.mark.parametrize("checkpoint", ["fold_0/seed_1/phase1/forex/checkpoint_1", "fold_1/seed_0/phase3/checkpoint_1"])
def test_a_killed_evaluation_ends_as_the_one_that_was_left_alone(
    tmp_path: Path, finished: tuple[HierarchyWalkForward, WalkForwardResult], checkpoint: str
) -> None:
    calm, killed = finished[0].plan.folder, tmp_path / "killed"
    kill_at(start(killed), killed / checkpoint)
    assert not (killed / "fold_1" / "seed_1" / "phase3_results.json").exists()
    result = evaluation(killed).run()
    assert parts(killed) == parts(calm)
    np.testing.assert_array_equal(result.track.returns, finished[1].track.returns)


@pytest.mark.slow
def test_processes_learn_the_same(tmp_path: Path, finished: tuple[HierarchyWalkForward, WalkForwardResult]) -> None:
    found = evaluation(tmp_path / "run", processes=2)
    np.testing.assert_array_equal(found.run().track.returns, finished[1].track.returns)
    assert parts(tmp_path / "run") == parts(finished[0].plan.folder)


# ---------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        (["market.simulation.paths=2"], {}, "one history"),
        (["evaluation.bars=30"], {}, "need 10; write a smaller evaluation.bars"),
        (["market.rules.episode_length=500"], {}, "shorter market.rules.episode_length"),
        ([], {"seeds": 0}, "seeds=0"),
        ([], {"processes": 0}, "processes=0"),
        ([], {"cost_sweep": (2.0,)}, "cost_sweep"),
        ([], {"folds": FoldsConfig(count=500)}, "do not fit"),
        ([], {"folds": FoldsConfig(count=1, first=0.99)}, "too few"),
        (["market.features=[market]"], {}, "EURUSD"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_learned(
    tmp_path: Path, overrides: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluation(tmp_path / "run", *overrides, **options)
    assert not (tmp_path / "run").exists()


def test_a_share_for_a_single_test_is_refused(tmp_path: Path) -> None:
    settings = chosen(tmp_path / "run")
    settings = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"test": 0.3})})
    with pytest.raises(ConfigError, match=r"evaluation\.test"):
        HierarchyWalkForward(settings)


def test_a_plan_needs_a_learner_and_a_configuration_has_one(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "run")
    plan: Plan = found.plan
    market: Market = found.market
    with pytest.raises(ConfigError, match="a Plan needs a learner"):
        WalkForward(plan, market=market)
    with pytest.raises(ConfigError, match="has its own"):
        WalkForward({}, learner=found._phases)
