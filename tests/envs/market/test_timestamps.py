from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.envs.market.timestamps import parse_stamps, seconds_of_day, show, to_local, to_utc
from troupe.errors import ConfigError


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("text", "seconds", "absolute"),
    [
        ("2016-12-30", at(2016, 12, 30), False),
        ("2016-12-30 17:00:00", at(2016, 12, 30, 17), False),
        ("2016.12.30 17:05", at(2016, 12, 30, 17, 5), False),
        ("2016/1/3 5:07", at(2016, 1, 3, 5, 7), False),
        ("20161230 170001", at(2016, 12, 30, 17, 0, 1), False),
        ("20161230", at(2016, 12, 30), False),
        (" 2016-12-30T17:00:00.999 ", at(2016, 12, 30, 17), False),
        ("2016-12-30T17:00:00Z", at(2016, 12, 30, 17), True),
        ("2016-12-30T17:00:00+02:00", at(2016, 12, 30, 15), True),
        ("2016-12-30 17:00:00-0530", at(2016, 12, 30, 22, 30), True),
        ("1480000000", 1_480_000_000, True),
        ("1480000000999", 1_480_000_000, True),
    ],
)
def test_what_is_a_time(text: str, seconds: int, absolute: bool) -> None:
    stamps = parse_stamps(pa.array([text]))
    assert stamps.valid.tolist() == [True]
    assert (stamps.seconds[0], stamps.absolute[0]) == (seconds, absolute)


@pytest.mark.parametrize(
    "text",
    ["", "30/12/2016", "2016-02-30", "2016-13-01", "2016-00-10", "2016-12-30 24:00", "2016-12-30 10:61", "9999-01-01"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    stamps = parse_stamps(pa.array([text, None, "2016-12-30"]))
    assert stamps.valid.tolist() == [False, False, True]


def test_columns_of_parquet() -> None:
    moment = datetime(2016, 12, 30, 17)
    for kind in ("s", "ms", "us", "ns"):
        stamps = parse_stamps(pa.array([moment, None], type=pa.timestamp(kind)))
        assert stamps.seconds[0] == at(2016, 12, 30, 17) and stamps.valid.tolist() == [True, False]
        assert not stamps.absolute.any()
    zoned = parse_stamps(
        pa.array([moment.replace(tzinfo=timezone(timedelta(hours=2)))], type=pa.timestamp("us", "UTC"))
    )
    assert zoned.seconds[0] == at(2016, 12, 30, 15) and zoned.absolute[0]
    assert parse_stamps(pa.array([date(2016, 12, 30)])).seconds[0] == at(2016, 12, 30)
    assert parse_stamps(pa.array([1_480_000_000])).seconds[0] == 1_480_000_000
    assert parse_stamps(pa.array([1_480_000_000_000.0])).seconds[0] == 1_480_000_000


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(at(1980, 1, 1), at(2035, 1, 1)), min_size=1, max_size=20),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_zones_are_those_of_zoneinfo(instants: list[int], zone: str) -> None:
    utc = np.array(instants)
    local = to_local(utc, zone)
    clocks = [datetime.fromtimestamp(instant, ZoneInfo(zone)) for instant in instants]
    assert local.tolist() == [int(clock.replace(tzinfo=UTC).timestamp()) for clock in clocks]
    back, exists = to_utc(local, zone)
    assert exists.all()
    # Of an hour that is shown twice, the later: never before the instant, and off by no more than what was repeated.
    for instant, found, clock in zip(instants, back.tolist(), clocks, strict=True):
        later = int(clock.replace(fold=1).timestamp())
        assert found in (later, instant) and found >= instant


def test_a_clock_that_is_set_forward_skips_an_hour() -> None:
    # Berlin, 27 March 2016: 02:00 is 03:00, which is 01:00 UTC.
    local = np.array([at(2016, 3, 27, 1, 59), at(2016, 3, 27, 2, 30), at(2016, 3, 27, 3)])
    utc, exists = to_utc(local, "Europe/Berlin")
    assert exists.tolist() == [True, False, True]
    assert utc.tolist() == [at(2016, 3, 27, 0, 59), at(2016, 3, 27, 1), at(2016, 3, 27, 1)]


def test_a_repeated_hour_is_told_by_its_rows() -> None:
    # Berlin, 30 October 2016: 03:00 is 02:00 again, which is 01:00 UTC.
    hours = [(1, 30), (2, 0), (2, 30), (2, 0), (2, 30), (3, 0)]
    utc, _ = to_utc(np.array([at(2016, 10, 30, *hour) for hour in hours]), "Europe/Berlin")
    assert np.diff(utc).tolist() == [1800] * 5
    alone, _ = to_utc(np.array([at(2016, 10, 30, 2)]), "Europe/Berlin")
    assert alone[0] == at(2016, 10, 30, 1)  # the second one: not too early


def test_times_of_day_and_zones_that_are_none() -> None:
    assert (seconds_of_day("24:00"), seconds_of_day("9:30")) == (86_400, 34_200)
    for text in ("24:01", "9.30", "12:60", ""):
        with pytest.raises(ConfigError, match="day_close"):
            seconds_of_day(text)
    with pytest.raises(ConfigError, match="did you mean 'Europe/London'"):
        to_utc(np.array([0]), "Europe/Londn")


def test_show() -> None:
    assert (show(at(2016, 12, 30)), show(at(2016, 12, 30, 17))) == ("2016-12-30", "2016-12-30 17:00:00")
