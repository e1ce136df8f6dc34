from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.market.samples import core_of
from troupe.envs.market.bars import Bars
from troupe.envs.market.planted import (
    BandPolicy,
    PlantedMarket,
    PlantedOptimum,
    null_market,
    planted_market,
    planted_optimum,
)
from troupe.errors import ConfigError

MARKET = PlantedMarket()
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def returns_of(paths: Sequence[Bars]) -> np.ndarray:
    """Simple returns `[P, T]` of the first instrument, each bar from the close before."""
    opens, closes = (np.stack([getattr(bars, name)[:, 0] for bars in paths]) for name in ("open", "close"))
    return np.asarray(closes / opens - 1)


def signals_of(paths: Sequence[Bars]) -> np.ndarray:
    return np.stack([bars.extra[:, 0] for bars in paths])


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, by paths `[P, ...]`: bars of one path are not independent."""
    means = values.reshape(len(values), -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))


def followed(
    policy: Policy, paths: Sequence[Bars], market: PlantedMarket = MARKET, *, drift: bool = True
) -> np.ndarray:
    """Returns after costs `[P, T - 1]` of an account that begins in cash: decided at t, earned from t to t + 1.

    Own accounting, in money: a share of the wealth is in the instrument, the rest in cash.
    """
    returns, signals = returns_of(paths), signals_of(paths)
    held, gains = np.zeros(len(paths)), np.empty((len(paths), returns.shape[1] - 1))
    for t in range(gains.shape[1]):
        target = np.clip(policy(signals[:, t], held), -market.limit, market.limit)
        fee = market.cost * np.abs(target - held)
        invested, cash = target * (1 + returns[:, t + 1]), 1 - target - fee
        gains[:, t] = invested + cash - 1
        held = invested / (invested + cash) if drift else target
    return gains


def sharpe_and_influence(gains: np.ndarray) -> tuple[float, np.ndarray]:
    """Sharpe ratio, and what each path contributes to its error (delta method)."""
    mean, std = gains.mean(), gains.std()
    sharpe = mean / std
    score = (gains - mean) / std
    return float(sharpe), (score - sharpe / 2 * (score**2 - 1)).mean(axis=1)


def error_of(influence: np.ndarray) -> float:
    return float(influence.std(ddof=1) / math.sqrt(len(influence)))


@pytest.fixture(scope="module")
def optimum() -> PlantedOptimum:
    return planted_optimum(MARKET)


@pytest.fixture(scope="module")
def paths() -> list[Bars]:
    return planted_market(2_500, 300, np.random.default_rng(1), MARKET)


# --- the market -------------------------------------------------------------------------------------------------


def test_the_signal_predicts_the_next_return_and_the_last_one_only_by_its_own_persistence(paths: list[Bars]) -> None:
    returns, signals = returns_of(paths), signals_of(paths)
    # E[r_{t+1} s_t] = beta; E[r_t s_t] = beta E[s_{t-1} s_t] = beta phi: less, so no later return is in the signal
    for product, expected in (
        (returns[:, 1:] * signals[:, :-1], MARKET.beta),
        (returns * signals, MARKET.beta * MARKET.persistence),
        (signals**2, 1.0),
        (signals[:, 1:] * signals[:, :-1], MARKET.persistence),
        (returns, 0.0),
        (returns**2, MARKET.sigma**2 + MARKET.beta**2),
    ):
        mean, error = mean_and_error(product)
        assert abs(mean - expected) < 4 * error + 2e-3 * expected  # squares of simple returns are not those of logs
        assert error < 0.02 * max(expected, 1e-3)


def test_a_bar_opens_at_the_close_before_and_holds_its_prices(paths: list[Bars]) -> None:
    for bars in paths[:3]:
        assert (bars.open[1:] == bars.close[:-1]).all() and bars.open[0, 0] == pytest.approx(100)
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert bars.extra_names == ("signal_PLANTED",)


def test_the_null_market_has_the_same_signals_and_noise_and_no_edge() -> None:
    market = PlantedMarket(instruments=("A", "B"))
    planted = planted_market(600, 200, np.random.default_rng(3), market)
    null = null_market(600, 200, np.random.default_rng(3), market)
    assert all((a.extra == b.extra).all() for a, b in zip(planted, null, strict=True))
    edge = np.log(planted[0].close / planted[0].open) - np.log(null[0].close / null[0].open)
    assert edge[1:] == pytest.approx(market.beta * planted[0].extra[:-1] - market.beta**2 / 2, abs=1e-12)
    returns, signals = returns_of(null), signals_of(null)
    for product in (returns, returns[:, 1:] * signals[:, :-1]):
        mean, error = mean_and_error(product)
        assert abs(mean) < 4 * error < 2e-4
    assert planted_optimum(replace(market, beta=0.0)).mean == 0
    # at 30 % a bar half the variance, 4.5 %, would be seen if it were not subtracted
    mean, error = mean_and_error(
        returns_of(null_market(100, 2_000, np.random.default_rng(4), replace(market, sigma=0.3)))
    )
    assert abs(mean) < 4 * error < 0.005


def test_instruments_and_paths_are_independent_and_equal_seeds_give_equal_bars() -> None:
    market = PlantedMarket(instruments=("A", "B"))
    first, again = (planted_market(2_000, 30, np.random.default_rng(5), market) for _ in range(2))
    assert all((a.close == b.close).all() and (a.extra == b.extra).all() for a, b in zip(first, again, strict=True))
    steps = np.stack([np.diff(np.log(bars.close), axis=0) for bars in first])
    assert abs(np.corrcoef(steps[..., 0].ravel(), steps[..., 1].ravel())[0, 1]) < 4 / math.sqrt(steps[..., 0].size)
    assert abs(np.corrcoef(steps[0, :, 0], steps[1, :, 0])[0, 1]) < 4 / math.sqrt(2_000)
    assert first[0].extra_names == ("signal_A", "signal_B")


# --- the optimum against what is known otherwise ----------------------------------------------------------------


def expectation(of: Callable[[np.ndarray], np.ndarray]) -> float:
    """E of(s) for s standard normal, by Gauss and Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    return float((weights * of(nodes)).sum() / weights.sum())


