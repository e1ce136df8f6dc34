"""Instruments: what a trade of each costs, and what its quote currency is worth.

Costs are relative to the notional that is traded, so that a pair at 1.05 and an index at 20,000 compare.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = ["INSTRUMENTS", "Instrument", "conversion_rates", "instrument"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """What can be traded, and at which cost. Raises ConfigError for a number that cannot be one.

    The price is in `quote` per unit of `base`. Where nothing is known of an instrument the defaults charge one basis
    point per side, no commission and no financing; write your broker's.
    """

    name: str
    sector: str
    """forex, commodities, equity, volatility, or one of your own; sector limits add within it."""
    quote: str
    """Currency of the price."""
    base: str
    """What one unit is: a currency, a metal, an index."""
    half_spread: float = 1e-4
    """Half of (ask - bid) / mid, paid on each side."""
    commission: float = 0.0
    """Share of the notional, paid on each side."""
    impact: float = 0.0
    """Y of the square-root law Y * (daily volatility) * sqrt(traded / daily_value), of order one (Toth et al. 2011,
    arXiv:1105.1694); 0 for none."""
    daily_value: float | None = None
    """Traded per day, in account currency; None for no impact."""
    swap_long: float = 0.0
    """Annual rate that a long position pays on its notional; negative where it is paid."""
    swap_short: float = 0.0
    """The same for a short position."""
    margin: float = 0.05
    """Share of the notional that must be covered."""

    def __post_init__(self) -> None:
        for name in ("name", "sector", "quote", "base"):
            if not getattr(self, name):
                raise ConfigError(f"instrument {self.name!r}: {name} is empty; write what it is")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name == "daily_value":
                continue
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"instrument {self.name}: {name}={value} must lie between {low} and {high}")


_RANGES = (
    ("half_spread", 0.0, 0.5),
    ("commission", 0.0, 0.5),
    ("impact", 0.0, 100.0),
    ("daily_value", 1.0, 1e15),
    ("swap_long", -10.0, 10.0),
    ("swap_short", -10.0, 10.0),
    ("margin", 1e-6, 1.0),
)

_FX, _METAL, _ENERGY, _INDEX = "forex", "commodities", "commodities", "equity"

# Orders of magnitude of a retail account that pays raw spreads and a commission (forex, gold) or a spread alone
# (contracts for difference on indices and oil), with the margins of the European retail rules and financing of the
# 2010s. They make results plausible, not yours: brokers, hours and years differ.
# fmt: off
INSTRUMENTS: dict[str, Instrument] = {
    row[0]: Instrument(*row) for row in (
        # name, sector, quote, base, half spread, commission, impact, daily value, swap long, swap short, margin
        ("EURUSD", _FX, "USD", "EUR", 1.0e-5, 3.5e-5, 1.0, 3.8e11, 0.010, 0.002, 1 / 30),
        ("GBPUSD", _FX, "USD", "GBP", 2.0e-5, 3.5e-5, 1.0, 1.5e11, 0.006, 0.006, 1 / 30),
        ("USDJPY", _FX, "JPY", "USD", 1.5e-5, 3.5e-5, 1.0, 3.0e11, 0.004, 0.012, 1 / 30),
        ("AUDUSD", _FX, "USD", "AUD", 3.0e-5, 3.5e-5, 1.0, 8.7e10, -0.005, 0.020, 1 / 20),
        ("USDCAD", _FX, "CAD", "USD", 3.0e-5, 3.5e-5, 1.0, 7.0e10, 0.008, 0.006, 1 / 30),
        ("USDCHF", _FX, "CHF", "USD", 3.0e-5, 3.5e-5, 1.0, 6.0e10, 0.002, 0.014, 1 / 30),
        ("EURJPY", _FX, "JPY", "EUR", 3.0e-5, 3.5e-5, 1.0, 2.6e10, 0.008, 0.006, 1 / 30),
        ("EURGBP", _FX, "GBP", "EUR", 3.0e-5, 3.5e-5, 1.0, 3.3e10, 0.010, 0.004, 1 / 30),
        ("XAUUSD", _METAL, "USD", "XAU", 7.0e-5, 3.5e-5, 1.0, 1.5e11, 0.020, 0.008, 1 / 20),
        ("WTIUSD", _ENERGY, "USD", "WTI", 2.5e-4, 0.0, 1.0, 6.0e10, 0.030, 0.020, 1 / 10),
        ("SPX500", _INDEX, "USD", "SPX500", 1.0e-4, 0.0, 1.0, 1.5e11, 0.030, 0.020, 1 / 20),
        ("NAS100", _INDEX, "USD", "NAS100", 1.0e-4, 0.0, 1.0, 5.0e10, 0.030, 0.020, 1 / 20),
        ("NASDAQ_COMPOSITE", _INDEX, "USD", "NASDAQ_COMPOSITE", 1.5e-4, 0.0, 1.0, 5.0e10, 0.030, 0.020, 1 / 20),
        ("US30", _INDEX, "USD", "US30", 1.0e-4, 0.0, 1.0, 1.5e10, 0.030, 0.020, 1 / 20),
        # Nobody can hold the index itself; a long position in its futures loses their roll.
        ("VIX", "volatility", "USD", "VIX", 2.0e-3, 0.0, 1.0, 3.0e9, 0.400, 0.100, 1 / 5),
    )
}
# fmt: on


def instrument(name: str, **changes: Any) -> Instrument:
    """The instrument of the table with `changes`, or a new one where `sector` and `quote` are given.

    The `base` of a new one is its name unless given. Raises ConfigError for an unknown name without both, or for an
    unknown field.
    """
    known = {field.name for field in fields(Instrument)} - {"name"}
    for key in changes:
        if key not in known:
            raise ConfigError(f"an instrument has no {key!r}{did_you_mean(key, known)}")
    if name in INSTRUMENTS:
        return replace(INSTRUMENTS[name], **changes)
    missing = [key for key in ("sector", "quote") if key not in changes]
    if missing:
        raise ConfigError(
            f"there is no instrument {name!r}{did_you_mean(name, INSTRUMENTS)}; one of your own also needs "
            f"{' and '.join(missing)}"
        )
    return Instrument(name, **{"base": name, **changes})


def conversion_rates(bars: Bars, instruments: Sequence[Instrument], account: str = "USD") -> np.ndarray:
    """Value in account currency of one unit of each instrument's quote currency, at each bar's close.

    Taken from the bars themselves by the shortest chain of pairs: with account USD, the yen of USDJPY is 1 / USDJPY,
    and the yen of EURJPY is EURUSD / EURJPY where there is no USDJPY. Pairs of the bars that are not among
    `instruments` are those of the table. Returns float64 `[T, M]`, M = len(instruments). Raises DataError where no
    chain of pairs leads to the account's currency.
    """
    pairs = {**INSTRUMENTS, **{each.name: each for each in instruments}}
    links = [(pairs[name].base, pairs[name].quote, column) for column, name in enumerate(bars.instruments)
             if name in pairs]  # fmt: skip
    values = {account: np.ones(len(bars))}
    waiting = deque([account])
    while waiting:
        currency = waiting.popleft()
        for base, quote, column in links:
            price = bars.close[:, column]
            if quote == currency and base not in values:
                values[base] = values[currency] * price
                waiting.append(base)
            elif base == currency and quote not in values:
                values[quote] = values[currency] / price
                waiting.append(quote)
    for each in instruments:
        if each.quote not in values:
            raise DataError(_no_chain(each, account, values))
    return np.stack([values[each.quote] for each in instruments], axis=1)


def _no_chain(each: Instrument, account: str, reached: Iterable[str]) -> str:
    ends = set(reached)
    bridges = [
        other.name
        for other in INSTRUMENTS.values()
        if (other.quote == each.quote and other.base in ends) or (other.base == each.quote and other.quote in ends)
    ]
    return (
        f"no bars turn {each.quote}, the quote currency of {each.name}, into {account}; add bars of "
        f"{' or '.join(bridges) or account + each.quote} (they need not be traded)"
    )
