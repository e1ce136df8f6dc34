"""The ledger against exact fractions, over random trades, reversals, partial fills, shorts and rates that move."""

from __future__ import annotations

from fractions import Fraction

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.envs.market.ledger import average_entry, empty_book, equity, settled, traded

AMOUNTS = st.integers(-2000, 2000).map(lambda k: k / 8)
PRICES = st.integers(800, 1250).map(lambda k: k / 10)
RATES = st.integers(50, 200).map(lambda k: k / 128)
STEP = st.tuples(AMOUNTS, PRICES, RATES, st.integers(0, 40).map(lambda k: k / 16))


def one(value: float) -> np.ndarray:
    return np.array([[value]])


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=40), PRICES, RATES)
def test_equity_is_what_exact_arithmetic_says(steps, last_price, last_rate):
    book = empty_book(xp, np.array([100_000.0]), 1)
    cash, units, paid = Fraction(100_000), Fraction(0), Fraction(0)
    ones = np.ones(1)
    for amount, price, rate, cost in steps:
        amount = -float(units) if amount == 0 else amount  # a close now and then
        book = settled(xp, traded(book, one(amount), one(price), np.array([cost])), one(rate), ones)
        cash, units, paid = cash - Fraction(cost), units + Fraction(amount), paid + Fraction(amount) * Fraction(price)
        if units == 0:
            cash, paid = cash - paid * Fraction(rate), Fraction(0)
        assert float(book.units[0, 0]) == float(units)
    found = equity(book, one(last_price), one(last_rate), ones)[0]
    exact = cash + (units * Fraction(last_price) - paid) * Fraction(last_rate)
    assert found == pytest.approx(float(exact), rel=1e-9, abs=1e-9 * 100_000)
    if units == 0:
        assert found == book.cash[0]


def test_a_short_earns_when_prices_fall_and_a_reversal_keeps_what_was_earned():
    book = empty_book(xp, np.array([1000.0]), 1)
    ones = np.ones(1)
    book = traded(book, one(-10.0), one(100.0), np.array([0.0]))
    assert equity(book, one(90.0), None, ones)[0] == 1100.0
    book = traded(book, one(15.0), one(90.0), np.array([0.0]))  # closes 10, opens 5 long
    assert equity(book, one(90.0), None, ones)[0] == 1100.0
    assert equity(book, one(80.0), None, ones)[0] == 1050.0


def test_foreign_profit_waits_in_its_currency_until_the_position_is_closed():
    """100,000 USDJPY bought at 100 and marked at 110 with the yen at 1/110: 1,000,000 yen are 9,090.91 dollars."""
    book = empty_book(xp, np.array([100_000.0]), 1)
    ones = np.ones(1)
    book = traded(book, one(100_000.0), one(100.0), np.array([0.0]))
    assert equity(book, one(110.0), one(1 / 110), ones)[0] == pytest.approx(100_000 + 1_000_000 / 110, rel=1e-12)
    closed = settled(xp, traded(book, one(-100_000.0), one(110.0), np.array([0.0])), one(1 / 110), ones)
    assert closed.cash[0] == pytest.approx(109_090.909090909, rel=1e-12)
    assert equity(closed, one(500.0), one(2.0), ones)[0] == closed.cash[0]


@pytest.mark.parametrize(
    ("entry", "units", "amount", "price", "expected"),
    [
        (0.0, 0.0, 5.0, 100.0, 100.0),  # opens
        (100.0, 5.0, 5.0, 110.0, 105.0),  # grows
        (100.0, 5.0, -2.0, 120.0, 100.0),  # shrinks
        (100.0, 5.0, -5.0, 120.0, 0.0),  # closes
        (100.0, 5.0, -8.0, 120.0, 120.0),  # turns
        (100.0, -4.0, -4.0, 90.0, 95.0),  # a short grows
        (100.0, -4.0, 6.0, 90.0, 90.0),  # a short turns
        (100.0, -4.0, 1.0, 90.0, 100.0),  # a short shrinks
    ],
)
def test_average_entry(entry, units, amount, price, expected):
    found = average_entry(xp, one(entry), one(units), one(amount), one(price))
    assert found[0, 0] == pytest.approx(expected)
