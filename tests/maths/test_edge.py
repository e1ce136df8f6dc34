from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.errors import DataError
from troupe.maths.edge import edge_test, hac_standard_error, newey_west_lag

Null = Callable[[np.random.Generator, int, int], np.ndarray]
PATHS = 2000
TOLERANCE = 0.007
"""Three standard errors of a rate of 0.01 counted over 2,000 nulls: 3 * sqrt(0.01 * 0.99 / 2000) = 0.0067."""


def garch(generator: np.random.Generator, n: int, t: int) -> np.ndarray:
    """GARCH(1, 1) with shocks of Student(5): volatility clusters, half-life 34 bars, and fat tails."""
    shocks = generator.standard_t(5, (t, n)) / math.sqrt(5 / 3)
    variance, path = np.ones(n), np.empty((t, n))
    for bar in range(t):
        path[bar] = np.sqrt(variance) * shocks[bar]
        variance = 0.02 + 0.10 * path[bar] ** 2 + 0.88 * variance
    return path.T


def autoregressive(coefficient: float) -> Null:
    def simulate(generator: np.random.Generator, n: int, t: int) -> np.ndarray:
        shocks, path = generator.standard_normal((t + 50, n)), np.zeros((t + 50, n))
        for bar in range(1, t + 50):
            path[bar] = coefficient * path[bar - 1] + shocks[bar]
        return path[50:].T

    return simulate


NULLS: dict[str, Null] = {
    "normal": lambda generator, n, t: generator.standard_normal((n, t)),
    "fat_tails": lambda generator, n, t: generator.standard_t(3, (n, t)),
    "garch": garch,
    "momentum": autoregressive(0.1),
    "reversal": autoregressive(-0.1),
    "many_small_wins": lambda generator, n, t: 1 - generator.exponential(1, (n, t)),
    "few_large_wins": lambda generator, n, t: generator.exponential(1, (n, t)) - 1,
    "mostly_flat": lambda generator, n, t: generator.standard_normal((n, t)) * (generator.random((n, t)) < 0.1),
}


def rejected(records: np.ndarray) -> float:
    return float(np.mean([edge_test(record / 100).significant for record in records]))


# --- the error rate is the stated one ---------------------------------------------------------------------------


@pytest.mark.parametrize("bars", [250, 1000])
@pytest.mark.parametrize("name", NULLS)
def test_one_null_in_a_hundred_is_rejected(name: str, bars: int) -> None:
    records = NULLS[name](np.random.default_rng(2026), PATHS, bars)
    assert rejected(records) == pytest.approx(0.01, abs=TOLERANCE)


def test_the_textbook_test_would_not_keep_its_rate() -> None:
    """The nulls above can tell a good test from a bad one: here is a bad one."""
    records = NULLS["momentum"](np.random.default_rng(2026), PATHS, 1000)
    textbook = records.mean(axis=1) / records.std(axis=1, ddof=1) * math.sqrt(1000)
    stronger = autoregressive(0.3)(np.random.default_rng(2026), PATHS, 1000)
    worse = stronger.mean(axis=1) / stronger.std(axis=1, ddof=1) * math.sqrt(1000)
    assert (textbook > 2.33).mean() > 0.01 and (worse > 2.33).mean() > 0.03
    assert rejected(stronger) == pytest.approx(0.01, abs=TOLERANCE)


def test_a_planted_edge_is_found() -> None:
    # 0.12 a bar over 1,000 bars: a t of 3.8, Student(39) asks for 2.43, so some 91 % of the records show it
    noise = garch(np.random.default_rng(7), 500, 1000)
    assert rejected(noise + 0.12) > 0.85
    assert rejected(noise - 0.12) == 0


# --- what it computes -------------------------------------------------------------------------------------------


def test_the_statistic_from_its_definition() -> None:
    record = np.random.default_rng(8).normal(0.1, 1, 101)
    record -= 0.3 * (record**2 - 1)  # skewed to the left, so that Hall's correction lowers it
    t, d = 101, 8  # 0.4 * 101^(2/3) = 8.67
    steps = np.arange(1, t + 1)
    cosines = [math.sqrt(2 / t) * (record * np.cos(math.pi * j * (steps - 0.5) / t)).sum() for j in range(1, d + 1)]
    error = math.sqrt(np.mean(np.square(cosines)) / t)
    plain = record.mean() / error
    centred = record - record.mean()
    s = (centred**3).mean() / (centred**2).mean() ** 1.5
    hall = plain + s * plain**2 / (3 * math.sqrt(t)) + s / (6 * math.sqrt(t)) + s**2 * plain**3 / (27 * t)
    found = edge_test(record / 100)
    assert s < -0.3 and hall < plain
    assert (found.n, found.degrees, found.alpha) == (101, 8, 0.01)
    assert found.mean == pytest.approx(record.mean() / 100)
    assert found.standard_error == pytest.approx(error / 100)
    assert found.statistic == pytest.approx(hall)


