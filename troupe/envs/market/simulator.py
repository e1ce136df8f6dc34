"""Simulated markets: regimes, stochastic volatility, correlation, fat tails, jumps, and what stop losses see in a bar.

Legend: P paths, T bars, M instruments, R regimes. The log return of instrument i in bar t, in its regime k, is

    x_i = d_ki n_i + s_i z_i + a_k n_i e_i - (s_i^2 + a_k^2 n_i^2) / 2 + jump,    s_i = m_k v_i sqrt(w) n_i

    n_i  normal volatility of a bar, the annual one / sqrt(bars per year)
    k    a Markov chain of regimes: drift d, volatility m, noise a and correlation of z
    v_i  stochastic volatility, exp(h_i - xi^2), h_i an AR(1) of variance xi^2, so that E v^2 = 1 (Taylor 1986); where
         instruments share a part c of it, returns correlate by E v_i v_j = exp(-xi^2 (1 - c)) times what z does
    w    (nu - 2) / chi^2_nu, the same for all instruments: z sqrt(w) is a multivariate Student t of variance 1, so that
         extremes come together (Embrechts, McNeil and Straumann 2002)

The subtracted half variance makes prices martingales: without drift and jumps no rule earns anything before costs, in
simple returns as the ledger counts them. Jumps are not compensated. They arrive between two bars, so that a stop loss
is filled beyond its price; within a bar prices are continuous, and high and low are those of a Brownian bridge.

Left out: leverage (volatility that rises after losses), days of the week, spreads that widen in a crisis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from troupe.envs.market.bars import SECONDS_PER_YEAR, Bars
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS
from troupe.envs.market.instruments import Instrument, instrument
from troupe.errors import ConfigError, did_you_mean

__all__ = [
    "SCENARIOS", "Calendar", "MarketModel", "Regime", "Scenario", "bar_times", "bridge_extremes", "draw_regimes",
    "scenario", "simulate", "stationary",
]  # fmt: skip

Calendar = Literal["24x5", "24x7"]
Correlation = float | Sequence[Sequence[float]]

_DAY, _WEEK = 86_400, 7 * 86_400
_MONDAY = 4 * _DAY  # 5 January 1970


@dataclass(frozen=True, slots=True)
class Regime:
    """A state of the market. All sizes are in units of each instrument's normal volatility of a bar."""

    name: str
    drift: float | Sequence[float] = 0.0
    """Expected simple return of a bar, for all instruments or for each."""
    volatility: float = 1.0
    """Factor on the normal volatility."""
    correlation: Correlation | None = None
    """Of every pair, or a matrix; None: the model's."""
    noise: float = 0.0
    """Volatility that each instrument has for itself alone, on top."""
    jump_rate: float = 0.0
    """Probability per bar that all instruments jump."""
    jump_mean: float = 0.0
    """Of a jump's log size."""
    jump_std: float = 0.0
    """Spread of jumps over instruments and time."""


@dataclass(frozen=True, slots=True)
class MarketModel:
    """What `simulate` draws from. Raises ConfigError for numbers that no market can have."""

    instruments: Sequence[str]
    volatility: float | Sequence[float] = 0.1
    """Annual, where a regime's factor is 1; for all instruments or for each."""
    correlation: Correlation = 0.0
    """Of every pair, or a matrix."""
    regimes: Sequence[Regime] = (Regime("usual"),)
    transitions: Sequence[Sequence[float]] = ((1.0,),)
    """Row k: probabilities of each regime in the bar after one of regime k."""
    volatility_spread: float = 0.3
    """xi: standard deviation of log volatility; 0 for a constant one."""
    volatility_persistence: float = 0.98
    """First autocorrelation of log volatility."""
    volatility_common: float = 0.5
    """Share of log volatility's variance that all instruments have in common."""
    tail_degrees: float | None = 5.0
    """nu of Student's t, the index of the tails; None for normal ones."""
    gap: float = 0.0
    """Share of a bar's variance that falls between the close before and the open; 0 opens at the close before."""
    price: float | Sequence[float] = 100.0
    """First open."""
    volume: float = 1e6
    """Mean of a bar, in units."""
    volume_shape: float = 1.0
    """Depth of the U over the day: volume is largest at its ends; 0 for none, at most 3."""
    volume_noise: float = 0.5
    """Standard deviation of log volume around it."""
    calendar: Calendar = "24x5"
    """Monday to Friday, UTC, or every day."""

    def __post_init__(self) -> None:
        names, size = list(self.instruments), len(self.instruments)
        if size == 0 or len(set(names)) < size or isinstance(self.instruments, str):
            raise ConfigError(f"instruments={self.instruments!r} must be one or more different names")
        if self.tail_degrees is not None and not self.tail_degrees > 2:
            raise ConfigError(f"tail_degrees={self.tail_degrees} has no variance; write more than 2, or None")
        for name, low, high in _RANGES:
            _within(name, getattr(self, name), low, high)
        for name in ("volatility", "price"):
            if (_each(name, getattr(self, name), size) <= 0).any():
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        _factor("correlation", self.correlation, size)
        _check_regimes(self)


