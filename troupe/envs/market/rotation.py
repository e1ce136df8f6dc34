"""A market in which allocation matters: at any time the signals of one sector work, and which one is known in part.

Legend: P paths, T bars, M instruments, S sectors. k_t is a Markov chain that leaves each sector with probability
1 / length per bar, to any other alike. For an instrument i of sector j(i)

    s_{t+1} = phi s_t + sqrt(1 - phi^2) e_{t+1}                                        the signal, variance 1
    b_t     = beta_on if j(i) = k_t else beta_off
    ln(close_{t+1} / close_t) = b_t s_t - b_t^2 / 2 - sigma^2 / 2 + sigma z_{t+1}
    active_{j,t} = [k_t = j] - 1 / S + noise x_{j,t}                                    published, x standard normal

and s_t and active_t are published at the close of bar t, before the return that they predict. A specialist that trades
its own signals alone pays costs for two thirds of the time (of three sectors) without an edge; whoever moves the risk
to the active sector does not. Everything else is as in `planted`: opens equal the close before, and without an edge the
expected simple return is 0 whatever the signal, so that holding earns nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from troupe.envs.market.bands import (
    Earned,
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
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS
from troupe.envs.market.planted import BandPolicy, autoregressive, bars_around, check_planted
from troupe.envs.market.simulator import bar_times
from troupe.errors import ConfigError

__all__ = ["RotationMarket", "RotationOptimum", "RotationPolicy", "draw_active", "rotation_bound", "rotation_market"]


@dataclass(frozen=True, slots=True)
class RotationMarket:
    """How strong the edge is, how long it stays in a sector, and how well that is known. Raises ConfigError for numbers
    that no market can have, or for one sector alone, among which there is nothing to allocate."""

    instruments: tuple[str, ...] = DOCUMENTED_INSTRUMENTS
    """Alike, and independent of each other given the active sector."""
    sectors: tuple[str, ...] = ("forex", "forex", "forex", "commodities", "commodities", "equity", "equity", "equity")
    """Of each instrument."""
    beta_on: float = 0.004
    """Expected return of a bar per unit of signal in the active sector."""
    beta_off: float = 0.0
    """In the others."""
    sigma: float = 0.01
    """Volatility of a bar that the signal does not explain."""
    persistence: float = 0.9
    """phi: what is left of the signal a bar later."""
    length: float = 100.0
    """Mean bars for which a sector stays the active one."""
    noise: float = 0.3
    """Standard deviation of what hides the active sector, in each sector's column; 0 shows it."""
    cost: float = 0.003
    """Share of the traded value: `MarketRules.transaction_cost`."""
    limit: float = 1.0
    """Largest |weight| of an instrument: `MarketRules.max_position_size`."""

    def __post_init__(self) -> None:
        check_planted(
            self, beta_on=(0.0, 0.1), beta_off=(0.0, 0.1), length=(2.0, 1e6), noise=(0.0, 100.0)
        )  # fmt: skip
        if len(self.sectors) != len(self.instruments):
            raise ConfigError(f"sectors={self.sectors!r} must name one for each of {len(self.instruments)} instruments")
        if len(set(self.sectors)) < 2:
            raise ConfigError(f"a rotation needs instruments of two or more sectors, not of {self.sectors[0]!r} alone")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The sectors in the order in which they are first met: the numbers of k."""
        return tuple(dict.fromkeys(self.sectors))

    @property
    def places(self) -> np.ndarray:
        """Number of each instrument's sector, int64 `[M]`."""
        return np.array([self.kinds.index(sector) for sector in self.sectors])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the extra columns: `signal_<instrument>`, then `active_<sector>`."""
        return (*(f"signal_{name}" for name in self.instruments), *(f"active_{kind}" for kind in self.kinds))


def rotation_market(
    bars: int,
    paths: int,
    generator: np.random.Generator,
    market: RotationMarket | None = None,
    *,
    bar_seconds: int = 3600,
    start: str = "2020-01-01",
) -> list[Bars]:
    """P paths of T bars; the extra columns `[T, M + S]` are those of `RotationMarket.columns`.

    Equal seeds give equal bars; markets that differ in their betas have the same signals, regimes and noise. Raises
    ConfigError for fewer than two bars or no path.
    """
    market = market or RotationMarket()
    if bars < 2 or paths < 1:
        raise ConfigError(f"bars={bars}, paths={paths}: write two or more bars and one or more paths")
    size, kinds = len(market.instruments), len(market.kinds)
    # Row 0 is what was known before the first bar; its return is predicted like any other.
    signals = autoregressive(market.persistence, generator.standard_normal((paths, bars + 1, size)))
    chain = draw_active(market, bars + 1, paths, generator)
    works = chain[:, :, None] == np.arange(kinds)
    active = works - 1.0 / kinds + market.noise * generator.standard_normal(works.shape)
    beta = np.where(works[:, :-1, market.places], market.beta_on, market.beta_off)
    drifts = beta * signals[:, :-1] - beta**2 / 2
    extra = np.concatenate([signals, active], axis=2)[:, 1:]
    times = bar_times(bars, bar_seconds, start, "24x5")
    return bars_around(drifts, market.sigma, generator, times, market.instruments, extra, market.columns)


def draw_active(market: RotationMarket, rows: int, paths: int, generator: np.random.Generator) -> np.ndarray:
    """Number of the active sector in each row, int64 `[P, rows]`; in the long run each has the same share."""
    kinds = len(market.kinds)
    leaves = generator.random((paths, rows)) < 1.0 / market.length
    steps = np.where(leaves, generator.integers(1, kinds, (paths, rows)), 0)
    steps[:, 0] = generator.integers(0, kinds, paths)
    return np.asarray(np.cumsum(steps, axis=1) % kinds)


# ------------------------------------------------------------------------------------------------ what can be reached


@dataclass(frozen=True, eq=False)
class RotationPolicy:
    """A band for instruments of the active sector and one for the others."""

    on: BandPolicy
    off: BandPolicy

    def __call__(self, signal: np.ndarray, active: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Weights to hold next; `signal`, `active` (bool: is its sector the active one) and `position` (weights that
        are held) have the same shape."""
        return np.where(active, self.on(signal, position), self.off(signal, position))


