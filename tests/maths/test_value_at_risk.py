from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from troupe.errors import DataError
from troupe.maths.value_at_risk import (
    breaches,
    christoffersen_coverage,
    christoffersen_independence,
    expected_shortfall,
    historical_var,
    kupiec,
    monte_carlo_var,
    parametric_var,
    value_at_risk,
    var_compliance,
)

Z95 = 1.6448536
CORRELATED = np.array([[1.0, 0.8], [0.8, 1.0]]) * 0.01**2
PERFECT = np.full((2, 2), 0.01**2)


# --- how much may be lost ---------------------------------------------------------------------------------------


def test_the_sample_by_hand() -> None:
    record = -np.arange(1, 11) / 100  # losses of 1 % to 10 %
    assert value_at_risk(record, 0.9) == pytest.approx(0.09)  # nine of ten lose this or less
    assert value_at_risk(record, 0.95) == pytest.approx(0.10)
    assert expected_shortfall(record, 0.9) == pytest.approx(0.10)
    # the worst 1.5 bars: (0.10 + 0.5 * 0.09) / 1.5
    assert expected_shortfall(record, 0.85) == pytest.approx(0.145 / 1.5)
    assert expected_shortfall(record, 0.999) == pytest.approx(0.10)
    assert value_at_risk([0.1, 0.2], 0.95) == pytest.approx(-0.1)  # a sure gain is a negative loss


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1, width=32)), st.floats(0.5, 0.99))
def test_the_shortfall_is_never_below_the_value_at_risk(record: np.ndarray, level: float) -> None:
    assert expected_shortfall(record, level) >= value_at_risk(record, level) - 1e-9
    assert expected_shortfall(record, level) <= -record.min() + 1e-9
    # The share of bars that lost more than the value at risk is at most 1 - level.
    assert (record < -value_at_risk(record, level)).mean() <= 1 - level + 1e-9


def test_a_hedge_lowers_it_and_leverage_raises_it() -> None:
    generator = np.random.default_rng(0)
    history = generator.multivariate_normal([0, 0], CORRELATED, 4000)
    forecasts = [
        lambda w: parametric_var(w, CORRELATED),
        lambda w: historical_var(w, history),
        lambda w: monte_carlo_var(w, CORRELATED, np.random.default_rng(1)),
    ]
    for forecast in forecasts:
        one, both, hedged, double = forecast(np.array([[0.5, 0.0], [0.5, 0.5], [0.5, -0.5], [1.0, 1.0]]))
        assert hedged < one < both
        assert double == pytest.approx(2 * both)


def test_parametric_by_hand() -> None:
    assert parametric_var([1.0, 0.0], CORRELATED) == pytest.approx(Z95 * 0.01)
    # sqrt(1 + 1 + 2 * 0.8) = 1.897367
    assert parametric_var([1.0, 1.0], CORRELATED) == pytest.approx(Z95 * 0.01897367)
    assert parametric_var([1.0, -1.0], PERFECT) == pytest.approx(0, abs=1e-9)
    assert parametric_var([1.0, 0.0], CORRELATED, mean=[0.001, 0.0]) == pytest.approx(Z95 * 0.01 - 0.001)
    assert parametric_var([1.0, 0.0], CORRELATED, 0.5) == pytest.approx(0)


def test_each_environment_may_have_its_own_covariance() -> None:
    weights, matrices = np.array([[1.0, 1.0], [1.0, 1.0]]), np.stack([CORRELATED, PERFECT])
    assert parametric_var(weights, matrices) == pytest.approx([Z95 * 0.01897367, Z95 * 0.02])


def test_historical_by_hand() -> None:
    history = np.array([[0.01, 0.0], [-0.02, 0.01], [0.0, -0.03], [0.02, 0.02]])
    # Weights 1, -1 make 0.01, -0.03, 0.03, 0: the worst of four at level 0.95
    assert historical_var([1.0, -1.0], history) == pytest.approx(0.03)
    assert historical_var([[1.0, 0.0], [0.0, 1.0]], history) == pytest.approx([0.02, 0.03])
    with pytest.raises(DataError, match="history"):
        historical_var([1.0, 0.0, 0.0], history)


def test_monte_carlo_agrees_with_the_normal_formula_and_fattens_tails() -> None:
    weights, generator = np.array([0.7, -0.2]), np.random.default_rng(3)
    normal = monte_carlo_var(weights, CORRELATED, generator, 0.99, draws=200_000)
    assert normal == pytest.approx(float(parametric_var(weights, CORRELATED, 0.99)), rel=0.02)
    fat = monte_carlo_var(weights, CORRELATED, generator, 0.99, draws=200_000, degrees=4)
    # Student(4) has the quantile 3.746947 at 0.99, and the variance 2
    deviation = math.sqrt(weights @ CORRELATED @ weights)
    assert fat == pytest.approx(3.746947 / math.sqrt(2) * deviation, rel=0.02)
    shifted = monte_carlo_var(weights, CORRELATED, np.random.default_rng(4), mean=[0.01, 0.0])
    assert shifted == pytest.approx(monte_carlo_var(weights, CORRELATED, np.random.default_rng(4)) - 0.007)
    assert monte_carlo_var([1.0, -1.0], PERFECT, generator) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "symmetric covariance"),
        ([[1.0, 0.5], [0.2, 1.0]], "symmetric covariance"),
        ([[1.0, 2.0], [2.0, 1.0]], "negative"),
        ([[1.0, math.nan], [math.nan, 1.0]], "got nan"),
    ],
)
def test_what_is_no_covariance_is_refused(matrix: object, message: str) -> None:
    for forecast in (parametric_var, lambda w, c: monte_carlo_var(w, c, np.random.default_rng(0))):
        with pytest.raises(DataError, match=message):
            forecast([1.0, -1.0], matrix)


