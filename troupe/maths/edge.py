"""Is the mean above zero? A test of a record of returns whose error rate is the one it states.

Returns are not independent normal numbers: volatility clusters, tails are fat, books are autocorrelated, and many
strategies win often and lose much. Each of these moves the error rate of the textbook's t test, and a test at 1 % that
errs at 2 to 4 % finds edges in noise. `edge_test` keeps its rate through all of them; the tests count it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.returns import autocovariances, checked_returns, is_ruined

__all__ = ["FEWEST_BARS", "EdgeTest", "edge_test", "hac_standard_error", "newey_west_lag"]

FEWEST_BARS = 20
"""Below this `edge_test` would have 2 degrees of freedom and no power."""


@dataclass(frozen=True, slots=True)
class EdgeTest:
    """One-sided test of mean > 0. `significant` is False whenever nothing could be measured."""

    mean: float  # per bar
    standard_error: float  # of the mean, robust to autocorrelation
    statistic: float  # Student's t, corrected downwards for skew; nan without spread or after ruin
    degrees: int
    p_value: float  # 1 where `statistic` is nan
    alpha: float
    n: int

    @property
    def significant(self) -> bool:
        return self.p_value < self.alpha


def edge_test(returns: ArrayLike, alpha: float = 0.01) -> EdgeTest:
    """One-sided test of mean net return > 0, calibrated for dependent, fat-tailed and skewed returns `[T]`.

        L_j = sqrt(2 / T) sum_t r_t cos(pi j (t - 1/2) / T),  j = 1..d,  d = floor(0.4 T^(2/3))
        t   = mean(r) / sqrt(mean_j(L_j^2) / T)  ~  Student(d)                 (exactly so for independent normal r)
        g   = t + s t^2 / (3 sqrt T) + s / (6 sqrt T) + s^2 t^3 / (27 T),      s the skewness of r
        p   = P(Student(d) > min(t, g))

    The long-run variance is the mean of d cosine transforms (Lazarus, Lewis, Stock and Watson 2018, JBES 36:541):
    unlike the Newey-West estimate, its own error is in the distribution, so that short records do not reject too
    often. g is Hall's correction for skew (1992, JRSS B 54:221); it may only lower t, because under fat tails the
    measured skew follows the mean and would find edges in noise.

    Wrong for strategies whose loss is rarer than the record is long, as sold insurance: what has not happened cannot be
    seen. A flat or constant record and a ruined one are never significant. One test per record: the best of many needs
    `sharpe_tests.deflated_sharpe`. Raises DataError for fewer than 20 bars, or one that is not finite.
    """
    record = checked_returns(returns, "edge_test", FEWEST_BARS)
    if record.ndim != 1 or not 0 < alpha < 0.5:
        raise DataError(f"edge_test takes one record [T] and alpha between 0 and 0.5, found {record.shape} and {alpha}")
    n, mean, degrees = len(record), float(record.mean()), int(0.4 * len(record) ** (2 / 3))
    if record.min() == record.max():
        return EdgeTest(mean, math.nan, math.nan, degrees, 1.0, alpha, n)
    error = _cosine_standard_error(record, degrees)
    if is_ruined(record):
        return EdgeTest(mean, error, math.nan, degrees, 1.0, alpha, n)
    statistic = min(mean / error, _hall(mean / error, record))
    return EdgeTest(mean, error, statistic, degrees, _student_tail(statistic, degrees), alpha, n)


def newey_west_lag(values: ArrayLike) -> int:
    """Automatic lag of the Bartlett kernel (Newey and West 1994, Review of Economic Studies 61:631).

        n = floor(4 (T / 100)^(2/9));  s0 = c_0 + 2 sum_{k<=n} c_k;  s1 = 2 sum_{k<=n} k c_k
        lag = floor(1.1447 (s1 / s0)^(2/3) T^(1/3)),  c_k the autocovariances, no prewhitening

    At most T - 1. Raises DataError for fewer than 2 values.
    """
    sample = checked_returns(values, "newey_west_lag", 2)
    t = len(sample)
    covariances = autocovariances(sample, min(int(4 * (t / 100) ** (2 / 9)), t - 1))
    s0 = covariances[0] + 2 * covariances[1:].sum()
    s1 = 2 * (np.arange(1, len(covariances)) * covariances[1:]).sum()
    if s0 == 0:
        return 0
    return min(int(1.1447 * np.cbrt((s1 / s0) ** 2) * np.cbrt(t)), t - 1)


def hac_standard_error(values: ArrayLike, lag: int | None = None) -> float:
    """Standard error of a mean, robust to changing variance and autocorrelation (Newey and West 1987, Econometrica 55).

        sqrt( (c_0 + 2 sum_{k=1}^{lag} (1 - k / (lag + 1)) c_k) / T ),  c_k = sum_t (x_t - m)(x_{t-k} - m) / T

    `values` `[T]`; `lag` as `newey_west_lag` if left out. nan for equal values. Right for intervals of long records.
    Wrong for a test at 1 %: with a normal quantile it rejects 1.4 to 2 % of the nulls of 250 bars; use `edge_test`.
    Raises DataError for fewer than 2 values or a lag outside 0..T - 1.
    """
    sample = checked_returns(values, "hac_standard_error", 2)
    if sample.ndim != 1 or (lag is not None and not 0 <= lag < len(sample)):
        raise DataError(
            f"hac_standard_error takes values [T] and a lag from 0 to T - 1, found {sample.shape} and {lag}"
        )
    if sample.min() == sample.max():
        return math.nan
    chosen = newey_west_lag(sample) if lag is None else lag
    weights = 1 - np.arange(chosen + 1) / (chosen + 1)
    covariances = autocovariances(sample, chosen)
    return math.sqrt((2 * (weights * covariances).sum() - covariances[0]) / len(sample))


def _cosine_standard_error(record: np.ndarray, degrees: int) -> float:
    from scipy import fft

    # scipy's type II transform is 2 sum_t r_t cos(pi j (2 t + 1) / 2 T); L_j is that times sqrt(2 / T) / 2.
    transforms = fft.dct(record - record.mean(), type=2)[1 : degrees + 1] * math.sqrt(0.5 / len(record))
    return math.sqrt(float((transforms**2).mean()) / len(record))


def _hall(t: float, record: np.ndarray) -> float:
    centred = record - record.mean()
    s = float((centred**3).mean() / (centred**2).mean() ** 1.5) / math.sqrt(len(record))
    return t + s * t * t / 3 + s / 6 + s * s * t**3 / 27


def _student_tail(statistic: float, degrees: int) -> float:
    from scipy import special

    return float(special.stdtr(degrees, -statistic))
