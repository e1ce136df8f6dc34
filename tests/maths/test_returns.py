from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from troupe.errors import DataError
from troupe.maths.returns import (
    autocovariances,
    checked_returns,
    drawdown_curve,
    equity_curve,
    is_ruined,
    ratio,
    ratio_or_cash,
    spread,
)

records = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 30)), elements=st.floats(-1.5, 2, width=32))


def test_equity_and_drawdown_by_hand() -> None:
    # 1 -> 1.1 -> 0.55 -> 0.66 -> 1.254; half of the peak 1.1 is lost, then 0.44 of it, and it is passed at the end.
    record = [0.1, -0.5, 0.2, 0.9]
    assert equity_curve(record) == pytest.approx([1, 1.1, 0.55, 0.66, 1.254])
    assert drawdown_curve(record) == pytest.approx([0, 0, 0.5, 0.4, 0])
    assert equity_curve(record, 200.0)[-1] == pytest.approx(250.8)


@pytest.mark.parametrize("loss", [-1.0, -1.7])
def test_ruin_ends_the_account(loss: float) -> None:
    # Without the floor two losses beyond all equity would multiply to a gain.
    assert equity_curve([0.5, loss, loss, 3.0]).tolist() == [1.0, 1.5, 0.0, 0.0, 0.0]
    assert drawdown_curve([0.5, loss, loss, 3.0]).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert is_ruined(np.array([[0.5, loss], [0.5, -0.99]])).tolist() == [True, False]


def test_a_loss_that_is_won_back_leaves_no_rounding_under_water() -> None:
    record = np.tile([0.1, 1 / 1.1 - 1], 20)
    assert equity_curve(record)[2::2] == pytest.approx(np.ones(20))
    assert set(drawdown_curve(record)[1::2]) == {0.0}


def test_spread_is_exactly_zero_for_equal_returns_and_nan_for_one() -> None:
    assert np.std([0.1] * 7, ddof=1) > 0  # a rounding that a ratio would blow up to 1e15
    assert spread(np.array([[0.1] * 7, [0.0] * 6 + [7.0]])) == pytest.approx([0, np.sqrt(7)])
    assert spread(np.array([0.1] * 7)) == 0.0
    assert np.isnan(spread(np.array([0.1])))


def test_ratio_is_nan_where_it_is_not_defined() -> None:
    assert np.array_equal(ratio([1, 1, 1, 1], [2, 0, -1, np.nan]), [0.5, np.nan, np.nan, np.nan], equal_nan=True)


def test_ratio_for_ranking_is_never_missing() -> None:
    mean, deviation = np.array([1.0, 0.0, 1.0, -1.0]), np.array([2.0, 0.0, 0.0, 0.0])
    assert ratio_or_cash(mean, deviation).tolist() == [0.5, 0.0, np.inf, -np.inf]


def test_autocovariances_by_hand() -> None:
    # centred -1, 0, 1 (three values): c_0 = 2 / 3, c_1 = (0 * -1 + 1 * 0) / 3 = 0, c_2 = 1 * -1 / 3
    assert autocovariances(np.array([1.0, 2.0, 3.0]), 2) == pytest.approx([2 / 3, 0, -1 / 3])


@pytest.mark.parametrize(
    ("values", "found"), [([], "shape"), ([[], []], "shape"), (1.0, "shape"), ([0.1], "2 or more")]
)
def test_too_few_bars_are_refused(values: object, found: str) -> None:
    with pytest.raises(DataError, match=found):
        checked_returns(values, "sharpe", 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bar_without_a_value_is_named(bad: float) -> None:
    with pytest.raises(DataError, match=r"mine got .* at position 1, 2"):
        checked_returns([[0.0, 0.0, 0.0], [0.0, 0.0, bad]], "mine")


@pytest.mark.parametrize("start", [0.0, -1.0, np.nan])
def test_equity_starts_above_zero(start: float) -> None:
    with pytest.raises(DataError, match="above 0"):
        equity_curve([0.1], start)


@settings(max_examples=100, deadline=None)
@given(records)
def test_equity_and_drawdown_stay_in_their_ranges(record: np.ndarray) -> None:
    equity, drawdown = equity_curve(record), drawdown_curve(record)
    assert equity.shape == drawdown.shape == (len(record), record.shape[1] + 1)
    assert (equity >= 0).all() and (equity[:, 0] == 1).all()
    assert ((drawdown >= 0) & (drawdown <= 1)).all() and (drawdown[:, 0] == 0).all()
    assert ((equity[:, -1] == 0) == is_ruined(record)).all()
    for row in range(len(record)):  # each record is its own
        assert np.array_equal(equity[row], equity_curve(record[row]))
