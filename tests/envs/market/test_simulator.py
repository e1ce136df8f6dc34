from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from troupe.envs.market.bars import Bars
from troupe.envs.market.instruments import instrument
from troupe.envs.market.simulator import (
    SCENARIOS,
    MarketModel,
    Regime,
    bar_times,
    bridge_extremes,
    draw_regimes,
    scenario,
    simulate,
    stationary,
)
from troupe.errors import ConfigError

HOURS_PER_YEAR = 365.25 * 24 * 5 / 7
PLAIN = MarketModel(("A", "B"), volatility_spread=0.0, tail_degrees=None)
"""Normal returns of constant volatility."""
CALM_STORM = ((0.98, 0.02), (0.06, 0.94))


def drawn(model: MarketModel, bars: int, paths: int, seed: int = 0, **options: Any) -> list[Bars]:
    return simulate(model, bars, paths, np.random.default_rng(seed), **options)


def log_returns(paths: Sequence[Bars]) -> np.ndarray:
    """`[P, T, M]`, of each bar from the close before."""
    logs = np.log(np.stack([np.concatenate([bars.open[:1], bars.close]) for bars in paths]))
    return np.asarray(np.diff(logs, axis=1))


def close_to(values: np.ndarray, expected: float, sigmas: float = 4.0, within: float | None = None) -> None:
    """The mean of `values` `[P, ...]` is as expected up to its error, which is at most `within` of it. Paths are the
    observations: bars of one path depend on each other."""
    means = values.reshape(len(values), -1).mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(len(means))
    assert abs(means.mean() - expected) < sigmas * error, (means.mean(), expected, error)
    assert within is None or error <= within * abs(expected)


def normal(model: MarketModel) -> float:
    assert isinstance(model.volatility, float)
    return model.volatility / math.sqrt(HOURS_PER_YEAR)


# --- moments ----------------------------------------------------------------------------------------------------


def test_volatility_is_annual_and_drift_in_its_units() -> None:
    model = replace(PLAIN, volatility=(0.1, 0.4), regimes=(Regime("up", drift=(0.05, -0.1), volatility=2.0),))
    simple = np.expm1(log_returns(drawn(model, 500, 200)))
    for column, (annual, drift) in enumerate(((0.1, 0.05), (0.4, -0.1))):
        unit = annual / math.sqrt(HOURS_PER_YEAR)
        close_to(simple[..., column], drift * unit, within=0.2)
        close_to((simple[..., column] - drift * unit) ** 2, 4 * unit**2, within=0.01)
    bars = drawn(model, 20_000, 1)[0]
    assert bars.periods_per_year == pytest.approx(HOURS_PER_YEAR, rel=1e-3)


@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_without_drift_prices_are_martingales_whatever_their_tails_and_gaps(gap: float) -> None:
    model = MarketModel(("A",), volatility=8.0, volatility_spread=0.5, tail_degrees=4.0, gap=gap)
    paths = drawn(model, 40, 20_000)  # 10 % a bar: half the variance, 0.5 %, would be seen if it were not subtracted
    assert 4 * np.expm1(log_returns(paths)).std() / math.sqrt(40 * 20_000) < 0.001
    close_to(np.expm1(log_returns(paths)), 0.0)
    close_to(np.stack([bars.close[-1] / 100.0 - 1 for bars in paths]), 0.0)
    assert np.mean([math.log(bars.close[-1, 0] / 100.0) for bars in paths]) < -0.1


def test_kurtosis_is_that_of_student_and_stochastic_volatility() -> None:
    # E z^4 = 3 (nu - 2) / (nu - 4) and E v^4 = exp(4 xi^2): with nu = 12, xi = 0.25: 3.75 * 1.284 = 4.815
    model = MarketModel(("A",), volatility_spread=0.25, volatility_persistence=0.9, tail_degrees=12.0)
    returns = log_returns(drawn(model, 500, 2_000)) / normal(model)
    close_to(returns**2, 1.0, within=0.01)
    close_to(returns**4, 3 * 10 / 8 * math.exp(4 * 0.25**2), within=0.02)
    plain = log_returns(drawn(replace(model, volatility_spread=0.0, tail_degrees=None), 500, 400)) / normal(model)
    close_to(plain**4, 3.0, within=0.01)


