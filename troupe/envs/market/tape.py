"""The tape: everything the core reads about a market, computed once, row by row.

Legend: R rows (the bars of all paths, one path after the other), P paths, M instruments, F features. A row holds what
was known at that bar's close; nothing in it depends on later rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from troupe.envs.market.bars import SECONDS_PER_YEAR, Bars
from troupe.envs.market.config import MarketRules
from troupe.envs.market.features import rolling_correlation, rolling_covariance, rolling_volatility, simple_returns
from troupe.envs.market.instruments import Instrument, conversion_rates
from troupe.errors import DataError

__all__ = ["Tape", "early_opens", "make_tape"]


@dataclass(frozen=True, eq=False)
class Tape:
    """Rows of bars. Arrays are NumPy's, or torch tensors after `to_torch`."""

    instruments: tuple[Instrument, ...]
    periods_per_year: float
    periods_per_day: float
    times: Any  # int64 [R]
    open: Any  # float64 [R, M]
    high: Any
    low: Any
    close: Any
    volume: Any
    traded: Any  # bool [R, M]
    close_only: Any  # bool [M]: filled at closes, for want of opens or because they lie before decisions
    rates: Any | None  # float64 [R, M]: account currency per quote unit; None: all quotes are the account's
    years: Any  # float64 [R]: time since the bar before, 0 on a path's first
    gap: Any  # float64 [R]: the part of it before the bar's open, as a weekend's
    new_day: Any  # bool [R]: the first bar of a day
    features: Any  # float32 [R, F]: observations of the market
    returns: Any | None  # float64 [R, M]: simple returns, 0 on a path's first bar, for historical VaR
    covariance: Any | None  # float64 [R, M, M], of one bar
    correlation: Any | None  # float64 [R, M, M]
    volatility: Any | None  # float64 [R, M], of one day, for impact
    first: np.ndarray  # int64 [P]: rows where the paths begin
    last: np.ndarray  # int64 [P]: their last rows
    all_traded: bool
    any_close_only: bool
    any_gap: bool  # or a series that is filled at closes: then financing depends on what was held before the fill

    def __len__(self) -> int:
        return len(self.times)

    @property
    def paths(self) -> int:
        return len(self.first)

    def to_torch(self, device: str = "cpu") -> Tape:
        """The same tape as tensors."""
        import torch

        arrays: dict[str, Any] = {
            field.name: torch.as_tensor(value).to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray) and field.name not in ("first", "last")
        }
        return replace(self, **arrays)


def make_tape(
    bars: Bars | Sequence[Bars],
    instruments: Sequence[Instrument],
    rules: MarketRules,
    features: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    account: str = "USD",
    rates: Sequence[np.ndarray] | None = None,
) -> Tape:
    """One path per `Bars`. `features`: `[T, F]` per path, as the agent is to see them; `rates`: `[T, M]` per path, as
    `conversion_rates` finds them in the bars themselves unless given.

    Raises DataError where paths differ in their instruments or are too short for the rules.
    """
    paths = [bars] if isinstance(bars, Bars) else list(bars)
    seen = [features] if isinstance(features, np.ndarray) else features
    names = tuple(instrument.name for instrument in instruments)
    for path in paths:
        if path.instruments != names:
            raise DataError(f"the bars are of {list(path.instruments)}, the rules are for {list(names)}")
        if len(path) < rules.warmup_steps + 2:
            raise DataError(
                f"a path has {len(path)} bars; warmup_steps={rules.warmup_steps} and one step need "
                f"{rules.warmup_steps + 2}"
            )
    if rates is None:
        rates = [conversion_rates(path, instruments, account) for path in paths]
    at_close = np.any([path.close_only | early_opens(path) for path in paths], axis=0)
    gaps = [_gaps(path.times) for path in paths]
    lengths = np.array([len(path) for path in paths])
    window = rules.correlation_window
    needs_var = rules.max_portfolio_var is not None
    impact = any(instrument.impact for instrument in instruments)

    def joined(of: Any) -> np.ndarray:
        return np.ascontiguousarray(np.concatenate([of(path) for path in paths]))

    days = np.sqrt(paths[0].periods_per_day)
    return Tape(
        instruments=tuple(instruments),
        periods_per_year=float(np.mean([path.periods_per_year for path in paths])),
        periods_per_day=float(np.mean([path.periods_per_day for path in paths])),
        times=joined(lambda path: path.times),
        open=joined(lambda path: path.open),
        high=joined(lambda path: path.high),
        low=joined(lambda path: path.low),
        close=joined(lambda path: path.close),
        volume=joined(lambda path: path.volume),
        traded=joined(lambda path: path.traded),
        close_only=at_close,
        rates=None if all((rate == 1).all() for rate in rates) else np.concatenate(rates),
        years=joined(lambda path: np.diff(path.times, prepend=path.times[0]) / SECONDS_PER_YEAR),
        gap=np.concatenate(gaps),
        new_day=joined(lambda path: np.diff((path.times - 1) // 86_400, prepend=-1) > 0),
        features=_features(seen, lengths),
        returns=joined(lambda path: simple_returns(path.close))
        if needs_var and rules.var_method == "historical"
        else None,
        covariance=joined(lambda path: rolling_covariance(simple_returns(path.close), window)) if needs_var else None,
        correlation=(
            joined(lambda path: rolling_correlation(simple_returns(path.close), window))
            if rules.max_correlation_exposure is not None
            else None
        ),
        volatility=joined(lambda path: rolling_volatility(simple_returns(path.close), window) * days)
        if impact
        else None,
        first=np.cumsum(lengths) - lengths,
        last=np.cumsum(lengths) - 1,
        all_traded=all(path.traded.all() for path in paths),
        any_close_only=bool(at_close.any()),
        any_gap=bool(at_close.any()) or any(bool(gap.any()) for gap in gaps),
    )


def early_opens(bars: Bars) -> np.ndarray:
    """Instruments, bool `[M]`, with bars that opened before the clock's time before: a daily bar among hourly ones, or
    sessions of several places. Whoever decided at that time had seen later prices than this open, so that orders can
    only be filled at the close."""
    early = np.zeros(len(bars.instruments), dtype=bool)
    for column in range(len(early)):
        rows = np.flatnonzero(bars.traded[:, column])
        if len(rows) > 1:
            length = np.diff(bars.times[rows]).min()
            rows = rows[rows > 0]
            early[column] = bool((bars.times[rows] - length < bars.times[rows - 1]).any())
    return early


def _gaps(times: np.ndarray) -> np.ndarray:
    """Years from the close before to each bar's open `[T]`: what a step of the clock has beyond the shortest so far."""
    steps = np.diff(times)
    return np.concatenate([[0.0], steps - np.minimum.accumulate(steps)]) / SECONDS_PER_YEAR


def _features(given: Sequence[np.ndarray] | None, lengths: np.ndarray) -> np.ndarray:
    if given is None:
        return np.zeros((int(lengths.sum()), 0), dtype=np.float32)
    if [len(table) for table in given] != lengths.tolist():
        raise DataError(f"features have {[len(table) for table in given]} rows for paths of {lengths.tolist()} bars")
    joined = np.ascontiguousarray(np.concatenate(list(given)), dtype=np.float32)
    if not np.isfinite(joined).all():
        row, column = np.argwhere(~np.isfinite(joined))[0]
        raise DataError(f"feature {column} is not finite at row {row}")
    return joined
