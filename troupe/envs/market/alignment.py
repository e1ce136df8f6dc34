"""Calendars: many series on one clock of closing times, and what of a universe the data allow.

A date is not a time: a share's bar of Monday closes hours before a currency's bar of Monday, and a join by date would
show the second to whoever trades the first. Series are therefore joined by the instants at which bars close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.timestamps import show
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = ["Universe", "add_extra", "align", "fit_universe"]


def align(series: Mapping[str, Bars], clock: str = "union") -> Bars:
    """Bars of one instrument each, joined on one clock of closing times; the keys name the instruments.

    `clock` is `union` (every time at which a bar closes), `intersection` (times at which one of each closes) or the
    name of a series, whose calendar it is. An instrument without a bar that closes then shows its last close, volume 0
    and `traded` False; before its first bar, that one's open. Bars between two times of the clock are left out, so
    bring the series to one length first (`resample`). Raises DataError for no series, one of several instruments
    or with extra columns (`add_extra` adds those afterwards), or fewer than two common times; ConfigError for another
    clock.
    """
    if not series:
        raise DataError("there are no series to align; name one or more")
    for name, bars in series.items():
        if len(bars.instruments) != 1 or bars.extra_names:
            raise DataError(
                f"series {name!r} holds {', '.join(bars.instruments + bars.extra_names)}; align bars of one instrument "
                "each and add extra columns afterwards"
            )
    times = _clock(series, clock)
    if len(times) < 2:
        raise DataError(
            f"the series {', '.join(series)} share {len(times)} closing times; clock='union' keeps those of each"
        )
    columns = [_on_clock(bars, times) for bars in series.values()]
    joined = {name: np.concatenate([column[name] for column in columns], axis=1) for name in columns[0]}
    close_only = np.concatenate([bars.close_only for bars in series.values()])
    return Bars(tuple(series), times, close_only=close_only, **joined)  # type: ignore[arg-type]


def _clock(series: Mapping[str, Bars], clock: str) -> np.ndarray:
    if clock in series:
        return series[clock].times
    if clock not in ("union", "intersection"):
        raise ConfigError(f"there is no clock {clock!r}{did_you_mean(clock, ['union', 'intersection', *series])}")
    every, counts = np.unique(np.concatenate([bars.times for bars in series.values()]), return_counts=True)
    return every if clock == "union" else every[counts == len(series)]


def _on_clock(bars: Bars, times: np.ndarray) -> dict[str, np.ndarray]:
    last = np.searchsorted(bars.times, times, side="right") - 1
    row = np.maximum(last, 0)
    own = (bars.times[row] == times)[:, None]
    carried = np.where((last >= 0)[:, None], bars.close[row], bars.open[:1])
    prices = {name: np.where(own, getattr(bars, name)[row], carried) for name in ("open", "high", "low", "close")}
    return {**prices, "volume": np.where(own, bars.volume[row], 0.0), "traded": own & bars.traded[row]}


def add_extra(
    bars: Bars, name: str, times: np.ndarray, values: np.ndarray, *, lag: float = 0.0, before: float | None = None
) -> Bars:
    """The bars with one more extra column: at each close the last value whose time, plus `lag` seconds, has come.

    `times` int64 `[N]` (rising) say when each of `values` float64 `[N]` was known but for the `lag`: that of January's
    inflation is the day it was published, not January. Until the first is known the column is `before`. Raises
    DataError where that is not given but needed, or a column of that name exists; ConfigError for a negative lag.
    """
    if not 0 <= lag < np.inf:
        raise ConfigError(f"extra column {name!r}: lag={lag} would show values before they were known; write 0 or more")
    if name in bars.extra_names:
        raise DataError(f"the bars already have an extra column {name!r}; give this one another name")
    if len(times) == 0 or len(times) != len(values) or not (np.diff(times) > 0).all():
        raise DataError(f"extra column {name!r}: there must be one value per time, and the times must rise")
    row = np.searchsorted(times + lag, bars.times, side="right") - 1
    if row[0] < 0 and before is None:
        raise DataError(
            f"extra column {name!r} is first known at {show(times[0] + lag)}, the bars begin at {show(bars.times[0])}; "
            "give bars from there on, or before= for the value until then"
        )
    column = np.where(row >= 0, values[np.maximum(row, 0)], np.nan if before is None else before)
    return replace(
        bars, extra=np.concatenate([bars.extra, column[:, None]], axis=1), extra_names=(*bars.extra_names, name)
    )


@dataclass(frozen=True, eq=False)
class Universe:
    """What of the wish the data allow."""

    bars: Bars  # of the instruments that were kept, over the time that all of them have
    episode_length: int
    messages: tuple[str, ...]  # one sentence per instrument that was left out, and per change


def fit_universe(bars: Bars, wanted: Sequence[str], *, min_bars: int, episode_length: int, warmup: int = 0) -> Universe:
    """The wanted instruments that have history in common, and the time over which they do.

    Left out, each with a sentence: an instrument without bars, one with fewer than `min_bars` of its own, and, one
    after the other, whichever shortens the common time most while that holds fewer than `min_bars` bars. Rows
    outside the common time, and on which none of the kept trades, go. An episode that does not fit behind `warmup` bars
    is shortened. Raises DataError when no instrument is left, or no episode of one step.
    """
    messages: list[str] = []
    kept: list[str] = []
    for name in wanted:
        own = np.flatnonzero(bars.traded[:, bars.instruments.index(name)]) if name in bars.instruments else np.zeros(0)
        if len(own) >= max(min_bars, 1):
            kept.append(name)
        elif len(own) == 0:
            messages.append(f"{name} is left out: there are no bars of it")
        else:
            since = show(bars.times[own[0]])
            messages.append(f"{name} is left out: it has {len(own)} bars, since {since}; {min_bars} are needed")
    while kept and len(_common(bars, kept)) < min_bars:
        shortest = max(kept, key=lambda name: len(_common(bars, [other for other in kept if other != name])))
        kept.remove(shortest)
        messages.append(f"{shortest} is left out: with it the instruments share fewer than {min_bars} bars")
    if not kept:
        raise DataError(f"no instrument has enough bars: {'; '.join(messages)}; give longer bars or lower min_bars")
    rows = _common(bars, kept)
    fitting = len(rows) - warmup - 1
    if fitting < 1:
        raise DataError(f"{', '.join(kept)} share {len(rows)} bars, too few for {warmup} to warm up and a step after")
    if fitting < episode_length:
        messages.append(f"episodes have {fitting} bars, not {episode_length}: {len(rows)} bars hold no more")
    return Universe(_rows(bars.of(kept), rows), min(fitting, episode_length), tuple(messages))


def _common(bars: Bars, names: Sequence[str]) -> np.ndarray:
    """Rows between the latest first bar and the earliest last bar of these, on which one of them trades."""
    if not names:
        return np.zeros(0, dtype=np.int64)
    traded = bars.traded[:, [bars.instruments.index(name) for name in names]]
    first = traded.argmax(axis=0).max()
    last = len(bars) - 1 - traded[::-1].argmax(axis=0).max()
    return first + np.flatnonzero(traded[first : last + 1].any(axis=1))


def _rows(bars: Bars, rows: np.ndarray) -> Bars:
    names = ("times", "open", "high", "low", "close", "volume", "traded", "extra")
    return replace(bars, **{name: getattr(bars, name)[rows] for name in names})
