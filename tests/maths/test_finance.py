from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from troupe.errors import DataError
from troupe.maths.finance import (
    Drawdown,
    alpha_beta,
    annual_volatility,
    bar_win_rate,
    cagr,
    calmar,
    exposure,
    longest_drawdown,
    max_drawdown,
    profit_factor,
    sharpe,
    sortino,
    tail_ratio,
    total_return,
    traded_weight,
    turnover,
    win_rate,
    worst_drawdown,
)

UP_AND_DOWN = [0.1, -0.5, 0.2, 0.9]  # equity 1, 1.1, 0.55, 0.66, 1.254
records = arrays(np.float64, st.integers(2, 40), elements=st.integers(-90, 90).map(lambda cents: cents / 100))


# --- return and spread ------------------------------------------------------------------------------------------


def test_return_and_growth_by_hand() -> None:
    assert total_return(UP_AND_DOWN) == pytest.approx(0.254)
    assert cagr([0.1, 0.1], 1) == pytest.approx(0.1)
    assert cagr([0.1, 0.1], 4) == pytest.approx(0.4641)  # 1.21 in half a year: 1.21^2 in one


def test_volatility_and_sharpe_by_hand() -> None:
    # mean 0.02, s = 0.02 / sqrt 2 = 0.0141421; per bar 1.414214, times sqrt 4
    assert annual_volatility([0.01, 0.03], 4) == pytest.approx(0.0282843, abs=1e-7)
    assert sharpe([0.01, 0.03], 4) == pytest.approx(2.828427, abs=1e-6)
    # 1.01^4 - 1 a year is 0.01 a bar: half of the mean is left
    assert sharpe([0.01, 0.03], 4, risk_free=1.01**4 - 1) == pytest.approx(1.414214, abs=1e-6)


def test_sortino_by_hand() -> None:
    # mean 0.005, downside sqrt(0.01^2 / 2) = 0.00707107: 0.7071068 a bar, times sqrt 4
    assert sortino([0.02, -0.01], 4) == pytest.approx(1.414214, abs=1e-6)
    # target 0.01 a bar: excess 0.01, -0.02, mean -0.005, downside sqrt(0.0004 / 2) = 0.0141421
    assert sortino([0.02, -0.01], 4, target=1.01**4 - 1) == pytest.approx(-0.707107, abs=1e-6)


def test_tail_ratio_by_hand() -> None:
    # quantiles of -2, -1, 0, 1, 4 at 0.25 and 0.75 are -1 and 1; doubling the gains doubles the ratio
    assert tail_ratio([-2, -1, 0, 1, 4], 0.25) == pytest.approx(1)
    assert tail_ratio([-2, -1, 0, 2, 8], 0.25) == pytest.approx(2)
    assert math.isnan(tail_ratio([0.0] * 99 + [-1.0]))
    with pytest.raises(DataError, match="probability"):
        tail_ratio([0.1, 0.2], 0.5)


def test_one_figure_per_record() -> None:
    table = np.random.default_rng(0).normal(0, 0.01, (2, 3, 50))
    for figure in (total_return, max_drawdown, longest_drawdown, bar_win_rate, tail_ratio):
        assert figure(table).shape == (2, 3)
        assert figure(table)[1, 2] == figure(table[1, 2])
    for annual in (cagr, annual_volatility, sharpe, sortino, calmar):
        assert annual(table, 252).shape == (2, 3)
        assert annual(table, 252)[1, 2] == pytest.approx(float(annual(table[1, 2], 252)))


@settings(max_examples=100, deadline=None)
@given(records, st.floats(0.01, 1), st.floats(1, 10_000))
def test_sharpe_and_sortino_do_not_change_with_size(record: np.ndarray, size: float, periods: float) -> None:
    for figure in (sharpe, sortino):
        found, scaled = figure(record, periods), figure(record * size, periods)
        assert scaled == pytest.approx(float(found), rel=1e-6, nan_ok=True)
    assert annual_volatility(record * size, periods) == pytest.approx(size * annual_volatility(record, periods))