def hill(values: np.ndarray, share: float) -> float:
    """Hill's estimate of the tail index from the largest `share` (Hill 1975)."""
    largest = np.sort(np.abs(values.ravel()))[-int(share * values.size) :]
    return float(1 / np.log(largest / largest[0]).mean())


def test_the_tail_index_is_the_degrees_of_freedom() -> None:
    model = MarketModel(("A",), volatility_spread=0.0, tail_degrees=3.0)
    assert hill(log_returns(drawn(model, 1_000, 500)), 0.001) == pytest.approx(3.0, abs=0.4)  # 500 values: error 0.13
    assert hill(log_returns(drawn(replace(model, tail_degrees=None), 1_000, 500)), 0.001) > 8


@pytest.mark.parametrize("persistence", [0.0, 0.95])
def test_squares_remember_and_returns_do_not(persistence: float) -> None:
    # cov(v_t^2, v_{t+k}^2) = exp(4 xi^2 phi^k) - 1, var r^2 = 3 exp(4 xi^2) - 1 (Taylor 1986)
    model = MarketModel(("A",), volatility_spread=0.4, volatility_persistence=persistence, tail_degrees=None)
    returns = log_returns(drawn(model, 600, 1_500))[..., 0] / normal(model)
    for lag in (1, 5, 20):
        now, later = returns[:, :-lag], returns[:, lag:]
        close_to(now * later, 0.0)
        expected = math.exp(4 * 0.4**2 * persistence**lag) - 1
        close_to(now**2 * later**2 - 1, expected, within=0.15 if persistence else None)


def test_volatility_is_partly_shared() -> None:
    model = MarketModel(("A", "B"), volatility_spread=0.3, volatility_persistence=0.9, tail_degrees=None)
    for common in (0.0, 0.5, 1.0):
        squares = (log_returns(drawn(replace(model, volatility_common=common), 500, 1_000)) / normal(model)) ** 2
        close_to(squares[..., 0] * squares[..., 1], math.exp(4 * 0.3**2 * common), within=0.02)


def test_extremes_come_together() -> None:
    # uncorrelated, yet of a multivariate Student t: E z_1^2 z_2^2 = (nu - 2) / (nu - 4)
    model = MarketModel(("A", "B"), volatility_spread=0.0, tail_degrees=12.0)
    returns = log_returns(drawn(model, 500, 600)) / normal(model)
    close_to(returns[..., 0] * returns[..., 1], 0.0)
    close_to((returns[..., 0] * returns[..., 1]) ** 2, 10 / 8, within=0.02)


# --- correlation and regimes ------------------------------------------------------------------------------------

APART = math.exp(-(0.3**2) * 0.5)
"""E v_i v_j: what stochastic volatility that is half shared leaves of a correlation."""
FULL = ((1.0, 0.7, -0.3), (0.7, 1.0, 0.0), (-0.3, 0.0, 1.0))


def test_correlations_are_those_of_the_regime() -> None:
    regimes = (Regime("calm"), Regime("storm", volatility=2.0, correlation=0.9))
    model = MarketModel(("A", "B", "C"), correlation=FULL, regimes=regimes, transitions=CALM_STORM, gap=0.3)
    chain = draw_regimes(model, 1_000, 100, np.random.default_rng(4))
    returns = log_returns(drawn(model, 1_000, 100, seed=4))
    for number, expected in ((0, np.array(FULL)), (1, np.where(np.eye(3) > 0, 1.0, 0.9))):
        found = np.corrcoef(returns[chain == number].T)
        assert found == pytest.approx(np.where(np.eye(3) > 0, 1.0, APART * expected), abs=0.03)
    ratio = returns[chain == 1].std() / returns[chain == 0].std()
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_regimes_are_as_frequent_and_as_long_as_the_chain_says() -> None:
    model = replace(PLAIN, regimes=(Regime("calm"), Regime("storm")), transitions=CALM_STORM)
    assert stationary(CALM_STORM) == pytest.approx([0.75, 0.25])  # p_calm 0.02 = p_storm 0.06
    chain = draw_regimes(model, 500, 2_000, np.random.default_rng(1))
    close_to(chain, 0.25, within=0.02)
    close_to(chain[:, :1], 0.25)  # from the first bar on
    stays = (chain[:, 1:] == 1)[chain[:, :-1] == 1]
    assert stays.mean() == pytest.approx(0.94, abs=4 * math.sqrt(0.94 * 0.06 / stays.size))


