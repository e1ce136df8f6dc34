"""Markets whose best Sharpe ratio is known: one with a planted edge, and one that looks the same and has none.

Legend: P paths, T bars, M instruments, K extra columns, S signals of a grid. For each instrument

    s_{t+1} = phi s_t + sqrt(1 - phi^2) e_{t+1}                                     the signal, variance 1
    ln(close_{t+1} / close_t) = beta s_t - beta^2 / 2 - sigma^2 / 2 + sigma z_{t+1}

and s_t is published at the close of bar t, before the return that it predicts. Opens equal the close before, so an
order decided at t and filled at the next open earns all of it. The subtracted terms make the expected simple return
exactly 0, given the signal where beta = 0 and on average where not: buying and holding earns nothing.

An account that sets the weight w_t at t and pays the share c of what it trades gets, as the ledger counts,

    g_{t+1} = w_t r_{t+1} - c |w_t - w_t^-|,    w_{t+1}^- = w_t (1 + r_{t+1}) / (1 + g_{t+1})

`planted_optimum` finds the best policy by dynamic programming, with two approximations, each below 1 % of the value and
measured in the tests: the weight that is held, w_{t+1}^-, is taken as w_t (prices move it by about sigma a bar, which
a no-trade band mostly ignores), and the risk penalty is on w_t r_{t+1} alone (the cost is known when the order is made;
the figures that are reported have it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from troupe.envs.market.bands import (
    Grid,
    best_bands,
    checked_positions,
    checked_refinement,
    earned,
    largest_change,
    position_grid,
    return_moments,
    sharpest,
    signal_grid,
)
from troupe.envs.market.bars import Bars
from troupe.envs.market.simulator import bar_times, bridge_extremes
from troupe.errors import ConfigError

__all__ = [
    "BandPolicy", "PlantedMarket", "PlantedOptimum", "autoregressive", "bars_around", "check_planted", "null_market",
    "planted_market", "planted_optimum",
]  # fmt: skip


def check_planted(market: Any, **ranges: tuple[float, float]) -> None:
    """Raises ConfigError where a planted market has no instruments, one of them twice, or a number out of its range:
    those that every kind has, and those in `ranges`."""
    if not market.instruments or len(set(market.instruments)) < len(market.instruments):
        raise ConfigError(f"instruments={market.instruments!r} must be one or more different names")
    shared = {"sigma": (1e-6, 0.5), "persistence": (0.0, 0.99), "cost": (0.0, 0.5), "limit": (1e-3, 100.0)}
    for name, (low, high) in {**ranges, **shared}.items():
        if not low <= getattr(market, name) <= high:
            raise ConfigError(f"{name}={getattr(market, name)} must lie between {low:g} and {high:g}")


@dataclass(frozen=True, slots=True)
class PlantedMarket:
    """How strong the edge is and what it costs to use it. Raises ConfigError for numbers that no market can have.

    With the defaults the best policy has a Sharpe ratio of 0.184 per bar after costs. One that follows the signal as if
    trading were free has 0.13, one that follows its sign 0.11, buying and holding 0.
    """

    instruments: tuple[str, ...] = ("PLANTED",)
    """Independent of each other and alike."""
    beta: float = 0.0025
    """Expected return of a bar per unit of signal; 0 for no edge."""
    sigma: float = 0.01
    """Volatility of a bar that the signal does not explain."""
    persistence: float = 0.9
    """phi: what is left of the signal a bar later."""
    cost: float = 0.003
    """Share of the traded value: `MarketRules.transaction_cost`."""
    limit: float = 1.0
    """Largest |weight| of an instrument: `MarketRules.max_position_size`."""

    def __post_init__(self) -> None:
        check_planted(self, beta=(0.0, 0.1))

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the extra columns."""
        return tuple(f"signal_{name}" for name in self.instruments)


def planted_market(
    bars: int,
    paths: int,
    generator: np.random.Generator,
    market: PlantedMarket | None = None,
    *,
    bar_seconds: int = 3600,
    start: str = "2020-01-01",
) -> list[Bars]:
    """P paths of T bars with the edge of `market`; the signals are extra columns `signal_<instrument>`.

    Equal seeds give equal bars. Raises ConfigError for fewer than two bars or no path.
    """
    market = market or PlantedMarket()
    if bars < 2 or paths < 1:
        raise ConfigError(f"bars={bars}, paths={paths}: write two or more bars and one or more paths")
    # Row 0 is what was known before the first bar; its return is predicted like any other.
    size = len(market.instruments)
    signals = autoregressive(market.persistence, generator.standard_normal((paths, bars + 1, size)))
    drifts = market.beta * signals[:, :-1] - market.beta**2 / 2
    times = bar_times(bars, bar_seconds, start, "24x5")
    return bars_around(drifts, market.sigma, generator, times, market.instruments, signals[:, 1:], market.signals)


def null_market(
    bars: int,
    paths: int,
    generator: np.random.Generator,
    market: PlantedMarket | None = None,
    *,
    bar_seconds: int = 3600,
    start: str = "2020-01-01",
) -> list[Bars]:
    """The same without an edge: the signals are there and say nothing.

    With the seed of a planted market it has the same signals and the same noise.
    """
    nothing = replace(market or PlantedMarket(), beta=0.0)
    return planted_market(bars, paths, generator, nothing, bar_seconds=bar_seconds, start=start)


def autoregressive(persistence: float, draws: np.ndarray) -> np.ndarray:
    """AR(1) of variance 1 from its stationary distribution on; `draws` `[P, T, M]` standard normal."""
    signals = draws.copy()
    for t in range(1, draws.shape[1]):
        signals[:, t] = persistence * signals[:, t - 1] + math.sqrt(1.0 - persistence**2) * draws[:, t]
    return signals