@dataclass(frozen=True, eq=False)
class RotationOptimum:
    """The best policy that knows the active sector and what it earns per bar, in the long run, on an account that
    applies it to every instrument."""

    policy: RotationPolicy
    risk_aversion: float  # of which it is the best policy
    mean: float  # simple return after costs
    std: float
    sharpe: float  # mean / std; 0 where nothing is worth trading
    turnover: float  # traded value, as a share of the equity
    refinement: float  # largest relative change of mean, std and Sharpe from the grid of half the points


def rotation_bound(
    market: RotationMarket | None = None, risk_aversion: float | None = None, *, positions: int = 201
) -> RotationOptimum:
    """The stationary policy that maximises E[g] - risk_aversion / 2 E[(w r)^2] per instrument, after costs, by dynamic
    programming over (active or not, signal, position) (see `bands`).

    It reads k_t itself, not its noisy columns, so that no agent of the market can do better, up to the approximations:
    those of `planted` (the weight that is held does not drift, the penalty leaves the cost out), and two that come of
    what instruments share. Each is traded for itself, which leaves some 0.1 % of the Sharpe ratio to policies that know
    of the others; and gains of two of them correlate because they have the active sector in common,

        Cov(g_i, g_j) = Cov(mu_i(k), mu_j(k)),    mu_i(k) = E[g_i | is k the sector of i]

    which takes gains to depend on the past of k through k alone. With sectors of equal size the sum of mu_i does not
    move at all, and the account is steadier than independent instruments would make it. Tests hold the figures against
    simulated accounts, within 1 % for the mean and the Sharpe ratio, 2 % for the standard deviation.

    Without `risk_aversion` it is the policy of the account's largest Sharpe ratio, found as by `planted_optimum`.
    Raises ConfigError as that one does; regimes of some 2,000 bars or more do not settle.
    """
    market = market or RotationMarket()
    checked_positions(positions, risk_aversion)
    chosen = _sharpest(market, positions // 2 + 1) if risk_aversion is None else risk_aversion
    found = _solved(market, chosen, 0.25, positions)
    half = _solved(market, chosen, 0.5, positions // 2 + 1)
    return replace(found, refinement=checked_refinement(largest_change(found, half), positions, market))


def _sharpest(market: RotationMarket, positions: int) -> float:
    strongest = max(market.beta_on, market.beta_off)
    if strongest == 0:
        return 1.0 / (market.sigma**2 * market.limit)  # any: nothing is worth a position
    tried = (strongest / (market.sigma**2 * market.limit) * np.geomspace(0.25, 8.0, 21)).tolist()
    values, sharpes = None, []
    for risk_aversion in tried:
        _, grid = _grid(market, risk_aversion, 0.5, positions)
        bands = best_bands(grid, market.cost, risk_aversion, market, values)
        values = bands.values
        mean, std = _account(market, earned(grid, bands, market.cost, market))
        sharpes.append(mean / std if std > 0 else 0.0)
    return sharpest(tried, sharpes)


def _grid(market: RotationMarket, risk_aversion: float, spacing: float, positions: int) -> tuple[np.ndarray, Grid]:
    """(signals `[N]`, the grid of 2 N states): the sector is not the active one, and it is."""
    signals, shares, moves = signal_grid(market.persistence, spacing)
    kinds, leave = len(market.kinds), 1.0 / market.length
    enter = leave / (kinds - 1)
    chain = np.array([[1.0 - enter, enter], [leave, 1.0 - leave]])
    both = [return_moments(beta, market.sigma, signals) for beta in (market.beta_off, market.beta_on)]
    mean, square = (np.concatenate(parts) for parts in zip(*both, strict=True))
    held = position_grid(mean, square, risk_aversion, market.limit, positions)
    states = np.kron([1.0 - 1.0 / kinds, 1.0 / kinds], shares)
    return signals, Grid(states, np.kron(chain, moves), held, mean, square)


def _solved(market: RotationMarket, risk_aversion: float, spacing: float, positions: int) -> RotationOptimum:
    signals, grid = _grid(market, risk_aversion, spacing, positions)
    bands = best_bands(grid, market.cost, risk_aversion, market)
    each, half = earned(grid, bands, market.cost, market), len(signals)
    off, on = (BandPolicy(signals, bands.lower[rows], bands.upper[rows]) for rows in (slice(half), slice(half, None)))
    mean, std = _account(market, each)
    sharpe = mean / std if std > 0 else 0.0
    turnover = len(market.instruments) * each.turnover
    return RotationOptimum(RotationPolicy(on, off), risk_aversion, mean, std, sharpe, turnover, math.inf)


def _account(market: RotationMarket, each: Earned) -> tuple[float, float]:
    """Mean and standard deviation of an account that holds every instrument, from those of one."""
    size, share, half = len(market.instruments), 1.0 / len(market.kinds), len(each.by_state) // 2
    counts = np.bincount(market.places)
    together = float((counts * (counts - 1)).sum())  # ordered pairs of one sector
    across = size**2 - float((counts**2).sum())
    apart = float(each.by_state[half:].sum() / share - each.by_state[:half].sum() / (1.0 - share))
    shared = (together * share * (1.0 - share) - across * share**2) * apart**2
    return size * each.mean, math.sqrt(max(size * each.std**2 + shared, 0.0))