def test_three_regimes_and_one_that_is_never_left() -> None:
    table = ((0.8, 0.2, 0.0), (0.1, 0.8, 0.1), (0.0, 0.4, 0.6))
    # p = (2, 4, 1) / 7: flows 2 * 0.2 = 4 * 0.1 and 4 * 0.1 = 1 * 0.4
    assert stationary(table) == pytest.approx([2 / 7, 4 / 7, 1 / 7])
    assert stationary(((0.5, 0.5), (0.0, 1.0))) == pytest.approx([0.0, 1.0])
    assert stationary(((0.0, 1.0), (1.0, 0.0))) == pytest.approx([0.5, 0.5])


def test_regimes_can_be_given() -> None:
    model = replace(PLAIN, regimes=(Regime("calm"), Regime("storm", volatility=5.0)), transitions=CALM_STORM)
    chain = np.repeat([[0, 1]], 300, axis=1).repeat(20, axis=0)
    returns = log_returns(drawn(model, 600, 20, regimes=chain))
    assert returns[:, 300:].std() / returns[:, :300].std() == pytest.approx(5.0, rel=0.05)


def test_noise_is_each_instruments_own() -> None:
    model = replace(PLAIN, correlation=0.8, regimes=(Regime("noisy", noise=1.0),))
    returns = log_returns(drawn(model, 1_000, 100)) / normal(model)
    close_to(returns[..., 0] ** 2, 2.0, within=0.01)
    close_to(returns[..., 0] * returns[..., 1], 0.8, within=0.02)
    close_to(returns[:, 1:, 0] * returns[:, :-1, 0], 0.0)


# --- within a bar -----------------------------------------------------------------------------------------------


def test_a_bar_opens_where_it_should_and_holds_its_prices() -> None:
    still = drawn(PLAIN, 300, 3)
    gapping = drawn(replace(PLAIN, gap=0.25), 1_000, 100)
    for bars in (*still, *gapping):
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert all((bars.open[1:] == bars.close[:-1]).all() for bars in still)
    gaps = np.stack([np.log(bars.open[1:] / bars.close[:-1]) for bars in gapping])
    close_to(gaps**2, 0.25 * normal(PLAIN) ** 2, within=0.01)
    close_to(log_returns(gapping) ** 2, normal(PLAIN) ** 2, within=0.01)


def test_highs_and_lows_are_those_of_a_brownian_motion() -> None:
    # The largest value of a Brownian motion over a bar is |N(0, s^2)| (reflection principle).
    from scipy import stats

    generator = np.random.default_rng(2)
    closes = 0.3 * generator.standard_normal(100_000)
    highs, lows = bridge_extremes(np.zeros(100_000), closes, np.array(0.09), generator)
    for reach in (highs, -lows):
        assert stats.kstest(reach / 0.3, stats.halfnorm.cdf).pvalue > 1e-4
    assert np.corrcoef(highs, closes)[0, 1] > 0.5 and np.corrcoef(lows, closes)[0, 1] > 0.5
    fine = np.cumsum(0.3 / math.sqrt(2_000) * generator.standard_normal((4_000, 2_000)), axis=1)
    assert np.corrcoef(highs, closes)[0, 1] == pytest.approx(np.corrcoef(fine.max(1), fine[:, -1])[0, 1], abs=0.03)