def test_other_impossible_arguments() -> None:
    for level in (0.05, 1.0, math.nan):
        with pytest.raises(DataError, match="level"):
            value_at_risk([0.1], level)
    with pytest.raises(DataError, match="degrees"):
        monte_carlo_var([1.0, 0.0], CORRELATED, np.random.default_rng(0), degrees=2)
    with pytest.raises(DataError, match="draws"):
        monte_carlo_var([1.0, 0.0], CORRELATED, np.random.default_rng(0), draws=0)
    with pytest.raises(DataError, match="1 or more bars"):
        expected_shortfall([])


# --- was it kept, was it right? ---------------------------------------------------------------------------------


def test_compliance_and_breaches_by_hand() -> None:
    assert var_compliance([0.01, 0.02, 0.02 + 1e-13, 0.03], 0.02) == 0.75
    assert breaches([-0.03, -0.02, 0.05], [0.02, 0.02, 0.02]).tolist() == [True, False, False]
    with pytest.raises(DataError, match="one forecast per bar"):
        breaches([0.1, 0.2], [0.1])
    with pytest.raises(DataError, match="limit"):
        var_compliance([0.01], 0)


def test_a_kept_limit_is_not_a_right_forecast() -> None:
    record = np.random.default_rng(5).normal(0, 0.01, 500)
    blind = np.full(500, 0.001)
    assert var_compliance(blind, 0.02) == 1
    assert kupiec(breaches(record, blind), 0.95).p_value < 1e-9
    right = np.full(500, Z95 * 0.01)
    assert kupiec(breaches(record, right), 0.95).p_value > 0.05


def hits(positions: list[int], n: int) -> np.ndarray:
    return np.isin(np.arange(n), positions)


def test_kupiec_by_hand() -> None:
    # x = 20 of 250 at p = 0.05, q = 0.08: 2 [20 ln(0.08 / 0.05) + 230 ln(0.92 / 0.95)] = 2 [9.400073 - 7.380313]
    found = kupiec(hits(list(range(20)), 250), 0.95)
    assert (found.statistic, found.breaches, found.degrees) == (pytest.approx(4.039520, abs=1e-5), 20, 1)
    assert found.expected == pytest.approx(12.5)
    assert found.p_value == pytest.approx(
        math.erfc(math.sqrt(found.statistic / 2))
    )  # chi-squared(1) is a squared normal
    # none of 100 at 0.95: -2 * 100 ln 0.95; all of 3: -2 * 3 ln 0.05
    assert kupiec(hits([], 100), 0.95).statistic == pytest.approx(10.258659)
    assert kupiec(hits([0, 1, 2], 3), 0.95).statistic == pytest.approx(17.974394)
    assert kupiec(hits([3], 20), 0.95).statistic == pytest.approx(0, abs=1e-12)
    assert kupiec(hits([3], 20), 0.95).p_value == pytest.approx(1)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("level", "n", "low", "high"),
    [(0.99, 510, 1, 11), (0.99, 1000, 4, 17), (0.95, 255, 6, 21), (0.95, 510, 16, 36), (0.95, 1000, 37, 65)],
)
def test_kupiec_accepts_what_his_table_accepts(level: float, n: int, low: int, high: int) -> None:
    """Table 3 of Kupiec (1995): strictly between these counts the forecast is not rejected at 5 %."""
    accepted = [x for x in range(n // 2) if kupiec(hits(list(range(x)), n), level).p_value > 0.05]
    assert accepted == list(range(low + 1, high))


@pytest.mark.oracle
def test_independence_is_the_g_test_of_the_transitions() -> None:
    from scipy import stats

    breached = np.random.default_rng(6).random(300) < 0.1
    before, after = breached[:-1], breached[1:]
    table = [[((before == i) & (after == j)).sum() for j in (False, True)] for i in (False, True)]
    expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    found = christoffersen_independence(breached)
    assert (found.statistic, found.p_value) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_clusters_are_seen_by_christoffersen_alone() -> None:
    clustered, scattered = hits(list(range(100, 125)), 500), hits(list(range(0, 500, 20)), 500)
    for breached in (clustered, scattered):
        assert kupiec(breached, 0.95).p_value == pytest.approx(1)
    assert christoffersen_independence(clustered).p_value < 1e-6
    assert christoffersen_coverage(clustered, 0.95).p_value < 1e-6
    assert christoffersen_independence(scattered).p_value > 0.05
    assert christoffersen_coverage(scattered, 0.95).p_value > 0.05


def test_conditional_coverage_adds_both_questions() -> None:
    breached = hits([0, 1, 7, 40, 41], 60)
    both = christoffersen_coverage(breached, 0.95)
    parts = kupiec(breached[1:], 0.95).statistic + christoffersen_independence(breached).statistic
    assert both.statistic == pytest.approx(parts)
    assert both.p_value == pytest.approx(math.exp(-both.statistic / 2))  # chi-squared(2) is exponential


def test_no_breach_says_nothing_about_clusters() -> None:
    for breached in (hits([], 50), hits([49], 50), np.ones(50, bool)):
        found = christoffersen_independence(breached)
        assert math.isnan(found.statistic) and math.isnan(found.p_value)
    assert christoffersen_coverage(hits([], 50), 0.95).statistic == pytest.approx(-2 * 49 * math.log(0.95))


@pytest.mark.parametrize("bad", [[], [0.1, 0.2], [[True, False]], [0, 1]])
def test_breaches_are_booleans(bad: object) -> None:
    with pytest.raises(DataError, match="needs bool"):
        kupiec(bad, 0.95)  # type: ignore[arg-type]