_RANGES = (
    ("volatility_spread", 0.0, 3.0), ("volatility_persistence", 0.0, 0.9999), ("volatility_common", 0.0, 1.0),
    ("gap", 0.0, 0.99), ("volume", 0.0, 1e18), ("volume_shape", 0.0, 3.0), ("volume_noise", 0.0, 5.0),
)  # fmt: skip
_REGIME_RANGES = (
    ("volatility", 0.0, 100.0), ("noise", 0.0, 100.0), ("jump_rate", 0.0, 1.0), ("jump_mean", -1e4, 1e4),
    ("jump_std", 0.0, 1e4),
)  # fmt: skip


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} must lie between {low:g} and {high:g}")


def _check_regimes(model: MarketModel) -> None:
    names = [regime.name for regime in model.regimes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"regimes {names} must be one or more with different names")
    for regime in model.regimes:
        for name, low, high in _REGIME_RANGES:
            _within(f"regime {regime.name!r}: {name}", getattr(regime, name), low, high)
        _each(f"regime {regime.name!r}: drift", regime.drift, len(model.instruments))
        if regime.correlation is not None:
            _factor(f"regime {regime.name!r}: correlation", regime.correlation, len(model.instruments))
    table = np.asarray(model.transitions, dtype=np.float64)
    if table.shape != (len(names), len(names)):
        raise ConfigError(f"transitions have shape {table.shape}; {len(names)} regimes need as many rows and columns")
    if not ((table >= 0).all() and np.allclose(table.sum(axis=1), 1.0, atol=1e-9)):
        raise ConfigError("each row of transitions must hold probabilities that sum to 1")
    stationary(model.transitions)


def _each(name: str, value: float | Sequence[float], size: int) -> np.ndarray:
    """One number per instrument, float64 `[M]`."""
    values = np.asarray(value, dtype=np.float64)
    if values.shape not in ((), (size,)) or not np.isfinite(values).all():
        raise ConfigError(f"{name}={value} must be one finite number, or one for each of the {size} instruments")
    return np.broadcast_to(values, (size,))


def _factor(name: str, correlation: Correlation, size: int) -> np.ndarray:
    """L `[M, M]` with L L^T the correlation, which may be singular."""
    matrix = np.asarray(correlation, dtype=np.float64)
    if matrix.shape == ():
        matrix = np.where(np.eye(size, dtype=bool), 1.0, matrix)
    if matrix.shape != (size, size) or not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1.0):
        raise ConfigError(f"{name} must be one number or a symmetric {size} x {size} matrix with ones on its diagonal")
    values, vectors = np.linalg.eigh(matrix)
    if not values[0] >= -1e-9:
        raise ConfigError(f"{name}: no {size} instruments can have these correlations; the matrix has a negative root")
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def stationary(transitions: Sequence[Sequence[float]]) -> np.ndarray:
    """Long-run share of each regime, float64 `[R]`: p = p A, sum p = 1.

    Raises ConfigError where it depends on the first regime (the chain falls into parts that never meet).
    """
    table = np.asarray(transitions, dtype=np.float64)
    size = len(table)
    system = np.vstack([table.T - np.eye(size), np.ones(size)])
    shares, _, rank, _ = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)
    if rank < size:
        raise ConfigError("the regimes fall into groups that never reach each other; give transitions between them")
    return np.maximum(shares, 0.0) / np.maximum(shares, 0.0).sum()


