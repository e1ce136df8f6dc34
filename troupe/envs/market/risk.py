"""Risk rules: each maps target weights to allowed ones by shrinking them, and says where it acted.

Legend: N accounts, M instruments, S sectors, W bars of the window, D draws. Weights `[N, M]` are signed multiples of
equity. Every measure is signed: a hedge lowers it, and leverage shows.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "correlation_exposure",
    "draws_var",
    "limited",
    "parametric_var",
    "portfolio_deviation",
    "sector_limited",
]


def limited(xp: Any, weights: Any, measure: Any, limit: float) -> tuple[Any, Any]:
    """(weights shrunk in proportion so that a `measure` `[N]` that is proportional to them stays at the limit, bool
    `[N]` where it acted)."""
    scale = limit / measure.clip(limit)
    return weights * scale[:, None], scale < 1.0


def sector_limited(xp: Any, weights: Any, sectors: Any, limit: float) -> tuple[Any, Any]:
    """Each sector's weights in proportion, so that their absolute values sum to the limit at most. `sectors` `[M, S]`
    holds 1 where an instrument belongs."""
    scale = limit / (xp.abs(weights) @ sectors).clip(limit)
    total = scale @ xp.ones_like(sectors[0])  # a sum over a short last axis is slow, and so is any()
    return weights * (scale @ sectors.T), total < sectors.shape[1]


def portfolio_deviation(xp: Any, weights: Any, covariance: Any, ones: Any) -> Any:
    """Standard deviation `[N]` of the next bar's return under `covariance` `[N, M, M]` of one bar."""
    mixed = (weights[:, None, :] @ covariance)[:, 0]  # a third faster than the other way round
    return xp.sqrt(((mixed * weights) @ ones).clip(0.0))


def parametric_var(xp: Any, weights: Any, covariance: Any, ones: Any, factor: float) -> Any:
    """Value at risk `[N]` of a normal return with mean 0: `factor` (the quantile, times the square root of the horizon
    in bars) standard deviations. Signed: long and short of the same thing cancel."""
    return factor * portfolio_deviation(xp, weights, covariance, ones)


def draws_var(xp: Any, outcomes: Any, confidence: float, factor: float) -> Any:
    """Value at risk `[N]` as the loss that `1 - confidence` of the portfolio's `outcomes` `[N, D]` fall below, linear
    between order statistics; `factor` is the square root of the horizon in bars. Never below 0.

    With a window of past returns this is historical simulation, with drawn ones Monte Carlo.
    """
    ordered = xp.sort(outcomes, axis=1)
    place = (1.0 - confidence) * (outcomes.shape[1] - 1)
    low = int(place)
    high = min(low + 1, outcomes.shape[1] - 1)
    quantile = ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low])
    return factor * (-quantile).clip(0.0)


def correlation_exposure(xp: Any, weights: Any, correlation: Any) -> Any:
    """Largest s_i sum_j rho_ij w_j over the held instruments i, `[N]`; s_i is the side of the position.

    Two perfectly correlated longs of 0.5 have 1.0, a long and a short of the same have 0, and one position has its own
    size. The product w_i w_j |rho_ij| of weights that sum to 1, which is often used, is at most 0.25.
    """
    mixed = (weights[:, None, :] @ correlation)[:, 0]
    return xp.max(mixed * xp.sign(weights), axis=1)
