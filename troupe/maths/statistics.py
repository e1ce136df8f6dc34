"""How sure are we? Intervals for rates, means and paired differences, and pass@k.

Every gate compares intervals, so every answer is an `Interval`; one observation gives an infinite one, because it says
nothing about spread, and none at all is an error: an empty test set must never look like a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from troupe.errors import DataError

__all__ = [
    "Interval",
    "bootstrap_interval",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "paired_proportions",
    "pass_at_k",
    "wilson",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with a confidence interval, `low <= mean <= high`, from `n` observations."""

    mean: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate (Wilson 1927, JASA 22:209).

        centre = (p + z^2 / 2n) / (1 + z^2 / n),  half = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)

    `mean` is p = successes / n. Right for pass rates, also near 0 and 1 and for small n, where the textbook
    p +- z sqrt(p (1 - p) / n) has width 0. Wrong for comparing two agents on the same tasks: use `paired_difference`.
    Raises DataError for n < 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"wilson(successes={successes}, n={n}) needs n >= 1 and 0 <= successes <= n")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    # At p = 0 and p = 1 centre and half agree but for rounding: the bound is exactly 0 or 1.
    low = 0.0 if successes == 0 else centre - half
    return Interval(p, low, 1.0 if successes == n else centre + half, n)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean: m +- t(n - 1) s / sqrt(n), s unbiased (Student 1908).

    Equal values give exactly [v, v]; a single one gives an infinite interval. Right for means of some thirty values, or
    of fewer that are roughly normal. Wrong for rates near 0 or 1 (`wilson`) and for skewed, heavy tails
    (`bootstrap_interval`).
    Raises DataError for no value or one that is not finite.
    """
    sample, probability = _finite(values, "mean_interval"), 0.5 + _checked(confidence) / 2
    n, mean = len(sample), math.fsum(sample) / len(sample)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    if min(sample) == max(sample):
        return Interval(sample[0], sample[0], sample[0], n)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in sample) / (n - 1))
    half = _student_quantile(probability, n - 1) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of mean(a_i - b_i), where a_i and b_i are two scores of the same task i.

    Right for candidate against incumbent on the same held-out tasks: difficulty cancels, so that far fewer tasks decide
    than two separate intervals would need. Wrong for unpaired runs. If every difference is the same, the interval is
    exactly that number. Average repeated runs of a task before: tasks are the observations, not runs.
    Raises DataError for different lengths, no task or a score that is not finite.
    """
    if len(a) != len(b):
        raise DataError(
            f"paired_difference got {len(a)} and {len(b)} scores: score both on the same tasks, in one order"
        )
    _checked(confidence)
    first, second = _finite(a, "paired_difference"), _finite(b, "paired_difference")
    return mean_interval([x - y for x, y in zip(first, second, strict=True)], confidence)


def paired_proportions(a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Interval of the share of successes in `a` less that in `b`, two verdicts on each of the same n tasks.

        d = (x - y) / (n + 2),    half = z sqrt(x + y + 1 - (x - y)^2 / (n + 2)) / (n + 2)

    x tasks were solved by a alone and y by b alone: Wald's interval after half a task was added to each cell of
    McNemar's table (Agresti and Min 2005, Statistics in Medicine 24:729, doi:10.1002/sim.1781), which keeps its promise
    for small n where Wald's own does not. `mean` is (x - y) / n. Raises DataError for different lengths or no task.
    """
    x, y, n = _discordant(a, b, "paired_proportions")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    centre = (x - y) / (n + 2)
    half = z * math.sqrt(x + y + 1 - (x - y) ** 2 / (n + 2)) / (n + 2)
    return Interval((x - y) / n, max(-1.0, centre - half), min(1.0, centre + half), n)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """McNemar's exact test that `a` and `b` succeed equally often on the same tasks: its two-sided p-value.

    Of the tasks that one of them alone solved, each falls to either side like a fair coin (McNemar 1947, Psychometrika
    12:153). 1 where there is none. Raises DataError for different lengths or no task.
    """
    x, y, _ = _discordant(a, b, "mcnemar")
    total = x + y
    tail = sum(math.comb(total, k) for k in range(min(x, y) + 1))
    return min(1.0, 2 * tail / 2**total)


def _discordant(a: Sequence[bool], b: Sequence[bool], who: str) -> tuple[int, int, int]:
    """(solved by a alone, solved by b alone, tasks)."""
    if len(a) != len(b) or not len(a):
        raise DataError(f"{who} got {len(a)} and {len(b)} verdicts: judge both on the same tasks, one or more of them")
    pairs = [(bool(one), bool(other)) for one, other in zip(a, b, strict=True)]
    return pairs.count((True, False)), pairs.count((False, True)), len(pairs)


def bootstrap_interval(
    values: Sequence[float], generator: np.random.Generator, *, n: int = 2000, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a mean from `n` resamples (Efron 1979).

    Right for skewed rewards of a few hundred tasks. Wrong for a handful of values: resamples of five points
    cannot show a tail that none of them has, and the interval is too narrow; use `mean_interval`. One value gives an
    infinite interval. Raises DataError for no value, one that is not finite, or n < 1.
    """
    sample = np.asarray(_finite(values, "bootstrap_interval"), dtype=np.float64)
    if n < 1:
        raise DataError(f"bootstrap_interval needs n >= 1 resamples, found {n}")
    tail = (1 - _checked(confidence)) / 2
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    if sample.min() == sample.max():
        return Interval(float(sample[0]), float(sample[0]), float(sample[0]), len(sample))
    # One resample at a time: n * len(values) indices at once would fill memory for large test sets.
    means = np.array([sample[generator.integers(0, len(sample), len(sample))].mean() for _ in range(n)])
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(sample))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples is right, unbiased, given c right ones among n (Chen et al. 2021,
    equation 1, arXiv:2107.03374).

        pass@k = 1 - C(n - c, k) / C(n, k)

    Exact: computed in integers and divided once. 1 - (1 - c/n)^k in its place is biased downwards.
    Raises DataError unless 0 <= c <= n and 1 <= k <= n: k samples cannot be estimated from fewer.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise DataError(f"pass_at_k(n={n}, c={c}, k={k}) needs 0 <= c <= n and 1 <= k <= n")
    total = math.comb(n, k)
    return (total - math.comb(n - c, k)) / total


def _finite(values: Sequence[float], what: str) -> list[float]:
    sample = [float(value) for value in values]
    if not sample:
        raise DataError(f"{what} got no values: an empty test set has no mean")
    for i, value in enumerate(sample):
        if not math.isfinite(value):
            raise DataError(f"{what} got {value} at position {i}: score the task, or leave it out on purpose")
    return sample


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise DataError(f"confidence must lie strictly between 0 and 1, found {confidence}; 0.95 is usual")
    return confidence


def _student_quantile(probability: float, degrees: int) -> float:
    from scipy import special  # an order of magnitude faster to import than scipy.stats

    return float(special.stdtrit(degrees, probability))
