"""Longer bars from shorter ones: an hour to four hours, to a day, to a week."""

from __future__ import annotations

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.timestamps import DAY, seconds_of_day, show, to_local, to_utc
from troupe.errors import ConfigError, DataError

__all__ = ["resample"]

_MONDAY = 4 * DAY  # 5 January 1970: weeks are counted from Monday


def resample(bars: Bars, seconds: int, *, zone: str = "UTC", day_close: str = "24:00") -> Bars:
    """Bars of `seconds` each, that close at full multiples of it after `day_close` on the clock of `zone`.

        open = first traded open, high = max, low = min, close = last close, volume = sum, extra = last

    A bar holds the shorter bars that close after the longer one before it and not after itself, so that nothing in it
    is later than its close; it bears that close even where the market had shut before. Where nothing traded all four
    prices are the last close. A first and a last bar of which a part is missing are dropped. Raises ConfigError for a
    length that is neither a part of a day nor some days of a week, DataError for bars that are not shorter, straddle
    such a close (another `zone` or `day_close` fits), or are too few.
    """
    if seconds < 1 or (DAY % seconds and (seconds % DAY or 7 * DAY % seconds)):
        raise ConfigError(f"seconds={seconds} neither divides a day nor is it one day or seven; write 3600, 14400, ...")
    length = int(np.diff(bars.times).min())
    if seconds <= length or seconds % length:
        raise DataError(f"bars of {length} s cannot be joined to bars of {seconds} s; write a multiple of {length}")
    bucket, close = _buckets(bars, seconds, length, zone, day_close)
    starts = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    ends = np.append(starts[1:], len(bars)) - 1
    complete = np.ones(len(starts), dtype=bool)
    complete[0] = bars.times[0] - length <= close[0] - seconds
    complete[-1] &= bars.times[-1] == close[-1]
    if complete.sum() < 2:
        raise DataError(f"{len(bars)} bars of {length} s hold fewer than two whole ones of {seconds} s")
    columns = {name: value[complete] for name, value in _joined(bars, starts, ends).items()}
    return Bars(
        instruments=bars.instruments, times=close[ends][complete], close_only=bars.close_only,
        extra_names=bars.extra_names, **columns,
    )  # fmt: skip


def _buckets(bars: Bars, seconds: int, length: int, zone: str, day_close: str) -> tuple[np.ndarray, np.ndarray]:
    """For each row the number of the longer bar that holds it, and when that one closes (UTC)."""
    # Hours are hours everywhere; longer bars follow the wall clock, as brokers' do when it is set.
    zone = zone if seconds > 3600 else "UTC"
    anchor = _MONDAY + seconds_of_day(day_close) % DAY
    since = to_local(bars.times, zone) - anchor
    bucket = -(-since // seconds)  # rounded up: a bar that closes with the longer one belongs to it
    straddles = np.flatnonzero(since - (bucket - 1) * seconds < length)
    if len(straddles):
        raise DataError(
            f"the bar of {length} s that closes at {show(bars.times[straddles[0]])} UTC straddles the close of one of "
            f"{seconds} s; give the zone and day_close that the bars were made with"
        )
    # In an hour that the clock shows twice, rows would fall back into a bar that has closed.
    bucket = np.maximum.accumulate(bucket)
    close, _ = to_utc(bucket * seconds + anchor, zone)
    return bucket, close


def _joined(bars: Bars, starts: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    traded = np.logical_or.reduceat(bars.traded, starts, axis=0)
    rows = np.where(bars.traded, np.arange(len(bars))[:, None], len(bars) - 1)
    first = np.minimum.reduceat(rows, starts, axis=0)
    last = bars.close[ends]
    high = np.maximum.reduceat(np.where(bars.traded, bars.high, -np.inf), starts, axis=0)
    low = np.minimum.reduceat(np.where(bars.traded, bars.low, np.inf), starts, axis=0)
    return {
        "open": np.where(traded, np.take_along_axis(bars.open, first, axis=0), last),
        "high": np.where(traded, high, last),
        "low": np.where(traded, low, last),
        "close": last,
        "volume": np.add.reduceat(np.where(bars.traded, bars.volume, 0.0), starts, axis=0),
        "traded": traded,
        "extra": bars.extra[ends],
    }
