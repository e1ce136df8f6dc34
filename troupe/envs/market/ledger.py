"""An exact ledger for many accounts at once.

Legend: N accounts, M instruments. Profit accrues in each instrument's quote currency and is turned into the account's
when the position is closed, at that moment's rate:

    equity = cash + sum_i (units_i * price_i - paid_i) * rate_i

`paid_i` is what the open position has cost so far in its quote currency (negative for a short), so that partial fills,
reversals and shorts need no cases. A flat account's equity is its cash. Costs leave the cash at once.

All functions take the array namespace `xp` (NumPy or torch, as array-api-compat gives it) and return new arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Book", "average_entry", "empty_book", "equity", "settled", "traded"]


class Book(NamedTuple):
    """What N accounts hold."""

    cash: Any  # float64 [N], account currency
    units: Any  # float64 [N, M], signed
    paid: Any  # float64 [N, M], quote currency


def empty_book(xp: Any, capital: Any, instruments: int) -> Book:
    """Accounts that hold `capital` [N] in cash."""
    nothing = xp.zeros((capital.shape[0], instruments), dtype=capital.dtype, device=capital.device)
    return Book(capital, nothing, nothing)


def equity(book: Book, prices: Any, rates: Any | None, ones: Any) -> Any:
    """Equity `[N]` at `prices` `[N, M]`; `rates` `[N, M]` (None: all 1) turn quote currencies into the account's,
    `ones` `[M]` sums (a matrix product is several times faster than a sum over a short last axis)."""
    gained = book.units * prices - book.paid
    return book.cash + (gained if rates is None else gained * rates) @ ones


def traded(book: Book, amounts: Any, prices: Any, costs: Any) -> Book:
    """After buying `amounts` `[N, M]` (negative: selling) at `prices`, with `costs` `[N]` in the account's currency."""
    return Book(book.cash - costs, book.units + amounts, book.paid + amounts * prices)


def settled(xp: Any, book: Book, rates: Any | None, ones: Any) -> Book:
    """Profit of positions that are closed becomes cash at `rates`."""
    held = book.units != 0
    if bool(xp.all(held)):  # the usual case, and half the work
        return book
    gained = xp.where(held, 0.0, book.paid)
    cash = book.cash - (gained if rates is None else gained * rates) @ ones
    return Book(cash, book.units, book.paid - gained)


def average_entry(xp: Any, entry: Any, units: Any, amounts: Any, prices: Any) -> Any:
    """Average entry price `[N, M]` of positions of `units` after `amounts` are bought at `prices`: weighted where a
    position grows, kept where it shrinks, the fill's where it turns, 0 where it closes."""
    after = units + amounts
    grows = units * amounts >= 0
    turns = units * after < 0
    safe = xp.where(after == 0, 1.0, after)
    mixed = (units * entry + amounts * prices) / safe
    found = xp.where(grows, mixed, xp.where(turns, prices, entry))
    return xp.where(after == 0, 0.0, found)
