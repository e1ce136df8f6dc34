"""Is a Sharpe ratio skill or luck? How sure, how long a record, how many trials stood behind it.

Everything here is per bar unless it says annual: an annual ratio is the one per bar times sqrt(periods_per_year).

    test = edge_test(returns)                                            # mean net return > 0, at 1 %
    sure = deflated_sharpe(returns, trials=40, variance=np.var(sharpes, ddof=1))   # the best of 40 trials
    blind = smallest_detectable_sharpe(years)                            # print this beside every result

`edge_test`, `sharpe_interval` and `backtest_overfitting` stand in `edge`, `block_bootstrap` and `overfitting`; they can
be imported from here too.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.block_bootstrap import automatic_block_length, sharpe_interval, stationary_indices
from troupe.maths.edge import EdgeTest, edge_test, hac_standard_error, newey_west_lag
from troupe.maths.overfitting import Overfitting, backtest_overfitting
from troupe.maths.returns import checked_returns, is_ruined

__all__ = [
    "EdgeTest",
    "Overfitting",
    "automatic_block_length",
    "backtest_overfitting",
    "deflated_sharpe",
    "edge_test",
    "expected_maximum_sharpe",
    "hac_standard_error",
    "minimum_track_record",
    "newey_west_lag",
    "probabilistic_sharpe",
    "sharpe_interval",
    "smallest_detectable_sharpe",
    "stationary_indices",
]

EULER_MASCHERONI = 0.5772156649015329
NORMAL = NormalDist()


def probabilistic_sharpe(returns: ArrayLike, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above `benchmark` (Bailey and Lopez de Prado 2012, J. of Risk 15:3).

        PSR = Phi( (SR - benchmark) sqrt(T - 1) / sqrt(1 - skew SR + (kurtosis - 1) / 4 SR^2) )

    SR and `benchmark` are per bar, kurtosis is 3 for a normal distribution, `returns` is `[T]`. nan for equal returns
    and a ruined record. Allows for skew and fat tails, not for autocorrelation: `edge_test` does. Raises DataError for
    fewer than 2 bars, or one that is not finite.
    """
    ratio, deviation, n = _ratio_and_deviation(returns, "probabilistic_sharpe")
    if math.isnan(ratio) or not deviation > 0:
        return math.nan
    return NORMAL.cdf((ratio - _finite(benchmark)) * math.sqrt(n - 1) / deviation)


def expected_maximum_sharpe(trials: int, variance: float) -> float:
    """What the best of `trials` strategies without edge is expected to show, per bar (Bailey and Lopez de Prado 2014).

        sqrt(variance) ((1 - c) z(1 - 1 / N) + c z(1 - 1 / (N e))),  c = 0.5772..., z the normal quantile

    `variance` is that of the trials' Sharpe ratios per bar; trials that are alike count as fewer. 0 for a single trial.
    Raises DataError for trials < 1 or a negative variance.
    """
    if trials < 1 or not (math.isfinite(variance) and variance >= 0):
        raise DataError(f"trials must be 1 or more and their variance 0 or above, found {trials} and {variance}")
    if trials == 1:
        return 0.0
    quantiles = NORMAL.inv_cdf(1 - 1 / trials), NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER_MASCHERONI) * quantiles[0] + EULER_MASCHERONI * quantiles[1])


def deflated_sharpe(returns: ArrayLike, trials: int, variance: float) -> float:
    """`probabilistic_sharpe` against the best that luck would show (Bailey and Lopez de Prado 2014, Journal of
    Portfolio Management 40:94): how probable is it that the best of `trials` has an edge at all?

    `returns` `[T]` are those of the trial that was chosen, `variance` that of all trials' Sharpe ratios per bar. Count
    every configuration that was looked at, not only those that were kept.
    """
    return probabilistic_sharpe(returns, expected_maximum_sharpe(trials, variance))


def minimum_track_record(returns: ArrayLike, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Bars needed before this Sharpe ratio is above `benchmark` with `confidence` (Bailey and Lopez de Prado 2012).

        1 + (1 - skew SR + (kurtosis - 1) / 4 SR^2) (z(confidence) / (SR - benchmark))^2

    It is the T at which `probabilistic_sharpe` reaches `confidence`. inf for a ratio that is not above the benchmark,
    nan for equal returns and a ruined record.
    """
    if not 0.5 < confidence < 1:
        raise DataError(f"confidence must lie between 0.5 and 1, found {confidence}; 0.95 is usual")
    ratio, deviation, _ = _ratio_and_deviation(returns, "minimum_track_record")
    if math.isnan(ratio):
        return math.nan
    if ratio <= _finite(benchmark):
        return math.inf
    return 1 + (deviation * NORMAL.inv_cdf(confidence) / (ratio - benchmark)) ** 2


def smallest_detectable_sharpe(years: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The annual Sharpe ratio that a record of `years` would find with probability `power` at one-sided level `alpha`.

        (z(1 - alpha) + z(power)) / sqrt(years),  2.486 / sqrt(years) by default

    From the standard error 1 / sqrt(years) of an annual Sharpe ratio near 0 (Lo 2002, Fin. Analysts J. 58:36).
    A strategy that is worse than this and shows nothing has not been refuted. Raises DataError for years <= 0, or alpha
    or power outside 0 to 1.
    """
    if not (years > 0 and math.isfinite(years) and 0 < alpha < 1 and 0 < power < 1):
        raise DataError(
            f"smallest_detectable_sharpe needs years > 0, and alpha and power between 0 and 1, found {years}, "
            f"{alpha} and {power}"
        )
    return (NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(power)) / math.sqrt(years)


def _ratio_and_deviation(returns: ArrayLike, what: str) -> tuple[float, float, int]:
    """Sharpe ratio per bar, sqrt(T - 1) times its standard error, and T."""
    record = checked_returns(returns, what, 2)
    if record.ndim != 1:
        raise DataError(f"{what} takes one record [T], found shape {record.shape}")
    if record.min() == record.max() or is_ruined(record):
        return math.nan, math.nan, len(record)
    ratio = float(record.mean() / record.std(ddof=1))
    z = (record - record.mean()) / record.std()
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    # Never below 0 but for rounding: kurtosis >= 1 + skew^2 makes it at least (1 - skew SR / 2)^2.
    return ratio, math.sqrt(max(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2, 0.0)), len(record)


def _finite(benchmark: float) -> float:
    if not np.isfinite(benchmark):
        raise DataError(f"the benchmark Sharpe ratio, per bar, must be finite, found {benchmark}")
    return benchmark
