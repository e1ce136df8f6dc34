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

__all__ = ["Tape", "make_tape"]


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
    close_only: Any  # bool [M]
    rates: Any | None  # float64 [R, M]: account currency per quote unit; None: all quotes are the account's
    years: Any  # float64 [R]: time since the bar before, 0 on a path's first
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
) -> Tape:
    """One path per `Bars`. `features`: `[T, F]` per path, as the agent is to see them.

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
    rates = [conversion_rates(path, instruments, account) for path in paths]
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
        close_only=paths[0].close_only.copy(),
        rates=None if all((rate == 1).all() for rate in rates) else np.concatenate(rates),
        years=joined(lambda path: np.diff(path.times, prepend=path.times[0]) / SECONDS_PER_YEAR),
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
        any_close_only=bool(paths[0].close_only.any()),
    )


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