def bars_around(
    drifts: np.ndarray,
    sigma: float,
    generator: np.random.Generator,
    times: np.ndarray,
    instruments: tuple[str, ...],
    extra: np.ndarray,
    extra_names: tuple[str, ...],
) -> list[Bars]:
    """A path of bars for each of `drifts` `[P, T, M]`, the expected log returns but for sigma^2 / 2, from a price of
    100; opens are the closes before, highs and lows those of a Brownian bridge. `extra` `[P, T, K]` is published."""
    paths, bars, size = drifts.shape
    returns = drifts - sigma**2 / 2 + sigma * generator.standard_normal(drifts.shape)
    closes = math.log(100.0) + np.cumsum(returns, axis=1)
    opens = np.concatenate([np.full((paths, 1, size), math.log(100.0)), closes[:, :-1]], axis=1)
    highs, lows = bridge_extremes(opens, closes, np.full((1, 1, 1), sigma**2), generator)
    return [
        Bars(
            instruments=instruments, times=times, open=np.exp(opens[path]), high=np.exp(highs[path]),
            low=np.exp(lows[path]), close=np.exp(closes[path]), volume=np.full((bars, size), 1e6),
            traded=np.ones((bars, size), dtype=bool), close_only=np.zeros(size, dtype=bool),
            extra=extra[path], extra_names=extra_names,
        )
        for path in range(paths)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the optimum


@dataclass(frozen=True, eq=False)
class BandPolicy:
    """Hold what lies within a band that moves with the signal, and trade to its nearer edge otherwise (see `bands`)."""

    signals: np.ndarray  # float64 [S], rising
    lower: np.ndarray  # float64 [S]: weights; between two signals the edges are straight lines
    upper: np.ndarray  # float64 [S]

    def __call__(self, signal: np.ndarray | float, position: np.ndarray | float) -> np.ndarray:
        """Weights to hold next, of the shape of `signal` and `position` (weights that are held)."""
        lower, upper = (np.interp(signal, self.signals, edge) for edge in (self.lower, self.upper))
        return np.asarray(np.clip(position, lower, upper))


@dataclass(frozen=True, eq=False)
class PlantedOptimum:
    """The best policy and what it earns per bar, in the long run, on an account that applies it to every instrument."""

    policy: BandPolicy
    risk_aversion: float  # of which it is the best policy
    mean: float  # simple return after costs
    std: float
    sharpe: float  # mean / std; 0 where nothing is worth trading
    turnover: float  # traded value, as a share of the equity
    refinement: float  # largest relative change of mean, std and Sharpe from the grid of half the points


def planted_optimum(
    market: PlantedMarket | None = None, risk_aversion: float | None = None, *, positions: int = 201
) -> PlantedOptimum:
    """The stationary policy that maximises E[g] - risk_aversion / 2 E[(w r)^2] per instrument, after costs, by dynamic
    programming over (signal, position) (see `bands`).

    Without `risk_aversion` it is the policy of the largest Sharpe ratio. That one maximises the objective for some
    lambda: what policies can reach in (E g, E g^2) is a convex set, the largest mean / sqrt(second moment) is on its
    upper edge, and the Sharpe ratio rises with it. Costs are proportional to what is traded, so halving every weight
    changes no Sharpe ratio: it grows with lambda until positions seldom reach their limit, and then stays. Of the
    lambdas within 0.1 % of the largest the smallest is taken, which earns most.

    Raises ConfigError for a negative `risk_aversion`, where half the points change a value by more than 1 %, or where
    trading is so dear that nothing settles.
    """
    market = market or PlantedMarket()
    checked_positions(positions, risk_aversion)
    chosen = _sharpest(market, positions // 2 + 1) if risk_aversion is None else risk_aversion
    found = _solved(market, chosen, 0.25, positions)
    half = _solved(market, chosen, 0.5, positions // 2 + 1)
    return replace(found, refinement=checked_refinement(largest_change(found, half), positions, market))


def _sharpest(market: PlantedMarket, positions: int) -> float:
    if market.beta == 0:
        return 1.0 / (market.sigma**2 * market.limit)  # any: nothing is worth a position
    unit = market.beta / (market.sigma**2 * market.limit)  # there a signal of 1 is worth the limit
    tried = (unit * np.geomspace(0.25, 8.0, 21)).tolist()
    values, sharpes = None, []
    for risk_aversion in tried:
        _, grid = _grid(market, risk_aversion, 0.5, positions)
        bands = best_bands(grid, market.cost, risk_aversion, market, values)
        values = bands.values
        sharpes.append(earned(grid, bands, market.cost, market).sharpe)
    return sharpest(tried, sharpes)


def _grid(market: PlantedMarket, risk_aversion: float, spacing: float, positions: int) -> tuple[np.ndarray, Grid]:
    """(signals, the grid of them)."""
    signals, shares, moves = signal_grid(market.persistence, spacing)
    mean, square = return_moments(market.beta, market.sigma, signals)
    held = position_grid(mean, square, risk_aversion, market.limit, positions)
    return signals, Grid(shares, moves, held, mean, square)


def _solved(market: PlantedMarket, risk_aversion: float, spacing: float, positions: int) -> PlantedOptimum:
    signals, grid = _grid(market, risk_aversion, spacing, positions)
    bands = best_bands(grid, market.cost, risk_aversion, market)
    each, size = earned(grid, bands, market.cost, market), len(market.instruments)
    root = math.sqrt(size)  # independent: means and variances add
    policy = BandPolicy(signals, bands.lower, bands.upper)
    return PlantedOptimum(
        policy, risk_aversion, size * each.mean, root * each.std, root * each.sharpe, size * each.turnover, math.inf
    )