def mean_and_square(market: PlantedMarket, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    growth = np.exp(market.beta * signal - market.beta**2 / 2)
    return growth - 1, growth**2 * np.exp(market.sigma**2) - 2 * growth + 1


def test_without_costs_it_holds_what_the_signal_is_worth() -> None:
    # max_w w m - lambda / 2 w^2 q: w = m / (lambda q), so E g = E[m^2 / q] / lambda and E g^2 = E g / lambda
    market, risk_aversion = PlantedMarket(cost=0.0, limit=10.0), 50.0
    found = planted_optimum(market, risk_aversion)
    signal = np.linspace(-3, 3, 13)
    m, q = mean_and_square(market, signal)
    assert found.policy(signal, np.zeros(13)) == pytest.approx(m / (risk_aversion * q), abs=2e-3)
    mean = expectation(lambda s: mean_and_square(market, s)[0] ** 2 / mean_and_square(market, s)[1]) / risk_aversion
    assert found.mean == pytest.approx(mean, rel=2e-3)
    assert found.std == pytest.approx(math.sqrt(mean / risk_aversion - mean**2), rel=2e-3)


def test_without_costs_and_fear_it_holds_all_it_may() -> None:
    # g = limit |m(s)|, and E |beta s| = beta sqrt(2 / pi)
    market = PlantedMarket(cost=0.0, limit=0.5)
    found = planted_optimum(market, 0.0)
    assert found.mean == pytest.approx(0.5 * market.beta * math.sqrt(2 / math.pi), rel=5e-3)
    assert found.policy(np.array([-1.0, 1.0]), np.zeros(2)).tolist() == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("risk_aversion", "changes"), [(30.0, {}), (3.0, {"cost": 0.001}), (20.0, {"persistence": 0.7})]
)
def test_it_is_that_of_plain_value_iteration(risk_aversion: float, changes: dict[str, Any]) -> None:
    # Every position to every position, with the exact E[(w r - c |dw|)^2]: what the running maxima and the penalty on
    # w r alone leave out.
    market = replace(MARKET, **changes)
    signals, held = np.linspace(-4.8, 4.8, 65), np.linspace(-1, 1, 81)
    spread = math.sqrt(1 - market.persistence**2)
    moves = np.exp(-0.5 * ((signals[None] - market.persistence * signals[:, None]) / spread) ** 2)
    moves /= moves.sum(axis=1, keepdims=True)
    m, q = (x[:, None, None] for x in mean_and_square(market, signals))
    fee = market.cost * np.abs(held[None, None, :] - held[None, :, None])
    square = q * held**2 - 2 * m * held * fee + fee**2
    reward = m * held - fee - risk_aversion / 2 * square
    values = np.zeros((65, 81))
    for _ in range(400):
        following = (reward + (moves @ values)[:, None, :]).max(axis=2)
        change, values = following - values, following - following[32, 40]
    assert change.max() - change.min() < 1e-9
    found = planted_optimum(market, risk_aversion)
    reached = found.mean - risk_aversion / 2 * (found.std**2 + found.mean**2)
    assert reached == pytest.approx(float(change.mean()), rel=4e-3)


