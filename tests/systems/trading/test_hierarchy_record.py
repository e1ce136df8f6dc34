"""What is traded after the three phases, on the whole test stretch, and what the record and the page say about it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.monitoring.test_report import Page
from tests.monitoring.test_report_browser import BROWSER, BROWSERS, browse, console
from tests.monitoring.test_tear_sheet import PROBE, absent
from tests.systems.trading.test_phases import config
from troupe.envs.market.build import Market, load_market
from troupe.envs.market.regimes import REGIMES
from troupe.envs.market.team import META
from troupe.errors import ConfigError
from troupe.monitoring.tear_sheet import write_tear_sheet
from troupe.systems.trading.backtest import backtest
from troupe.systems.trading.drivers import drivers, regimes_of
from troupe.systems.trading.hierarchy_config import EpisodesConfig, TradingConfig
from troupe.systems.trading.hierarchy_record import (
    NAME,
    deciding,
    evaluate_hierarchy,
    phase_rows,
    write_hierarchy_evaluation,
)
from troupe.systems.trading.judging import strategy_of
from troupe.systems.trading.phase_metrics import PHASE_TARGETS
from troupe.systems.trading.pipeline import HierarchyTrainer

SIMPLE = {
    "cash", "buy and hold", "1/N", "inverse volatility", "equal risk contribution", "momentum", "random, same turnover",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in simulated markets."""
    folder = tmp_path_factory.mktemp("drawn") / "run"
    HierarchyTrainer(config(folder)).train()
    return folder


def decided(folder: Path, into: Path, **promoted: bool) -> Path:
    """A copy of the run whose gates said this."""
    shutil.copytree(folder, into)
    for name, said in promoted.items():
        path = into / f"{name}_results.json"
        results = json.loads(path.read_text())
        if name == "phase1":
            results["improved"] = list(results["specialists"]) if said else []
        else:
            results["gate"]["promote"] = said
        path.write_text(json.dumps(results))
    return into


