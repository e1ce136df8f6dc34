from __future__ import annotations

import itertools
import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.errors import DataError
from troupe.maths.statistics import (
    Interval,
    bootstrap_interval,
    mcnemar,
    mean_interval,
    paired_difference,
    paired_proportions,
    pass_at_k,
    wilson,
)


def close(found: Interval, expected: tuple[float, float, float, int], tolerance: float = 1e-6) -> None:
    assert astuple(found) == pytest.approx(expected, abs=tolerance)


# --- wilson -----------------------------------------------------------------------------------------------------


def test_wilson_by_hand() -> None:
    # 8 of 10 at 95%: z = 1.959964, z^2 = 3.841459; 1 + z^2 / n = 1.384146
    # centre = (0.8 + 0.192073) / 1.384146 = 0.716740
    # half = 1.959964 * sqrt(0.016 + 0.00960365) / 1.384146 = 0.226578
    close(wilson(8, 10), (0.8, 0.490162, 0.943318, 10))


def test_wilson_stays_inside_and_is_exact_at_its_ends() -> None:
    assert wilson(0, 5).low == 0.0 and 0 < wilson(0, 5).high < 1
    assert wilson(5, 5).high == 1.0 and 0 < wilson(5, 5).low < 1


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(0, 1, 0.95), (3, 7, 0.9), (50, 50, 0.99), (199, 1000, 0.5)]
)
def test_wilson_is_that_of_scipy(successes: int, n: int, confidence: float) -> None:
    from scipy import stats

    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    close(wilson(successes, n, confidence), (successes / n, expected.low, expected.high, n))


# --- means ------------------------------------------------------------------------------------------------------


def test_mean_interval_by_hand() -> None:
    # 1..5: mean 3, s^2 = 10 / 4, s / sqrt n = sqrt(2.5 / 5) = 0.707107, t(4, 0.975) = 2.776445: half 1.963243
    close(mean_interval([1, 2, 3, 4, 5]), (3, 3 - 1.963243, 3 + 1.963243, 5))


def test_paired_difference_by_hand() -> None:
    # differences 1, 2, 3: mean 2, s = 1, s / sqrt 3 = 0.577350, t(2, 0.975) = 4.302653: half 2.484138
    close(paired_difference([5, 0, 9], [4, -2, 6]), (2, 2 - 2.484138, 2 + 2.484138, 3))


@pytest.mark.oracle
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_scipy(confidence: float) -> None:
    from scipy import stats

    generator = np.random.default_rng(0)
    a, b = generator.normal(size=20), generator.normal(size=20)
    one = stats.ttest_1samp(a, 0).confidence_interval(confidence)
    two = stats.ttest_rel(a, b).confidence_interval(confidence)
    close(mean_interval(a.tolist(), confidence), (a.mean(), one.low, one.high, 20))
    close(paired_difference(a.tolist(), b.tolist(), confidence), ((a - b).mean(), two.low, two.high, 20))


def test_equal_values_give_exactly_that_value() -> None:
    # 0.1 summed seven times and divided by seven need not be 0.1.
    assert mean_interval([0.1] * 7) == Interval(0.1, 0.1, 0.1, 7)
    assert paired_difference([1.0, 0.0], [1.0, 0.0]) == Interval(0.0, 0.0, 0.0, 2)
    assert paired_difference([1.0, 1.0], [0.0, 0.0]) == Interval(1.0, 1.0, 1.0, 2)
    assert bootstrap_interval([0.1] * 7, np.random.default_rng(0)) == Interval(0.1, 0.1, 0.1, 7)


def test_one_value_says_nothing_about_spread() -> None:
    assert mean_interval([2.0]) == Interval(2.0, -math.inf, math.inf, 1)
    assert bootstrap_interval([2.0], np.random.default_rng(0)) == Interval(2.0, -math.inf, math.inf, 1)


