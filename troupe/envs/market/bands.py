"""No-trade bands: the best way to hold one instrument whose next return is known in part, under proportional costs.

Legend: R states of what is known (a signal, a regime), W positions of a grid. With m(x) and q(x) the mean and the mean
square of the next simple return in state x, c the cost and lambda the risk aversion,

    V(x, w) + v = max_{w'} [ w' m(x) - lambda / 2 w'^2 q(x) - c |w' - w| + E V(x', w') ],    |w'| <= limit

solved by relative value iteration (Puterman 1994, 8.5); the maximum over w' needs two running maxima. The best policy
keeps what lies within a band of the state and trades to its nearer edge otherwise (Davis and Norman 1990; Garleanu and
Pedersen 2013 for quadratic costs, where the band is a partial step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from troupe.errors import ConfigError

__all__ = [
    "Bands", "Earned", "Grid", "best_bands", "checked_positions", "checked_refinement", "earned", "largest_change",
    "position_grid", "return_moments", "sharpest", "signal_grid",
]  # fmt: skip

_SWEEPS = 20_000
_WAY_OUT = "lower the cost, or let signals and regimes last less long"


@dataclass(frozen=True, eq=False)
class Grid:
    """What a policy is looked for on."""

    shares: np.ndarray  # float64 [R]: of the states in the long run, they sum to 1
    moves: np.ndarray  # float64 [R, R]: probabilities of the next state
    positions: np.ndarray  # float64 [W], evenly spaced around 0
    mean: np.ndarray  # float64 [R, 1]: of the next simple return
    square: np.ndarray  # float64 [R, 1]: of its square


@dataclass(frozen=True, eq=False)
class Bands:
    """Weights that are kept, by state, and the relative values that found them, to begin the next search from."""

    lower: np.ndarray  # float64 [R]
    upper: np.ndarray  # float64 [R]
    values: np.ndarray  # float64 [R, W]


@dataclass(frozen=True, eq=False)
class Earned:
    """What bands bring per bar, in the long run."""

    by_state: np.ndarray  # float64 [R]: what each state brings of the mean; they sum to it
    mean: float  # simple return after costs
    square: float  # of its square
    turnover: float  # traded value, as a share of the equity

    @property
    def std(self) -> float:
        return math.sqrt(max(self.square - self.mean**2, 0.0))

    @property
    def sharpe(self) -> float:
        """Mean / std, 0 where nothing is worth trading."""
        return self.mean / self.std if self.std > 0 else 0.0


def signal_grid(persistence: float, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(signals `[S]`, shares `[S]`, moves `[S, S]`) of an AR(1) signal of variance 1.

    Its normal densities on evenly spaced points up to 5 standard deviations, `spacing` conditional ones apart: the sum
    over a smooth density is then exact to 1e-8.
    """
    spread = math.sqrt(1.0 - persistence**2)
    signals = np.linspace(-5.0, 5.0, 2 * math.ceil(5.0 / (spacing * min(spread, 0.4))) + 1)
    moves = np.exp(-0.5 * ((signals - persistence * signals[:, None]) / spread) ** 2)
    density = np.exp(-(signals**2) / 2)
    return signals, density / density.sum(), moves / moves.sum(axis=1, keepdims=True)