@pytest.fixture(scope="module")
def team(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> HierarchyTrainer:
    """All gates are open."""
    folder = decided(finished, tmp_path_factory.mktemp("open") / "run", phase1=True, phase2=True, phase3=True)
    return HierarchyTrainer(config(folder))


def history(bars: int = 900) -> Market:
    settings = config(Path("unused"), "market.simulation.paths=1", f"market.simulation.bars={bars}")
    return load_market(settings.market)


def of_history(folder: Path) -> TradingConfig:
    return config(folder).model_copy(update={"evaluation": EpisodesConfig(bars=20, validation=0.3)})


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> HierarchyTrainer:
    """A run on one history, whose gates let nothing through."""
    folder = tmp_path_factory.mktemp("history") / "run"
    HierarchyTrainer(of_history(folder), market=history()).train()
    decided(folder, folder.with_name("closed"), phase1=False, phase2=False, phase3=False)
    return HierarchyTrainer(of_history(folder.with_name("closed")), market=history())


# ---------------------------------------------------------------------------------------------- what is traded


def test_an_account_in_each_path_trades_all_of_the_test(team: HierarchyTrainer, tmp_path: Path) -> None:
    found = evaluate_hierarchy(team, trials=tmp_path / "trials.jsonl", cost_sweep=(0.0, 1.0))
    result, market = found.result, team.data.markets["test"]
    assert result.rows == (10, 399) and result.folds == ()
    assert result.track.returns.shape == (2, 389) and result.name == NAME
    assert result.track.times.tolist() == market.bars[0].times[11:].tolist()
    assert set(result.tracks) == {NAME, "equal allocation", *SIMPLE}
    assert all(track.returns.shape == (2, 389) for track in result.tracks.values())
    assert result.before is team.data.markets["train"]
    traded = team.traded()
    for path, first in enumerate(np.asarray(team.data.core("test").tape.first)):
        alone = strategy_of(team.data, traded.net)
        track = backtest(team.data.core("test"), alone, int(first) + 10, int(first) + 399)
        np.testing.assert_allclose(result.track.returns[path], track.returns[0], atol=1e-6)
        equal = strategy_of(team.data, traded.net, "equal")
        track = backtest(team.data.core("test"), equal, int(first) + 10, int(first) + 399)
        np.testing.assert_allclose(result.tracks["equal allocation"].returns[path], track.returns[0], atol=1e-6)
    free, charged = (point.annual_return.mean for point in result.costs)
    assert free > charged and [point.factor for point in result.costs] == [0.0, 1.0]


def test_of_a_history_one_account_trades_from_the_first_test_bar(single: HierarchyTrainer, tmp_path: Path) -> None:
    found = evaluate_hierarchy(single, trials=tmp_path / "trials.jsonl", cost_sweep=(1.0,))
    result = found.result
    assert result.rows == (720, 899) == (single.data.first["test"], 899)
    (fold,) = result.folds
    assert fold.train == (0, 720 - 11) and fold.test == (720, 899)
    assert len(result.before.bars[0]) == 721
    assert result.track.returns.shape == (1, 179)
    assert result.tracks["random, same turnover"].returns.shape == (5, 179)
    assert not result.track.returns.any() and not result.learned.edge.significant
    assert result.tracks["equal allocation of all specialists"].returns.any()  # what the gates refused


def test_specialists_that_are_traded_with_equal_allocation_are_not_listed_twice(
    finished: Path, tmp_path: Path
) -> None:  # fmt: skip
    folder = decided(finished, tmp_path / "run", phase1=True, phase2=False, phase3=False)
    trainer = HierarchyTrainer(config(folder))
    traded = trainer.traded()
    assert deciding(traded) == ("forex", "commodities", "equity") and traded.phase == 1
    assert set(evaluate_hierarchy(trainer, cost_sweep=(1.0,)).result.tracks) == {NAME, *SIMPLE}


def test_another_configuration_is_another_trial_and_the_same_one_is_not(
    finished: Path, tmp_path: Path
) -> None:  # fmt: skip
    file = tmp_path / "trials.jsonl"

    def trials(*overrides: str) -> int:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(finished, folder)
        (folder / "config.json").unlink()
        trainer = HierarchyTrainer(config(folder, *overrides))
        return evaluate_hierarchy(trainer, trials=file, cost_sweep=(1.0,)).result.trials

    assert trials() == 1
    assert trials("trainer.save_freq=7", "trainer.logger=[console]", "communication.log_all_messages=true") == 1
    assert trials("ppo.gamma=0.5") == 2


@pytest.mark.parametrize("sweep", [(), (0.0, 2.0), (1.0, 1.0), (1.0, -1.0), (1.0, float("nan"))])
def test_a_sweep_needs_the_costs_as_they_are(team: HierarchyTrainer, sweep: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="cost_sweep"):
        evaluate_hierarchy(team, cost_sweep=sweep)


def test_a_test_that_is_too_short_is_refused(single: HierarchyTrainer, tmp_path: Path) -> None:
    shutil.copytree(single.config.trainer.output_dir, tmp_path / "run")
    (tmp_path / "run" / "market.json").unlink()
    data = replace(single.data, first={**single.data.first, "test": 885})
    trainer = HierarchyTrainer(of_history(tmp_path / "run"), data=data)
    with pytest.raises(ConfigError, match="the test has 14 bars"):
        evaluate_hierarchy(trainer, cost_sweep=(1.0,))


# ---------------------------------------------------------------------------------------------- drivers


def test_drivers_are_those_of_what_was_traded(team: HierarchyTrainer, tmp_path: Path) -> None:
    told = evaluate_hierarchy(team, trials=tmp_path / "t.jsonl", cost_sweep=(2.0, 1.0, 0.0)).told
    found = drivers([told])
    allocation, strategy = found["allocation"], told.strategy
    assert allocation["times"] == told.track.times.tolist()
    for k, sector in enumerate(("forex", "commodities", "equity")):
        assert allocation["shares"][sector] == strategy.shares[0, :, k].tolist()
    assert allocation["risk"] == strategy.risk[0].tolist()
    assert allocation["regime"] == [REGIMES[n] for n in told.regimes[0]]
    assert sum(each["bars"] for each in found["by_regime"]) == told.track.returns.size
    for each in found["by_regime"]:
        here = told.regimes == REGIMES.index(each["regime"])
        assert each["shares"]["equity"] == pytest.approx(strategy.shares[..., 2][here].mean())
        bars = told.track.returns[here]
        year = told.track.periods_per_year
        assert each["sharpe"] is None or each["sharpe"] == pytest.approx(bars.mean() / bars.std(ddof=1) * year**0.5)
    assert [each["agent"] for each in found["agents"]] == [META, "forex", "commodities", "equity"]
    assert found["agents"][0]["outputs"] == ["allocation forex", "allocation commodities", "allocation equity", "risk"]
    assert found["agents"][2]["outputs"] == ["XAUUSD", "WTIUSD"]
    for each in found["agents"]:
        assert sum(group["share"] for group in each["groups"]) == pytest.approx(1.0)
        assert len(each["features"]) <= 10
    listed = {feature["name"] for feature in found["agents"][0]["features"]}
    assert listed & {f"embedding {sector}" for sector in ("forex", "commodities", "equity")}


def test_an_agent_that_reads_one_input_is_driven_by_it(finished: Path, tmp_path: Path) -> None:
    """By hand: all weights of the first layer are 0 but those of one input; the meta-controller's only input is an
    embedding."""
    folder = decided(finished, tmp_path / "run", phase1=True, phase2=True, phase3=True)
    trainer = HierarchyTrainer(config(folder))
    traded = trainer.traded()
    team = trainer.data.team(trainer.data.core("test"))
    with torch.no_grad():
        column = team.columns["forex"].index("signal_GBPUSD")
        first = traded.net.module("forex").towers.weights[0]
        first[..., [i for i in range(first.shape[-1]) if i != column]] = 0.0
        meta = traded.net.meta.towers.weights[0]
        meta[..., : len(team.columns[META]) + 8] = 0.0  # all but the embeddings of commodities and equity
        meta[..., len(team.columns[META]) + 16 :] = 0.0
    from troupe.systems.trading.drivers import Told

    strategy = strategy_of(trainer.data, traded.net)
    track = backtest(trainer.data.core("test"), strategy, 10, 399)
    rows = regimes_of(trainer.data.markets["test"], (10, 399))[:1]
    agents = {each["agent"]: each for each in drivers([Told(strategy, track, rows, deciding(traded))])["agents"]}
    assert agents["forex"]["features"][0] == {"name": "signal_GBPUSD", "share": pytest.approx(1.0)}
    assert agents["forex"]["groups"][0] == {"name": "market", "share": pytest.approx(1.0)}
    assert agents[META]["features"][0] == {"name": "embedding commodities", "share": pytest.approx(1.0)}


def test_agents_that_nobody_listens_to_drive_nothing(single: HierarchyTrainer, tmp_path: Path) -> None:
    told = evaluate_hierarchy(single, trials=tmp_path / "t.jsonl", cost_sweep=(1.0,)).told
    assert drivers([told])["agents"] == []
    allocation = drivers([told])["allocation"]
    assert set(allocation["shares"]) == {"forex", "commodities", "equity"}
    assert not np.any([*allocation["shares"].values(), allocation["risk"]])
    told.strategy._active = {"equity"}
    some = drivers([replace(told, deciding=("equity",))])
    assert [each["agent"] for each in some["agents"]] == ["equity"]
    assert some["allocation"]["shares"] == {
        "forex": [0.0] * 179, "commodities": [0.0] * 179, "equity": [pytest.approx(1 / 3)] * 179,
    }  # fmt: skip
    assert some["allocation"]["risk"] == [1.0] * 179


def test_regimes_are_known_at_the_decision() -> None:
    market = history()
    before = regimes_of(market, (700, 800))
    bars = market.bars[0]
    changed = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for values in changed.values():
        values[751:] *= np.linspace(1, 9, len(values) - 751)[:, None]
    after = regimes_of(replace(market, bars=(replace(bars, **changed),)), (700, 800))
    assert before.shape == (1, 100)
    assert (before[0, :51] == after[0, :51]).all() and (before[0, 51:] != after[0, 51:]).any()


# ---------------------------------------------------------------------------------------------- phases


def test_targets_of_the_phases_are_those_of_the_document() -> None:
    written = {n: {name: text for name, (text, _) in each.items()} for n, each in PHASE_TARGETS.items()}
    assert written == {
        1: {"sharpe": "> 1.5", "max_drawdown": "< 20 %", "win_rate": "> 55 %"},
        2: {"sharpe": "> 1.8", "max_drawdown": "< 18 %", "win_rate": "> 60 %", "var_compliance": "> 95 %"},
        3: {"sharpe": "> 2.0", "max_drawdown": "< 15 %", "win_rate": "> 65 %", "var_compliance": "> 98 %"},
    }
    for each in PHASE_TARGETS.values():
        for text, number in each.values():
            digits = float(re.sub(r"[^0-9.]", "", text))
            assert number == pytest.approx(digits / 100 if text.endswith("%") else digits)


def gate(promote: bool, mean: float | None) -> dict[str, Any]:
    difference = None if mean is None else {"mean": mean, "low": mean - 1, "high": mean + 1, "n": 12}
    return {"promote": promote, "reasons": ["because", "so it is"], "difference": difference}


def measured(sharpe: float | None, compliance: float | None = None) -> dict[str, Any]:
    ratio = None if sharpe is None else {"mean": sharpe}
    return {
        "sharpe": ratio, "max_drawdown": {"mean": 0.16}, "win_rate": None,
        "risk_compliance": {"var_compliance": compliance},
    }  # fmt: skip


def test_rows_of_the_phases_by_hand() -> None:
    one = {
        1: {"specialists": {"forex": {"gate": gate(True, 0.5), "metrics": measured(1.6)}}},
        3: {"gate": gate(False, 0.1), "metrics": measured(2.5, 0.99), "against": "the old one"},
    }
    first, third = phase_rows([one])
    assert (first["phase"], first["part"], first["against"], first["gate"]) == (1, "forex", "holding nothing",
                                                                               "because; so it is")  # fmt: skip
    assert (first["promoted"], first["runs"]) == (1, 1) and (third["promoted"], third["against"]) == (0, "the old one")
    assert [(t["measured"], t["met"]) for t in first["targets"]] == [("1.60", True), ("16.0 %", True),
                                                                    ("not measured", False)]  # fmt: skip
    assert [(t["measured"], t["met"]) for t in third["targets"]] == [
        ("2.50", True), ("16.0 %", False), ("not measured", False), ("99.0 %", True),
    ]  # fmt: skip
    other = {1: {"specialists": {"forex": {"gate": gate(False, None), "metrics": measured(None)}}}}
    again = {1: {"specialists": {"forex": {"gate": gate(False, -1.5), "metrics": measured(0.4)}}}}
    first, third = phase_rows([one, other, again])
    assert (first["promoted"], first["runs"]) == (1, 3) and third["runs"] == 1
    assert first["gate"] == "difference -0.500 in the mean over 2 runs"
    assert first["targets"][0] == {"metric": "sharpe", "target": "> 1.5", "measured": "1.00", "met": False}


# ---------------------------------------------------------------------------------------------- the record and the page


def written(trainer: HierarchyTrainer, **options: Any) -> tuple[dict[str, Any], Page]:
    result = trainer.train()
    page = write_hierarchy_evaluation(trainer, result, ["troupe train trading"], cost_sweep=(0.0, 1.0), **options)
    assert page == Path(trainer.config.trainer.output_dir) / "report.html"
    return json.loads((page.parent / "evaluation.json").read_text()), Page(page.read_text(encoding="utf-8"))


def test_the_record_and_the_page_of_simulated_markets(team: HierarchyTrainer) -> None:
    record, page = written(team)
    assert record["market"]["simulated"] is True and record["market"]["paths"] == 2
    assert (
        record["strategies"][0] | {"name": NAME, "learned": True, "seeds": 2, "over": "histories"}
        == (record["strategies"][0])
    )
    assert sum(each["learned"] for each in record["strategies"]) == 1
    stored = json.loads((Path(team.config.trainer.output_dir) / "phase2_results.json").read_text())
    second = next(row for row in record["phases"] if row["phase"] == 2)
    assert second["gate"] == "; ".join(stored["gate"]["reasons"])
    assert second["targets"][0]["measured"] == f"{stored['metrics']['sharpe']['mean']:.2f}"
    assert [row["part"] for row in record["phases"]] == ["forex", "commodities", "equity", "", ""]
    assert {"drivers", "phases", "folds"} <= page.ids() and absent(page) == 2  # no folds, no limits
    assert "means over 2 histories" in page.text and "400 in each of 2 histories" in page.text
    assert "equal allocation, and what phase 1 let through" in page.text and "let through" in page.text
    assert "One seed learned" in page.text and " seeds" not in page.text.replace("seeds of", "")


def test_the_record_and_the_page_of_a_history(single: HierarchyTrainer, tmp_path: Path) -> None:
    record, page = written(single, trials=tmp_path / "trials.jsonl")
    assert record["market"]["simulated"] is False and record["trials"]["file"] == str(tmp_path / "trials.jsonl")
    assert record["verdict"]["edge"] is False and record["verdict"]["p"] == 1.0
    assert record["drivers"]["agents"] == [] and len(record["folds"]) == 1
    assert "No edge was shown" in page.text and "held back" in page.text
    assert "Nothing was traded" in page.text
    assert written(single, simulated=True)[0]["market"]["simulated"] is True


@pytest.mark.skipif(BROWSER is None, reason=f"no browser found: none of {', '.join(BROWSERS)} is on the PATH")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_is_cut_off_or_scrolls_sideways(
    team: HierarchyTrainer, tmp_path: Path, width: int
) -> None:  # fmt: skip
    written(team)
    html = write_tear_sheet(Path(team.config.trainer.output_dir)).read_text()
    probe, inner = tmp_path / "probe.html", escape(html.replace("</body>", PROBE))
    probe.write_text(
        f'<!doctype html><iframe width="{width}" height="900" srcdoc="{inner}" style="border: 0"></iframe>'
    )
    dom, log = browse(probe, tmp_path / "profile")
    match = re.search(r'data-found="([^"]*)"', dom)
    assert console(log) == [] and match, "the probe did not finish"
    assert json.loads(unescape(match[1])) == {
        "charts": 6, "flat": 0, "tips": 6, "keys": 6, "cut": [], "over": [], "window": width, "wide": 0,
        "switched": True,
    }  # fmt: skip
