"""Markets from configurations: simulated, from files, and what does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.envs.market.samples import random_bars
from troupe.envs.market.build import load_market, observation_table
from troupe.envs.market.config import DataConfig, MarketConfig, MarketRules, SimulationConfig
from troupe.envs.market.env_config import read_env_config
from troupe.envs.market.instruments import INSTRUMENTS
from troupe.envs.market.mixture import mixed_market
from troupe.envs.market.planted import PlantedMarket
from troupe.envs.market.rotation import RotationMarket, rotation_market
from troupe.envs.market.simulator import SCENARIOS
from troupe.errors import ConfigError, DataError

QUICK = SimulationConfig(paths=2, bars=150)


def written(folder: Path, name: str, rows: int, first: str = "2020-01-01", seed: int = 0) -> str:
    """A CSV of hourly bars."""
    bars = random_bars(seed, rows, 1)
    start = np.datetime64(first, "s")
    lines = ["date,open,high,low,close,volume"]
    for t in range(rows):
        stamp = str(start + np.timedelta64(t, "h")).replace("T", " ")
        prices = [getattr(bars, column)[t, 0] for column in ("open", "high", "low", "close")]
        lines.append(",".join([stamp, *(f"{price:.6f}" for price in prices), "100"]))
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_document_s_market_is_simulated_where_no_file_is_named():
    market = load_market(MarketConfig(simulation=QUICK))
    assert len(market.bars) == 2 and market.bars[0].instruments == MarketConfig().instruments
    core = market.core(market.fitted())
    assert core.observation_size == len(market.names) + 2 * 8 + 1
    assert len({f"{a}" for a in market.bars[0].close[-1]}) == 8  # public code gave all eight one path


def test_costs_and_instruments_of_one_s_own(tmp_path):
    files = {"ACME": written(tmp_path, "ACME", 400)}
    own = {"ACME": {"sector": "equity", "quote": "USD", "half_spread": 0.002}}
    market = load_market(MarketConfig(instruments=("ACME",), data=DataConfig(files=files), costs=own))
    assert market.instruments[0].half_spread == 0.002 and market.instruments[0].sector == "equity"
    with pytest.raises(ConfigError, match="sector"):
        load_market(MarketConfig(instruments=("ACME",), data=DataConfig(files=files)))


def test_what_has_no_file_or_too_little_history_is_left_out_with_a_message(tmp_path):
    files = {"EURUSD": written(tmp_path, "EURUSD", 400), "GBPUSD": written(tmp_path, "GBPUSD", 100, seed=1)}
    config = MarketConfig(
        instruments=("EURUSD", "GBPUSD", "XAUUSD"), data=DataConfig(files=files), rules=MarketRules(episode_length=900)
    )
    market = load_market(config)
    assert market.bars[0].instruments == ("EURUSD",) and market.rules.episode_length == 400 - 50 - 1
    assert [message.split(" ")[0] for message in market.messages] == ["XAUUSD", "GBPUSD", "episodes"]
    with pytest.raises(DataError, match="no instrument has enough bars"):
        load_market(config.model_copy(update={"data": DataConfig(files=files, min_bars=1000)}))


def test_numbers_that_yaml_reads_as_words_are_numbers_and_other_words_are_not():
    config = MarketConfig(instruments=("EURUSD",), costs={"EURUSD": {"half_spread": "1e-4"}}, simulation=QUICK)
    assert load_market(config).instruments[0].half_spread == 1e-4
    with pytest.raises(ConfigError, match=r"costs\.EURUSD\.half_spread='wide' is no number"):
        load_market(config.model_copy(update={"costs": {"EURUSD": {"half_spread": "wide"}}}))


def test_pairs_that_are_not_traded_convert(tmp_path):
    """EURGBP earns pounds; the bars of GBPUSD say what they are worth, and nobody trades them."""
    files = {"EURGBP": written(tmp_path, "EURGBP", 400), "GBPUSD": written(tmp_path, "GBPUSD", 400, seed=1)}
    market = load_market(MarketConfig(instruments=("EURGBP",), data=DataConfig(files=files)))
    core = market.between(10, 300).core(market.fitted())
    pounds = random_bars(1, 400, 1).close[10:300]
    assert core.instruments == ("EURGBP",) and core.tape.rates == pytest.approx(pounds, rel=1e-6)
    with pytest.raises(DataError, match="add bars of GBPUSD"):
        load_market(MarketConfig(instruments=("EURGBP",), data=DataConfig(files={"EURGBP": files["EURGBP"]})))
    late = {**files, "GBPUSD": written(tmp_path, "GBPUSD", 400, "2020-01-05", seed=1)}
    with pytest.raises(DataError, match="add bars of GBPUSD"):  # its first price would be the future's
        load_market(MarketConfig(instruments=("EURGBP",), data=DataConfig(files=late)))


def test_daily_bars_among_hourly_ones_are_filled_at_their_closes(tmp_path):
    days = [f"{np.datetime64('2020-01-01') + k},100,110,100,110" for k in range(16)]
    (tmp_path / "XAUUSD.csv").write_text("date,open,high,low,close\n" + "\n".join(days) + "\n")
    files = {"EURUSD": written(tmp_path, "EURUSD", 400), "XAUUSD": str(tmp_path / "XAUUSD.csv")}
    data = DataConfig(files=files, min_bars=10)
    market = load_market(MarketConfig(instruments=("EURUSD", "XAUUSD"), data=data))
    assert "XAUUSD is filled at its closes" in market.messages[-1]
    assert market.core(market.fitted()).tape.close_only.tolist() == [False, True]


def test_bars_may_be_put_together(tmp_path):
    files = {"EURUSD": written(tmp_path, "EURUSD", 2400)}
    market = load_market(
        MarketConfig(instruments=("EURUSD",), data=DataConfig(files=files, resample=14_400, min_bars=100))
    )
    assert set(np.diff(market.bars[0].times)) == {14_400} and len(market.bars[0]) == 600


def test_features_by_name_and_none_that_nobody_computes():
    bars = random_bars(0, 80, 2)
    table, names = observation_table(bars, ("rsi", "return", "market_return"), 20)
    assert names == ("A_return", "A_rsi", "B_return", "B_rsi", "market_return") and table.shape == (80, 5)
    with pytest.raises(ConfigError, match="did you mean 'rsi'"):
        observation_table(bars, ("rsy",), 20)
    with pytest.raises(ConfigError, match="extra columns"):
        observation_table(bars, ("extra",), 20)


def test_a_stretch_knows_what_came_before_and_nothing_else():
    market = load_market(MarketConfig(simulation=SimulationConfig(paths=1, bars=300)))
    part = market.between(100, 200)
    assert (part.observations[0] == market.observations[0][100:200]).all()
    one, two = market.fitted(100), market.between(0, 100).fitted()
    assert (one.mean == two.mean).all() and (one.std == two.std).all()
    assert not (one.mean == market.fitted().mean).all()


def test_changed_rules_are_checked():
    market = load_market(MarketConfig(simulation=QUICK))
    assert market.core(market.fitted(), cost_scale=2.0).rules.cost_scale == 2.0
    with pytest.raises(ValueError, match="cost_scale"):
        market.core(market.fitted(), cost_scale=-1.0)


@pytest.mark.parametrize("scenario", ["planted", "null", "rotation"])
def test_planted_markets_of_known_names_have_the_costs_of_their_optimum(scenario):
    """Yen would convert at a price that is none, and the costs of the table are a hundredth of the optimum's."""
    simulation = SimulationConfig(scenario=scenario, paths=1, bars=150)
    market = load_market(MarketConfig(simulation=simulation))
    cost = RotationMarket().cost if scenario == "rotation" else PlantedMarket().cost
    for each in market.instruments:
        assert (each.quote, each.half_spread, each.commission, each.impact) == ("USD", cost, 0.0, 0.0)
        assert (each.swap_long, each.swap_short) == (0.0, 0.0) and each.sector == INSTRUMENTS[each.name].sector
    core = market.core(market.fitted(), max_position_size=1.0)
    assert core.tape.rates is None
    state = core.begin(np.array([100]))
    one = np.eye(8)[[2]]  # all in USDJPY
    state, outcome = core.step(state, one)
    change = market.bars[0].close[101, 2] / market.bars[0].close[100, 2] - 1
    assert outcome.gain[0] == pytest.approx(change - cost, rel=1e-9)
    own = load_market(
        MarketConfig(
            account="EUR", simulation=simulation,
            costs={"USDJPY": {"half_spread": 0.01, "swap_long": 0.02}, "EURUSD": {"sector": "mine"}},
        )
    )  # fmt: skip
    assert {each.quote for each in own.instruments} == {"EUR"} and own.instruments[0].sector == "mine"
    assert (own.instruments[2].half_spread, own.instruments[2].swap_long) == (0.01, 0.02)