def test_a_bar_without_variance_has_no_wicks() -> None:
    highs, lows = bridge_extremes(np.array([0.0, 1.0]), np.array([1.0, 0.5]), np.array(0.0), np.random.default_rng(0))
    assert highs.tolist() == [1.0, 1.0] and lows.tolist() == [0.0, 0.5]


def test_stop_distances_are_reached_as_often_as_they_should_be() -> None:
    from scipy import stats

    bars = drawn(PLAIN, 1_000, 60)
    reach = np.concatenate([np.log(each.open / each.low).ravel() for each in bars]) / normal(PLAIN)
    for distance in (0.5, 1.0, 2.0):
        expected = 2 * stats.norm.sf(distance)
        assert (reach > distance).mean() == pytest.approx(expected, abs=5 * math.sqrt(expected / reach.size))


def test_jumps_fall_between_bars_and_hit_all_at_once() -> None:
    model = replace(PLAIN, regimes=(Regime("crashes", jump_rate=0.01, jump_mean=-8.0, jump_std=1.0),))
    gaps = np.stack([np.log(bars.open[1:] / bars.close[:-1]) for bars in drawn(model, 1_001, 100)]) / normal(model)
    fell = gaps != 0
    assert (fell[..., 0] == fell[..., 1]).all()
    assert fell[..., 0].mean() == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / 100_000))
    assert gaps[fell].mean() == pytest.approx(-8.0, abs=0.2) and gaps[fell].std() == pytest.approx(1.0, abs=0.1)


# --- clock, volume, seeds ---------------------------------------------------------------------------------------


def test_hours_run_from_monday_to_friday() -> None:
    times = bar_times(300, 3600, "2020-01-01", "24x5")
    assert datetime.fromtimestamp(times[0], UTC).isoformat() == "2020-01-01T01:00:00+00:00"  # a Wednesday
    began = [datetime.fromtimestamp(int(time) - 3600, UTC) for time in times]
    assert {moment.weekday() for moment in began} == {0, 1, 2, 3, 4}
    assert set(np.diff(times)) == {3600, 49 * 3600}
    assert began[72].isoformat() == "2020-01-06T00:00:00+00:00"  # after three days comes Monday


def test_days_and_weekends() -> None:
    days = bar_times(11, 86_400, "2020-01-04T12:00", "24x5")  # a Saturday
    assert datetime.fromtimestamp(days[0], UTC).isoformat() == "2020-01-07T00:00:00+00:00"  # Monday's close
    assert np.diff(days).tolist() == [86_400] * 4 + [3 * 86_400] + [86_400] * 4 + [3 * 86_400]
    assert set(np.diff(bar_times(100, 86_400, "2020-01-01", "24x7"))) == {86_400}
    assert set(np.diff(bar_times(9, 7 * 86_400, "2020-01-01", "24x7"))) == {7 * 86_400}
    late = bar_times(2, 3600, "2020-01-01T00:00:01", "24x7")
    assert datetime.fromtimestamp(late[0], UTC).isoformat() == "2020-01-01T02:00:00+00:00"
    assert (bar_times(5, 3600, "2020-01-01T05:00+05:00", "24x7") == bar_times(5, 3600, "2020-01-01", "24x7")).all()


def test_daily_volatility_is_annual_too() -> None:
    returns = log_returns(drawn(PLAIN, 500, 100, bar_seconds=86_400))
    close_to(returns**2, 0.01 / (365.25 * 5 / 7), within=0.01)


def test_volume_has_its_mean_and_is_largest_at_the_ends_of_the_day() -> None:
    volumes = np.stack([bars.volume[..., 0] for bars in drawn(PLAIN, 2_400, 50)])
    close_to(volumes, 1e6, within=0.01)
    hours = volumes.reshape(50, 100, 24).mean(axis=(0, 1)) / 1e6  # 1 + (2 x - 1)^2 - 1 / 3 at the middle of the hour
    assert hours[0] == pytest.approx(hours[23], rel=0.05) and hours[0] == pytest.approx(1.585, rel=0.05)
    assert hours[12] == pytest.approx(0.668, rel=0.05)
    flat = replace(PLAIN, volume_shape=0.0, volume_noise=0.0, volume=7.0)
    assert (drawn(flat, 50, 1)[0].volume == 7.0).all()