values = st.lists(st.floats(-10, 10, width=16), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(values, st.floats(-100, 100, width=16), st.sampled_from([0.5, 4.0]))
def test_intervals_move_and_scale_with_their_values(sample: list[float], shift: float, scale: float) -> None:
    plain = mean_interval(sample)
    moved = mean_interval([scale * x + shift for x in sample])
    close(moved, (scale * plain.mean + shift, scale * plain.low + shift, scale * plain.high + shift, plain.n), 1e-9)
    assert plain.low <= plain.mean <= plain.high


@settings(max_examples=30, deadline=None)
@given(values)
def test_pairing_removes_what_both_share_and_has_a_sign(sample: list[float]) -> None:
    noise = [0.1 * (i % 3) for i in range(len(sample))]
    better = [x + e for x, e in zip(sample, noise, strict=True)]
    close(paired_difference(better, sample), astuple(mean_interval(noise)), 1e-9)
    there, back = paired_difference(better, sample), paired_difference(sample, better)
    close(back, (-there.mean, -there.high, -there.low, there.n), 1e-9)


# --- bootstrap --------------------------------------------------------------------------------------------------


def test_bootstrap_is_seeded_and_near_the_t_interval() -> None:
    sample = np.random.default_rng(1).normal(3, 2, 200).tolist()
    found = bootstrap_interval(sample, np.random.default_rng(2))
    assert found == bootstrap_interval(sample, np.random.default_rng(2))
    assert found != bootstrap_interval(sample, np.random.default_rng(3))
    close(found, astuple(mean_interval(sample)), tolerance=0.05)  # a tenth of the half width, about 0.28


def test_bootstrap_of_two_values_by_hand() -> None:
    # Means of resamples of (0, 1) are 0, 1/2, 1 with chances 1/4, 1/2, 1/4: 95% reach from 0 to 1, 40% are 1/2.
    generator = np.random.default_rng(0)
    assert bootstrap_interval([0, 1], generator) == Interval(0.5, 0.0, 1.0, 2)
    assert bootstrap_interval([0, 1], generator, confidence=0.4) == Interval(0.5, 0.5, 0.5, 2)


# --- pass@k -----------------------------------------------------------------------------------------------------


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(5, 2, 3) == 0.9  # 1 - C(3, 3) / C(5, 3) = 1 - 1/10
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 2, 3) == 1.0  # three of four cannot avoid both right ones


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 3), (6, 1, 4), (6, 3, 2), (7, 2, 7)])
def test_pass_at_k_is_the_share_of_draws_with_a_success(n: int, c: int, k: int) -> None:
    draws = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws), abs=1e-12)


def test_pass_at_k_holds_for_large_n() -> None:
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5, abs=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_what_statistics_refuse() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"wilson\(successes=0, n=0\)"):
        wilson(0, 0)
    with pytest.raises(DataError, match="successes=3, n=2"):
        wilson(3, 2)
    with pytest.raises(DataError, match="no values"):
        mean_interval([])
    with pytest.raises(DataError, match="nan at position 1"):
        paired_difference([1.0, math.nan], [0.0, 0.0])
    with pytest.raises(DataError, match="got 1 and 2 scores"):
        paired_difference([1.0], [0.0, 0.0])
    with pytest.raises(DataError, match="confidence"):
        mean_interval([1.0], confidence=95)
    with pytest.raises(DataError, match="no values"):
        bootstrap_interval([], generator)
    with pytest.raises(DataError, match="n >= 1 resamples"):
        bootstrap_interval([1.0], generator, n=0)
    with pytest.raises(DataError, match=r"pass_at_k\(n=2, c=1, k=3\)"):
        pass_at_k(2, 1, 3)


def test_paired_proportions_by_hand() -> None:
    """Of 10 tasks, a alone solves 5 and b alone 1: (5 - 1) / 12 +- 1.96 sqrt(7 - 16 / 12) / 12."""
    a, b = [True] * 8 + [False] * 2, [True] * 3 + [False] * 6 + [True]
    found = paired_proportions(a, b)
    half = 1.959964 * math.sqrt(7 - 16 / 12) / 12
    assert (found.mean, found.n) == (0.4, 10)
    assert (found.low, found.high) == pytest.approx((4 / 12 - half, 4 / 12 + half), abs=1e-6)
    other = paired_proportions(b, a)
    assert (other.mean, other.low, other.high) == pytest.approx((-0.4, -found.high, -found.low))


def test_paired_proportions_keep_their_promise() -> None:
    """95 % intervals hold the truth in at least 93 % of samples, small ones included."""
    generator = np.random.default_rng(0)
    for n, shares in ((20, (0.3, 0.1)), (100, (0.2, 0.15)), (400, (0.05, 0.05))):
        cells = generator.choice(3, size=(1500, n), p=[*shares, 1 - sum(shares)])
        held = 0
        for row in cells:
            found = paired_proportions((row == 0).tolist(), (row == 1).tolist())
            held += found.low <= shares[0] - shares[1] <= found.high
        assert held / 1500 > 0.93, (n, shares)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    a = [True] * 9 + [False] * 2 + [True] * 20
    b = [False] * 9 + [True] * 2 + [True] * 20
    assert mcnemar(a, b) == pytest.approx(binomtest(9, 11).pvalue)
    assert mcnemar(a, a) == 1.0
    assert mcnemar([True, False], [False, True]) == 1.0


@pytest.mark.parametrize("compare", [paired_proportions, mcnemar])
def test_unequal_or_missing_verdicts(compare: Any) -> None:
    for a, b in (([True], []), ([], [])):
        with pytest.raises(DataError, match="same tasks"):
            compare(a, b)
