from __future__ import annotations

import numpy as np
import pytest

from tests.envs.market.walks import another_future, same_bits, walk
from troupe.envs.market import rolling
from troupe.envs.market.rolling import rolling_correlation, rolling_covariance, rolling_volatility, simple_returns
from troupe.errors import ConfigError, DataError


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.01, shape)


def test_returns_by_hand() -> None:
    np.testing.assert_allclose(simple_returns(np.array([[2.0], [3.0], [1.5]]))[:, 0], [0, 0.5, -0.5], rtol=1e-15)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 20, 64, 100, 127, 500])
def test_windows_against_slices(window: int) -> None:
    values = normal(window, 150, 2)
    for found, of in ((rolling.rolling_sum, np.sum), (rolling.rolling_max, np.max), (rolling.rolling_min, np.min)):
        expected = [of(values[max(t - window + 1, 0) : t + 1], axis=0) for t in range(len(values))]
        np.testing.assert_allclose(found(values, window), expected, atol=1e-15)
    assert rolling.counts(150, window)[[0, 1, 149]].tolist() == [1, min(2, window), min(150, window)]


def test_decayed_sums_against_a_recursion() -> None:
    values = normal(0, 700, 2)
    expected, last = [], np.zeros(2)
    for row in values:
        last = 0.9 * last + row
        expected.append(last)
    np.testing.assert_allclose(rolling.decayed_sum(values, 0.9), expected, atol=1e-12)


def test_covariance_by_hand() -> None:
    # Returns (1, 2), (3, 2), (2, 5), window 3: means 2 and 3; variances 1 and 3; covariance (1 - 1 + 0) / 2 = 0.
    # Row 2 has two returns: means 2 and 2, variances 2 and 0.
    returns = np.array([[99, -99], [1, 2], [3, 2], [2, 5], [4, 9]], dtype=np.float64)
    found = rolling_covariance(returns, 3, prior=0)
    np.testing.assert_allclose(
        found[:4], [np.zeros((2, 2)), np.zeros((2, 2)), [[2, 0], [0, 0]], [[1, 0], [0, 3]]], atol=1e-12
    )
    # Row 4: (3, 2), (2, 5), (4, 9): means 3 and 16/3; covariance (0 + 1/3 + 11/3) / 2 = 2, and 3 / (3 + 2) of it with
    # a prior of 2.
    assert found[4, 0, 1] == pytest.approx(2, rel=1e-12)
    assert rolling_covariance(returns, 3)[4, 0, 1] == pytest.approx(1.2, rel=1e-12)
    assert rolling_correlation(returns, 3, prior=1)[4, 0, 1] == pytest.approx(0.75 * 2 / np.sqrt(37 / 3), rel=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("window", [2, 7, 100])
def test_covariance_is_that_of_numpy(window: int) -> None:
    returns = normal(1, 160, 4) @ normal(2, 4, 4) * 100 + 0.003
    returns[0] = 0
    covariance = rolling_covariance(returns, window, prior=0)
    correlation = rolling_correlation(returns, window, prior=0)
    volatility = rolling_volatility(returns, window)
    for t in (2, 3, 50, 159):
        rows = returns[max(t - window + 1, 1) : t + 1]
        np.testing.assert_allclose(covariance[t], np.cov(rows.T), rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(correlation[t], np.corrcoef(rows.T), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(volatility[t], rows.std(axis=0, ddof=1), rtol=1e-9)


def test_covariance_correlation_and_volatility_agree() -> None:
    returns = normal(3, 200, 5)
    covariance, volatility = rolling_covariance(returns, 50), rolling_volatility(returns, 50)
    np.testing.assert_allclose(np.diagonal(covariance, axis1=1, axis2=2), volatility**2, rtol=1e-12)
    scale = volatility[:, :, None] * volatility[:, None, :]
    np.testing.assert_allclose(covariance, rolling_correlation(returns, 50) * scale, rtol=1e-12)
    assert (covariance == covariance.transpose(0, 2, 1)).all()


def test_shrunk_covariance_is_positive_definite_with_fewer_returns_than_instruments() -> None:
    returns = normal(4, 40, 12)
    covariance, correlation = rolling_covariance(returns, 100) * 1e4, rolling_correlation(returns, 100)
    for t in range(2, 40):  # t returns, and a prior of 12: no direction has less than 12 / (t + 12) of its variance
        assert np.linalg.eigvalsh(correlation[t]).min() > 12 / (t + 12) - 1e-9
        assert np.linalg.eigvalsh(covariance[t]).min() > 0
    plain = rolling_covariance(returns, 100, prior=0) * 1e4
    assert abs(np.linalg.eigvalsh(plain[8])).min() < 1e-9  # eight returns of twelve instruments: a risk of 0 somewhere


def test_what_does_not_move_has_exactly_no_variance() -> None:
    returns = normal(5, 300, 3)
    returns[:, 1] = 0.0
    returns[150:, 2] = 0.0  # after a loud past
    returns[200:, 0] = 1e-3  # moves evenly
    covariance, correlation = rolling_covariance(returns, 20), rolling_correlation(returns, 20)
    assert (covariance[:, 1] == 0).all() and (covariance[170:, 2] == 0).all() and (covariance[220:, 0] == 0).all()
    assert (correlation[170:, 0, 2] == 0).all() and (np.diagonal(correlation, axis1=1, axis2=2) == 1).all()
    assert (rolling_volatility(returns, 20)[:, 1] == 0).all()


@pytest.mark.parametrize("row", [0, 1, 2, 37, 150])
def test_no_later_row_changes_a_bit(row: int) -> None:
    bars = walk(6, 260, 5)
    other = another_future(bars, row, 7)
    for of in (rolling_covariance, rolling_correlation, rolling_volatility):
        whole = of(simple_returns(bars.close), 100)
        assert same_bits(of(simple_returns(bars.close[: row + 1]), 100), whole[: row + 1])
        assert same_bits(of(simple_returns(other.close), 100)[: row + 1], whole[: row + 1])


def test_what_cannot_be() -> None:
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        rolling_covariance(np.zeros(3))
    with pytest.raises(ConfigError, match="window=1"):
        rolling_volatility(np.zeros((3, 1)), 1)
    with pytest.raises(ConfigError, match="prior=-1"):
        rolling_correlation(np.zeros((3, 1)), prior=-1)
    with pytest.raises(ConfigError, match="window=0"):
        rolling.rolling_sum(np.zeros((3, 1)), 0)