def test_the_edge_moves_between_the_sectors_of_the_configuration():
    simulation = SimulationConfig(scenario="rotation", paths=2, bars=150, seed=3)
    market = load_market(MarketConfig(simulation=simulation, features=("extra",)))
    assert market.names[-4:] == ("signal_US30", "active_forex", "active_commodities", "active_equity")
    expected = rotation_market(150, 2, np.random.default_rng(3), RotationMarket())
    assert all((a.close == b.close).all() for a, b in zip(market.bars, expected, strict=True))
    names = {"A": "left", "B": "right", "EURUSD": None}
    costs = {name: {"sector": sector} for name, sector in names.items() if sector}
    config = MarketConfig(instruments=tuple(names), costs=costs, simulation=simulation, features=("extra",))
    assert load_market(config).names[-3:] == ("active_left", "active_right", "active_forex")
    for alone in (("EURUSD", "GBPUSD"), ("A", "B")):
        with pytest.raises(ConfigError, match="two or more sectors, not of"):
            load_market(MarketConfig(instruments=alone, simulation=simulation))


def test_a_mixture_is_drawn_from_the_scenarios_that_are_named():
    def bars(**changes):
        chosen = {"scenario": "mixed", "paths": 6, "bars": 150, "seed": 5, **changes}
        return load_market(MarketConfig(simulation=SimulationConfig(**chosen))).bars

    known = load_market(MarketConfig(simulation=QUICK)).instruments
    for scenarios, difficulty in ((tuple(SCENARIOS), 1.0), (("crisis", "low_vol"), 0.5)):
        found = bars(scenarios=scenarios, difficulty=difficulty)
        expected = mixed_market(scenarios, difficulty, 150, 6, np.random.default_rng(5), known)
        assert all((a.close == b.close).all() for a, b in zip(found, expected, strict=True))
    assert (bars()[0].close == bars(scenarios=tuple(SCENARIOS))[0].close).all()
    with pytest.raises(ConfigError, match="needs instruments of two or more sectors"):
        load_market(MarketConfig(instruments=("EURUSD",), simulation=SimulationConfig(scenario="mixed", paths=1)))


