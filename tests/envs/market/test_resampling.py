from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.envs.market.walks import another_future, same_bits, walk
from troupe.envs.market.bars import Bars
from troupe.envs.market.resampling import resample
from troupe.envs.market.timestamps import to_local
from troupe.errors import ConfigError, DataError

FIELDS = ("times", "open", "high", "low", "close", "volume", "traded", "extra")


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


def hours(first: int, closes: list[float], **changes: np.ndarray) -> Bars:
    close = np.array(closes)[:, None]
    bars = Bars(
        ("X",), first + 3600 * np.arange(1, len(close) + 1), close - 0.5, close + 1, close - 0.75, close,
        np.full(close.shape, 2.0), np.ones(close.shape, dtype=bool), np.zeros(1, dtype=bool),
    )  # fmt: skip
    return replace(bars, **changes)


def test_four_hours_by_hand() -> None:
    bars = hours(at(2015, 1, 5), [5, 6, 4, 7, 8, 9, 3, 2, 1])
    found = resample(bars, 4 * 3600)
    assert found.times.tolist() == [at(2015, 1, 5, 4), at(2015, 1, 5, 8)]  # the ninth hour is of a bar to come
    assert found.open[:, 0].tolist() == [4.5, 7.5] and found.close[:, 0].tolist() == [7, 2]
    assert found.high[:, 0].tolist() == [8, 10] and found.low[:, 0].tolist() == [3.25, 1.25]
    assert found.volume[:, 0].tolist() == [8, 8] and found.traded.all()


def test_what_did_not_trade_adds_nothing() -> None:
    traded = np.array([False, True, True, False] + [False] * 4)[:, None]
    close = [5.0, 6, 4, 4, 4, 4, 4, 4]
    bars = hours(at(2015, 1, 5), close, traded=traded)
    quiet = ~traded
    prices = {name: np.where(quiet, bars.close, getattr(bars, name)) for name in ("open", "high", "low")}
    found = resample(replace(bars, **prices), 4 * 3600)
    assert found.open[:, 0].tolist() == [5.5, 4] and found.high[:, 0].tolist() == [7, 4]
    assert found.low[:, 0].tolist() == [3.25, 4] and found.volume[:, 0].tolist() == [4, 0]
    assert found.traded[:, 0].tolist() == [True, False]


def test_a_first_bar_of_which_the_beginning_is_missing_goes() -> None:
    found = resample(hours(at(2015, 1, 5, 2), [float(k) for k in range(1, 15)]), 4 * 3600)
    assert found.times.tolist() == [at(2015, 1, 5, hour) for hour in (8, 12, 16)]


def test_a_bar_bears_its_own_close_where_the_market_shut_before() -> None:
    bars = hours(at(2015, 1, 5), [float(k) for k in range(1, 13)])
    bars = replace(bars.between(0, 12), times=np.delete(bars.times[0] + 3600 * np.arange(13), 3))  # no fourth hour
    assert resample(bars, 4 * 3600).times.tolist() == [at(2015, 1, 5, 4), at(2015, 1, 5, 8), at(2015, 1, 5, 12)]


def test_extra_columns_are_the_last() -> None:
    bars = hours(at(2015, 1, 5), [1.0] * 8, extra=np.arange(8.0)[:, None], extra_names=("m",))
    assert resample(bars, 4 * 3600).extra[:, 0].tolist() == [3, 7]


def test_days_of_new_york_close_at_five_also_when_the_clock_is_set() -> None:
    bars = walk(0, 24 * 21, 1, holes=0)
    bars = replace(bars, times=at(2015, 2, 27, 22) + 3600 * np.arange(1, 24 * 21 + 1))
    found = resample(bars, 86_400, zone="America/New_York", day_close="17:00")
    assert ((to_local(found.times, "America/New_York") % 86_400) == 17 * 3600).all()
    lengths = np.diff(found.times) // 3600
    assert sorted(set(lengths.tolist())) == [23, 24] and (lengths == 23).sum() == 1  # 8 March


def test_weeks_begin_on_monday() -> None:
    found = resample(walk(0, 24 * 30, 1), 7 * 86_400)  # from Monday, 5 January 2015
    assert found.times.tolist() == [at(2015, 1, day) for day in (12, 19, 26)] + [at(2015, 2, 2)]


def test_a_clock_that_shows_an_hour_twice_keeps_bars_in_order() -> None:
    bars = walk(0, 96, 1, holes=0, step=1800)
    bars = replace(bars, times=at(2016, 10, 29, 12) + 1800 * np.arange(1, 97))
    found = resample(bars, 7200, zone="Europe/Berlin")
    assert (np.diff(found.times) > 0).all()
    for close, volume in zip(found.times, np.cumsum(found.volume), strict=True):
        assert volume <= bars.volume[bars.times <= close].sum()


@pytest.mark.parametrize("seconds", [7200, 14_400, 86_400])
def test_no_bar_holds_anything_after_its_close(seconds: int) -> None:
    bars = walk(3, 24 * 12, 3)
    whole = resample(bars, seconds)
    for row in (60, 100, 191, 250):
        known = int((whole.times <= bars.times[row]).sum())
        cut, other = resample(bars.between(0, row + 1), seconds), resample(another_future(bars, row, 9), seconds)
        assert len(cut) == known
        for name in FIELDS:
            assert same_bits(getattr(cut, name), getattr(whole, name)[:known])
            assert same_bits(getattr(other, name)[:known], getattr(whole, name)[:known])


def test_in_two_steps_as_in_one() -> None:
    bars = walk(4, 24 * 10, 2)
    once, twice = resample(bars, 86_400), resample(resample(bars, 14_400), 86_400)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-14)


@pytest.mark.parametrize(
    ("seconds", "error", "says"),
    [
        (5000, ConfigError, "neither divides a day"),
        (2 * 86_400, ConfigError, "neither divides a day"),
        (0, ConfigError, "seconds=0"),
        (1800, DataError, "cannot be joined"),
        (3600, DataError, "cannot be joined"),
        (7 * 86_400, DataError, "fewer than two whole ones"),
    ],
)
def test_lengths_that_cannot_be(seconds: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resample(walk(0, 100, 1), seconds)


def test_bars_that_straddle_a_close() -> None:
    bars = walk(0, 100, 1)
    with pytest.raises(DataError, match="straddles the close"):
        resample(replace(bars, times=bars.times + 1800), 14_400)
    assert len(resample(replace(bars, times=bars.times + 1800), 14_400, day_close="00:30")) == 25