def test_the_sharpest_does_not_depend_on_units(optimum: PlantedOptimum) -> None:
    smaller = planted_optimum(replace(MARKET, limit=0.1))
    assert smaller.sharpe == pytest.approx(optimum.sharpe, rel=1e-6)
    assert smaller.mean == pytest.approx(optimum.mean / 10, rel=1e-6)
    # the best of all scales of one policy, a E g - lambda / 2 a^2 E g^2 at a = 1, is where lambda = E g / E g^2
    timid = planted_optimum(MARKET, 200.0)
    assert timid.mean / (timid.std**2 + timid.mean**2) == pytest.approx(200.0, rel=0.01)


@pytest.mark.parametrize("risk_aversion", [0.0, 3.0, 10.0, 20.0, 50.0, 100.0, 400.0])
def test_no_risk_aversion_is_sharper(optimum: PlantedOptimum, risk_aversion: float) -> None:
    assert planted_optimum(MARKET, risk_aversion).sharpe < 1.0015 * optimum.sharpe


def test_the_grid_is_fine_enough(optimum: PlantedOptimum) -> None:
    finer = planted_optimum(MARKET, optimum.risk_aversion, positions=401)
    assert finer.refinement < optimum.refinement < 1e-3
    for name in ("mean", "std", "sharpe"):
        assert getattr(finer, name) == pytest.approx(getattr(optimum, name), rel=1e-3)


def test_instruments_add(optimum: PlantedOptimum) -> None:
    several = planted_optimum(replace(MARKET, instruments=("A", "B", "C", "D")))
    assert several.mean == pytest.approx(4 * optimum.mean) and several.std == pytest.approx(2 * optimum.std)
    assert several.sharpe == pytest.approx(2 * optimum.sharpe)


def test_what_cannot_pay_is_left_alone() -> None:
    dear = planted_optimum(replace(MARKET, cost=0.2), 0.0)
    assert (dear.mean, dear.std, dear.sharpe, dear.turnover) == (0, 0, 0, 0)


# --- the optimum against simulated accounts ---------------------------------------------------------------------


def test_an_account_earns_what_was_predicted(optimum: PlantedOptimum, paths: list[Bars]) -> None:
    gains = followed(optimum.policy, paths)[:, 200:]  # by then positions are as they are in the long run
    mean, error = mean_and_error(gains)
    assert error < 0.01 * optimum.mean
    assert abs(mean - optimum.mean) < 3 * error
    sharpe, influence = sharpe_and_influence(gains)
    assert abs(sharpe - optimum.sharpe) < 3 * error_of(influence) < 0.03 * optimum.sharpe


def test_weights_that_drift_with_prices_change_it_by_less_than_a_percent(
    optimum: PlantedOptimum, paths: list[Bars]
) -> None:
    drifting, still = (followed(optimum.policy, paths, drift=drift)[:, 200:] for drift in (True, False))
    difference, error = mean_and_error(drifting - still)
    assert abs(difference) + 3 * error < 0.01 * optimum.mean  # paired: the same bars
    (with_drift, a), (without, b) = (sharpe_and_influence(gains) for gains in (drifting, still))
    assert abs(with_drift - without) + 3 * error_of(a - b) < 0.01 * optimum.sharpe


