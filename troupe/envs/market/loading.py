"""Bars from files: CSV and Parquet, checked before anything is trained on them.

A file's stamp is, by default, when an intraday bar opens and which day a daily bar is of. What counts later is when it
closes, because that is when its close was known: an intraday bar closes its length after it opens, a daily one at the
end of the session (`day_close` in `zone`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from troupe.envs.market.alignment import add_extra, align
from troupe.envs.market.bars import Bars
from troupe.envs.market.checking import (
    PRICES,
    Rows,
    check_lengths,
    check_order,
    check_prices,
    price_columns,
    read_rows,
    stamp_columns,
    volume_column,
)
from troupe.envs.market.tables import Table, read_table
from troupe.envs.market.timestamps import DAY, check_zone, seconds_of_day, show, to_local, to_utc
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = ["BarFormat", "ExtraSeries", "Gap", "Report", "load_bars", "load_with_reports"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BarFormat:
    """How a file of bars is to be read. Raises ConfigError for what is not possible."""

    stamp: Literal["open", "close"] = "open"
    """Whether an intraday stamp is when the bar opens or when it closes; likewise the first or last day of bars of
    several days. A daily bar's is its day."""
    zone: str = "UTC"
    """Of stamps without an offset, and of `day_close`: an IANA name, as Europe/Athens or America/New_York."""
    day_close: str = "24:00"
    """When a daily bar is known, HH:MM."""
    seconds: int | None = None
    """How long a bar lasts; None takes the median distance of two stamps."""
    header: tuple[str, ...] | None = None
    """Names of the columns of a file that has no line of names."""
    on_error: Literal["raise", "drop"] = "raise"
    """Bad rows are an error, or are dropped, counted and logged."""
    max_gap: float | None = None
    """Longest time without a bar, weekends included, in seconds; a longer one is an error."""

    def __post_init__(self) -> None:
        for name, choices in (("stamp", ("open", "close")), ("on_error", ("raise", "drop"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be {' or '.join(choices)}")
        seconds_of_day(self.day_close)
        check_zone(self.zone)
        for name in ("seconds", "max_gap"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0, in seconds")


@dataclass(frozen=True)
class ExtraSeries:
    """A macro or alternative series that becomes an extra column of bars.

    A file of dates is known at `day_close` of each day in `zone`, a file of times at those instants, and both `lag`
    seconds later: how long after its stamp a value was published. Raises ConfigError for what is not possible.
    """

    path: str | Path
    column: str | None = None
    """The one to take where there are several."""
    lag: float = 0.0
    before: float | None = None
    """What bars before the first value show; None makes them an error."""
    zone: str = "UTC"
    day_close: str = "24:00"
    header: tuple[str, ...] | None = None
    on_error: Literal["raise", "drop"] = "raise"

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "drop"):
            raise ConfigError(f"on_error={self.on_error!r} must be raise or drop")
        seconds_of_day(self.day_close)
        check_zone(self.zone)


@dataclass(frozen=True)
class Gap:
    """Time without a bar."""

    line: int  # of the bar after it
    since: int  # close of the bar before it, seconds since 1970 UTC
    seconds: int


@dataclass(frozen=True)
class Report:
    """What a file held."""

    instrument: str
    path: str
    bars: int
    seconds: int  # of one bar
    first: int  # closes, seconds since 1970 UTC
    last: int
    close_only: bool
    ignored: tuple[str, ...]  # columns
    dropped: tuple[str, ...]  # a sentence per kind of bad row
    gaps: tuple[Gap, ...]  # weekends and holidays included

    def summary(self) -> str:
        """One paragraph."""
        longest = max(self.gaps, key=lambda gap: gap.seconds, default=None)
        parts = [
            f"{self.instrument}: {self.bars} bars of {self.seconds} s{' (closes alone)' if self.close_only else ''}, "
            f"{show(self.first)} to {show(self.last)} UTC",
            f"{len(self.gaps)} gaps"
            + (f", the longest {longest.seconds / DAY:.1f} days since {show(longest.since)}" if longest else ""),
            *self.dropped,
        ]
        return "; ".join(parts + ([f"columns not read: {', '.join(self.ignored)}"] if self.ignored else []))


def load_bars(
    source: str | Path | Mapping[str, str | Path],
    format: BarFormat | Mapping[str, BarFormat] | None = None,
    *,
    name: str | None = None,
    clock: str = "union",
    extra: Mapping[str, str | Path | ExtraSeries] | None = None,
) -> Bars:
    """The bars of one file, or of several by name of instrument, on one `clock` (see `align`).

    One file's instrument is `name`, or what its file name says (`GBPUSD_h1.csv.gz`). Files need a column of times
    (date, time, datetime, timestamp; date and time may be two), and open, high, low and close, or close alone; volume
    or tick_volume where there is one. `format` holds for all files, or one each. `extra` adds one column per name, with
    what was known at each close. What is dropped is logged.

    Raises DataError, naming file and line, for what is missing or cannot be: prices that are no numbers or not above 0,
    a high that is not the highest, times that repeat or fall or do not exist in the zone, bars of two lengths, and gaps
    beyond `max_gap`.
    """
    bars, _ = load_with_reports(source, format, name=name, clock=clock, extra=extra)
    return bars


def load_with_reports(
    source: str | Path | Mapping[str, str | Path],
    format: BarFormat | Mapping[str, BarFormat] | None = None,
    *,
    name: str | None = None,
    clock: str = "union",
    extra: Mapping[str, str | Path | ExtraSeries] | None = None,
) -> tuple[Bars, tuple[Report, ...]]:
    """`load_bars` and a report of each file: what was dropped, which gaps there are, which columns were not read."""
    if isinstance(source, Mapping):
        if name is not None:
            raise ConfigError(f"name={name!r} is for one file; the keys of several name them")
        files = {key: Path(path) for key, path in source.items()}
    else:
        files = {name or _name(Path(source)): Path(source)}
    if isinstance(format, Mapping):
        unknown = [key for key in format if key not in files]
        if unknown:
            raise ConfigError(f"there is a format for {unknown[0]!r} but no file{did_you_mean(unknown[0], files)}")
    formats = format if isinstance(format, Mapping) else dict.fromkeys(files, format or BarFormat())
    read = {key: _read(key, path, formats.get(key, BarFormat())) for key, path in files.items()}
    bars = align({key: bars for key, (bars, _) in read.items()}, clock)
    for key, series in (extra or {}).items():
        given = series if isinstance(series, ExtraSeries) else ExtraSeries(series)
        bars = add_extra(bars, key, *_read_extra(given), lag=given.lag, before=given.before)
    return bars, tuple(report for _, report in read.values())


def _name(path: Path) -> str:
    return re.sub(r"(?i)(_([mhdw]\d+|\d+[mhdw]|close))+$", "", path.name.split(".")[0])


def _read(instrument: str, path: Path, format: BarFormat) -> tuple[Bars, Report]:
    table = read_table(path, format.header)
    prices, volume = price_columns(path, table), volume_column(table)
    rows = read_rows(path, table, prices | volume, format.zone, format.on_error)
    check_prices(rows)
    check_order(rows)
    close, seconds, gaps = _closes(rows, format)
    close_only = len(prices) == 1
    columns = {name: rows.columns["close" if close_only else name][:, None] for name in PRICES}
    columns["volume"] = rows.columns["volume"][:, None] if volume else np.zeros((len(close), 1))
    columns["traded"] = np.ones((len(close), 1), dtype=bool)
    used = {*prices.values(), *volume.values(), *stamp_columns(path, table)}
    report = Report(
        instrument, str(path), len(close), seconds, int(close[0]), int(close[-1]), close_only,
        tuple(name for name in table.columns if name not in used), tuple(rows.dropped), gaps,
    )  # fmt: skip
    _tell(rows)
    bars = Bars((instrument,), close, close_only=np.array([close_only]), **columns)  # type: ignore[arg-type]
    return bars, report


def _tell(rows: Rows) -> None:
    for sentence in rows.dropped:
        _log.warning("%s", sentence)


def _closes(rows: Rows, format: BarFormat) -> tuple[np.ndarray, int, tuple[Gap, ...]]:
    """When the bars close (UTC), how long one lasts, and where there is none."""
    local = to_local(rows.columns["utc"], format.zone)
    dated = not (local % DAY).any() and (format.seconds is None or format.seconds % DAY == 0)
    seconds = format.seconds or _median_step(local if dated else rows.columns["utc"])
    check_lengths(rows, seconds, format.zone, months=dated and seconds >= 28 * DAY)
    utc = rows.columns["utc"]
    local = to_local(utc, format.zone)
    if dated:
        ahead = seconds - DAY if format.stamp == "open" else 0
        close, _ = to_utc(local + ahead + seconds_of_day(format.day_close), format.zone)
    elif format.stamp == "close":
        close = utc
    else:
        # Hours are hours everywhere; longer bars follow the wall clock, also on the days on which it is set.
        close = utc + seconds if seconds <= 3600 else to_utc(local + seconds, format.zone)[0]
    missing = np.diff(utc if seconds <= 3600 else local) - seconds
    gaps = [Gap(int(rows.lines[row + 1]), int(close[row]), int(missing[row])) for row in np.flatnonzero(missing > 0)]
    for gap in gaps:
        if format.max_gap is not None and gap.seconds > format.max_gap:
            raise DataError(
                f"{rows.path}, {rows.unit} {gap.line}: no bar for {gap.seconds} s since {show(gap.since)} UTC; "
                f"fill in what is missing, or raise max_gap={format.max_gap:g}"
            )
    return close, seconds, tuple(gaps)


def _median_step(times: np.ndarray) -> int:
    """The lower of two in the middle: gaps make steps longer, nothing makes them shorter."""
    return int(np.sort(np.diff(times))[(len(times) - 2) // 2])


def _read_extra(series: ExtraSeries) -> tuple[np.ndarray, np.ndarray]:
    path = Path(series.path)
    table = read_table(path, series.header)
    column = _extra_column(path, table, series.column)
    rows = read_rows(path, table, {column: column}, series.zone, series.on_error)
    check_order(rows)
    _tell(rows)
    times = rows.columns["utc"]
    local = to_local(times, series.zone)
    if not (local % DAY).any():
        times, _ = to_utc(local + seconds_of_day(series.day_close), series.zone)
    return times, rows.columns[column]


def _extra_column(path: Path, table: Table, wanted: str | None) -> str:
    columns = [name for name in table.columns if name not in stamp_columns(path, table)]
    if wanted is not None:
        plain = wanted.strip().lower().replace(" ", "_")
        if plain not in columns:
            raise DataError(f"{path} has no column {wanted!r}{did_you_mean(plain, columns)}")
        return plain
    if len(columns) != 1 and "close" not in columns:
        raise DataError(f"{path} has the columns {', '.join(columns)}; say which one with column=")
    return columns[0] if len(columns) == 1 else "close"
