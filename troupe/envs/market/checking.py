"""What is wrong with a file of bars: each fault is one sentence with its line, or a dropped row that is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from troupe.envs.market.tables import Table, numbers
from troupe.envs.market.timestamps import DAY, Stamps, parse_stamps, show, to_local, to_utc
from troupe.errors import DataError

__all__ = [
    "PRICES", "Fault", "Rows", "check_lengths", "check_order", "check_prices", "price_columns", "read_rows",
    "stamp_columns", "volume_column",
]  # fmt: skip

PRICES = ("open", "high", "low", "close")
_ADJUSTED = ("adj_close", "adjusted_close")
_STAMPS = ("datetime", "timestamp", "date", "time", "gmt_time", "local_time", "__index_level_0__")
_VOLUMES = ("volume", "vol", "real_volume", "tick_volume", "tickvol", "tick_vol")

_RUN = 20
"""So many steps in a row, even but not of the bars' length, are bars of another length."""


class Fault(NamedTuple):
    """Rows with one thing wrong."""

    mask: np.ndarray  # bool [N]
    kind: str  # what dropped rows are counted as
    says: Callable[[int], str]  # the sentence about a row


@dataclass
class Rows:
    """Rows of a file that are still good. `columns["utc"]` is their stamp."""

    path: Path
    on_error: str  # raise or drop
    unit: str  # of `lines`
    lines: np.ndarray  # int64 [N]
    columns: dict[str, np.ndarray]  # [N]
    dropped: list[str] = field(default_factory=list)

    def reject(self, faults: Sequence[Fault]) -> None:
        """Drop the rows with a fault and count them, or raise DataError for the first one."""
        bad = np.zeros(len(self.lines), dtype=bool)
        for fault in faults:
            mask = fault.mask & ~bad
            bad |= mask
            if mask.any() and self.on_error == "drop":
                self.note(int(mask.sum()), fault.kind, int(self.lines[mask.argmax()]))
        if bad.any() and self.on_error == "raise":
            row = int(bad.argmax())
            says = next(fault.says for fault in faults if fault.mask[row])
            raise self.error(row, f"{says(row)}; correct it, or drop such rows with on_error='drop'")
        self.lines = self.lines[~bad]
        self.columns = {name: column[~bad] for name, column in self.columns.items()}
        if len(self.lines) < 2:
            dropped = f" ({'; '.join(self.dropped)})" if self.dropped else ""
            raise DataError(f"{self.path} holds {len(self.lines)} usable rows{dropped}; two or more are needed")

    def note(self, count: int, kind: str, line: int) -> None:
        self.dropped.append(f"{count} rows of {self.path.name} dropped: {kind} (first in {self.unit} {line})")

    def error(self, row: int, sentence: str) -> DataError:
        return DataError(f"{self.path}, {self.unit} {self.lines[row]}: {sentence}")


def stamp_columns(path: Path, table: Table) -> tuple[str, ...]:
    """The column of times, or those of date and time. Raises DataError for none."""
    if "date" in table.columns and "time" in table.columns:
        return ("date", "time")
    for name in _STAMPS:
        if name in table.columns:
            return (name,)
    raise DataError(
        f"{path} has no column of times; name it date, time, datetime or timestamp (found: {', '.join(table.columns)})"
    )


def price_columns(path: Path, table: Table) -> dict[str, str]:
    """The columns of open, high, low and close, or that of close alone. Raises DataError for others."""
    close = next((name for name in ("close", *_ADJUSTED) if name in table.columns), None)
    missing = [name for name in PRICES[:3] if name not in table.columns] + ([] if close else ["close"])
    if close and len(missing) == 3:
        return {"close": close}
    if missing or close is None:
        raise DataError(
            f"{path} has no column {' and no '.join(missing)} (found: {', '.join(table.columns)}); bars need open, "
            "high, low and close, or close alone"
        )
    return {"open": "open", "high": "high", "low": "low", "close": close}


def volume_column(table: Table) -> dict[str, str]:
    """The column of volume: the first that holds more than zeros (terminals export an empty one beside the ticks)."""
    present = [name for name in _VOLUMES if name in table.columns]
    filled = [name for name in present if (np.nan_to_num(numbers(table.columns[name])) != 0).any()]
    return {"volume": (filled or present)[0]} if present else {}


