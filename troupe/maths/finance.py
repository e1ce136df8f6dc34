"""How a trading record did: return, risk, drawdown, trades, and its place beside a benchmark.

Legend: T bars, M instruments, `...` any number of axes before them. Records are simple returns per bar `[..., T]` after
costs; each function gives one figure per record `[...]`, a plain number for `[T]`. Everything annual multiplies with
`periods_per_year`, the bars per year by the clock of the bars: hourly currency bars have some 6,200, not 252.

A figure that is not defined is nan, which passes no threshold: a Sharpe ratio without spread, a win rate without
trades, and every ratio of reward to spread of a record that was ruined on the way (`is_ruined`), because an account
that lost everything has no such future. No bar, or one that is not finite, is a DataError.

    annual = sharpe(returns, bars.periods_per_year)
    worst = worst_drawdown(returns)                     # .depth, .peak, .trough, .recovery, .length
    loss = value_at_risk(returns, 0.95)

Value at risk stands in `value_at_risk`, whether a Sharpe ratio is luck in `sharpe_tests`; the former can be imported
from here too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.returns import checked_returns, drawdown_curve, equity_curve, is_ruined, ratio, spread
from troupe.maths.value_at_risk import (
    CoverageTest,
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

__all__ = [
    "CoverageTest",
    "Drawdown",
    "Exposure",
    "alpha_beta",
    "annual_volatility",
    "bar_win_rate",
    "breaches",
    "cagr",
    "calmar",
    "christoffersen_coverage",
    "christoffersen_independence",
    "drawdown_curve",
    "equity_curve",
    "expected_shortfall",
    "exposure",
    "historical_var",
    "is_ruined",
    "kupiec",
    "longest_drawdown",
    "max_drawdown",
    "monte_carlo_var",
    "parametric_var",
    "profit_factor",
    "sharpe",
    "sortino",
    "tail_ratio",
    "total_return",
    "traded_weight",
    "turnover",
    "value_at_risk",
    "var_compliance",
    "win_rate",
    "worst_drawdown",
]


# --- return and spread ------------------------------------------------------------------------------------------


def total_return(returns: ArrayLike) -> np.ndarray:
    """prod(1 + r_t) - 1; -1 for a ruined record. Raises as `equity_curve`."""
    return equity_curve(returns)[..., -1] - 1


def cagr(returns: ArrayLike, periods_per_year: float) -> np.ndarray:
    """Compound annual growth rate, E_T^(periods_per_year / T) - 1; -1 for a ruined record.

    Wrong as a forecast from less than a year: it compounds a lucky month twelve times.
    """
    record = checked_returns(returns, "cagr")
    return equity_curve(record)[..., -1] ** (_periods(periods_per_year) / record.shape[-1]) - 1


def annual_volatility(returns: ArrayLike, periods_per_year: float) -> np.ndarray:
    """s * sqrt(periods_per_year), s the unbiased standard deviation per bar; 0 for equal returns, nan for one bar.

    The square root holds for bars without autocorrelation.
    """
    return spread(checked_returns(returns, "annual_volatility")) * np.sqrt(_periods(periods_per_year))


def sharpe(returns: ArrayLike, periods_per_year: float, *, risk_free: float = 0.0) -> np.ndarray:
    """Annual Sharpe ratio (Sharpe 1994, Journal of Portfolio Management 21:49).

        SR = sqrt(periods_per_year) * mean(r_t - f) / s,  f = (1 + risk_free)^(1 / periods_per_year) - 1

    `risk_free` is an annual rate; s is the unbiased standard deviation per bar. nan for equal returns, a single bar and
    a ruined record. It is an estimate: give it with `sharpe_tests.sharpe_interval`.
    """
    record = checked_returns(returns, "sharpe")
    excess = record.mean(axis=-1) - _per_bar(risk_free, periods_per_year)
    return ratio(excess * np.sqrt(periods_per_year), _unless_ruined(record, spread(record)))


def sortino(returns: ArrayLike, periods_per_year: float, *, target: float = 0.0) -> np.ndarray:
    """Annual Sortino ratio (Sortino and van der Meer 1991, Journal of Portfolio Management 17:27).

        sqrt(periods_per_year) * mean(r_t - f) / sqrt(mean(min(r_t - f, 0)^2)),  f the target per bar

    `target` is an annual rate. All T bars count in the downside deviation; to count only the losing ones would reward
    rare losses twice. nan without a bar below the target (no measured downside) and for a ruined record.
    """
    record = checked_returns(returns, "sortino")
    excess = record - _per_bar(target, periods_per_year)
    downside = np.sqrt((np.minimum(excess, 0) ** 2).mean(axis=-1))
    return ratio(excess.mean(axis=-1) * np.sqrt(periods_per_year), _unless_ruined(record, downside))


def tail_ratio(returns: ArrayLike, probability: float = 0.05) -> np.ndarray:
    """Size of the good tail over that of the bad one: q(1 - probability) / -q(probability), q the sample's quantiles.

    nan where the lower quantile is not a loss, as in a record that is mostly flat.
    """
    if not 0 < probability < 0.5:
        raise DataError(f"tail_ratio needs a probability between 0 and 0.5, found {probability}; 0.05 is usual")
    low, high = np.quantile(checked_returns(returns, "tail_ratio"), [probability, 1 - probability], axis=-1)
    return ratio(high, -low)


# --- drawdown ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest loss from a peak. Positions are those of the equity curve: 0 is before the first bar."""

    depth: float  # in [0, 1]; 1 is ruin
    peak: int
    trough: int
    recovery: int | None  # first bar at or above the peak again; None if the record ends before
    length: int  # bars that closed below the peak