def myopic(market: PlantedMarket, risk_aversion: float) -> Policy:
    """What the signal is worth if trading were free."""

    def policy(signal: np.ndarray, held: np.ndarray) -> np.ndarray:
        m, q = mean_and_square(market, signal)
        return np.asarray(m / (risk_aversion * q))

    return policy


def rivals() -> dict[str, Policy]:
    found: dict[str, Policy] = {
        "hold": lambda s, w: np.full_like(w, 1.0),
        "sign": lambda s, w: np.sign(s),
        "myopic": myopic(MARKET, 35.0),
        "greedy": myopic(MARKET, 10.0),
    }
    for level in (0.5, 1.0, 1.5, 2.0):
        found[f"threshold {level}"] = lambda s, w, level=level: np.where(np.abs(s) > level, np.sign(s), 0.0)
        found[f"hysteresis {level}"] = lambda s, w, level=level: np.where(np.abs(s) > level, np.sign(s), w)
    for slope in (0.1, 0.2, 0.4):
        for step in (0.1, 0.2, 0.4, 0.7):
            found[f"partly {slope} {step}"] = lambda s, w, slope=slope, step=step: w + step * (slope * s - w)
        for width in (0.05, 0.1, 0.2, 0.4):
            found[f"band {slope} {width}"] = lambda s, w, slope=slope, width=width: np.clip(
                w, slope * s - width, slope * s + width
            )
    return found


def test_no_simple_policy_does_better_and_costs_matter(optimum: PlantedOptimum, paths: list[Bars]) -> None:
    best, influence = sharpe_and_influence(followed(optimum.policy, paths[:150])[:, 200:])
    reached = {}
    for name, policy in rivals().items():
        sharpe, other = sharpe_and_influence(followed(policy, paths[:150])[:, 200:])
        assert sharpe - best < 3 * error_of(other - influence), name
        reached[name] = sharpe / best
    assert optimum.sharpe > 0.10
    assert abs(reached["hold"]) < 0.05
    assert reached["myopic"] < 0.8 and reached["sign"] < 0.8  # 80 % of the optimum cannot be had without minding costs
    assert max(reached.values()) > 0.95  # the rivals are worth beating


def test_the_core_pays_the_same(optimum: PlantedOptimum) -> None:
    bars = planted_market(120, 8, np.random.default_rng(9), MARKET)
    core = core_of(bars, transaction_cost=MARKET.cost, max_position_size=MARKET.limit, episode_length=1_000)
    state = core.begin(np.asarray(core.tape.first))
    signals, gains = signals_of(bars), []
    for t in range(119):
        target = optimum.policy(signals[:, t], core.weights(state)[:, 0])
        state, outcome = core.step(state, target[:, None] / MARKET.limit)
        gains.append(outcome.gain)
    assert np.stack(gains, axis=1) == pytest.approx(followed(optimum.policy, bars), abs=1e-12)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instruments": ()}, "one or more different names"),
        ({"instruments": ("A", "A")}, "one or more different names"),
        ({"beta": -0.1}, "beta"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"persistence": 1.0}, "persistence=1.0 must lie between 0 and 0.99"),
        ({"cost": -1e-3}, "cost"),
        ({"limit": 0.0}, "limit"),
    ],
)
def test_numbers_of_no_market(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PlantedMarket(**changes)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="risk_aversion=-1"):
        planted_optimum(MARKET, -1)
    with pytest.raises(ConfigError, match="positions=30"):
        planted_optimum(MARKET, positions=30)
    with pytest.raises(ConfigError, match="half the points change the optimum"):
        planted_optimum(replace(MARKET, cost=0.05), 30.0, positions=101)
    with pytest.raises(ConfigError, match="bars=1, paths=3"):
        planted_market(1, 3, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="bars=10, paths=0"):
        null_market(10, 0, np.random.default_rng(0))


def test_a_band_keeps_what_lies_within() -> None:
    policy = BandPolicy(np.array([-1.0, 1.0]), np.array([-1.0, 0.0]), np.array([0.0, 1.0]))
    # at signal 0 the band is [-0.5, 0.5]
    assert policy(0.0, np.array([-0.9, -0.5, 0.1, 0.8])).tolist() == [-0.5, -0.5, 0.1, 0.5]
    assert policy(np.array([-5.0, 5.0]), np.array([0.5, -0.5])).tolist() == [0.0, 0.0]