def return_moments(beta: float, sigma: float, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, mean square), each `[S, 1]`, of exp(beta s - beta^2 / 2 - sigma^2 / 2 + sigma z) - 1."""
    growth = np.exp(beta * signals - beta**2 / 2)[:, None]
    return growth - 1.0, growth**2 * math.exp(sigma**2) - 2.0 * growth + 1.0


def position_grid(mean: np.ndarray, square: np.ndarray, risk_aversion: float, limit: float, count: int) -> np.ndarray:
    """Positions `[W]` up to the limit, or to what the strongest state would be worth without costs, if that is less."""
    worth = float(np.abs(mean / square).max())
    edge = min(limit, worth / risk_aversion) if worth > 0 and risk_aversion > 0 else limit
    return np.linspace(-edge, edge, count)


def best_bands(
    grid: Grid, cost: float, risk_aversion: float, market: object, values: np.ndarray | None = None
) -> Bands:
    """The best bands; `values` to begin from, `market` for the error. Raises ConfigError where nothing settles."""
    held = grid.positions
    payment = cost * held
    reward = grid.mean * held - risk_aversion / 2 * grid.square * held**2
    values = np.zeros_like(reward) if values is None else values
    tolerance = 1e-8 * max(float(np.abs(grid.mean).max()), cost, 1e-9) * held[-1]
    for _ in range(_SWEEPS):
        ahead = reward + grid.moves @ values
        bought = np.maximum.accumulate((ahead - payment)[:, ::-1], axis=1)[:, ::-1] + payment
        sold = np.maximum.accumulate(ahead + payment, axis=1) - payment
        following = np.maximum(bought, sold)
        change = following - values
        values = following - following[len(grid.mean) // 2, len(held) // 2]
        if change.max() - change.min() <= tolerance:
            return Bands(_peak(ahead - payment, held), _peak(ahead + payment, held), values)
    raise ConfigError(f"no optimum of {market} was found in {_SWEEPS:,} sweeps; {_WAY_OUT}")


def _peak(values: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Where each row of `values` `[R, W]` is largest, by a parabola through its three best points."""
    best = values.argmax(axis=1)
    inner, rows = np.clip(best, 1, len(held) - 2), np.arange(len(values))
    left, middle, right = (values[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    shift = np.where((best == inner) & (bend < 0), 0.5 * (left - right) / np.where(bend < 0, bend, -1.0), 0.0)
    return np.asarray(held[best] + np.clip(shift, -0.5, 0.5) * (held[1] - held[0]))


def earned(grid: Grid, bands: Bands, cost: float, market: object) -> Earned:
    """What the bands bring, by the long-run shares of states and positions.

    They begin with states as they are in the long run and no position. A target between two points of the grid is held
    as a draw between them with that mean. Raises ConfigError where positions do not settle.
    """
    held, rows, columns = grid.positions, len(grid.mean), len(grid.positions)
    target = np.clip(held, bands.lower[:, None], bands.upper[:, None])
    place = ((target - held[0]) / (held[1] - held[0])).round(9)  # a point of the grid is one, whatever the rounding
    below = np.clip(place.astype(np.int64), 0, columns - 2)
    upper = (place - below).ravel()
    index = (np.arange(rows)[:, None] * columns + below).ravel()
    shares: np.ndarray = np.zeros((rows, columns))
    shares[:, columns // 2] = grid.shares
    moved, sweeps = math.inf, 0
    while moved > 1e-9:
        if (sweeps := sweeps + 1) > _SWEEPS:
            raise ConfigError(f"positions in {market} do not settle in {_SWEEPS:,} bars; {_WAY_OUT}")
        mass = shares.ravel()
        after = np.bincount(index, mass * (1.0 - upper), rows * columns)
        after += np.bincount(index + 1, mass * upper, rows * columns)
        following = grid.moves.T @ after.reshape(rows, columns)
        moved, shares = float(np.abs(following - shares).sum()), following
    traded = np.abs(target - held)
    paid = cost * traded
    gains = (shares * (target * grid.mean - paid)).sum(axis=1)
    square = float((shares * (target**2 * grid.square - 2.0 * target * grid.mean * paid + paid**2)).sum())
    return Earned(gains, float(gains.sum()), square, float((shares * traded).sum()))


def sharpest(tried: Sequence[float], sharpes: Sequence[float]) -> float:
    """The smallest of the rising risk aversions `tried` whose Sharpe ratio is within 0.1 % of the largest."""
    return float(tried[int(np.argmax(np.array(sharpes) >= 0.999 * max(sharpes)))])


def largest_change(found: object, other: object) -> float:
    """Of mean, std and sharpe, relative to the larger of the two."""
    pairs = [(float(getattr(found, name)), float(getattr(other, name))) for name in ("mean", "std", "sharpe")]
    return max(0.0 if a == b else abs(a - b) / max(abs(a), abs(b)) for a, b in pairs)


def checked_positions(positions: int, risk_aversion: float | None) -> None:
    """Raises ConfigError for numbers that no optimum is found with."""
    if risk_aversion is not None and not 0.0 <= risk_aversion < math.inf:
        raise ConfigError(f"risk_aversion={risk_aversion} must be 0 or more")
    if positions < 21 or positions % 4 != 1:
        raise ConfigError(f"positions={positions} must be one of 21, 25, 29, ...: 0 is one, also of half as many")


def checked_refinement(change: float, positions: int, market: object) -> float:
    """Raises ConfigError where half the points change the optimum by more than 1 %."""
    if change > 0.01:
        raise ConfigError(
            f"positions={positions}: half the points change the optimum of {market} by {change:.1%}; write more of them"
        )
    return change
