from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.market.walks import walk
from troupe.envs.market.alignment import add_extra, align, fit_universe
from troupe.envs.market.bars import Bars
from troupe.errors import ConfigError, DataError


def series(times: list[int], closes: list[float], open: float = 0.5) -> Bars:
    close = np.array(closes)[:, None]
    opens = np.concatenate([[[open]], close[:-1]])
    return Bars(
        ("X",), np.array(times), opens, np.maximum(opens, close), np.minimum(opens, close), close,
        np.full(close.shape, 7.0), np.ones(close.shape, dtype=bool), np.zeros(1, dtype=bool),
    )  # fmt: skip


A = series([10, 20, 30], [1.0, 2.0, 3.0])
B = series([20, 25, 40], [5.0, 6.0, 7.0], open=4.5)


def test_union_by_hand() -> None:
    bars = align({"A": A, "B": B})
    assert bars.instruments == ("A", "B") and bars.times.tolist() == [10, 20, 25, 30, 40]
    assert bars.close.T.tolist() == [[1, 2, 2, 3, 3], [4.5, 5, 6, 6, 7]]
    assert bars.open.T.tolist() == [[0.5, 1, 2, 2, 3], [4.5, 4.5, 5, 6, 6]]
    assert bars.traded.T.tolist() == [[True, True, False, True, False], [False, True, True, False, True]]
    assert bars.volume.T.tolist() == [[7, 7, 0, 7, 0], [0, 7, 7, 0, 7]]
    assert bars.high.T.tolist() == [[1, 2, 2, 3, 3], [4.5, 5, 6, 6, 7]]


def test_the_calendar_of_one() -> None:
    bars = align({"A": A, "B": B}, clock="A")
    assert bars.times.tolist() == [10, 20, 30]
    assert bars.close[:, 1].tolist() == [4.5, 5, 6]  # the close of 25, the last before 30
    assert bars.traded[:, 1].tolist() == [False, True, False]


def test_intersection() -> None:
    with pytest.raises(DataError, match="share 1 closing times"):
        align({"A": A, "B": B}, clock="intersection")
    longer = series([20, 30, 40], [5.0, 6.0, 7.0])
    assert align({"A": A, "B": longer}, clock="intersection").times.tolist() == [20, 30]


def test_what_did_not_trade_in_its_own_series_does_not_trade_here() -> None:
    bars = align({"A": replace(A, traded=np.array([[True], [False], [True]]))})
    assert bars.traded[:, 0].tolist() == [True, False, True]


def test_an_aligned_row_knows_nothing_later() -> None:
    """Every row is the same when the series end with it."""
    parts = {
        name: walk(seed, 40, 1, holes=0, step=step) for seed, (name, step) in enumerate([("A", 3600), ("B", 5400)])
    }
    whole = align(parts)
    for stop in (30, 45):
        now = whole.times[stop - 1]
        cut = align({name: part.between(0, int((part.times <= now).sum())) for name, part in parts.items()})
        for name in ("times", "open", "high", "low", "close", "volume", "traded"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name)[:stop])


def test_what_cannot_be_aligned_is_one_sentence() -> None:
    with pytest.raises(DataError, match="no series"):
        align({})
    with pytest.raises(ConfigError, match=r"no clock 'unoin' .did you mean 'union'"):
        align({"A": A}, clock="unoin")
    with pytest.raises(DataError, match="series 'A' holds A, B"):
        align({"A": walk(0, m=2)})


# --- extra columns ----------------------------------------------------------------------------------------------


def test_extra_is_what_was_known_by_hand() -> None:
    bars = series([10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0])
    times, values = np.array([10, 21, 30]), np.array([1.0, 2.0, 3.0])
    assert add_extra(bars, "m", times, values).extra[:, 0].tolist() == [1, 1, 3, 3]
    late = add_extra(bars, "m", times, values, lag=9.5, before=-1.0)
    assert late.extra[:, 0].tolist() == [-1, 1, 1, 3] and late.extra_names == ("m",)
    both = add_extra(late, "n", times, values)
    assert both.extra_names == ("m", "n") and both.extra[:, 1].tolist() == [1, 1, 3, 3]


def test_extra_that_cannot_be() -> None:
    times, values = np.array([15, 25]), np.array([1.0, 2.0])
    with pytest.raises(DataError, match=r"first known at .* the bars begin at"):
        add_extra(A, "m", times, values)
    with pytest.raises(ConfigError, match="lag=-1"):
        add_extra(A, "m", times, values, lag=-1)
    with pytest.raises(DataError, match="already have"):
        add_extra(add_extra(A, "m", times, values, before=0.0), "m", times, values, before=0.0)
    with pytest.raises(DataError, match="times must rise"):
        add_extra(A, "m", times[::-1], values, before=0.0)


# --- universe ---------------------------------------------------------------------------------------------------


def long(first: int, last: int) -> Bars:
    return series(list(range(first, last)), [1.0 + k for k in range(last - first)])


def test_a_universe_that_fits_is_left_alone() -> None:
    bars = align({"A": long(0, 50), "B": long(0, 50)})
    found = fit_universe(bars, ["B", "A"], min_bars=50, episode_length=30, warmup=10)
    assert found.bars.instruments == ("B", "A") and found.messages == () and found.episode_length == 30
    assert len(found.bars) == 50


def test_what_does_not_reach_back_is_left_out_with_a_sentence() -> None:
    bars = align({"A": long(0, 100), "B": long(80, 100), "C": long(40, 100), "D": long(0, 60)})
    found = fit_universe(bars, ["A", "B", "C", "D", "E"], min_bars=50, episode_length=1000, warmup=9)
    # B is too short; C and D share 20 bars: without C there are 60, without D 60, and C comes first.
    assert found.bars.instruments == ("A", "D") and found.bars.times.tolist() == list(range(60))
    assert found.episode_length == 50  # rows 9..59
    assert [message.split()[0] for message in found.messages] == ["B", "E", "C", "episodes"]
    assert "it has 20 bars, since 1970-01-01 00:01:20; 50 are needed" in found.messages[0]


def test_rows_of_what_was_left_out_go() -> None:
    bars = align({"A": long(0, 30), "B": series([5, 1000], [1.0, 2.0])})
    found = fit_universe(bars, ["A", "B"], min_bars=10, episode_length=5)
    assert found.bars.instruments == ("A",) and found.bars.times.tolist() == list(range(30))


def test_nothing_left_is_an_error() -> None:
    bars = align({"A": long(0, 30)})
    with pytest.raises(DataError, match="no instrument has enough bars: A is left out"):
        fit_universe(bars, ["A"], min_bars=31, episode_length=5)
    with pytest.raises(DataError, match="too few for 29 to warm up"):
        fit_universe(bars, ["A"], min_bars=3, episode_length=5, warmup=29)