def max_drawdown(returns: ArrayLike) -> np.ndarray:
    """Largest loss since a peak, in [0, 1]; 0 for a record that never falls, 1 for a ruined one."""
    return drawdown_curve(returns).max(axis=-1)


def worst_drawdown(returns: ArrayLike) -> Drawdown:
    """Where the deepest drawdown of one record `[T]` began, bottomed and ended. Raises DataError for more axes."""
    record = checked_returns(returns, "worst_drawdown")
    if record.ndim != 1:
        raise DataError(f"worst_drawdown describes one record [T], found shape {record.shape}; call it for each")
    curve = drawdown_curve(record)
    trough = int(curve.argmax())
    peak = int(np.flatnonzero(curve[: trough + 1] == 0)[-1])
    later = np.flatnonzero(curve[trough:] == 0)
    recovery = trough + int(later[0]) if len(later) else None
    end = len(curve) if recovery is None else recovery
    return Drawdown(float(curve[trough]), peak, trough, recovery, max(end - peak - 1, 0))


def longest_drawdown(returns: ArrayLike) -> np.ndarray:
    """Most bars in a row that closed below an earlier peak, int `[...]`; often not those of the deepest drawdown."""
    curve = drawdown_curve(returns)
    position = np.arange(curve.shape[-1])
    peak = np.maximum.accumulate(np.where(curve == 0, position, 0), axis=-1)
    return (position - peak).max(axis=-1)


def calmar(returns: ArrayLike, periods_per_year: float) -> np.ndarray:
    """`cagr` / `max_drawdown` (Young 1991) over the whole record; -1 for a ruined one, nan without a drawdown.

    It falls with the length of the record, as the deepest drawdown can only grow: compare equal spans.
    """
    return ratio(cagr(returns, periods_per_year), max_drawdown(returns))


# --- trades and positions ---------------------------------------------------------------------------------------


def win_rate(profits: ArrayLike) -> np.ndarray:
    """Share of closed trades that earned, from realised profits and losses after costs `[..., trades]`.

    A trade that broke even counts as closed, not as won; nan without a trade. Says little without `profit_factor`:
    many small wins and one large loss have a high win rate.
    """
    return _share(_profits(profits, "win_rate") > 0)


def bar_win_rate(returns: ArrayLike) -> np.ndarray:
    """Share of the bars with a return other than 0 that earned: flat bars neither win nor lose; nan if all are flat."""
    record = checked_returns(returns, "bar_win_rate")
    return ratio((record > 0).sum(axis=-1), (record != 0).sum(axis=-1))


def profit_factor(profits: ArrayLike) -> np.ndarray:
    """Sum of the profits over the sum of the losses, of trades or of bars `[..., n]`; nan without a loss."""
    amounts = _profits(profits, "profit_factor")
    return ratio(np.maximum(amounts, 0).sum(axis=-1), np.maximum(-amounts, 0).sum(axis=-1))