def read_rows(path: Path, table: Table, wanted: Mapping[str, str], zone: str, on_error: str) -> Rows:
    """Times and numbers: the rows with `utc` and each of `wanted` (name: column of the table).

    Raises DataError, or drops the row, for too few or too many cells, a stamp that is no time or does not exist in the
    zone, and a cell that is no finite number; an empty volume is 0, for unknown.
    """
    stamps = _stamps(path, table)
    utc, exists = to_utc(stamps.seconds, zone)
    utc = np.where(stamps.absolute, stamps.seconds, utc)
    columns = {"utc": utc, **{name: numbers(table.columns[column]) for name, column in wanted.items()}}
    if "volume" in wanted:
        columns["volume"] = np.where(_empty(table, wanted["volume"]), 0.0, columns["volume"])
    rows = Rows(path, on_error, table.unit, table.lines, columns)
    if table.torn:
        line, sentence = table.torn[0]
        if on_error == "raise":
            raise DataError(
                f"{path}, {table.unit} {line}: {sentence}; correct it, or drop such rows with on_error='drop'"
            )
        rows.note(len(table.torn), "cells missing or too many", line)
    written = stamp_columns(path, table)

    def cell(names: Sequence[str], row: int) -> str:
        return repr(" ".join(str(table.columns[name][row].as_py()) for name in names))

    faults = [
        Fault(~stamps.valid, "not a time",
              lambda row: f"{cell(written, row)} is not a time; write 2016-12-30 or 2016-12-30 17:00:00"),
        Fault(stamps.valid & ~stamps.absolute & ~exists, f"a time that {zone} skips",
              lambda row: f"{cell(written, row)} does not exist in {zone}, whose clock is set forward then"),
    ]  # fmt: skip
    for name, column in wanted.items():
        faults.append(
            Fault(
                ~np.isfinite(columns[name]),
                f"{name} not a number",
                lambda row, column=column: f"{column} is {cell([column], row)}, not a finite number",  # type: ignore[misc]
            )
        )
    rows.reject(faults)
    return rows


def _stamps(path: Path, table: Table) -> Stamps:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [table.columns[name] for name in stamp_columns(path, table)]
    if len(columns) == 1:
        return parse_stamps(columns[0])
    day, time = (pc.cast(column, pa.string()) for column in columns)
    return parse_stamps(pc.binary_join_element_wise(day, time, " "))


def _empty(table: Table, column: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = table.columns[column]
    if not pa.types.is_string(cells.type):
        return np.isnan(numbers(cells))
    cells = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
    return pc.is_in(cells, pa.array(["", "nan", "null", "none", "n/a"])).to_numpy(zero_copy_only=False)


def check_prices(rows: Rows) -> None:
    """Prices above 0, in their order, and volumes not below 0."""
    prices = {name: rows.columns[name] for name in PRICES if name in rows.columns}
    faults = [
        Fault(
            values <= 0,
            f"{name} not above 0",
            lambda row, name=name: f"{name} is {rows.columns[name][row]:g}; prices are above 0",  # type: ignore[misc]
        )
        for name, values in prices.items()
    ]
    if len(prices) == 4:
        top = np.maximum(np.maximum(prices["open"], prices["close"]), prices["low"])
        bottom = np.minimum(prices["open"], prices["close"])

        def quoted(row: int) -> str:
            return ", ".join(f"{name} {values[row]:g}" for name, values in prices.items())

        faults.append(
            Fault(prices["high"] < top, "high not highest", lambda row: f"high is not highest: {quoted(row)}")
        )
        faults.append(Fault(prices["low"] > bottom, "low not lowest", lambda row: f"low is not lowest: {quoted(row)}"))
    if "volume" in rows.columns:
        volume = rows.columns["volume"]
        faults.append(Fault(volume < 0, "volume below 0", lambda row: f"volume is {volume[row]:g}, below 0"))
    rows.reject(faults)


def check_order(rows: Rows) -> None:
    """Times that rise."""
    utc = rows.columns["utc"]
    before = np.concatenate([[utc[0] - 1], np.maximum.accumulate(utc)[:-1]])

    def falls(row: int) -> str:
        return f"{show(utc[row])} UTC comes after {show(before[row])}; sort the file, oldest first"

    rows.reject([
        Fault(utc == before, "a time that repeats", lambda row: f"{show(utc[row])} UTC is there twice"),
        Fault(utc < before, "earlier than the row before", falls),
    ])  # fmt: skip


def check_lengths(rows: Rows, seconds: int, zone: str, *, months: bool) -> None:
    """Bars of one length: none begins before the one before ends, and none are evenly spaced another way.

    The second is an error even where bad rows are dropped, because no row of it is more wrong than another. `months`:
    bars of calendar months or quarters, whose length varies.
    """
    if months:
        return
    wall = rows.columns["utc"] if seconds <= 3600 else to_local(rows.columns["utc"], zone)
    step = np.diff(wall)
    edges = np.flatnonzero(np.diff(step != seconds, prepend=False, append=False))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        values, counts = np.unique(step[start:stop], return_counts=True)
        if stop - start >= _RUN and 2 * counts.max() >= stop - start:
            raise rows.error(
                int(start) + 1,
                f"from here on {stop - start} bars are {_length(int(values[counts.argmax()]))} apart, though bars last "
                f"{_length(seconds)}; split the file into one per length, or give the right seconds",
            )
    if (step < seconds).any():
        early = _early(wall, seconds)
        rows.reject([
            Fault(early, "begins before the bar before ends",
                  lambda row: f"the bar begins {_length(int(step[row - 1]))} after the one before, though bars last "
                  f"{_length(seconds)} (is the zone right?)"),
        ])  # fmt: skip


def _early(wall: np.ndarray, seconds: int) -> np.ndarray:
    """Bars that begin before the last good one ends."""
    early = np.zeros(len(wall), dtype=bool)
    end = wall[0]
    for row, begin in enumerate(wall.tolist()):
        if begin < end:
            early[row] = True
        else:
            end = begin + seconds
    return early


def _length(seconds: int) -> str:
    return f"{seconds // DAY} days" if seconds % DAY == 0 and seconds > DAY else f"{seconds} s"