@pytest.mark.parametrize("scenarios", [(), ("crisis", "crisis"), ("planted",), ("mixed",)])
def test_scenarios_that_cannot_be_drawn(scenarios):
    with pytest.raises(ValueError, match="scenarios"):
        SimulationConfig(scenario="mixed", scenarios=scenarios)


@pytest.mark.parametrize(
    ("scenario", "keys"),
    [
        ("crisis", {"scenarios": ["crisis"]}), ("rotation", {"scenarios": ["crisis"]}),
        ("rotation", {"difficulty": 0.5}), ("planted", {"difficulty": 0.5}),
    ],
)  # fmt: skip
def test_keys_that_a_scenario_would_not_read_are_refused(scenario, keys):
    with pytest.raises(ConfigError, match=f"simulation.{next(iter(keys))}: is for"):
        read_env_config({"simulation": {"scenario": scenario, **keys}})


def test_a_mixture_reads_its_scenarios_and_the_largest_difficulty():
    given = {"scenario": "mixed", "scenarios": ["crisis", "macro"], "difficulty": 0.5}
    simulation = read_env_config({"simulation": given}).market.simulation
    assert (simulation.scenarios, simulation.difficulty) == (("crisis", "macro"), 0.5)


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not name the folder of data sets")
def test_fourteen_daily_instruments_become_one_market():
    folder = Path(os.environ["TROUPE_DATA"]) / "markets"
    names = [
        "EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "USDCAD", "USDCHF", "EURJPY", "EURGBP", "XAUUSD", "SPX500", "US30",
        "NASDAQ_COMPOSITE",
    ]  # fmt: skip
    files = {name: str(folder / f"{name}_d1.csv.gz") for name in names}
    files |= {name: str(folder / f"{name}_d1_close.csv.gz") for name in ("WTIUSD", "VIX")}
    market = load_market(
        MarketConfig(instruments=tuple(files), data=DataConfig(files=files), rules=MarketRules(episode_length=250))
    )
    bars = market.bars[0]
    assert len(bars.instruments) == 14 and len(bars) > 700 and bars.close_only.sum() == 2
    assert bars.periods_per_day == 1 and 250 < bars.periods_per_year < 270
    core = market.core(market.fitted(400))
    assert core.tape.rates is not None and not core.tape.all_traded
