from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.market.walks import walk
from troupe.envs.market.bars import Bars
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS
from troupe.envs.market.instruments import INSTRUMENTS, Instrument, conversion_rates, instrument
from troupe.errors import ConfigError, DataError


def priced(**closes: list[float]) -> Bars:
    prices = np.array(list(closes.values()), dtype=np.float64).T
    bars = walk(0, len(prices), prices.shape[1], holes=0)
    return replace(bars, instruments=tuple(closes), open=prices, high=prices, low=prices, close=prices)


def test_the_table_has_what_the_document_trades() -> None:
    assert set(DOCUMENTED_INSTRUMENTS) <= set(INSTRUMENTS)
    assert all(name == each.name for name, each in INSTRUMENTS.items())
    assert {each.sector for each in INSTRUMENTS.values()} == {"forex", "commodities", "equity", "volatility"}
    for each in INSTRUMENTS.values():  # a currency pair is named after what it is
        if each.sector == "forex":
            assert each.name == each.base + each.quote


def test_changes_and_instruments_of_ones_own() -> None:
    assert instrument("EURUSD") is not instrument("EURUSD", half_spread=0.0)
    assert instrument("EURUSD", half_spread=0.0) == replace(INSTRUMENTS["EURUSD"], half_spread=0.0)
    coin = instrument("BTCUSD", sector="crypto", quote="USD", commission=0.001)
    assert coin == Instrument("BTCUSD", "crypto", "USD", "BTCUSD", commission=0.001)
    assert instrument("NZDUSD", sector="forex", quote="USD", base="NZD").base == "NZD"


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("EURUSX", {}, "did you mean 'EURUSD'"),
        ("BTCUSD", {"sector": "crypto"}, "needs quote"),
        ("EURUSD", {"half_spred": 0.1}, "did you mean 'half_spread'"),
        ("EURUSD", {"half_spread": -1e-5}, "half_spread=-1e-05"),
        ("EURUSD", {"commission": float("nan")}, "commission=nan"),
        ("EURUSD", {"margin": 0.0}, "margin=0.0"),
        ("EURUSD", {"quote": ""}, "quote is empty"),
        ("EURUSD", {"daily_value": 0.0}, "daily_value=0.0"),
    ],
)
def test_what_cannot_be_is_one_sentence(name: str, changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        instrument(name, **changes)
    assert "\n" not in str(caught.value)


def test_no_daily_value_is_no_impact() -> None:
    assert instrument("EURUSD", daily_value=None).daily_value is None


def test_conversion_by_hand() -> None:
    # 1 yen = 1/100 and 1/125 dollar; 1 pound = 1.5 and 1.6 dollar; a dollar is a dollar.
    bars = priced(USDJPY=[100.0, 125.0], GBPUSD=[1.5, 1.6], EURGBP=[0.8, 0.9])
    found = conversion_rates(bars, [instrument(name) for name in bars.instruments])
    np.testing.assert_allclose(found, [[0.01, 1.0, 1.5], [0.008, 1.0, 1.6]], rtol=1e-15)


def test_conversion_by_two_steps() -> None:
    # No USDJPY: 160 yen a euro, 1.28 dollars a euro, so a yen is 1.28 / 160 = 0.008 dollar.
    bars = priced(EURJPY=[160.0, 150.0], EURUSD=[1.28, 1.2])
    found = conversion_rates(bars, [instrument("EURJPY")])
    np.testing.assert_allclose(found, [[0.008], [0.008]], rtol=1e-15)
    # The account in pounds: dollars by way of the euro, 1 / 1.28 * 0.8.
    bars = priced(EURUSD=[1.28, 1.2], EURGBP=[0.8, 0.9])
    np.testing.assert_allclose(conversion_rates(bars, [instrument("EURUSD")], "GBP"), [[0.625], [0.75]], rtol=1e-15)


def test_the_shortest_chain_is_taken() -> None:
    bars = priced(EURJPY=[160.0, 160.0], EURUSD=[1.0, 1.0], USDJPY=[100.0, 100.0])
    assert conversion_rates(bars, [instrument("EURJPY")])[0, 0] == 0.01


def test_no_chain_names_the_bars_that_would_help() -> None:
    with pytest.raises(DataError, match=r"JPY, the quote currency of EURJPY, into USD; add bars of USDJPY ") as caught:
        conversion_rates(priced(EURJPY=[160.0, 160.0]), [instrument("EURJPY")])
    assert "\n" not in str(caught.value)
    own = instrument("ABC", sector="equity", quote="SEK")
    with pytest.raises(DataError, match="add bars of USDSEK"):
        conversion_rates(priced(ABC=[1.0, 1.0]), [own])
