from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.errors import DataError
from troupe.maths.edge import edge_test
from troupe.maths.sharpe_tests import (
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
    smallest_detectable_sharpe,
)


def record_of(ratio: float, highs: int, lows: int) -> np.ndarray:
    """A record of two values with exactly this Sharpe ratio per bar: skew and kurtosis lie on their boundary,
    kurtosis = skew^2 + 1."""
    sample = np.array([1.0] * highs + [0.0] * lows)
    sample = (sample - sample.mean()) / sample.std(ddof=1)
    return (sample + ratio) / 1000


# --- how sure? --------------------------------------------------------------------------------------------------


def test_probabilistic_sharpe_by_hand() -> None:
    # 50 highs and 50 lows: skew 0, kurtosis 1, nothing added to the error: z = 0.1 sqrt 99 = 0.994987
    assert probabilistic_sharpe(record_of(0.1, 50, 50)) == pytest.approx(0.840129, abs=1e-5)
    assert probabilistic_sharpe(record_of(0.1, 50, 50), 0.1) == pytest.approx(0.5)
    assert probabilistic_sharpe(record_of(-0.1, 50, 50)) == pytest.approx(1 - 0.840129, abs=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("benchmark", [0.0, 0.05])
def test_probabilistic_sharpe_with_the_moments_of_scipy(benchmark: float) -> None:
    from scipy import stats

    record = np.random.default_rng(0).standard_t(4, 400) / 100 + 0.001
    ratio = record.mean() / record.std(ddof=1)
    skew, kurtosis = stats.skew(record), stats.kurtosis(record, fisher=False)
    error = math.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / 399)
    assert probabilistic_sharpe(record, benchmark) == pytest.approx(stats.norm.cdf((ratio - benchmark) / error))


def test_bad_skew_makes_less_sure() -> None:
    wins, losses = record_of(0.1, 90, 10), record_of(0.1, 10, 90)
    assert probabilistic_sharpe(wins) < probabilistic_sharpe(record_of(0.1, 50, 50)) < probabilistic_sharpe(losses)


@pytest.mark.oracle
def test_the_worked_example_of_the_deflated_sharpe_ratio() -> None:
    """Bailey and Lopez de Prado (2014), section 6: annual Sharpe 2.5 over 1,250 days, skew -3, kurtosis 10, the best of
    100 trials whose annual ratios have variance 0.5: it must beat 0.1132 a day, and does with 0.9004."""
    variance = 0.5 / 250
    assert expected_maximum_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    # Two values with skew -3 have kurtosis 10: the high one in 91.603 % of the days.
    record = record_of(2.5 / math.sqrt(250), 1145, 105)
    assert deflated_sharpe(record, 100, variance) == pytest.approx(0.9004, abs=5e-4)
    # With 46 trials it would have been 0.95.
    assert deflated_sharpe(record, 46, variance) == pytest.approx(0.9505, abs=5e-4)


def test_the_best_of_many_is_as_good_as_expected() -> None:
    generator = np.random.default_rng(1)
    for trials in (10, 100, 1000):
        best = generator.normal(0, 0.05, (2000, trials)).max(axis=1).mean()
        assert expected_maximum_sharpe(trials, 0.05**2) == pytest.approx(best, rel=0.03)
    assert expected_maximum_sharpe(1, 0.05**2) == 0
    assert expected_maximum_sharpe(50, 0.0) == 0


def test_more_trials_deflate_more() -> None:
    record = record_of(0.1, 500, 500)
    sure = [deflated_sharpe(record, trials, 0.001) for trials in (1, 2, 10, 100)]
    assert sure[0] == probabilistic_sharpe(record)
    assert sure == sorted(sure, reverse=True) and len(set(sure)) == 4
    for trials, variance in ((0, 0.1), (10, -0.1), (10, math.nan)):
        with pytest.raises(DataError, match="trials"):
            deflated_sharpe(record, trials, variance)


def test_luck_passes_the_deflated_test_no_more_often_than_it_says() -> None:
    """The best of 20 records of noise: almost always significant for the probabilistic ratio, seldom once deflated."""
    generator, naive, deflated = np.random.default_rng(2), 0, 0
    for _ in range(300):
        trials = generator.normal(0, 0.01, (20, 500))
        ratios = trials.mean(axis=1) / trials.std(axis=1, ddof=1)
        best = trials[ratios.argmax()]
        naive += probabilistic_sharpe(best) > 0.95
        deflated += deflated_sharpe(best, 20, float(ratios.var(ddof=1))) > 0.95
    assert naive / 300 > 0.5
    assert deflated / 300 < 0.05


# --- how long? --------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([-0.02, 0.0, 0.05]))
def test_the_track_record_is_long_enough_at_its_own_confidence(seed: int, benchmark: float) -> None:
    record = np.random.default_rng(seed).normal(0.002, 0.01, 100)
    sure = probabilistic_sharpe(record, benchmark)
    if 0.5001 < sure < 1 - 1e-9:
        assert minimum_track_record(record, benchmark, sure) == pytest.approx(100, rel=1e-4)


def test_the_track_record_by_hand() -> None:
    # skew 0, kurtosis 1: 1 + (1.644854 / 0.1)^2
    assert minimum_track_record(record_of(0.1, 50, 50)) == pytest.approx(271.554, abs=1e-3)
    assert minimum_track_record(record_of(0.1, 50, 50), 0.2) == math.inf
    assert minimum_track_record(record_of(-0.1, 50, 50)) == math.inf
    with pytest.raises(DataError, match="confidence"):
        minimum_track_record(record_of(0.1, 50, 50), confidence=95)
    with pytest.raises(DataError, match="benchmark"):
        minimum_track_record(record_of(0.1, 50, 50), math.inf)


def test_the_smallest_detectable_ratio_by_hand() -> None:
    # 1.644854 + 0.841621 = 2.486475
    assert smallest_detectable_sharpe(1) == pytest.approx(2.486475, abs=1e-6)
    assert smallest_detectable_sharpe(4) == pytest.approx(1.243238, abs=1e-6)
    # 2.326348 + 1.281552
    assert smallest_detectable_sharpe(1, alpha=0.01, power=0.9) == pytest.approx(3.607900, abs=1e-6)
    for arguments in ((0, 0.05, 0.8), (1, 0, 0.8), (1, 0.05, 1), (math.inf, 0.05, 0.8)):
        with pytest.raises(DataError, match="years"):
            smallest_detectable_sharpe(*arguments)


def test_the_smallest_detectable_ratio_is_detected_four_times_in_five() -> None:
    years, periods = 4, 252
    per_bar = smallest_detectable_sharpe(years) / math.sqrt(periods)
    records = np.random.default_rng(3).normal(per_bar, 1, (1000, years * periods)) / 100
    found = np.mean([edge_test(record, alpha=0.05).significant for record in records])
    assert found == pytest.approx(0.8, abs=0.04)


# --- what is not defined ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [[0.0] * 30, [0.01] * 30, [0.5, -1.0, 0.5]])
def test_without_spread_or_after_ruin_there_is_no_ratio(record: list[float]) -> None:
    assert math.isnan(probabilistic_sharpe(record))
    assert math.isnan(deflated_sharpe(record, 10, 0.01))
    assert math.isnan(minimum_track_record(record))


@pytest.mark.parametrize("record", [[], [0.1], [0.1, math.nan], [[0.1, 0.2]]])
def test_what_is_no_record_is_refused(record: list[float]) -> None:
    for test in (probabilistic_sharpe, minimum_track_record):
        with pytest.raises(DataError, match=test.__name__):
            test(record)
