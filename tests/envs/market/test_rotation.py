from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.market.samples import core_of
from troupe.envs.market import bands
from troupe.envs.market.bars import Bars
from troupe.envs.market.planted import PlantedMarket, planted_optimum
from troupe.envs.market.rotation import (
    RotationMarket,
    RotationOptimum,
    draw_active,
    rotation_bound,
    rotation_market,
)
from troupe.errors import ConfigError

MARKET = RotationMarket()
CLEAR = replace(MARKET, noise=0.0)
Policy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def returns_of(paths: Sequence[Bars]) -> np.ndarray:
    """Simple returns `[P, T, M]`, each bar from the close before."""
    return np.stack([bars.close / bars.open - 1 for bars in paths])


def signals_of(paths: Sequence[Bars]) -> np.ndarray:
    return np.stack([bars.extra[:, : len(bars.instruments)] for bars in paths])


def works_in(paths: Sequence[Bars], market: RotationMarket = CLEAR) -> np.ndarray:
    """Whether each instrument's sector is the active one, bool `[P, T, M]`, of a market that shows it."""
    active = np.stack([bars.extra[:, len(bars.instruments) :] for bars in paths]) > 0
    assert (active.sum(axis=2) == 1).all()
    return active[:, :, market.places]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, by paths `[P, ...]`: bars of one path are not independent."""
    means = values.reshape(len(values), -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))


def sharpe_and_influence(gains: np.ndarray) -> tuple[float, np.ndarray]:
    """Sharpe ratio, and what each path contributes to its error (delta method)."""
    mean, std = gains.mean(), gains.std()
    score = (gains - mean) / std
    return float(mean / std), (score - mean / std / 2 * (score**2 - 1)).mean(axis=1)


def error_of(influence: np.ndarray) -> float:
    return float(influence.std(ddof=1) / math.sqrt(len(influence)))


def by_instrument(policy: Policy, paths: Sequence[Bars], market: RotationMarket = CLEAR) -> np.ndarray:
    """Gains per bar `[P, T - 1, M]`, as shares of the equity before, of accounts of the core that begin in cash."""
    rules = {"transaction_cost": market.cost, "max_position_size": market.limit, "episode_length": 100_000}
    core = core_of(paths, **rules)
    state, signals, works = core.begin(np.asarray(core.tape.first)), signals_of(paths), works_in(paths, market)
    gains = np.empty((len(paths), signals.shape[1] - 1, signals.shape[2]))
    for t in range(gains.shape[1]):
        target, equity = policy(signals[:, t], works[:, t], core.weights(state)), state.equity
        state, outcome = core.step(state, target / market.limit, detail=True)
        assert not outcome.terminated.any() and outcome.profit is not None
        gains[:, t] = outcome.profit / equity[:, None]
    return gains


def traded(policy: Policy, paths: Sequence[Bars], market: RotationMarket = CLEAR) -> np.ndarray:
    """Gains of the account `[P, T - 1]`."""
    return by_instrument(policy, paths, market).sum(axis=2)


@pytest.fixture(scope="module")
def optimum() -> RotationOptimum:
    return rotation_bound(MARKET, positions=101)


@pytest.fixture(scope="module")
def paths() -> list[Bars]:
    return rotation_market(2_000, 150, np.random.default_rng(1), CLEAR)


# --- the market -------------------------------------------------------------------------------------------------


def test_only_the_active_sectors_signals_predict(paths: list[Bars]) -> None:
    returns, signals, works = returns_of(paths)[:, 1:], signals_of(paths)[:, :-1], works_in(paths)[:, :-1]
    for which, edge in ((works, MARKET.beta_on), (~works, MARKET.beta_off)):
        shown = returns * which / which.mean()
        for values, expected in (
            (shown * signals, edge),
            (shown, 0.0),
            (shown * returns, MARKET.sigma**2 + edge**2),
        ):
            mean, error = mean_and_error(values)
            assert abs(mean - expected) < 4 * error + 2e-3 * expected  # moments of simple returns are not those of logs
            assert error < 0.02 * MARKET.beta_on


def test_what_is_published_at_a_close_drives_the_next_bar_and_no_other() -> None:
    """The same draws with and without an edge differ by exactly what row t says of bar t + 1."""
    market = replace(CLEAR, beta_on=0.02, beta_off=0.005)
    one, none = (
        rotation_market(400, 3, np.random.default_rng(2), each)
        for each in (market, replace(CLEAR, beta_on=0.0, beta_off=0.0))
    )
    for a, b in zip(one, none, strict=True):
        assert (a.extra == b.extra).all()
        edge = np.log(a.close / a.open) - np.log(b.close / b.open)
        beta = np.where(works_in([a])[0], market.beta_on, market.beta_off)[:-1]
        assert edge[1:] == pytest.approx(beta * signals_of([a])[0, :-1] - beta**2 / 2, abs=1e-12)


def test_each_sector_is_active_for_a_hundred_bars_at_a_time_and_as_often_as_the_others() -> None:
    chain = draw_active(MARKET, 5_000, 200, np.random.default_rng(3))
    for kind in range(3):
        mean, error = mean_and_error((chain == kind).astype(float))
        assert abs(mean - 1 / 3) < 4 * error < 0.03
        begun = chain[:, 0] == kind
        assert abs(begun.mean() - 1 / 3) < 4 * math.sqrt(2 / 9 / 200)
    moves = chain[:, 1:] != chain[:, :-1]
    mean, error = mean_and_error(moves.astype(float))
    assert abs(mean - 1 / 100) < 4 * error < 1e-3
    to = (chain[:, 1:] - chain[:, :-1])[moves] % 3  # one further or two, alike
    assert abs((to == 1).mean() - 0.5) < 4 * 0.5 / math.sqrt(len(to))


def test_the_columns_of_the_sectors_are_noisy() -> None:
    clear, hidden = (rotation_market(3_000, 5, np.random.default_rng(4), each) for each in (CLEAR, MARKET))
    assert hidden[0].extra_names[-3:] == ("active_forex", "active_commodities", "active_equity")
    assert hidden[0].extra_names[:2] == ("signal_EURUSD", "signal_GBPUSD") and hidden[0].extra.shape == (3_000, 11)
    noise = np.stack([a.extra - b.extra for a, b in zip(hidden, clear, strict=True)])
    assert not noise[:, :, :8].any() and all((a.close == b.close).all() for a, b in zip(hidden, clear, strict=True))
    noise = noise[:, :, 8:].reshape(-1, 3)
    assert np.cov(noise.T) == pytest.approx(0.09 * np.eye(3), abs=4 * 0.09 * math.sqrt(2 / len(noise)))
    assert set(clear[0].extra[:, 8].round(9)) == {round(2 / 3, 9), round(-1 / 3, 9)}


def test_bars_are_bars_and_equal_seeds_give_equal_ones() -> None:
    first, again = (rotation_market(300, 2, np.random.default_rng(5), MARKET) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert (a.close == b.close).all() and (a.extra == b.extra).all()
        assert (a.open[1:] == a.close[:-1]).all() and a.open[0] == pytest.approx(np.full(8, 100.0))
        assert (a.high >= np.maximum(a.open, a.close)).all() and (a.low <= np.minimum(a.open, a.close)).all()
    assert not (first[0].close == first[1].close).any(axis=0).all()
    later = rotation_market(20, 1, np.random.default_rng(5), MARKET, bar_seconds=900, start="2021-03-01")
    assert set(np.diff(later[0].times)) == {900}


# --- what can be reached ----------------------------------------------------------------------------------------


def test_where_all_sectors_work_alike_it_is_the_planted_market() -> None:
    same = rotation_bound(replace(MARKET, beta_on=0.0025, beta_off=0.0025))
    planted = planted_optimum(PlantedMarket(MARKET.instruments))
    for name in ("mean", "std", "sharpe", "turnover", "risk_aversion"):
        assert getattr(same, name) == pytest.approx(getattr(planted, name), rel=1e-5)
    signal, held = np.linspace(-3, 3, 25)[:, None], np.linspace(-1, 1, 9)
    for active in (True, False):
        assert same.policy(signal, np.array(active), held) == pytest.approx(planted.policy(signal, held), abs=1e-4)


def test_the_grid_is_fine_enough_and_units_do_not_matter(optimum: RotationOptimum) -> None:
    assert 0.0 < optimum.refinement < 1e-3
    smaller = rotation_bound(replace(MARKET, limit=0.1), 10 * optimum.risk_aversion, positions=101)
    assert smaller.sharpe == pytest.approx(optimum.sharpe, rel=1e-6)
    assert smaller.mean == pytest.approx(optimum.mean / 10, rel=1e-6)


@pytest.mark.parametrize("risk_aversion", [10.0, 100.0])
def test_no_risk_aversion_is_sharper(optimum: RotationOptimum, risk_aversion: float) -> None:
    assert rotation_bound(MARKET, risk_aversion, positions=61).sharpe < 1.0015 * optimum.sharpe


def test_an_account_of_the_core_earns_what_was_predicted(optimum: RotationOptimum, paths: list[Bars]) -> None:
    gains = traded(optimum.policy, paths)[:, 200:]  # by then positions are as they are in the long run
    mean, error = mean_and_error(gains)
    assert error < 0.01 * optimum.mean
    assert abs(mean - optimum.mean) < 3 * error
    sharpe, influence = sharpe_and_influence(gains)
    assert abs(sharpe - optimum.sharpe) < 3 * error_of(influence) < 0.02 * optimum.sharpe


def rivals(optimum: RotationOptimum) -> dict[str, Policy]:
    on = planted_optimum(PlantedMarket(beta=MARKET.beta_on)).policy
    average = planted_optimum(PlantedMarket(beta=MARKET.beta_on / 3)).policy
    found: dict[str, Policy] = {
        "unaware": lambda s, active, w: on(s, w),
        "average": lambda s, active, w: average(s, w),
        "switched": lambda s, active, w: np.where(active, on(s, w), 0.0),
        "lazily switched": lambda s, active, w: np.where(active, on(s, w), w),
        "sign": lambda s, active, w: np.where(active, np.sign(s), 0.0),
    }
    for scale in (0.5, 1.5):
        found[f"scaled by {scale}"] = lambda s, active, w, scale=scale: optimum.policy(scale * s, active, w)
    return found


def test_no_simple_policy_does_better_and_the_sector_matters(optimum: RotationOptimum, paths: list[Bars]) -> None:
    best, influence = sharpe_and_influence(traded(optimum.policy, paths[:80])[:, 200:])
    reached = {}
    for name, policy in rivals(optimum).items():
        sharpe, other = sharpe_and_influence(traded(policy, paths[:80])[:, 200:])
        # policies that look at one instrument each leave some 0.1 % to what instruments share
        assert sharpe - best < 3 * error_of(other - influence) + 0.002 * best, name
        reached[name] = sharpe / best
    assert reached["unaware"] < 0.6 and reached["average"] < 0.6  # whoever does not allocate falls far behind
    assert max(reached.values()) > 0.9  # the rivals are worth beating


@pytest.mark.parametrize(("sectors", "side"), [("abc", -1), ("aaaaab", 1)])
def test_instruments_share_the_active_sector(sectors: str, side: int) -> None:
    """Those of one sector earn together, and the account is less steady than with independent ones; those of several
    take turns, and it is steadier."""
    names = tuple("PQRSTU"[: len(sectors)])
    market = replace(CLEAR, instruments=names, sectors=tuple(sectors), limit=0.5)
    found = rotation_bound(market, 100.0, positions=61)
    rows = rotation_market(1_500, 100, np.random.default_rng(7), market)
    gains = by_instrument(found.policy, rows, market)[:, 200:]
    independent = math.sqrt(gains.var(axis=(0, 1)).sum())
    std = float(gains.sum(axis=2).std())
    assert side * (std / independent - 1) > 0.025 and std == pytest.approx(found.std, rel=0.02)
    sharpe, influence = sharpe_and_influence(gains.sum(axis=2))
    assert abs(sharpe - found.sharpe) < 3 * error_of(influence)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instruments": (), "sectors": ()}, "one or more different names"),
        ({"instruments": ("A", "A"), "sectors": ("x", "y")}, "one or more different names"),
        ({"instruments": ("A", "B")}, "must name one for each of 2 instruments"),
        ({"instruments": ("A", "B"), "sectors": ("x", "x")}, "two or more sectors, not of 'x' alone"),
        ({"beta_on": -0.1}, "beta_on=-0.1 must lie between 0 and 0.1"),
        ({"beta_off": 1.0}, "beta_off"),
        ({"sigma": math.nan}, "sigma"),
        ({"persistence": 1.0}, "persistence=1.0 must lie between 0 and 0.99"),
        ({"length": 1.0}, "length=1.0 must lie between 2 and 1e"),
        ({"noise": -0.1}, "noise"),
        ({"cost": -1e-3}, "cost"),
        ({"limit": 0.0}, "limit"),
    ],
)
def test_numbers_of_no_market(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RotationMarket(**changes)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="risk_aversion=-1"):
        rotation_bound(MARKET, -1)
    with pytest.raises(ConfigError, match="positions=30"):
        rotation_bound(MARKET, positions=30)
    with pytest.raises(ConfigError, match="bars=1, paths=3"):
        rotation_market(1, 3, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="bars=10, paths=0"):
        rotation_market(10, 0, np.random.default_rng(0))


def test_regimes_that_last_too_long_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "_SWEEPS", 300)
    with pytest.raises(ConfigError, match=r"RotationMarket\(.*300 sweeps; lower the cost, or let signals and regimes"):
        rotation_bound(replace(MARKET, length=1e5), 50.0, positions=21)


def test_without_an_edge_nothing_is_traded() -> None:
    nothing = rotation_bound(replace(MARKET, beta_on=0.0))
    assert (nothing.mean, nothing.std, nothing.sharpe, nothing.turnover) == (0, 0, 0, 0)