def draw_regimes(model: MarketModel, bars: int, paths: int, generator: np.random.Generator) -> np.ndarray:
    """Regimes of each bar, int64 `[P, T]`: the chain, begun in its long-run distribution."""
    uniform = generator.random((bars, paths))
    table = np.cumsum(np.asarray(model.transitions, dtype=np.float64), axis=1)[:, :-1]
    chain = np.zeros((bars, paths), dtype=np.int64)
    chain[0] = np.searchsorted(np.cumsum(stationary(model.transitions))[:-1], uniform[0], side="right")
    for t in range(1, bars):
        chain[t] = (uniform[t][:, None] >= table[chain[t - 1]]).sum(axis=1)
    return np.ascontiguousarray(chain.T)


def simulate(
    model: MarketModel,
    bars: int,
    paths: int,
    generator: np.random.Generator,
    bar_seconds: int = 3600,
    start: str = "2020-01-01",
    *,
    regimes: np.ndarray | None = None,
) -> list[Bars]:
    """P independent paths of T bars; equal seeds give equal bars.

    `regimes` int `[P, T]` replaces the chain, for one who knows what is to happen. Raises ConfigError for fewer than
    two bars, no path, a bar length that the calendar does not have, or regimes that do not fit.
    """
    if bars < 2 or paths < 1:
        raise ConfigError(f"bars={bars}, paths={paths}: write two or more bars and one or more paths")
    times = bar_times(bars, bar_seconds, start, model.calendar)
    size, shape = len(model.instruments), (paths, bars, len(model.instruments))
    normal = _each("volatility", model.volatility, size) / math.sqrt(_bars_per_year(bar_seconds, model.calendar))
    chain = draw_regimes(model, bars, paths, generator) if regimes is None else _fitting(regimes, model, bars, paths)
    scale = normal * _column(model, "volatility")[chain] * _volatilities(model, shape, generator)
    scale = scale * _mixing(model, shape, generator)
    own = normal * _column(model, "noise")[chain]
    drift = np.stack([_each("drift", regime.drift, size) for regime in model.regimes])[chain] * normal
    within = (1.0 - model.gap) * scale**2 + own**2
    steps = np.empty((paths, bars, 2, size))
    steps[:, :, 0] = _jumps(model, chain, normal, generator)
    if model.gap:
        steps[:, :, 0] += math.sqrt(model.gap) * scale * _correlated(model, chain, generator) - model.gap * scale**2 / 2
    steps[:, :, 1] = drift + math.sqrt(1.0 - model.gap) * scale * _correlated(model, chain, generator) - within / 2
    if own.any():
        steps[:, :, 1] += own * generator.standard_normal(shape)
    logs = np.cumsum(steps.reshape(paths, 2 * bars, size), axis=1) + np.log(_each("price", model.price, size))
    opens, closes = logs[:, ::2], logs[:, 1::2]
    highs, lows = bridge_extremes(opens, closes, within, generator)
    volumes = _volumes(model, times, bar_seconds, shape, generator)
    return [
        Bars(
            instruments=tuple(model.instruments), times=times, open=np.exp(opens[path]), high=np.exp(highs[path]),
            low=np.exp(lows[path]), close=np.exp(closes[path]), volume=volumes[path],
            traded=np.ones((bars, size), dtype=bool), close_only=np.zeros(size, dtype=bool),
        )
        for path in range(paths)
    ]  # fmt: skip


