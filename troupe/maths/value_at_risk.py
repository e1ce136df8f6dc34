"""Value at risk: what a portfolio may lose in a bar, and whether such forecasts were right.

Legend: T bars, M instruments, H bars of history, `...` any number of axes before them. A value at risk is a loss as a
multiple of equity: 0.02 at level 0.95 says that one bar in twenty loses 2 % or more. Weights are signed multiples of
equity, so that a hedge lowers it and leverage raises it. It is not cut at 0: a negative one is a sure gain.

Two questions that are easily mixed up: `var_compliance` asks whether the limit was *kept*, which a forecast of 0 always
does; `kupiec` and the two tests of Christoffersen ask whether the forecast was *right*.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.returns import checked_returns

__all__ = [
    "CoverageTest",
    "breaches",
    "christoffersen_coverage",
    "christoffersen_independence",
    "expected_shortfall",
    "historical_var",
    "kupiec",
    "monte_carlo_var",
    "parametric_var",
    "value_at_risk",
    "var_compliance",
]


def value_at_risk(returns: ArrayLike, level: float = 0.95) -> np.ndarray:
    """The loss that the worst 1 - level of the bars reached or passed: `[..., T]` -> `[...]`.

        VaR = min { x : share of bars with -r_t <= x  is at least level }

    A value of the sample, not one between two: with fewer than 1 / (1 - level) bars it is the worst one.
    """
    losses = -checked_returns(returns, "value_at_risk")
    return np.quantile(losses, _checked(level), axis=-1, method="inverted_cdf")


def expected_shortfall(returns: ArrayLike, level: float = 0.95) -> np.ndarray:
    """Mean loss of the worst 1 - level of the bars `[..., T]` (Rockafellar and Uryasev 2002; Acerbi and Tasche 2002).

    The bar at the edge counts with its share, so that it is coherent and never below `value_at_risk`: of 30 bars at
    level 0.95 the worst counts fully and the second by half.
    """
    losses = np.sort(-checked_returns(returns, "expected_shortfall"), axis=-1)[..., ::-1]
    mass = losses.shape[-1] * (1 - _checked(level))
    shares = np.clip(mass - np.arange(losses.shape[-1]), 0, 1)
    return (losses * shares).sum(axis=-1) / mass


def parametric_var(
    weights: ArrayLike, covariance: ArrayLike, level: float = 0.95, *, mean: ArrayLike | None = None
) -> np.ndarray:
    """Normal value at risk (RiskMetrics 1996): z(level) * sqrt(w' C w) - w' mean.

    `weights` `[..., M]`, `covariance` `[..., M, M]` and `mean` `[..., M]` (0 if left out) are per bar. Wrong for fat
    tails at levels of 0.99 and above: there `historical_var`, or `monte_carlo_var` with few degrees of freedom.
    """
    held, matrix, centre = _portfolio(weights, covariance, mean)
    variance = np.einsum("...i,...ij,...j->...", held, matrix, held)
    # A perfect hedge has variance 0, which rounding can make a little less.
    size = np.einsum("...i,...ii,...i->...", held, matrix, held)
    if (variance < -1e-9 * size).any():
        raise DataError(
            f"w' C w is {variance.min()}: a covariance matrix has no negative variance; shrink or repair it"
        )
    return NormalDist().inv_cdf(_checked(level)) * np.sqrt(np.maximum(variance, 0)) - (held * centre).sum(axis=-1)


def historical_var(weights: ArrayLike, history: ArrayLike, level: float = 0.95) -> np.ndarray:
    """`value_at_risk` of today's weights `[..., M]` over the instruments' past returns `history` `[H, M]`."""
    held, past = checked_returns(weights, "historical_var"), checked_returns(history, "historical_var")
    if past.ndim != 2 or past.shape[1] != held.shape[-1]:
        raise DataError(f"historical_var needs history [H, {held.shape[-1]}], found shape {past.shape}")
    return value_at_risk(held @ past.T, level)


def monte_carlo_var(
    weights: ArrayLike,
    covariance: ArrayLike,
    generator: np.random.Generator,
    level: float = 0.95,
    *,
    mean: ArrayLike | None = None,
    degrees: float | None = None,
    draws: int = 10_000,
) -> np.ndarray:
    """`value_at_risk` of `weights` `[..., M]` over simulated returns with this covariance `[M, M]`.

    Normal, or Student's t with `degrees` > 2 of freedom scaled to the same covariance, in which instruments crash
    together. All weights meet the same draws, so that portfolios compare. Off by about 1 % of itself at 10,000 draws.
    """
    held, matrix, centre = _portfolio(weights, covariance, mean)
    if draws < 1 or matrix.ndim != 2 or (degrees is not None and degrees <= 2):
        raise DataError(
            f"monte_carlo_var needs one covariance [M, M], draws >= 1 and degrees > 2, found shape {matrix.shape}, "
            f"draws={draws} and degrees={degrees}"
        )
    values, vectors = np.linalg.eigh(matrix)  # a Cholesky factor does not exist for perfectly correlated instruments
    if values.min() < -1e-9 * np.abs(values).max():
        raise DataError(
            f"the covariance matrix has the eigenvalue {values.min()}: none is negative; shrink or repair it"
        )
    shocks = generator.standard_normal((draws, len(matrix)))
    if degrees is not None:
        shocks *= np.sqrt((degrees - 2) / generator.chisquare(degrees, (draws, 1)))
    returns = shocks @ (vectors * np.sqrt(np.maximum(values, 0))).T
    return value_at_risk(held @ returns.T + (held * centre).sum(axis=-1, keepdims=True), level)


# --- were the limits kept, were the forecasts right? ------------------------------------------------------------


def var_compliance(forecasts: ArrayLike, limit: float) -> np.ndarray:
    """Share of the bars `[..., T]` whose forecast value at risk kept the limit; a projection onto it ends on it, so
    1e-9 of the limit is forgiven."""
    if not (np.isfinite(limit) and limit > 0):
        raise DataError(f"a value-at-risk limit is above 0, found {limit}; 0.02 is two per cent of equity")
    return (checked_returns(forecasts, "var_compliance") <= limit * (1 + 1e-9)).mean(axis=-1)


def breaches(returns: ArrayLike, forecasts: ArrayLike) -> np.ndarray:
    """bool `[..., T]`: the bar lost more than was forecast before it, r_t < -VaR_t."""
    record, forecast = checked_returns(returns, "breaches"), checked_returns(forecasts, "breaches")
    if record.shape != forecast.shape:
        raise DataError(f"breaches needs one forecast per bar, found shapes {record.shape} and {forecast.shape}")
    return record < -forecast


@dataclass(frozen=True, slots=True)
class CoverageTest:
    """A likelihood-ratio test of value-at-risk forecasts. A small `p_value` says that they were wrong."""

    statistic: float
    p_value: float
    degrees: int  # of the chi-squared distribution
    breaches: int
    expected: float  # breaches of a right forecast; nan where the test does not ask


def kupiec(breached: ArrayLike, level: float) -> CoverageTest:
    """Were there as many breaches as the level says? Proportion of failures (Kupiec 1995, Journal of Derivatives 3:73).

        LR = 2 ln [ (1 - q)^(T - x) q^x / ((1 - p)^(T - x) p^x) ],  p = 1 - level,  q = x / T,  chi-squared(1)

    `breached` is bool `[T]`, x its sum. Two-sided: a forecast that is never passed is wrong too, far too careful. Blind
    to breaches that cluster, and weak below some 250 bars.
    """
    hits, p = _hits(breached, 1), 1 - _checked(level)
    x, n = int(hits.sum()), len(hits)
    statistic = 2 * (_log_likelihood(x, n, x / n) - _log_likelihood(x, n, p))
    return _coverage_test(statistic, 1, x, n * p)


def christoffersen_independence(breached: ArrayLike) -> CoverageTest:
    """Do breaches follow one another? Independence against a Markov chain (Christoffersen 1998, IER 39:841).

        LR = 2 ln [ L(p01, p11) / L(q) ],  p01 and p11 the shares of breaches after none and after one,  chi-squared(1)

    `breached` is bool `[T]`. nan if no bar follows a breach, or none follows its absence: there is nothing to compare.
    """
    hits = _hits(breached, 2)
    comparable = 0 < hits[:-1].sum() < len(hits) - 1
    statistic = _independence(hits) if comparable else float("nan")
    return _coverage_test(statistic, 1, int(hits.sum()), float("nan"))


def christoffersen_coverage(breached: ArrayLike, level: float) -> CoverageTest:
    """Right number and no clusters at once: conditional coverage (Christoffersen 1998), chi-squared(2).

    The likelihood ratios of both questions added, over bars 2..T, each given the one before.
    """
    hits = _hits(breached, 2)
    later = kupiec(hits[1:], level)
    return _coverage_test(later.statistic + _independence(hits), 2, later.breaches, later.expected)


def _independence(hits: np.ndarray) -> float:
    before, after = hits[:-1], hits[1:]
    chain = 0.0
    for state in (False, True):
        n, x = int((before == state).sum()), int(after[before == state].sum())
        chain += _log_likelihood(x, n, x / n) if n else 0.0
    return 2 * (chain - _log_likelihood(int(after.sum()), len(after), after.mean()))


def _log_likelihood(successes: int, n: int, p: float) -> float:
    """ln p^x (1 - p)^(n - x) with 0 ln 0 = 0."""
    hit = successes * np.log(p) if successes else 0.0
    return float(hit + ((n - successes) * np.log1p(-p) if successes < n else 0.0))


def _coverage_test(statistic: float, degrees: int, count: int, expected: float) -> CoverageTest:
    from scipy import special

    statistic = max(statistic, 0.0) if statistic == statistic else statistic  # -1e-16 is a rounded 0
    return CoverageTest(statistic, float(special.chdtrc(degrees, statistic)), degrees, count, expected)


def _hits(breached: ArrayLike, minimum: int) -> np.ndarray:
    hits = np.asarray(breached)
    if hits.ndim != 1 or len(hits) < minimum or hits.dtype != bool:
        raise DataError(
            f"a test of breaches needs bool [T], T >= {minimum}, found {hits.dtype} {hits.shape}; `breaches` makes them"
        )
    return hits


def _portfolio(
    weights: ArrayLike, covariance: ArrayLike, mean: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    held, matrix = checked_returns(weights, "a portfolio's weights"), checked_returns(covariance, "a covariance")
    m = held.shape[-1]
    square = matrix.shape[-2:] == (m, m)
    if not square or np.abs(matrix - matrix.swapaxes(-1, -2)).max() > 1e-9 * np.abs(matrix).max():
        raise DataError(f"{m} weights need a symmetric covariance [{m}, {m}], found shape {matrix.shape}")
    return held, matrix, np.zeros(m) if mean is None else checked_returns(mean, "a mean")


def _checked(level: float) -> float:
    if not 0.5 <= level < 1:
        raise DataError(f"a value-at-risk level lies from 0.5 up to 1, found {level}; 0.95 is usual")
    return level