@pytest.mark.oracle
def test_the_p_value_is_that_of_scipy() -> None:
    from scipy import stats

    found = edge_test(np.random.default_rng(9).normal(0.001, 0.01, 200))
    assert found.p_value == pytest.approx(stats.t.sf(found.statistic, found.degrees))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(20, 200), st.floats(0.01, 5))
def test_size_does_not_matter(seed: int, bars: int, size: float) -> None:
    record = np.random.default_rng(seed).normal(0, 0.01, bars)
    assert edge_test(record * size).p_value == pytest.approx(edge_test(record).p_value, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.01, -0.01])
def test_a_record_without_spread_is_never_significant(value: float) -> None:
    found = edge_test([value] * 30)
    assert math.isnan(found.statistic) and found.p_value == 1 and not found.significant


def test_a_ruined_record_is_never_significant() -> None:
    record = np.full(5000, 0.01) + np.random.default_rng(0).normal(0, 0.001, 5000)
    assert edge_test(record).significant
    record[2500] = -1
    found = edge_test(record)
    assert math.isnan(found.statistic) and found.p_value == 1 and not found.significant


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(DataError, match="20 or more bars"):
        edge_test([0.01] * 19)
    with pytest.raises(DataError, match="got nan"):
        edge_test([math.nan] * 30)
    with pytest.raises(DataError, match="one record"):
        edge_test(np.zeros((2, 30)))
    with pytest.raises(DataError, match="alpha"):
        edge_test([0.01] * 30, alpha=0.99)


# --- the standard error -----------------------------------------------------------------------------------------


def test_newey_west_by_hand() -> None:
    # 1, 2, 4, 1 about their mean 2: -1, 0, 2, -1. c_0 = 6 / 4, c_1 = (0 + 0 - 2) / 4, c_2 = (-2 + 0) / 4
    sample = [1.0, 2.0, 4.0, 1.0]
    assert hac_standard_error(sample, 0) == pytest.approx(math.sqrt(1.5 / 4))
    assert hac_standard_error(sample, 1) == pytest.approx(math.sqrt((1.5 + 2 * 0.5 * -0.5) / 4))
    assert hac_standard_error(sample, 2) == pytest.approx(math.sqrt((1.5 + 2 * (2 / 3 * -0.5 + 1 / 3 * -0.5)) / 4))


@pytest.mark.oracle
def test_newey_west_is_that_of_statsmodels() -> None:
    """Figures of statsmodels 0.15: OLS on a constant, `cov_type="HAC"`, `maxlags` 3 and 7."""
    squares = np.arange(500) ** 2 * 0.37
    before = (np.arange(500) - 1) ** 2 * 0.37
    sample = np.sin(squares) + 0.5 * np.sin(before)
    assert hac_standard_error(sample, 3) == pytest.approx(0.04685391970730396, rel=1e-9)
    assert hac_standard_error(sample, 7) == pytest.approx(0.04843098323281248, rel=1e-9)


def test_the_automatic_error_is_right_for_momentum() -> None:
    # AR(1) with 0.5: the long-run variance is 1 / (1 - 0.5)^2, the error of a mean of 20,000 is 2 / sqrt(20000)
    record = autoregressive(0.5)(np.random.default_rng(1), 1, 20_000)[0]
    assert 5 <= newey_west_lag(record) <= 60
    assert hac_standard_error(record) == pytest.approx(2 / math.sqrt(20_000), rel=0.1)
    assert hac_standard_error(record, 0) < 0.7 * hac_standard_error(record)


def test_the_standard_error_of_equal_values_and_bad_lags() -> None:
    assert math.isnan(hac_standard_error([0.1] * 9))
    for lag in (-1, 3):
        with pytest.raises(DataError, match="lag"):
            hac_standard_error([1.0, 2.0, 3.0], lag)
    with pytest.raises(DataError, match="2 or more"):
        hac_standard_error([1.0])
