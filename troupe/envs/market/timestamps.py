"""Time stamps: text and wall clocks to seconds since 1970 UTC, without a loop over the rows.

A wall clock that is set forward skips an hour, and one that is set back shows an hour twice. A time in the skipped hour
does not exist. A time in the repeated hour is the second one, unless the rows show the repeat (they fall back): a bar
is then never dated too early, which would let a decision see its close before it was known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np

from troupe.errors import ConfigError, did_you_mean

__all__ = ["DAY", "Stamps", "check_zone", "parse_stamps", "seconds_of_day", "show", "to_local", "to_utc"]

DAY = 86_400

_STAMP = (
    r"^(?:(?P<y>\d{4})[-./](?P<m>\d{1,2})[-./](?P<d>\d{1,2})|(?P<cy>\d{4})(?P<cm>\d{2})(?P<cd>\d{2}))"
    r"(?:[T ]*(?P<H>\d{1,2}):?(?P<M>\d{2})(?::?(?P<S>\d{2})(?:[.,]\d+)?)?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)
_EPOCH = {r"^\d{9,10}$": 1, r"^\d{13}$": 1_000, r"^\d{16}$": 1_000_000, r"^\d{19}$": 1_000_000_000}


@dataclass(frozen=True, eq=False)
class Stamps:
    """Times as they are written. Fractions of a second are cut off."""

    seconds: np.ndarray  # int64 [N]: since 1970, on the wall clock of the file, or in UTC where `absolute`
    absolute: np.ndarray  # bool [N]: written with an offset, or as seconds since 1970
    valid: np.ndarray  # bool [N]: is a time at all


def show(seconds: float) -> str:
    """A time as errors print it: `2016-12-30`, or `2016-12-30 17:00:00`, in UTC."""
    text = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
    return text.removesuffix(" 00:00:00")


def seconds_of_day(text: str) -> int:
    """Seconds of `HH:MM`, up to `24:00`. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 if match else -1
    if not (match and 0 <= seconds <= DAY and int(match[2]) < 60):
        raise ConfigError(f"day_close={text!r} is not a time of day; write HH:MM, up to 24:00")
    return seconds


def check_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises ConfigError for no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name is that of a folder
        hint = did_you_mean(name, available_timezones())
        raise ConfigError(
            f"there is no time zone {name!r}{hint if 'mean' in hint else ''}; write a name like Europe/London"
        ) from error


def parse_stamps(column: Any) -> Stamps:
    """The times of a pyarrow array of text, dates, timestamps or numbers (seconds since 1970; milli-, micro- and
    nanoseconds are recognised by their size).

    Text is ISO 8601 or near it: `2016-12-30`, `2016.12.30 17:00`, `20161230 170000`, `2016-12-30T17:00:00+02:00`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
        instants = pc.cast(column, pa.timestamp("us", column.type.tz if zoned else None), safe=False)
        valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
        ticks = pc.fill_null(pc.cast(instants, pa.int64()), 0).to_numpy(zero_copy_only=False)
        return Stamps(ticks // 1_000_000, np.full(len(ticks), zoned), valid)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = pc.cast(pc.cast(column, pa.int64(), safe=False), pa.string())
    text = pc.fill_null(pc.utf8_trim_whitespace(column), "")
    stamps = _calendar(text)
    for pattern, scale in _EPOCH.items():
        rows = pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)
        if rows.any():
            stamps.seconds[rows] = pc.cast(text.filter(pa.array(rows)), pa.int64()).to_numpy() // scale
            stamps.absolute[rows] = stamps.valid[rows] = True
    return stamps


def _calendar(text: Any) -> Stamps:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.extract_regex(text, _STAMP)
    found = pc.is_valid(parts).to_numpy(zero_copy_only=False)

    def number(*names: str) -> np.ndarray:
        digits = pc.binary_join_element_wise(*(pc.fill_null(pc.struct_field(parts, name), "") for name in names), "")
        digits = pc.if_else(pc.equal(digits, ""), "0", digits)
        return pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)

    months = (number("y", "cy") - 1970) * 12 + number("m", "cm") - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + number("d", "cd") - 1
    hour, minute, second = number("H"), number("M"), number("S")
    # 31 April would silently be 1 May: the month must still be the written one.
    valid = found & (days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) == months)
    valid &= (number("m", "cm") >= 1) & (number("m", "cm") <= 12) & (hour < 24) & (minute < 60) & (second < 60)
    seconds = days * DAY + hour * 3600 + minute * 60 + second
    valid &= (months >= -170 * 12) & (months < 230 * 12)  # years 1800 to 2199; others are slips
    zones = pc.fill_null(pc.struct_field(parts, "zone"), "")
    absolute = pc.not_equal(zones, "").to_numpy(zero_copy_only=False) & valid
    if absolute.any():
        encoded = zones.dictionary_encode()
        offsets = np.array([_offset(zone) for zone in encoded.dictionary.to_pylist()], dtype=np.int64)
        seconds = seconds - offsets[encoded.indices.to_numpy(zero_copy_only=False)]
    return Stamps(np.where(valid, seconds, 0), np.array(absolute), np.array(valid))


def _offset(zone: str) -> int:
    if zone in ("", "Z", "UTC", "GMT"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)


def to_local(utc: np.ndarray, zone: str) -> np.ndarray:
    """What a wall clock in `zone` shows, as seconds since 1970 of that clock. Raises ConfigError for no such zone."""
    if zone == "UTC" or len(utc) == 0:
        return utc
    starts, offsets = _offsets(zone, int(utc.min()), int(utc.max()))
    return utc + offsets[np.searchsorted(starts, utc, side="right") - 1]


def to_utc(local: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since 1970 UTC of the times that a wall clock in `zone` shows, and whether that time exists.

    One that does not exist is the instant at which the clock is set. Raises ConfigError for no such zone.
    """
    if zone == "UTC" or len(local) == 0:
        return local, np.ones(len(local), dtype=bool)
    starts, offsets = _offsets(zone, int(local.min()) - DAY, int(local.max()) + DAY)
    begins = starts + offsets
    ends = np.append(starts[1:], np.iinfo(np.int64).max - DAY) + offsets
    era = np.searchsorted(begins, local, side="right") - 1
    exists = local < ends[era]
    utc = np.where(exists, local - offsets[era], ends[era] - offsets[era])
    before = np.maximum(era - 1, 0)
    twice = np.flatnonzero((era > 0) & (local < ends[before]))
    for run in np.split(twice, np.flatnonzero(np.diff(twice) > 1) + 1):
        falls = np.flatnonzero(np.diff(local[run]) <= 0)
        if len(falls):
            first = run[: falls[0] + 1]
            utc[first] = local[first] - offsets[before[first]]
    return utc, exists


def _offsets(zone: str, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Since when (UTC) which offset holds: looked up once a day, and between two days that differ to the second."""
    clock = check_zone(zone)

    def offset(instant: int) -> int:
        shift = datetime.fromtimestamp(instant, clock).utcoffset()
        assert shift is not None  # a time with a zone has one
        return round(shift.total_seconds())

    starts, offsets = [first - 2 * DAY], [offset(first - 2 * DAY)]
    for day in range(first - DAY, last + 3 * DAY, DAY):
        if offset(day) != offsets[-1]:
            low, high = day - DAY, day
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            starts.append(high)
            offsets.append(offset(high))
    return np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64)