def _fitting(regimes: np.ndarray, model: MarketModel, bars: int, paths: int) -> np.ndarray:
    chain = np.asarray(regimes, dtype=np.int64)
    if chain.shape != (paths, bars) or chain.min() < 0 or chain.max() >= len(model.regimes):
        raise ConfigError(
            f"regimes have shape {chain.shape}; write {(paths, bars)} numbers from 0 to {len(model.regimes) - 1}"
        )
    return chain


def _column(model: MarketModel, name: str) -> np.ndarray:
    """A number of each regime, float64 `[R, 1]`."""
    return np.array([[getattr(regime, name)] for regime in model.regimes], dtype=np.float64)


def _volatilities(model: MarketModel, shape: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
    """v `[P, T, M]`, with E v^2 = 1, from its stationary distribution on."""
    if model.volatility_spread == 0:
        return np.ones((1, 1, 1))
    paths, bars, _ = shape
    shocks = math.sqrt(1.0 - model.volatility_common) * generator.standard_normal(shape)
    shocks += math.sqrt(model.volatility_common) * generator.standard_normal((paths, bars, 1))
    persistence = model.volatility_persistence
    logs = np.empty(shape)
    logs[:, 0] = shocks[:, 0]
    for t in range(1, bars):
        logs[:, t] = persistence * logs[:, t - 1] + math.sqrt(1.0 - persistence**2) * shocks[:, t]
    return np.exp(model.volatility_spread * logs - model.volatility_spread**2)


def _mixing(model: MarketModel, shape: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
    """sqrt(w) `[P, T, 1]`."""
    if model.tail_degrees is None:
        return np.ones((1, 1, 1))
    return np.sqrt((model.tail_degrees - 2.0) / generator.chisquare(model.tail_degrees, (shape[0], shape[1], 1)))


def _correlated(model: MarketModel, chain: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Standard normals `[P, T, M]` with each regime's correlation."""
    size = len(model.instruments)
    draws = generator.standard_normal((*chain.shape, size))
    for number, regime in enumerate(model.regimes):
        chosen = model.correlation if regime.correlation is None else regime.correlation
        where = chain == number
        draws[where] = draws[where] @ _factor("correlation", chosen, size).T
    return draws


def _jumps(model: MarketModel, chain: np.ndarray, normal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Log sizes `[P, T, M]`, 0 where nothing jumps."""
    rate = _column(model, "jump_rate")[chain]
    if not rate.any():
        return np.zeros((1, 1, 1))
    happens = generator.random(rate.shape) < rate
    sizes = generator.standard_normal((*chain.shape, len(normal)))
    sizes = sizes * _column(model, "jump_std")[chain] + _column(model, "jump_mean")[chain]
    return np.where(happens, sizes, 0.0) * normal


def bridge_extremes(
    opens: np.ndarray, closes: np.ndarray, variance: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Highest and lowest point of Brownian bridges from `opens` to `closes` (log prices, any shape).

        high = (o + c + sqrt((c - o)^2 - 2 s^2 ln u)) / 2,    u uniform in (0, 1]

    Each of the two has its exact distribution; given open and close they are drawn independently of each other, while
    true ones are weakly dependent. `variance` s^2 is that of the bar's path and must broadcast. (Karatzas and Shreve
    1991, 2.8; known from the pricing of barrier options.)
    """
    middle, apart = opens + closes, (closes - opens) ** 2
    above, below = (np.sqrt(apart - 2.0 * variance * np.log1p(-generator.random(middle.shape))) for _ in range(2))
    highs = np.maximum((middle + above) / 2, np.maximum(opens, closes))  # rounding must not put a close outside
    return highs, np.minimum((middle - below) / 2, np.minimum(opens, closes))


def _volumes(
    model: MarketModel, times: np.ndarray, bar_seconds: int, shape: tuple[int, int, int], generator: np.random.Generator
) -> np.ndarray:
    usual = np.ones(len(times))
    if bar_seconds < _DAY:
        through = (times - bar_seconds / 2) % _DAY / _DAY
        usual += model.volume_shape * ((2 * through - 1) ** 2 - 1 / 3)
    noise = model.volume_noise * generator.standard_normal(shape) - model.volume_noise**2 / 2
    return model.volume * usual[None, :, None] * np.exp(noise)


# ------------------------------------------------------------------------------------------------ calendar


def bar_times(bars: int, bar_seconds: int, start: str, calendar: Calendar) -> np.ndarray:
    """Closing times, int64 `[T]`, of the first bars that begin at `start` (ISO date or time, UTC) or later.

    Raises ConfigError for a bar that does not divide a day (`24x7`: nor is whole days), a date that is none, or an
    unknown calendar.
    """
    if calendar not in ("24x5", "24x7"):
        raise ConfigError(f"there is no calendar {calendar!r}{did_you_mean(calendar, ['24x5', '24x7'])}")
    whole = calendar == "24x7" and bar_seconds > 0 and bar_seconds % _DAY == 0
    if bar_seconds < 1 or (_DAY % bar_seconds and not whole):
        raise ConfigError(f"bar_seconds={bar_seconds} does not divide a day; write 3600, 14400, 86400, ...")
    try:
        begin = datetime.fromisoformat(start)
    except ValueError as error:
        raise ConfigError(f"start={start!r} is not a date; write one like 2020-01-01") from error
    begin = begin.replace(tzinfo=UTC) if begin.tzinfo is None else begin
    since = math.ceil(begin.timestamp()) - _MONDAY
    open_for = 5 * _DAY if calendar == "24x5" else _WEEK
    if whole:
        return _MONDAY + (-(-since // bar_seconds) + 1 + np.arange(bars, dtype=np.int64)) * bar_seconds
    each_week = open_for // bar_seconds
    week, within = divmod(since, _WEEK)
    number = week * each_week + min(-(-within // bar_seconds), each_week) + np.arange(bars, dtype=np.int64)
    return _MONDAY + number // each_week * _WEEK + (number % each_week + 1) * bar_seconds


def _bars_per_year(bar_seconds: int, calendar: Calendar) -> float:
    return SECONDS_PER_YEAR / bar_seconds * (5 / 7 if calendar == "24x5" else 1.0)


# ------------------------------------------------------------------------------------------------ scenarios


@dataclass(frozen=True, slots=True)
class Scenario:
    """Multipliers of a market at difficulty 1."""

    volatility: float
    trend: float
    noise: float
    length: float
    """Mean bars of a regime."""


SCENARIOS: Mapping[str, Scenario] = {
    "low_vol": Scenario(0.5, 0.3, 0.1, 60),
    "trending": Scenario(0.7, 0.8, 0.2, 120),
    "ranging": Scenario(0.6, 0.1, 0.3, 20),
    "high_vol": Scenario(2.0, 0.4, 0.5, 60),
    "crisis": Scenario(3.0, -0.6, 0.8, 60),
    "corr_breakdown": Scenario(1.5, 0.2, 0.4, 120),
    "sector_rotation": Scenario(1.2, 0.5, 0.3, 120),
    "macro": Scenario(1.8, 0.3, 0.6, 60),
}
"""Document 002's scenarios and multipliers; what they multiply is said at `scenario`."""

_PACE = 0.1
"""Drift of a bar at trend 1, in units of normal volatility: 100 bars then move as far as they wander."""

# First price and annual volatility, of the size they had around 2015 to 2020.
_LEVELS = {
    "EURUSD": (1.1, 0.08), "GBPUSD": (1.3, 0.09), "USDJPY": (110.0, 0.08), "XAUUSD": (1300.0, 0.14),
    "WTIUSD": (55.0, 0.35), "SPX500": (2700.0, 0.16), "NAS100": (7000.0, 0.20), "US30": (25000.0, 0.16),
}  # fmt: skip


def scenario(name: str, difficulty: float = 1.0, instruments: Sequence[Instrument] | None = None) -> MarketModel:
    """One of document 002's scenarios as a model, of its eight instruments unless others are given.

    Regimes go up and down by `trend` with equal odds, so that holding earns nothing on average and following pays;
    `crisis` falls together, with crashes, between short recoveries; in `corr_breakdown` the usual correlations
    (0.6 within a sector, 0.2 across) come and go; in `sector_rotation` one sector rises against the others; in `macro`
    announcements make prices jump. `noise` is volatility that an instrument has for itself.

    `difficulty` in [0, 1] goes from twice the trend, normal volatility and no noise to the scenario's own numbers: the
    trend's size against what hides it never rises. Raises ConfigError for an unknown name, another difficulty, or
    `sector_rotation` of one sector.
    """
    if name not in SCENARIOS:
        raise ConfigError(f"there is no scenario {name!r}{did_you_mean(name, SCENARIOS)}")
    _within("difficulty", difficulty, 0.0, 1.0)
    chosen = [instrument(each) for each in DOCUMENTED_INSTRUMENTS] if instruments is None else list(instruments)
    sectors = [each.sector for each in chosen]
    usual = _blocks(sectors)
    regimes, transitions = _states(name, difficulty, usual, sectors)
    return MarketModel(
        instruments=tuple(each.name for each in chosen),
        volatility=tuple(_LEVELS.get(each.name, (100.0, 0.15))[1] for each in chosen),
        price=tuple(_LEVELS.get(each.name, (100.0, 0.15))[0] for each in chosen),
        correlation=_frozen(usual),
        regimes=regimes,
        transitions=_frozen(transitions),
    )


def _blocks(sectors: Sequence[str]) -> np.ndarray:
    same = np.array([[a == b for b in sectors] for a in sectors])
    return np.where(np.eye(len(sectors), dtype=bool), 1.0, np.where(same, 0.6, 0.2))


def _frozen(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _states(
    name: str, difficulty: float, usual: np.ndarray, sectors: Sequence[str]
) -> tuple[tuple[Regime, ...], np.ndarray]:
    """Regimes of a scenario, and their transitions."""
    row = SCENARIOS[name]
    volatility, noise = row.volatility**difficulty, row.noise * difficulty
    drift, leave = _PACE * row.trend * 2.0 ** (1.0 - difficulty), 1.0 / row.length
    if name == "crisis":
        together = _frozen((1 - difficulty) * usual + difficulty * _equal(len(sectors), 0.85))
        crash = {"jump_rate": 0.02 * difficulty, "jump_mean": -4.0, "jump_std": 2.0}
        fall = Regime("fall", drift, volatility, together, noise, **crash)
        relief = Regime("relief", -drift, math.sqrt(volatility), None, noise)
        return (fall, relief), np.array([[1 - leave, leave], [2 * leave, 1 - 2 * leave]])
    if name == "sector_rotation":
        kinds = sorted(set(sectors))
        if len(kinds) < 2:
            raise ConfigError("scenario 'sector_rotation' needs instruments of two or more sectors")
        behind = -drift / (len(kinds) - 1)
        turns = [
            Regime(
                f"{kind}_leads", tuple(drift if each == kind else behind for each in sectors), volatility, None, noise
            )
            for kind in kinds
        ]
        return tuple(turns), _switching(len(kinds), leave)
    jumps = {"jump_rate": 0.02 * difficulty, "jump_std": 4.0} if name == "macro" else {}
    shapes: list[tuple[str, tuple[tuple[float, ...], ...] | None]] = [("", None)]
    if name == "corr_breakdown":
        broken = _frozen((1 - difficulty) * usual + difficulty * np.eye(len(sectors)))
        shapes = [("coupled_", None), ("broken_", broken)]
    regimes = tuple(
        Regime(shape + way, side * drift, volatility, correlation, noise, **jumps)
        for shape, correlation in shapes
        for way, side in (("up", 1.0), ("down", -1.0))
    )
    return regimes, np.kron(_switching(len(shapes), leave), _switching(2, leave))


def _equal(size: int, correlation: float) -> np.ndarray:
    return np.where(np.eye(size, dtype=bool), 1.0, correlation)


def _switching(count: int, leave: float) -> np.ndarray:
    """Transitions that leave each of `count` regimes with this probability, to any other alike."""
    if count == 1:
        return np.ones((1, 1))
    return np.where(np.eye(count, dtype=bool), 1.0 - leave, leave / (count - 1))