@settings(max_examples=100, deadline=None)
@given(records)
def test_a_short_book_has_the_opposite_sharpe(record: np.ndarray) -> None:
    assert sharpe(-record, 252) == pytest.approx(-sharpe(record, 252), nan_ok=True)


# --- what is not defined ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1])
def test_equal_returns_have_no_sharpe(value: float) -> None:
    assert math.isnan(sharpe([value] * 7, 252))
    assert annual_volatility([value] * 7, 252) == 0
    assert math.isnan(sharpe([value], 252)) and math.isnan(annual_volatility([value], 252))


def test_a_ratio_without_its_denominator_is_nan() -> None:
    assert math.isnan(sortino([0.01, 0.02], 252))
    assert math.isnan(calmar([0.01, 0.02], 252))
    assert math.isnan(profit_factor([1.0, 2.0]))
    assert math.isnan(win_rate([])) and math.isnan(profit_factor([]))
    assert math.isnan(bar_win_rate([0.0, 0.0]))
    assert np.isnan(win_rate(np.zeros((3, 0)))).all()


def test_a_ruined_record_is_not_praised() -> None:
    record = [0.02, 0.01] * 500 + [-1.0] + [0.02, 0.01] * 500
    ignoring_ruin = np.mean(record) / np.std(record) * np.sqrt(252)
    assert ignoring_ruin > 5
    assert math.isnan(sharpe(record, 252)) and math.isnan(sortino(record, 252))
    assert total_return(record) == cagr(record, 252) == calmar(record, 252) == -1
    assert max_drawdown(record) == 1


@pytest.mark.parametrize("figure", [cagr, annual_volatility, sharpe, sortino, calmar, turnover])
def test_bad_input_is_one_sentence(figure) -> None:  # type: ignore[no-untyped-def]
    for periods in (0, -1, math.nan):
        with pytest.raises(DataError, match="periods_per_year"):
            figure([0.1, 0.2], periods)
    with pytest.raises(DataError, match="1 or more bars"):
        figure([], 252)
    with pytest.raises(DataError, match="position 1"):
        figure([0.1, math.nan], 252)


def test_an_impossible_rate_is_refused() -> None:
    with pytest.raises(DataError, match="above -1"):
        sharpe([0.1, 0.2], 252, risk_free=-1)


# --- drawdown ---------------------------------------------------------------------------------------------------


def test_drawdowns_by_hand() -> None:
    assert max_drawdown(UP_AND_DOWN) == pytest.approx(0.5)
    assert calmar(UP_AND_DOWN, 4) == pytest.approx(0.254 / 0.5)
    found = worst_drawdown(UP_AND_DOWN)
    assert (found.peak, found.trough, found.recovery, found.length) == (1, 2, 4, 2)
    assert found.depth == pytest.approx(0.5)
    assert longest_drawdown(UP_AND_DOWN) == 2


def test_a_drawdown_that_is_not_over() -> None:
    # 1, 0.9, 0.99, 0.495: never above the start
    found = worst_drawdown([-0.1, 0.1, -0.5])
    assert (found.peak, found.trough, found.recovery, found.length) == (0, 3, None, 3)
    assert longest_drawdown([-0.1, 0.1, -0.5]) == 3


def test_the_longest_drawdown_need_not_be_the_deepest() -> None:
    record = [-0.5, 1.5, -0.1, 0.0, 0.0, 0.01]  # 1, 0.5, 1.25, then three and one bars below 1.25
    assert worst_drawdown(record).length == 1
    assert longest_drawdown(record) == 4


def test_a_record_that_never_falls_has_none() -> None:
    assert worst_drawdown([0.0, 0.1]) == Drawdown(0.0, 0, 0, 0, 0)
    assert longest_drawdown([0.0, 0.1]) == 0
    with pytest.raises(DataError, match="one record"):
        worst_drawdown([[0.1], [0.2]])


