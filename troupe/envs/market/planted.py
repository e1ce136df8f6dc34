"""Markets whose best Sharpe ratio is known: one with a planted edge, and one that looks the same and has none.

Legend: P paths, T bars, M instruments, S signals and W positions of a grid. For each instrument

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

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.simulator import bar_times, bridge_extremes
from troupe.errors import ConfigError

__all__ = ["BandPolicy", "PlantedMarket", "PlantedOptimum", "null_market", "planted_market", "planted_optimum"]


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
        if not self.instruments or len(set(self.instruments)) < len(self.instruments):
            raise ConfigError(f"instruments={self.instruments!r} must be one or more different names")
        for name, low, high in (
            ("beta", 0.0, 0.1), ("sigma", 1e-6, 0.5), ("persistence", 0.0, 0.99), ("cost", 0.0, 0.5),
            ("limit", 1e-3, 100.0),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}={getattr(self, name)} must lie between {low:g} and {high:g}")

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
    size = len(market.instruments)
    # Row 0 is what was known before the first bar; its return is predicted like any other.
    signals = _signals(market.persistence, generator.standard_normal((paths, bars + 1, size)))
    shocks = market.sigma * generator.standard_normal((paths, bars, size))
    returns = market.beta * signals[:, :-1] - market.beta**2 / 2 - market.sigma**2 / 2 + shocks
    closes = math.log(100.0) + np.cumsum(returns, axis=1)
    opens = np.concatenate([np.full((paths, 1, size), math.log(100.0)), closes[:, :-1]], axis=1)
    highs, lows = bridge_extremes(opens, closes, np.full((1, 1, 1), market.sigma**2), generator)
    times = bar_times(bars, bar_seconds, start, "24x5")
    return [
        Bars(
            instruments=market.instruments, times=times, open=np.exp(opens[path]), high=np.exp(highs[path]),
            low=np.exp(lows[path]), close=np.exp(closes[path]), volume=np.full((bars, size), 1e6),
            traded=np.ones((bars, size), dtype=bool), close_only=np.zeros(size, dtype=bool),
            extra=signals[path, 1:], extra_names=market.signals,
        )
        for path in range(paths)
    ]  # fmt: skip


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


def _signals(persistence: float, draws: np.ndarray) -> np.ndarray:
    """AR(1) of variance 1 from its stationary distribution on; `draws` `[P, T, M]` standard normal."""
    signals = draws.copy()
    for t in range(1, draws.shape[1]):
        signals[:, t] = persistence * signals[:, t - 1] + math.sqrt(1.0 - persistence**2) * draws[:, t]
    return signals


# ------------------------------------------------------------------------------------------------ the optimum


_SWEEPS = 20_000


@dataclass(frozen=True, eq=False)
class BandPolicy:
    """Hold what lies within a band that moves with the signal, and trade to its nearer edge otherwise.

    Under proportional costs and a concave objective the best policy has this form (Davis and Norman 1990; Garleanu and
    Pedersen 2013 for quadratic costs, where the band is a partial step).
    """

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


@dataclass(frozen=True, eq=False)
class _Grid:
    signals: np.ndarray  # [S]
    moves: np.ndarray  # [S, S]: probabilities of the next signal
    positions: np.ndarray  # [W]
    mean: np.ndarray  # [S, 1]: of the next simple return
    square: np.ndarray  # [S, 1]: of its square


def planted_optimum(
    market: PlantedMarket | None = None, risk_aversion: float | None = None, *, positions: int = 201
) -> PlantedOptimum:
    """The stationary policy that maximises E[g] - risk_aversion / 2 E[(w r)^2] per instrument, after costs.

        V(s, w) + v = max_{w'} [ w' m(s) - lambda / 2 w'^2 q(s) - c |w' - w| + E V(s', w') ],    |w'| <= limit

    solved by relative value iteration on a grid (Puterman 1994, 8.5); the maximum over w' needs two running maxima. The
    signal's transitions are its normal density on evenly spaced points up to 5 standard deviations.

    Without `risk_aversion` it is the policy of the largest Sharpe ratio. That one maximises the objective for some
    lambda: what policies can reach in (E g, E g^2) is a convex set, the largest mean / sqrt(second moment) is on its
    upper edge, and the Sharpe ratio rises with it. Costs are proportional to what is traded, so halving every weight
    changes no Sharpe ratio: it grows with lambda until positions seldom reach their limit, and then stays. Of the
    lambdas within 0.1 % of the largest the smallest is taken, which earns most.

    Raises ConfigError for a negative `risk_aversion`, where half the points change a value by more than 1 %, or where
    trading is so dear that nothing settles.
    """
    market = market or PlantedMarket()
    if risk_aversion is not None and not 0.0 <= risk_aversion < math.inf:
        raise ConfigError(f"risk_aversion={risk_aversion} must be 0 or more")
    if positions < 21 or positions % 4 != 1:
        raise ConfigError(f"positions={positions} must be one of 21, 25, 29, ...: 0 is one, also of half as many")
    chosen = _sharpest(market, positions // 2 + 1) if risk_aversion is None else risk_aversion
    found = _solved(market, chosen, _grid(market, chosen, 0.25, positions))
    half = _solved(market, chosen, _grid(market, chosen, 0.5, positions // 2 + 1))
    change = max(_change(getattr(found, name), getattr(half, name)) for name in ("mean", "std", "sharpe"))
    if change > 0.01:
        raise ConfigError(
            f"positions={positions}: half the points change the optimum of {market} by {change:.1%}; write more of them"
        )
    return replace(found, refinement=change)


def _change(value: float, other: float) -> float:
    return 0.0 if value == other else abs(value - other) / max(abs(value), abs(other))


def _sharpest(market: PlantedMarket, positions: int) -> float:
    """The smallest risk aversion whose Sharpe ratio is within 0.1 % of the largest."""
    if market.beta == 0:
        return 1.0 / (market.sigma**2 * market.limit)  # any: nothing is worth a position
    unit = market.beta / (market.sigma**2 * market.limit)  # there a signal of 1 is worth the limit
    tried = unit * np.geomspace(0.25, 8.0, 21)
    values, sharpes = None, []
    for risk_aversion in tried:
        grid = _grid(market, float(risk_aversion), 0.5, positions)
        policy, values = _best(market, float(risk_aversion), grid, values)
        sharpes.append(_earned(market, policy, grid)[2])
    return float(tried[np.argmax(np.array(sharpes) >= 0.999 * max(sharpes))])


def _grid(market: PlantedMarket, risk_aversion: float, spacing: float, positions: int) -> _Grid:
    """Signals `spacing` conditional standard deviations apart: the sum over a smooth density is then exact to 1e-8.

    Positions reach to the limit, or to what the strongest signal would be worth without costs, where that is less.
    """
    spread = math.sqrt(1.0 - market.persistence**2)
    signals = np.linspace(-5.0, 5.0, 2 * math.ceil(5.0 / (spacing * min(spread, 0.4))) + 1)
    moves = np.exp(-0.5 * ((signals - market.persistence * signals[:, None]) / spread) ** 2)
    growth = np.exp(market.beta * signals - market.beta**2 / 2)[:, None]
    mean, square = growth - 1.0, growth**2 * math.exp(market.sigma**2) - 2.0 * growth + 1.0
    worth = float(np.abs(mean / square).max())
    edge = min(market.limit, worth / risk_aversion) if worth > 0 and risk_aversion > 0 else market.limit
    return _Grid(signals, moves / moves.sum(axis=1, keepdims=True), np.linspace(-edge, edge, positions), mean, square)


def _solved(market: PlantedMarket, risk_aversion: float, grid: _Grid) -> PlantedOptimum:
    policy, _ = _best(market, risk_aversion, grid)
    mean, std, sharpe, turnover = _earned(market, policy, grid)
    size = len(market.instruments)  # independent: means and variances add
    root = math.sqrt(size)
    return PlantedOptimum(policy, risk_aversion, size * mean, root * std, root * sharpe, size * turnover, math.inf)


def _best(
    market: PlantedMarket, risk_aversion: float, grid: _Grid, values: np.ndarray | None = None
) -> tuple[BandPolicy, np.ndarray]:
    """The best policy and its relative values `[S, W]`; `values` to begin from."""
    held = grid.positions
    payment = market.cost * held
    reward = grid.mean * held - risk_aversion / 2 * grid.square * held**2
    values = np.zeros_like(reward) if values is None else values
    tolerance = 1e-8 * max(float(np.abs(grid.mean).max()), market.cost, 1e-9) * held[-1]
    for _ in range(_SWEEPS):
        ahead = reward + grid.moves @ values
        bought = np.maximum.accumulate((ahead - payment)[:, ::-1], axis=1)[:, ::-1] + payment
        sold = np.maximum.accumulate(ahead + payment, axis=1) - payment
        following = np.maximum(bought, sold)
        change = following - values
        values = following - following[len(grid.signals) // 2, len(held) // 2]
        if change.max() - change.min() <= tolerance:
            return BandPolicy(grid.signals, _peak(ahead - payment, held), _peak(ahead + payment, held)), values
    raise ConfigError(f"no optimum of {market} was found in {_SWEEPS:,} sweeps; lower the cost or the persistence")


def _peak(values: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Where each row of `values` `[S, W]` is largest, by a parabola through its three best points."""
    best = values.argmax(axis=1)
    inner, rows = np.clip(best, 1, len(held) - 2), np.arange(len(values))
    left, middle, right = (values[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    shift = np.where((best == inner) & (bend < 0), 0.5 * (left - right) / np.where(bend < 0, bend, -1.0), 0.0)
    return np.asarray(held[best] + np.clip(shift, -0.5, 0.5) * (held[1] - held[0]))


def _earned(market: PlantedMarket, policy: BandPolicy, grid: _Grid) -> tuple[float, float, float, float]:
    """Mean, standard deviation, Sharpe ratio and turnover of a bar, by the long-run shares of signals and positions.

    They begin with signals as they are in the long run and no position. A target between two points of the grid is held
    as a draw between them with that mean.
    """
    held, rows, columns = grid.positions, len(grid.signals), len(grid.positions)
    target = policy(grid.signals[:, None], held)
    place = ((target - held[0]) / (held[1] - held[0])).round(9)  # a point of the grid is one, whatever the rounding
    below = np.clip(place.astype(np.int64), 0, columns - 2)
    upper = (place - below).ravel()
    index = (np.arange(rows)[:, None] * columns + below).ravel()
    density = np.exp(-(grid.signals**2) / 2)
    shares: np.ndarray = np.zeros((rows, columns))
    shares[:, columns // 2] = density / density.sum()
    moved, sweeps = math.inf, 0
    while moved > 1e-9:
        if (sweeps := sweeps + 1) > _SWEEPS:
            raise ConfigError(f"positions in {market} do not settle in {_SWEEPS:,} bars; lower the cost or persistence")
        mass = shares.ravel()
        after = np.bincount(index, mass * (1.0 - upper), rows * columns)
        after += np.bincount(index + 1, mass * upper, rows * columns)
        following = grid.moves.T @ after.reshape(rows, columns)
        moved, shares = float(np.abs(following - shares).sum()), following
    traded = np.abs(target - held)
    cost = market.cost * traded
    mean = float((shares * (target * grid.mean - cost)).sum())
    square = float((shares * (target**2 * grid.square - 2.0 * target * grid.mean * cost + cost**2)).sum())
    std = math.sqrt(max(square - mean**2, 0.0))
    return mean, std, mean / std if std > 0 else 0.0, float((shares * traded).sum())
