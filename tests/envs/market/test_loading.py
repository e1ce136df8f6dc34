"""Files of bars: what is read, what is refused, and the public bars where TROUPE_DATA points at them."""

from __future__ import annotations

import gzip
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from troupe.envs.market.alignment import fit_universe
from troupe.envs.market.instruments import conversion_rates, instrument
from troupe.envs.market.loading import BarFormat, ExtraSeries, load_bars, load_with_reports
from troupe.errors import ConfigError, DataError

HOURS = """time,open,high,low,close,tick_volume
2016-12-29 00:00:00,1.0,1.5,0.5,1.2,10
2016-12-29 01:00:00,1.2,1.6,1.1,1.3,11
2016-12-29 02:00:00,1.3,1.7,1.2,1.4,
2016-12-29 03:00:00,1.4,1.8,1.3,1.5,13
"""
DAYS = "date,close\n2016-12-28,5\n2016-12-29,6\n2016-12-30,7\n"


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


def written(folder: Path, text: str, name: str = "GBPUSD_h1.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def hourly(lines: list[str]) -> str:
    """Hourly or other bars at these stamps, all prices 1."""
    return "time,open,high,low,close\n" + "".join(f"{line},1,1,1,1\n" for line in lines)


# --- what is read -----------------------------------------------------------------------------------------------


def test_hours_by_hand(tmp_path: Path) -> None:
    bars, (report,) = load_with_reports(written(tmp_path, HOURS))
    assert bars.instruments == ("GBPUSD",)
    assert bars.times.tolist() == [at(2016, 12, 29, hour) for hour in (1, 2, 3, 4)]  # stamps are opens
    assert bars.open[:, 0].tolist() == [1.0, 1.2, 1.3, 1.4] and bars.high[:, 0].tolist() == [1.5, 1.6, 1.7, 1.8]
    assert bars.low[:, 0].tolist() == [0.5, 1.1, 1.2, 1.3] and bars.close[:, 0].tolist() == [1.2, 1.3, 1.4, 1.5]
    assert bars.volume[:, 0].tolist() == [10, 11, 0, 13]  # an empty volume is unknown
    assert bars.traded.all() and not bars.close_only.any()
    assert (report.seconds, report.bars, report.gaps, report.dropped) == (3600, 4, (), ())


def test_stamps_that_are_closes(tmp_path: Path) -> None:
    bars = load_bars(written(tmp_path, HOURS), BarFormat(stamp="close"))
    assert bars.times.tolist() == [at(2016, 12, 29, hour) for hour in (0, 1, 2, 3)]


def test_days_close_at_the_end_of_their_session(tmp_path: Path) -> None:
    path = written(tmp_path, DAYS, "WTIUSD_d1_close.csv.txt")
    bars = load_bars(path)
    assert bars.instruments == ("WTIUSD",) and bars.close_only.tolist() == [True]
    assert bars.times.tolist() == [at(2016, 12, 29), at(2016, 12, 30), at(2016, 12, 31)]
    assert bars.open.tolist() == bars.high.tolist() == bars.low.tolist() == bars.close.tolist() == [[5], [6], [7]]
    new_york = load_bars(path, BarFormat(zone="America/New_York", day_close="17:00"), name="OIL")
    assert new_york.times.tolist() == [at(2016, 12, day, 22) for day in (28, 29, 30)] and new_york.instruments == (
        "OIL",
    )
    assert load_bars(path, BarFormat(stamp="close")).times.tolist() == bars.times.tolist()


def test_weeks_close_after_seven_days(tmp_path: Path) -> None:
    path = written(tmp_path, "date,close\n2016-12-05,5\n2016-12-12,6\n2016-12-19,7\n")
    assert load_bars(path).times.tolist() == [at(2016, 12, day) for day in (12, 19, 26)]
    assert load_bars(path, BarFormat(stamp="close")).times.tolist() == [at(2016, 12, day) for day in (6, 13, 20)]


def test_months_have_no_length_in_common(tmp_path: Path) -> None:
    path = written(tmp_path, "date,close\n2016-01-01,5\n2016-02-01,6\n2016-03-01,7\n2016-04-01,8\n")
    bars = load_bars(path)  # 31 days each: never before the month is over
    assert bars.times.tolist() == [at(2016, 2, 1), at(2016, 3, 3), at(2016, 4, 1), at(2016, 5, 2)]


def test_an_export_of_a_terminal(tmp_path: Path) -> None:
    text = (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2016.12.29\t00:00:00\t1\t1.5\t0.5\t1.2\t7\t0\t3\n2016.12.29\t04:00:00\t1\t1.5\t0.5\t1.2\t8\t0\t3\n"
    )
    bars, (report,) = load_with_reports(written(tmp_path, text), BarFormat(zone="Europe/Athens"))
    assert bars.times.tolist() == [at(2016, 12, 29, 2), at(2016, 12, 29, 6)]
    assert bars.volume[:, 0].tolist() == [7, 8] and report.ignored == ("vol", "spread")
    assert "columns not read: vol, spread" in report.summary()


def test_a_file_without_names(tmp_path: Path) -> None:
    path = written(tmp_path, "20161229 000000;1;2;1;2;0\n20161229 000100;2;2;1;1;0\n")
    bars = load_bars(path, BarFormat(header=("date", "open", "high", "low", "close", "volume")))
    assert bars.times.tolist() == [at(2016, 12, 29, 0, 1), at(2016, 12, 29, 0, 2)]


def test_gzip_and_parquet_are_as_text(tmp_path: Path) -> None:
    bars = load_bars(written(tmp_path, HOURS))
    packed = tmp_path / "GBPUSD_h1.csv.gz"
    packed.write_bytes(gzip.compress(HOURS.encode()))
    columns = {
        "Date": pa.array([datetime(2016, 12, 29, hour) for hour in range(4)], type=pa.timestamp("ns")),
        "Open": bars.open[:, 0], "High": bars.high[:, 0], "Low": bars.low[:, 0], "Close": bars.close[:, 0],
        "Volume": pa.array([10, 11, None, 13]),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "GBPUSD_h1.parquet")
    for path in (packed, tmp_path / "GBPUSD_h1.parquet"):
        other = load_bars(path)
        assert other.instruments == bars.instruments
        for name in ("times", "open", "high", "low", "close", "volume"):
            np.testing.assert_array_equal(getattr(other, name), getattr(bars, name))


def test_four_hours_on_a_wall_clock_on_the_days_it_is_set(tmp_path: Path) -> None:
    # Athens, 27 March 2016, 03:00 is 04:00 (01:00 UTC): the bar of 00:00 lasts three hours.
    stamps = [f"2016-03-{day} {hour:02d}:00" for day in (26, 27, 28) for hour in range(0, 24, 4)]
    bars = load_bars(written(tmp_path, hourly(stamps)), BarFormat(zone="Europe/Athens"))
    lengths = (np.diff(bars.times) // 3600).tolist()
    assert sorted(lengths) == [3] + [4] * 16 and bars.times[6] == at(2016, 3, 27, 1)
    # 30 October, 04:00 is 03:00 (01:00 UTC): the bar of 00:00 lasts five hours, and is not known after four.
    stamps = [f"2016-10-{day} {hour:02d}:00" for day in (29, 30, 31) for hour in range(0, 24, 4)]
    bars = load_bars(written(tmp_path, hourly(stamps)), BarFormat(zone="Europe/Athens"))
    assert bars.times[6] == at(2016, 10, 30, 2)


def test_an_hour_that_the_clock_shows_twice(tmp_path: Path) -> None:
    stamps = [f"2016-10-30 {hour:02d}:00" for hour in (0, 1, 2, 2, 3, 4)]
    bars = load_bars(written(tmp_path, hourly(stamps)), BarFormat(zone="Europe/Berlin"))
    assert np.diff(bars.times).tolist() == [3600] * 5


def test_several_files_with_a_format_each(tmp_path: Path) -> None:
    files = {"A": written(tmp_path, HOURS, "a.csv"), "B": written(tmp_path, HOURS, "b.csv")}
    bars = load_bars(files, {"B": BarFormat(stamp="close")})
    assert bars.instruments == ("A", "B") and bars.times.tolist() == [at(2016, 12, 29, hour) for hour in range(5)]
    assert bars.traded.T.tolist() == [[False, True, True, True, True], [True, True, True, True, False]]
    assert len(load_bars(files, {"B": BarFormat(stamp="close")}, clock="intersection")) == 3


# --- extra columns ----------------------------------------------------------------------------------------------


def test_extra_columns_show_what_was_known(tmp_path: Path) -> None:
    bars = written(tmp_path, HOURS)
    days = written(tmp_path, "date,close\n2016-12-27,1\n2016-12-28,2\n2016-12-29,3\n", "vix.csv")
    news = written(tmp_path, "time,mood\n2016-12-29 01:30,-1\n2016-12-29 02:30,-2\n", "news.csv")
    found = load_bars(bars, extra={"vix": days, "mood": ExtraSeries(news, lag=1800, before=0.0)})
    assert found.extra_names == ("vix", "mood")
    assert found.extra[:, 0].tolist() == [2, 2, 2, 2]  # 29 December is not known before its end
    assert found.extra[:, 1].tolist() == [0, -1, -1 - 1, -2]  # 01:30 and half an hour: known at 02:00
    with pytest.raises(DataError, match="extra column 'mood' is first known at"):
        load_bars(bars, extra={"mood": news})


def test_an_extra_column_is_named_or_the_only_one(tmp_path: Path) -> None:
    bars = written(tmp_path, HOURS)
    wide = written(tmp_path, "date,Fed Rate,cpi\n2016-12-01,0.5,-1\n2016-12-02,0.75,2\n", "macro.csv")
    found = load_bars(
        bars, extra={"rate": ExtraSeries(wide, column="Fed Rate"), "cpi": ExtraSeries(wide, column="cpi")}
    )
    assert found.extra[0].tolist() == [0.75, 2]
    with pytest.raises(DataError, match="columns fed_rate, cpi; say which one"):
        load_bars(bars, extra={"macro": wide})
    with pytest.raises(DataError, match=r"no column 'fed rte' .did you mean 'fed_rate'"):
        load_bars(bars, extra={"macro": ExtraSeries(wide, column="fed rte")})
    holes = written(tmp_path, "date,close\n2016-12-01,1\n2016-12-02,.\n2016-12-03,3\n", "holes.csv")
    with pytest.raises(DataError, match=r"holes.csv, line 3: close is '.', not a finite number"):
        load_bars(bars, extra={"x": holes})
    assert load_bars(bars, extra={"x": ExtraSeries(holes, on_error="drop")}).extra[0].tolist() == [3]


# --- what is refused --------------------------------------------------------------------------------------------

GOOD = [f"2016-12-{day} {hour:02d}:00" for day in (28, 29) for hour in range(24)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tick_volume\n", "tick_volume,Open\n", "two columns named 'open'"),
        ("time,", "when,", r"no column of times; name it date, time, datetime or timestamp \(found: when, open"),
        (",high,", ",top,", r"no column high \(found: time, open, top"),
        ("close", "shut", r"no column close \(found"),
        ("2016-12-29 01", "29/12/2016 01", "line 3: '29/12/2016 01:00:00' is not a time; write 2016-12-30"),
        ("1.6,1.1", "1.6,abc", "line 3: low is 'abc', not a finite number"),
        ("1.6,1.1", "1.6,", "line 3: low is '', not a finite number"),
        ("1.6,1.1", "1.6,nan", "line 3: low is 'nan', not a finite number"),
        ("1.6,1.1", "inf,1.1", "line 3: high is 'inf', not a finite number"),
        ("1.6,1.1", "1.6,0", "line 3: low is 0; prices are above 0"),
        ("1.6,1.1", "1.6,-1.1", "line 3: low is -1.1; prices are above 0"),
        ("1.6,1.1", "1.25,1.1", "line 3: high is not highest: open 1.2, high 1.25, low 1.1, close 1.3"),
        ("1.6,1.1", "1.6,1.25", "line 3: low is not lowest"),
        ("1.3,11", "1.3,-11", "line 3: volume is -11, below 0"),
        ("1.3,11", "1.3,many", "line 3: tick_volume is 'many', not a finite number"),
        ("1.3,11", "1.3,11,12", "line 3: has 7 cells where there are 6 columns"),
        ("2016-12-29 01", "2016-12-29 00", "line 3: 2016-12-29 UTC is there twice"),
        ("2016-12-29 02", "2016-12-28 02", "line 4: 2016-12-28 02:00:00 UTC comes after 2016-12-29 01:00:00; sort"),
        ("29 01:00", "29 00:30", "line 3: the bar begins 1800 s after the one before, though bars last 3600 s"),
    ],
)  # fmt: skip
def test_bad_rows_are_one_sentence_with_their_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert HOURS.count(old) == 1
    path = written(tmp_path, HOURS.replace(old, new))
    with pytest.raises(DataError, match=says) as caught:
        load_bars(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    if "line" in says:  # a bad row; dropped, the other three are bars
        bars, (report,) = load_with_reports(path, BarFormat(on_error="drop"))
        assert len(bars) == 3 and report.dropped[0].startswith("1 rows of GBPUSD_h1.csv dropped: ")
        assert says.split(":")[0] in report.dropped[0]


def test_what_is_dropped_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = hourly(GOOD).replace("2016-12-28 05:00,1,1,1,1", "2016-12-28 05:00,x,1,1,1")
    rows = rows.replace("2016-12-28 07:00,1,1,1,1", "2016-12-28 07:00,1,1,1,0")
    rows = rows.replace("2016-12-28 08:00,1,1,1,1", "2016-12-28 08:00,1,1,1,0")
    with caplog.at_level(logging.WARNING):
        bars, (report,) = load_with_reports(written(tmp_path, rows), BarFormat(on_error="drop"))
    assert len(bars) == 45
    assert report.dropped == (
        "1 rows of GBPUSD_h1.csv dropped: open not a number (first in line 7)",
        "2 rows of GBPUSD_h1.csv dropped: close not above 0 (first in line 9)",
    )
    assert [record.message for record in caplog.records] == list(report.dropped)
    assert [(gap.line, gap.since, gap.seconds) for gap in report.gaps] == [
        (8, at(2016, 12, 28, 5), 3600), (11, at(2016, 12, 28, 7), 7200),
    ]  # fmt: skip
    assert "2 gaps, the longest 0.1 days since 2016-12-28 07:00:00" in report.summary()


def test_gaps_are_an_error_beyond_the_longest(tmp_path: Path) -> None:
    path = written(tmp_path, hourly(GOOD[:10] + GOOD[15:]))
    assert len(load_bars(path, BarFormat(max_gap=5 * 3600))) == 43
    with pytest.raises(DataError, match="line 12: no bar for 18000 s since 2016-12-28 10:00:00 UTC"):
        load_bars(path, BarFormat(max_gap=4 * 3600))


def test_a_weekend_of_days_is_a_gap_and_no_error(tmp_path: Path) -> None:
    path = written(tmp_path, "date,close\n2016-12-22,1\n2016-12-23,1\n2016-12-26,1\n2016-12-27,1\n")
    _, (report,) = load_with_reports(path)
    assert [(gap.line, gap.since, gap.seconds) for gap in report.gaps] == [(4, at(2016, 12, 24), 2 * 86_400)]


@pytest.mark.parametrize("on_error", ["raise", "drop"])
def test_bars_of_two_lengths_are_an_error(tmp_path: Path, on_error: str) -> None:
    days = [f"2016-11-{day:02d} 00:00" for day in range(1, 29)]
    with pytest.raises(DataError, match=r"line 3: from here on 28 bars are 86400 s apart, though bars last 3600 s"):
        load_bars(written(tmp_path, hourly(days + GOOD)), BarFormat(on_error=on_error))
    halves = [f"2016-12-30 {hour:02d}:{minute}" for hour in range(12) for minute in ("00", "30")]
    with pytest.raises(DataError, match=r"line 51: from here on 23 bars are 1800 s apart"):
        load_bars(written(tmp_path, hourly(GOOD + halves)), BarFormat(on_error=on_error))
    with pytest.raises(DataError, match="bars are 3600 s apart, though bars last 60 s"):
        load_bars(written(tmp_path, hourly(GOOD)), BarFormat(seconds=60, on_error=on_error))


def test_a_time_that_its_zone_skips(tmp_path: Path) -> None:
    path = written(tmp_path, hourly([f"2016-03-27 {hour:02d}:00" for hour in range(6)]))
    with pytest.raises(DataError, match=r"line 4: '2016-03-27 02:00' does not exist in Europe/Berlin"):
        load_bars(path, BarFormat(zone="Europe/Berlin"))
    assert len(load_bars(path, BarFormat(zone="Europe/Berlin", on_error="drop"))) == 5


def test_files_without_bars(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_bars(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is empty"):
        load_bars(written(tmp_path, ""))
    with pytest.raises(DataError, match="holds 0 usable rows; two or more"):
        load_bars(written(tmp_path, "date,close\n"))
    with pytest.raises(
        DataError, match=r"holds 1 usable rows \(1 rows of .* dropped: close not above 0 .first in line 3"
    ):
        load_bars(written(tmp_path, "date,close\n2016-12-29,1\n2016-12-30,0\n"), BarFormat(on_error="drop"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stamp": "middle"}, "stamp='middle' must be open or close"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"zone": "Europe/Parris"}, "did you mean 'Europe/Paris'"),
        ({"day_close": "25:00"}, "day_close='25:00'"),
        ({"seconds": 0}, "seconds=0"),
        ({"max_gap": -1.0}, "max_gap=-1.0"),
    ],
)
def test_formats_that_cannot_be(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BarFormat(**options)


def test_options_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HOURS)
    with pytest.raises(ConfigError, match="name='X' is for one file"):
        load_bars({"A": path}, name="X")
    with pytest.raises(ConfigError, match="a format for 'B' but no file"):
        load_bars({"A": path}, {"B": BarFormat()})


# --- speed ------------------------------------------------------------------------------------------------------


def test_a_year_of_ten_thousands_of_rows_takes_less_than_a_second(tmp_path: Path) -> None:
    stamps = np.arange(25_000) * 3600 + at(2012, 1, 2)
    text = np.datetime_as_string(stamps.astype("datetime64[s]"))
    path = written(tmp_path, hourly([stamp.replace("T", " ") for stamp in text]))
    load_bars(path)
    start = time.process_time()
    assert len(load_bars(path)) == 25_000
    assert time.process_time() - start < 1.0  # 0.1 s when written


# --- public bars ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def markets() -> Path:
    if "TROUPE_DATA" not in os.environ:
        pytest.skip("TROUPE_DATA does not name the folder of data sets")
    return Path(os.environ["TROUPE_DATA"]) / "markets"


def test_every_public_file_loads(markets: Path) -> None:
    rows = {"EURUSD_h4": 6353, "GBPUSD_h1": 25_453, "USDJPY_h1": 25_454, "XAUUSD_h1": 27_160, "XAUUSD_d1": 1065,
            "SPX500_d1": 4529, "NASDAQ_COMPOSITE_d1": 4529, "WTIUSD_d1_close": 7820, "VIX_d1_close": 755,
            "US30_d1": 2014}  # fmt: skip
    lengths = {"h1": 3600, "h4": 14_400, "d1": 86_400}
    files = sorted(markets.glob("*.csv.gz"))
    assert len(files) == 18
    for path in files:
        stem = path.name.removesuffix(".csv.gz")
        bars, (report,) = load_with_reports(path)
        assert len(bars) == rows.get(stem, 1058) and report.dropped == ()
        assert report.seconds == lengths[stem.removesuffix("_close").rsplit("_", 1)[1]]
        assert report.close_only == stem.endswith("_close")
        assert bars.instruments[0] == stem.removesuffix("_close").rsplit("_", 1)[0]
        assert report.last == at(2016, 12, 31)
        instrument(bars.instruments[0])  # each is in the table


def test_the_daily_universe(markets: Path) -> None:
    files = {path.name.split("_d1")[0]: path for path in sorted(markets.glob("*_d1*"))}
    bars = load_bars(files)
    assert len(bars.instruments) == 14
    kept = fit_universe(bars, [*files, "NAS100"], min_bars=1000, episode_length=1000, warmup=50)
    assert set(files) - set(kept.bars.instruments) == {"VIX"} and len(kept.messages) == 2
    assert len(kept.bars) > 1050 and kept.episode_length == 1000
    assert 255 < kept.bars.periods_per_year < 262
    rates = conversion_rates(kept.bars, [instrument(name) for name in kept.bars.instruments])
    yen = rates[:, kept.bars.instruments.index("EURJPY")]
    assert ((yen > 1 / 130) & (yen < 1 / 75)).all()


def test_the_hourly_universe(markets: Path) -> None:
    bars = load_bars({name: markets / f"{name}_h1.csv.gz" for name in ("GBPUSD", "USDJPY", "XAUUSD")})
    kept = fit_universe(bars, bars.instruments, min_bars=20_000, episode_length=1000, warmup=50)
    assert kept.messages == () and 25_454 <= len(kept.bars) < 25_700
    assert 6100 < kept.bars.periods_per_year < 6250  # about 24 x 5 x 52