@settings(max_examples=100, deadline=None)
@given(records)
def test_the_worst_drawdown_is_in_the_record(record: np.ndarray) -> None:
    found = worst_drawdown(record)
    assert found.depth == max_drawdown(record) and 0 <= found.depth <= 1
    assert found.length <= longest_drawdown(record) <= len(record)
    fallen = np.prod(1 + record[found.peak : found.trough])
    assert 1 - fallen == pytest.approx(found.depth, abs=1e-9)


# --- trades and positions ---------------------------------------------------------------------------------------


def test_trades_by_hand() -> None:
    assert win_rate([10, -5, 0, 5]) == 0.5  # breaking even is not winning
    assert bar_win_rate([0.1, -0.1, 0.0, 0.1]) == pytest.approx(2 / 3)  # a flat bar is no bar
    assert profit_factor([10, -5, 0, 5]) == 3
    assert win_rate([[1, 1], [1, -1]]).tolist() == [1, 0.5]
    with pytest.raises(DataError, match="win_rate got nan"):
        win_rate([1.0, math.nan])


def test_rebalancing_trades_by_hand() -> None:
    # Half and half; the first earns 20 %: 0.6 / 1.1 = 0.545455 and 0.454545, so 0.045455 is sold and bought.
    traded = traded_weight([[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.0], [0.0, 0.0]])
    assert traded == pytest.approx([1, 2 * 0.0454545], abs=1e-6)
    assert turnover(traded, 4) == pytest.approx((1 + 0.090909) / 2 * 4, abs=1e-5)


def test_buy_and_hold_trades_once_and_a_reversal_twice_its_size() -> None:
    assert traded_weight([[1.0]] * 3, [[0.3], [-0.4], [0.1]]) == pytest.approx([1, 0, 0])
    assert traded_weight([[1.0], [-1.0]], [[0.0], [0.0]]) == pytest.approx([1, 2])
    assert np.isnan(traded_weight([[1.0], [1.0]], [[-1.0], [0.0]])[1])
    with pytest.raises(DataError, match="one shape"):
        traded_weight([[1.0]], [[1.0, 2.0]])
    with pytest.raises(DataError, match="absolute"):
        turnover([1.0, -1.0], 252)


def test_exposure_by_hand() -> None:
    found = exposure([[1.0, -1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert (found.gross, found.net, found.in_market) == (2.5 / 4, 0.5 / 4, 0.5)
    with pytest.raises(DataError, match="T, M"):
        exposure([1.0, 2.0])


# --- a benchmark ------------------------------------------------------------------------------------------------


def test_a_leveraged_benchmark_has_its_leverage_as_beta() -> None:
    market = np.random.default_rng(1).normal(0, 0.01, 300)
    alpha, beta = alpha_beta(2 * market + 0.001, market, 252)
    assert (alpha, beta) == (pytest.approx(0.252), pytest.approx(2))
    alpha, beta = alpha_beta(np.stack([market, -market]), market, 252, risk_free=0.05)
    assert alpha[0] == pytest.approx(0) and beta == pytest.approx([1, -1])
    # Short the market at a rate f: r - f = -(b - f) - 2 f
    assert alpha[1] == pytest.approx(-2 * (1.05 ** (1 / 252) - 1) * 252)


@pytest.mark.oracle
def test_alpha_and_beta_are_the_regression_of_scipy() -> None:
    from scipy import stats

    generator = np.random.default_rng(2)
    market, mine = generator.normal(0, 0.01, (2, 200))
    line = stats.linregress(market, mine)
    assert alpha_beta(mine, market, 252) == pytest.approx((line.intercept * 252, line.slope))


def test_a_benchmark_needs_spread_and_the_same_bars() -> None:
    assert np.isnan(alpha_beta([0.1, 0.2, 0.3], [0.1, 0.1, 0.1], 252)).all()
    with pytest.raises(DataError, match="same bars"):
        alpha_beta([0.1, 0.2, 0.3], [0.1, 0.2], 252)