def test_equal_seeds_give_equal_bars_and_nothing_else_does() -> None:
    model = scenario("crisis")
    first, again, other = (drawn(model, 400, 3, seed=seed) for seed in (1, 1, 2))
    for name in ("times", "open", "high", "low", "close", "volume"):
        assert all((getattr(a, name) == getattr(b, name)).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].close == other[0].close).any() and not (first[0].close[1:] == first[1].close[1:]).any()
    returns = log_returns(first)
    assert not (returns[..., 0] == returns[..., 1]).any()
    assert first[0].instruments == tuple(model.instruments)


# --- scenarios --------------------------------------------------------------------------------------------------


def units(model: MarketModel) -> np.ndarray:
    return np.asarray(model.volatility) / math.sqrt(HOURS_PER_YEAR)


@pytest.mark.parametrize("name", ["low_vol", "trending", "ranging", "high_vol", "sector_rotation"])
@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_a_scenario_has_its_volatility_and_no_gift_for_holding(name: str, difficulty: float) -> None:
    row, model = SCENARIOS[name], scenario(name, difficulty)
    returns = np.expm1(log_returns(drawn(model, 500, 120))) / units(model)
    drifts = np.array([np.broadcast_to(regime.drift, len(model.instruments)) for regime in model.regimes])
    assert stationary(model.transitions) @ drifts == pytest.approx(np.zeros(8), abs=1e-12)
    close_to(returns, 0.0)
    expected = row.volatility ** (2 * difficulty) + (row.noise * difficulty) ** 2 + (drifts**2).mean()
    close_to(returns**2, expected, within=0.1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_difficulty_hides_the_trend(name: str) -> None:
    def clarity(difficulty: float) -> float:
        regime = scenario(name, difficulty).regimes[0]
        return float(np.abs(regime.drift).max() / math.hypot(regime.volatility, regime.noise))

    steps = [clarity(difficulty) for difficulty in np.linspace(0, 1, 11)]
    assert steps[-1] < steps[0] and max(np.diff(steps)) <= 1e-12
    start = scenario(name, 0.0)
    assert all(regime.volatility == 1 and regime.noise == 0 and regime.jump_rate == 0 for regime in start.regimes)


def pair_correlation(model: MarketModel, number: int) -> float:
    """Mean correlation in a regime, of returns without own noise."""
    regimes = tuple(replace(regime, noise=0.0, jump_rate=0.0) for regime in model.regimes)
    chain = np.full((60, 300), number)
    returns = log_returns(drawn(replace(model, regimes=regimes), 300, 60, regimes=chain)).reshape(-1, 8)
    return float(np.corrcoef(returns.T)[np.triu_indices(8, 1)].mean())


def test_a_crisis_falls_together_and_a_breakdown_apart() -> None:
    usual = (7 * 0.6 + 21 * 0.2) / 28  # three currencies, two commodities, three indices: 3 + 1 + 3 pairs within
    crisis = scenario("crisis")
    assert [regime.name for regime in crisis.regimes] == ["fall", "relief"]
    assert pair_correlation(crisis, 0) == pytest.approx(0.85 * APART, abs=0.02)
    assert pair_correlation(crisis, 1) == pytest.approx(usual * APART, abs=0.02)
    assert stationary(crisis.transitions) == pytest.approx([2 / 3, 1 / 3])
    fell = [math.log(bars.close[-1, 0] / bars.open[0, 0]) for bars in drawn(crisis, 500, 100)]
    assert np.mean(fell) < 0 and np.mean(np.array(fell) < 0) > 0.6
    breakdown = scenario("corr_breakdown")
    names = [regime.name for regime in breakdown.regimes]
    assert names == ["coupled_up", "coupled_down", "broken_up", "broken_down"]
    assert pair_correlation(breakdown, 0) == pytest.approx(usual * APART, abs=0.02)
    assert pair_correlation(breakdown, 2) == pytest.approx(0.0, abs=0.02)


def test_one_sector_leads_and_announcements_jump() -> None:
    rotation = scenario("sector_rotation")
    assert [regime.name for regime in rotation.regimes] == ["commodities_leads", "equity_leads", "forex_leads"]
    assert rotation.regimes[1].drift == pytest.approx([-0.025] * 5 + [0.05] * 3)
    gaps = np.stack([np.log(bars.open[1:] / bars.close[:-1]) for bars in drawn(scenario("macro"), 501, 100)])
    assert (gaps[..., 0] != 0).mean() == pytest.approx(0.02, abs=0.004)
    own = scenario("trending", instruments=[instrument("TESLA", sector="equity", quote="USD"), instrument("EURUSD")])
    assert own.instruments == ("TESLA", "EURUSD") and own.volatility == (0.15, 0.08)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instruments": ()}, "one or more different names"),
        ({"instruments": ("A", "A")}, "one or more different names"),
        ({"volatility": (0.1, 0.2, 0.3)}, "one for each of the 2 instruments"),
        ({"volatility": 0.0}, "volatility=0.0 must be above 0"),
        ({"price": math.nan}, "price=nan"),
        ({"tail_degrees": 2.0}, "tail_degrees=2.0 has no variance"),
        ({"volatility_persistence": 1.0}, "volatility_persistence"),
        ({"gap": -0.1}, "gap"),
        ({"gap": math.nan}, "gap"),
        ({"correlation": -1.5}, "no 2 instruments can have these correlations"),
        ({"correlation": ((1.0, 0.2), (0.3, 1.0))}, "symmetric 2 x 2"),
        ({"correlation": math.nan}, "symmetric 2 x 2"),
        ({"regimes": ()}, "regimes"),
        ({"regimes": (Regime("a"), Regime("a"))}, "different names"),
        ({"regimes": (Regime("a", volatility=-1),)}, "regime 'a': volatility=-1"),
        ({"regimes": (Regime("a", drift=(0.1,) * 3),)}, "regime 'a': drift"),
        ({"regimes": (Regime("a", correlation=2.0),)}, "regime 'a': correlation"),
        ({"regimes": (Regime("a"), Regime("b"))}, "2 regimes need as many rows and columns"),
        ({"transitions": ((0.9,),)}, "sum to 1"),
        ({"regimes": (Regime("a"), Regime("b")), "transitions": ((1, 0), (0, 1))}, "never reach each other"),
    ],
)
def test_numbers_of_no_market(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MarketModel(**{"instruments": ("A", "B"), **changes})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bars": 1}, "bars=1, paths=2"),
        ({"paths": 0}, "bars=10, paths=0"),
        ({"bar_seconds": 5_000}, "bar_seconds=5000 does not divide a day"),
        ({"bar_seconds": 2 * 86_400}, "bar_seconds"),
        ({"start": "yesterday"}, "start='yesterday' is not a date"),
        ({"regimes": np.zeros((2, 9), dtype=int)}, r"write \(2, 10\) numbers from 0 to 0"),
        ({"regimes": np.ones((2, 10), dtype=int)}, "from 0 to 0"),
    ],
)
def test_what_cannot_be_simulated(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        simulate(PLAIN, **{"bars": 10, "paths": 2, "generator": np.random.default_rng(0), **options})


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'crisis'"):
        scenario("crysis")
    with pytest.raises(ConfigError, match=r"difficulty=1.5 must lie between 0 and 1"):
        scenario("crisis", 1.5)
    with pytest.raises(ConfigError, match="two or more sectors"):
        scenario("sector_rotation", instruments=[instrument("EURUSD"), instrument("USDJPY")])
    with pytest.raises(ConfigError, match="no calendar '24x6'"):
        drawn(replace(PLAIN, calendar="24x6"), 10, 1)  # type: ignore[arg-type]