def traded_weight(weights: ArrayLike, asset_returns: ArrayLike) -> np.ndarray:
    """What rebalancing traded before each bar, as multiples of equity `[..., T]`; all was cash before the first.

        drifted_t = w_{t-1} (1 + r_{t-1}) / (1 + w_{t-1} . r_{t-1});  traded_t = sum |w_t - drifted_t|

    `weights[t]` are signed and held over bar t, which returns `asset_returns[t]`, both `[..., T, M]`. Keeping 1/N
    is not free of trades: the winners are sold. nan after a bar that lost all equity. Costs between are left out.
    """
    held = checked_returns(weights, "traded_weight")
    moved = checked_returns(asset_returns, "traded_weight")
    if held.ndim < 2 or held.shape != moved.shape:
        raise DataError(
            f"traded_weight needs weights and returns of one shape [..., T, M], found {held.shape} and {moved.shape}"
        )
    growth = 1 + (held * moved).sum(axis=-1, keepdims=True)
    drifted = held * (1 + moved) * ratio(1.0, growth)
    before = np.concatenate([np.zeros_like(held[..., :1, :]), drifted[..., :-1, :]], axis=-2)
    return np.abs(held - before).sum(axis=-1)


def turnover(traded: ArrayLike, periods_per_year: float) -> np.ndarray:
    """Annual turnover: mean per bar of |traded notional| / equity, times bars per year.

    `traded` `[..., T]` is 0 or above, from the ledger or `traded_weight`. 2 means that twice the equity was traded in
    a year, buying and selling added. Raises DataError for a negative amount.
    """
    amounts = checked_returns(traded, "turnover")
    if (amounts < 0).any():
        raise DataError(f"turnover adds sizes of trades, found {amounts.min()}: give absolute notionals")
    return amounts.mean(axis=-1) * _periods(periods_per_year)


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Means over the bars, `[...]` each."""

    gross: np.ndarray  # sum of |weights|: 1 is fully invested without leverage
    net: np.ndarray  # sum of signed weights: 0 is market neutral
    in_market: np.ndarray  # share of bars with any position


def exposure(weights: ArrayLike) -> Exposure:
    """Gross and net exposure and time in the market of signed weights `[..., T, M]`, multiples of equity."""
    held = checked_returns(weights, "exposure")
    if held.ndim < 2:
        raise DataError(f"exposure needs weights [..., T, M], found shape {held.shape}")
    gross = np.abs(held).sum(axis=-1)
    return Exposure(gross.mean(axis=-1), held.sum(axis=-1).mean(axis=-1), (gross > 0).mean(axis=-1))


# --- a benchmark ------------------------------------------------------------------------------------------------


def alpha_beta(
    returns: ArrayLike, benchmark: ArrayLike, periods_per_year: float, *, risk_free: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Jensen's alpha, annual, and beta (Jensen 1968, Journal of Finance 23:389): least squares of excess returns.

        beta = cov(r, b) / var(b);  alpha = periods_per_year * (mean(r - f) - beta * mean(b - f))

    `benchmark` is `[T]` or of the shape of `returns`, the same bars. nan for a benchmark without spread.
    """
    record, market = checked_returns(returns, "alpha_beta", 2), checked_returns(benchmark, "alpha_beta", 2)
    if market.shape not in (record.shape, record.shape[-1:]):
        raise DataError(f"alpha_beta needs the same bars of both, found shapes {record.shape} and {market.shape}")
    rate = _per_bar(risk_free, periods_per_year)
    centred = market - market.mean(axis=-1, keepdims=True)
    covariance = (record * centred).sum(axis=-1) / (record.shape[-1] - 1)
    beta = ratio(covariance, spread(market) ** 2)
    return (record.mean(axis=-1) - rate - beta * (market.mean(axis=-1) - rate)) * periods_per_year, beta


def _periods(periods_per_year: float) -> float:
    if not (np.isfinite(periods_per_year) and periods_per_year > 0):
        raise DataError(f"periods_per_year must be above 0, found {periods_per_year}; daily bars have about 252")
    return periods_per_year


def _per_bar(annual: float, periods_per_year: float) -> float:
    if not (np.isfinite(annual) and annual > -1):
        raise DataError(f"an annual rate lies above -1, found {annual}; 0.03 is three per cent")
    return (1 + annual) ** (1 / _periods(periods_per_year)) - 1


def _unless_ruined(record: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.where(is_ruined(record), np.nan, deviation)


def _profits(profits: ArrayLike, what: str) -> np.ndarray:
    amounts = np.asarray(profits, dtype=np.float64)
    return amounts if amounts.ndim and amounts.shape[-1] == 0 else checked_returns(amounts, what)


def _share(hits: np.ndarray) -> np.ndarray:
    return ratio(hits.sum(axis=-1), hits.shape[-1])
