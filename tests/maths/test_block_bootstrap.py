from __future__ import annotations

import math

import numpy as np
import pytest

from troupe.errors import DataError
from troupe.maths.block_bootstrap import automatic_block_length, sharpe_interval, stationary_indices
from troupe.maths.finance import sharpe


def autoregressive(coefficient: float, t: int, seed: int) -> np.ndarray:
    shocks, path = np.random.default_rng(seed).standard_normal(t + 50), np.zeros(t + 50)
    for bar in range(1, t + 50):
        path[bar] = coefficient * path[bar - 1] + shocks[bar]
    return path[50:]


# --- resampling -------------------------------------------------------------------------------------------------


def test_blocks_have_their_mean_length_and_cover_the_record() -> None:
    rows = stationary_indices(50, 5, np.random.default_rng(0), 4000)
    assert rows.shape == (4000, 50) and rows.min() == 0 and rows.max() == 49
    goes_on = rows[:, 1:] == (rows[:, :-1] + 1) % 50
    # A bar goes on with probability 1 - 1 / 5, or if the jump happens to land there.
    assert goes_on.mean() == pytest.approx(0.8 + 0.2 / 50, abs=0.005)
    assert np.bincount(rows.ravel()) / rows.size == pytest.approx(np.full(50, 1 / 50), abs=0.002)
    assert (rows[:, 1:] < rows[:, :-1])[goes_on].any()  # blocks wrap around the end


def test_the_ends_of_block_length() -> None:
    long = stationary_indices(30, 1e12, np.random.default_rng(1), 5)
    assert (long == (long[:, :1] + np.arange(30)) % 30).all()
    lone = stationary_indices(1000, 1, np.random.default_rng(1), 5)
    assert (lone[:, 1:] == lone[:, :-1] + 1).mean() < 0.01


def test_the_generator_decides() -> None:
    first, again, other = (stationary_indices(20, 4, np.random.default_rng(seed), 3) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    for arguments in ((0, 2, 1), (5, 0.5, 1), (5, math.nan, 1), (5, 2, 0)):
        n, block, resamples = arguments
        with pytest.raises(DataError, match="stationary bootstrap"):
            stationary_indices(n, block, np.random.default_rng(0), resamples)


# --- block length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coefficient", [0.3, 0.5, -0.5, 0.8])
def test_the_block_length_of_momentum_is_the_best_in_theory(coefficient: float) -> None:
    # AR(1): G / long-run variance = 2 a / (1 - a^2), so b = (2 a / (1 - a^2))^(2/3) T^(1/3)
    t = 40_000
    best = np.cbrt((2 * coefficient / (1 - coefficient**2)) ** 2 * t)
    found = np.mean([automatic_block_length(autoregressive(coefficient, t, seed)) for seed in range(5)])
    assert found == pytest.approx(best, rel=0.15)


@pytest.mark.oracle
@pytest.mark.parametrize("coefficient", [0.0, 0.2, 0.6])
def test_the_block_length_from_its_definition(coefficient: float) -> None:
    x = autoregressive(coefficient, 300, 3)
    x = x - x.mean()
    covariance = [sum(x[i] * x[i - k] for i in range(k, 300)) / 300 for k in range(24)]
    small = [abs(c / covariance[0]) < 2 * math.sqrt(math.log10(300) / 300) for c in covariance]
    m = 2 * next(k for k in range(1, 24) if all(small[k + 1 : k + 6]))
    g = long_run = 0.0
    for k in range(-m, m + 1):
        window = 1 if abs(k) <= m / 2 else 2 * (1 - abs(k) / m)
        g += window * abs(k) * covariance[abs(k)]
        long_run += window * covariance[abs(k)]
    expected = (2 * g**2 / (2 * long_run**2)) ** (1 / 3) * 300 ** (1 / 3)
    assert automatic_block_length(x) == pytest.approx(max(expected, 1))


def test_the_block_length_of_little() -> None:
    assert automatic_block_length([0.1] * 50) == 1
    assert automatic_block_length([0.1, 0.2]) == 1
    trend = automatic_block_length(np.arange(100.0))
    assert 1 < trend <= 30  # min(3 sqrt(100), 100 / 3)
    with pytest.raises(DataError, match="one record"):
        automatic_block_length(np.zeros((2, 30)))


# --- an interval of Sharpe --------------------------------------------------------------------------------------


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # AR(1) with 0.2: standard deviation 1 / sqrt(1 - 0.04)
    true, inside, generator = 0.1 * math.sqrt(0.96), 0, np.random.default_rng(0)
    for seed in range(200):
        found = sharpe_interval((autoregressive(0.2, 400, seed) + 0.1) / 100, 1, generator, n=300)
        inside += found.low <= true <= found.high
    assert inside / 200 == pytest.approx(0.95, abs=0.046)  # three standard errors


def test_the_interval_is_annual_and_knows_momentum() -> None:
    record = autoregressive(0.4, 1000, 5) / 100
    found = sharpe_interval(record, 252, np.random.default_rng(1))
    assert found.mean == sharpe(record, 252) and found.n == 1000
    assert found.low < found.mean < found.high
    lone = sharpe_interval(record, 252, np.random.default_rng(1), block=1)
    # Momentum of 0.4 widens it by sqrt((1 + 0.4) / (1 - 0.4)) = 1.53
    assert (found.high - found.low) / (lone.high - lone.low) == pytest.approx(1.53, rel=0.15)
    # Single bars: about +- 1.96 / sqrt(years)
    assert lone.high - lone.low == pytest.approx(2 * 1.96 / math.sqrt(1000 / 252), rel=0.1)
    assert found == sharpe_interval(record, 252, np.random.default_rng(1))


@pytest.mark.parametrize("record", [[0.0] * 30, [0.01] * 30, [0.1, -1.0] * 15])
def test_a_record_without_a_ratio_has_an_infinite_interval(record: list[float]) -> None:
    found = sharpe_interval(record, 252, np.random.default_rng(0))
    assert math.isnan(found.mean) and (found.low, found.high) == (-math.inf, math.inf)


def test_a_mostly_flat_record_has_an_interval() -> None:
    found = sharpe_interval([0.0] * 50 + [0.1, 0.2], 252, np.random.default_rng(0))
    assert found.low == 0 < found.mean < found.high < math.inf  # resamples without a trade are cash


def test_impossible_arguments_of_the_interval() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match="one record"):
        sharpe_interval(np.zeros((2, 30)), 252, generator)
    with pytest.raises(DataError, match="n=0"):
        sharpe_interval([0.1, 0.2], 252, generator, n=0)
    with pytest.raises(DataError, match="2 or more"):
        sharpe_interval([0.1], 252, generator)
