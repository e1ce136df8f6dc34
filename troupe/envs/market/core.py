"""The market core: N accounts trade M instruments side by side, one bar per step, as pure functions of their state.

    core = MarketCore(make_tape(bars, instruments, rules), rules)
    state = core.begin(rows)                     # each account at a row of the tape
    state, outcome = core.step(state, actions)   # [N, M] in [-1, 1]

One bar, in this order: the action asks for weights, the limits shrink them (at prices of bar t), the difference to what
is held becomes orders, these are filled at the open of bar t + 1 (close-only series: at its close; no fill where an
instrument has no bar), stop losses act within the bar, swap is paid (up to the fill on what was held before, from there
on what is held after), and everything is marked at the close of t + 1.

The same code runs on NumPy arrays and on torch tensors, on any device (`Tape.to_torch`); nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from troupe.envs.market import ledger, risk
from troupe.envs.market.config import MarketRules
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.ledger import Book
from troupe.envs.market.tape import Tape
from troupe.errors import ConfigError, DataError

__all__ = ["LIMITS", "MarketCore", "MarketState", "Outcome", "idle_limits"]

LIMITS = ("sector", "leverage", "correlation", "var", "breaker", "stop_loss", "margin_call")
"""Rules that can act on an account in a step, as `Outcome.fired` names them."""


class MarketState(NamedTuple):
    """Where N accounts stand. Everything that the next step depends on."""

    row: Any  # int64 [N]: of the tape
    begun: Any  # int64 [N]: the row where the episode began
    book: Book
    entry: Any  # float64 [N, M]: average entry prices; kept only where a stop loss reads them
    equity: Any  # float64 [N], at the close of `row`
    day_equity: Any  # float64 [N]: the day's first equity, for the circuit breaker
    peak: Any  # float64 [N]
    halted: Any  # int64 [N]: bars for which positions stay closed
    rung: Any  # int64 [N]: levels of the circuit breaker passed today


class Outcome(NamedTuple):
    """What one bar brought."""

    gain: Any  # float64 [N]: simple return of the equity, after costs
    cost: Any  # float64 [N]: costs and swap, as a share of the equity before
    turnover: Any  # float64 [N]: traded value, as a share of the equity before
    value_at_risk: Any  # float64 [N]: forecast for one day of the weights that the orders lead to; 0 without that limit
    amounts: Any  # float64 [N, M]: units that were traded at the fill, stop losses not included
    fills: Any  # float64 [N, M]: at these prices
    profit: Any | None  # float64 [N, M]: by instrument, after its costs; what the equity gained. None unless asked for
    charges: Any | None  # float64 [N, M]: those costs, swap included. None unless asked for
    fired: dict[str, Any]  # limit -> bool [N]
    terminated: Any  # bool [N]: ruined
    truncated: Any  # bool [N]: the episode's length, or the end of the bars


class MarketCore:
    """The rules over one tape. Raises ConfigError for rules that the tape or its instruments cannot keep."""

    def __init__(self, tape: Tape, rules: MarketRules, *, draws: np.random.Generator | None = None) -> None:
        self.tape, self.rules = tape, rules
        self.xp = xp = array_namespace(tape.close)
        instruments = tape.instruments
        self.instruments = tuple(instrument.name for instrument in instruments)
        _check(tape, rules)
        scale = rules.cost_scale

        def column(values: list[float]) -> Any:
            return xp.asarray(np.array(values, dtype=np.float64), device=tape.close.device)

        self._ones = column([1.0] * len(instruments))
        charged = rules.transaction_cost
        self._cost = column(
            [scale * (i.half_spread + i.commission if charged is None else charged) for i in instruments]
        )
        self._impact = column([scale * i.impact / (i.daily_value or 1.0) ** 0.5 for i in instruments])
        self._has_impact = any(i.impact for i in instruments) and scale > 0
        # What is received for a position is no cost, and does not grow with the costs.
        self._swap_long = column([i.swap_long * (scale if i.swap_long > 0 else 1.0) for i in instruments])
        self._swap_short = column([i.swap_short * (scale if i.swap_short > 0 else 1.0) for i in instruments])
        self._has_swap = any(i.swap_long or i.swap_short for i in instruments)
        self._margin = column([i.margin for i in instruments])
        sectors = sorted({i.sector for i in instruments})
        table = [[float(i.sector == sector) for sector in sectors] for i in instruments]
        self._sectors = xp.asarray(np.array(table), device=tape.close.device)
        self._last = self._on_device(np.repeat(tape.last, np.diff([*tape.first, len(tape)])))
        self._first = self._on_device(np.repeat(tape.first, np.diff([*tape.first, len(tape)])))
        self._quoted: tuple[Any, Any, Any, Any] = (None, None, None, None)  # see `_quotes`
        self._horizon = float(np.sqrt(tape.periods_per_day))
        self._factor = NormalDist().inv_cdf(rules.var_confidence) * self._horizon
        self._all_filled = tape.all_traded and rules.max_participation is None
        self._draws = self._drawn(draws) if rules.var_method == "monte_carlo" else None

    def _on_device(self, array: np.ndarray) -> Any:
        return self.xp.asarray(array, device=self.tape.close.device)

    def _drawn(self, generator: np.random.Generator | None) -> Any:
        """Student t of 5 degrees, scaled to variance 1: `[D, M]`."""
        generator = np.random.default_rng(0) if generator is None else generator
        normal = generator.normal(size=(self.rules.var_draws, len(self.instruments)))
        chi = generator.chisquare(5, size=(self.rules.var_draws, 1))
        return self._on_device(normal * np.sqrt(3.0 / chi))

    # ------------------------------------------------------------------------------------------ episodes

    @property
    def starts(self) -> np.ndarray:
        """Rows where an episode may begin: after the warm-up, with a bar to come."""
        first, last = self.tape.first + self.rules.warmup_steps, self.tape.last
        return np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])

    def begin(self, rows: np.ndarray) -> MarketState:
        """Accounts with the initial capital at these rows, one each. Raises DataError for rows that are none of
        `starts`."""
        rows = np.asarray(rows, dtype=np.int64)
        if (rows < 0).any() or (rows >= len(self.tape)).any():
            raise DataError(f"rows of a tape go from 0 to {len(self.tape) - 1}")
        path = np.searchsorted(self.tape.first, rows, "right") - 1
        if ((rows - self.tape.first[path] < self.rules.warmup_steps) | (rows >= self.tape.last[path])).any():
            raise DataError("an episode begins after the warm-up of its path and before its last bar")
        xp, n = self.xp, len(rows)
        row = self._on_device(rows)
        capital = self._on_device(np.full(n, self.rules.initial_capital))
        nothing = self._on_device(np.zeros(n, dtype=np.int64))
        book = ledger.empty_book(xp, capital, len(self.instruments))
        return MarketState(row, row, book, book.units, capital, capital, capital, nothing, nothing)

    def merge(self, state: MarketState, where: Any, fresh: MarketState) -> MarketState:
        """`fresh` accounts in the places where `where` `[N]` is True."""
        xp, wide = self.xp, where[:, None]
        book = Book(
            *(xp.where(wide if a.ndim > 1 else where, b, a) for a, b in zip(state.book, fresh.book, strict=True))
        )
        rest = {
            name: xp.where(wide if old.ndim > 1 else where, getattr(fresh, name), old)
            for name, old in state._asdict().items()
            if name != "book"
        }
        return MarketState(book=book, **rest)

    def observe(self, state: MarketState) -> Any:
        """float32 `[N, F + 2 M + 1]`: the tape's features, weights held, the open positions' profit as shares of the
        equity, and the drawdown."""
        xp, (prices, rates, _) = self.xp, self._quotes(state.row)
        value = state.book.units * prices if rates is None else state.book.units * prices * rates
        paid = state.book.paid if rates is None else state.book.paid * rates
        drawdown = (state.equity / state.peak - 1.0)[:, None]
        own = xp.concat([value, value - paid], axis=1) / state.equity[:, None]
        own = xp.astype(xp.concat([own, drawdown], axis=1), xp.float32)
        return xp.concat([self._take(self.tape.features, state.row), own], axis=1)

    @property
    def observation_size(self) -> int:
        return int(self.tape.features.shape[1]) + 2 * len(self.instruments) + 1

    def weights(self, state: MarketState) -> Any:
        """Signed shares of the equity that are held `[N, M]`."""
        prices, rates, _ = self._quotes(state.row)
        return self._weights(state.book.units, prices, rates, state.equity)

    # ------------------------------------------------------------------------------------------ one bar

    def step(self, state: MarketState, actions: Any, *, detail: bool = False) -> tuple[MarketState, Outcome]:
        """Everything described above, for one bar. `actions` `[N, M]` are weights in units of `max_position_size`,
        clipped to [-1, 1]; with `detail` the profit is told apart by instrument. Raises DataError for actions that are
        not finite or of another shape, and for accounts at the end of their path."""
        xp, rules, tape = self.xp, self.rules, self.tape
        if actions.shape != state.book.units.shape:
            raise DataError(f"actions have shape {tuple(actions.shape)}, not {tuple(state.book.units.shape)}")
        total = float(xp.sum(actions))  # one look at the sum is cheaper than one at each
        if total - total != 0 and not bool(xp.all(xp.isfinite(actions))):
            raise DataError("an action is not finite; look at the policy that chose it")
        wanted = xp.astype(actions, xp.float64, copy=False).clip(-1.0, 1.0) * rules.max_position_size
        row, now = state.row, state.row + 1
        prices, rates, last = self._quotes(row)
        if bool(xp.any(now > last)):
            raise DataError("an account stands at the last bar of its path; reset it before the next step")
        wanted, forecast, fired = self._allowed(state, wanted, row)

        amounts = self._orders(state, wanted, prices, rates, now)
        if rules.max_portfolio_var is not None and not self._all_filled:
            reached = self._weights(state.book.units + amounts, prices, rates, state.equity)
            forecast = self.value_at_risk(reached, row)
        closes, rates_now = self._take(tape.close, now), self._rates(now)
        fills = self._fills(now, closes)
        charges, value = self._trading_cost(amounts, fills, rates_now, row)
        cost = charges @ self._ones
        book = ledger.traded(state.book, amounts, fills, cost)
        entry = state.entry
        if rules.stop_loss_pct is not None:
            entry = ledger.average_entry(xp, state.entry, state.book.units, amounts, fills)
            hit, stops = self._stops(book, entry, now)
            fired["stop_loss"] = xp.any(hit, axis=1)
            book, entry, charges, value = self._closed(book, entry, hit, stops, rates_now, row, charges, value)
            cost = charges @ self._ones
        if self._has_swap:
            swap = self._swap(state.book.units, book.units, closes, rates_now, now)
            book, charges = book._replace(cash=book.cash - swap @ self._ones), charges + swap
            cost = charges @ self._ones
        if rules.margin_call is not None:
            called = self._called(book, closes, rates_now, now)
            fired["margin_call"] = xp.any(called, axis=1)
            book, entry, charges, value = self._closed(book, entry, called, closes, rates_now, row, charges, value)
            cost = charges @ self._ones
        profit = self._profit(state, prices, rates, book, closes, rates_now) - charges if detail else None
        book = ledger.settled(xp, book, rates_now, self._ones)
        equity = ledger.equity(book, closes, rates_now, self._ones)
        if not bool(xp.all(xp.isfinite(equity))):
            raise DataError("an account's equity is not finite: its positions are too large for the prices")
        following = self._following(state, now, book, entry, equity)
        self._quoted = (now, closes, rates_now, last)
        outcome = Outcome(
            equity / state.equity - 1.0, cost / state.equity, value @ self._ones / state.equity,
            forecast, amounts, fills, profit, charges if detail else None, fired,
            equity <= rules.ruin * rules.initial_capital,
            (now - state.begun >= rules.episode_length) | (now >= last),
        )  # fmt: skip
        return following, outcome

    def _allowed(self, state: MarketState, wanted: Any, row: Any) -> tuple[Any, Any, dict[str, Any]]:
        """(weights within the limits, VaR forecast, where limits acted)."""
        xp, rules, tape = self.xp, self.rules, self.tape
        fired: dict[str, Any] = {}
        if rules.breaker:
            fired["breaker"] = state.halted > 0
            wanted = xp.where(fired["breaker"][:, None], 0.0, wanted)
        if rules.max_sector_allocation is not None:
            wanted, fired["sector"] = risk.sector_limited(xp, wanted, self._sectors, rules.max_sector_allocation)
        if rules.max_leverage is not None:
            gross = xp.abs(wanted) @ self._ones
            wanted, fired["leverage"] = risk.limited(xp, wanted, gross, rules.max_leverage)
        if rules.max_correlation_exposure is not None:
            exposure = risk.correlation_exposure(xp, wanted, self._take(tape.correlation, row))
            wanted, fired["correlation"] = risk.limited(xp, wanted, exposure, rules.max_correlation_exposure)
        if rules.max_portfolio_var is None:
            return wanted, xp.zeros_like(state.equity), fired
        forecast = self.value_at_risk(wanted, row)
        wanted, fired["var"] = risk.limited(xp, wanted, forecast, rules.max_portfolio_var)
        return wanted, xp.minimum(forecast, xp.full_like(forecast, rules.max_portfolio_var)), fired

    def value_at_risk(self, weights: Any, row: Any) -> Any:
        """One-day value at risk `[N]` of `weights` by the rules' method, as a share of equity."""
        xp, tape, method = self.xp, self.tape, self.rules.var_method
        if method == "historical":
            window = xp.arange(self.rules.correlation_window, device=row.device)
            assert tape.returns is not None
            there = (row - self._first[row]).clip(1)[:, None]  # a short history counts more than once
            past = row[:, None] - window[None, :] % there
            outcomes = (tape.returns[past] @ weights[:, :, None])[:, :, 0]
            return risk.draws_var(xp, outcomes, self.rules.var_confidence, self._horizon)
        covariance = self._take(tape.covariance, row)
        if method == "parametric":
            return risk.parametric_var(xp, weights, covariance, self._ones, self._factor)
        tiny = 1e-14 * xp.eye(len(self.instruments), dtype=xp.float64, device=row.device)  # a path may stand still
        exposed = (xp.linalg.cholesky(covariance + tiny).mT @ weights[:, :, None])[:, :, 0]
        assert self._draws is not None
        return risk.draws_var(xp, exposed @ self._draws.T, self.rules.var_confidence, self._horizon)

    def _orders(self, state: MarketState, wanted: Any, prices: Any, rates: Any, now: Any) -> Any:
        """Units to trade `[N, M]`."""
        xp, tape, held = self.xp, self.tape, state.book.units
        value = prices if rates is None else prices * rates
        amounts = wanted * state.equity[:, None] / value - held
        if not tape.all_traded:
            amounts = xp.where(self._take(tape.traded, now), amounts, 0.0)
        if self.rules.max_participation is not None:
            most = self.rules.max_participation * self._take(tape.volume, now)
            amounts = xp.minimum(xp.maximum(amounts, -most), most)
        return amounts

    def _fills(self, now: Any, closes: Any) -> Any:
        opens = self._take(self.tape.open, now)
        if not self.tape.any_close_only:
            return opens
        return self.xp.where(self.tape.close_only, closes, opens)

    def _trading_cost(self, amounts: Any, prices: Any, rates: Any, row: Any) -> tuple[Any, Any]:
        """(costs, traded value), both `[N, M]` in the account's currency."""
        xp = self.xp
        value = xp.abs(amounts) * prices
        value = value if rates is None else value * rates
        charges = value * self._cost
        if self._has_impact:  # cost share = Y sigma sqrt(Q / V) (Almgren et al. 2005; Grinold and Kahn 1999)
            volatility = self._take(self.tape.volatility, row)
            charges = charges + value * xp.sqrt(value) * volatility * self._impact
        return charges, value

    def _stops(self, book: Book, entry: Any, now: Any) -> tuple[Any, Any]:
        """(positions whose loss passed the limit within the bar, bool `[N, M]`; prices at which they are closed): the
        stop price, or the open where the bar began beyond it; close-only series at their close."""
        xp, tape, share = self.xp, self.tape, self.rules.stop_loss_pct
        assert share is not None
        side = xp.sign(book.units)
        stop = entry * (1.0 - share * side)
        opens, lows, highs = (self._take(prices, now) for prices in (tape.open, tape.low, tape.high))
        hit = ((side > 0) & (lows <= stop)) | ((side < 0) & (highs >= stop))
        price = xp.where(side > 0, xp.minimum(opens, stop), xp.maximum(opens, stop))
        if tape.any_close_only:
            closes = self._take(tape.close, now)
            beyond = side * (closes - stop) <= 0
            hit = xp.where(tape.close_only, beyond & (side != 0), hit)
            price = xp.where(tape.close_only, closes, price)
        if not tape.all_traded:
            hit = hit & self._take(tape.traded, now)
        return hit, price

    def _called(self, book: Book, closes: Any, rates: Any, now: Any) -> Any:
        """Positions of accounts with a margin call, bool `[N, M]`; they are closed at the bar's close, those without a
        bar at their next one."""
        value = self.xp.abs(book.units) * closes
        needed = (value if rates is None else value * rates) @ self._margin
        equity = ledger.equity(book, closes, rates, self._ones)
        called = (equity < self.rules.margin_call * needed)[:, None] & (book.units != 0)
        return called if self.tape.all_traded else called & self._take(self.tape.traded, now)

    def _closed(
        self, book: Book, entry: Any, which: Any, prices: Any, rates: Any, row: Any, charges: Any, value: Any
    ) -> tuple[Book, Any, Any, Any]:
        """(book, entries, charges, traded value) after closing the positions `which` `[N, M]` at `prices`."""
        amounts = self.xp.where(which, -book.units, 0.0)
        extra, more = self._trading_cost(amounts, prices, rates, row)
        book = ledger.traded(book, amounts, prices, extra @ self._ones)
        return book, self.xp.where(which, 0.0, entry), charges + extra, value + more

    def _swap(self, before: Any, after: Any, prices: Any, rates: Any, now: Any) -> Any:
        """Financing of the time since the bar before `[N, M]`: on the units `before` the fill for the time up to it, a
        weekend perhaps, on those `after` it for the rest."""
        tape, value = self.tape, prices if rates is None else prices * rates
        years = self._take(tape.years, now)[:, None]
        if not tape.any_gap:
            return value * self._financed(after) * years
        gap = self._take(tape.gap, now)[:, None]
        gap = self.xp.where(tape.close_only, years, gap) if tape.any_close_only else gap
        return value * (self._financed(before) * gap + self._financed(after) * (years - gap))

    def _financed(self, units: Any) -> Any:
        return self.xp.abs(units) * self.xp.where(units > 0, self._swap_long, self._swap_short)

    def _profit(self, state: MarketState, prices: Any, rates: Any, book: Book, closes: Any, rates_now: Any) -> Any:
        """What each instrument's position gained in the bar `[N, M]`, before costs."""
        before = state.book.units * prices - state.book.paid
        after = book.units * closes - book.paid
        return after - before if rates is None else after * rates_now - before * rates

    def _following(self, state: MarketState, now: Any, book: Book, entry: Any, equity: Any) -> MarketState:
        xp, levels = self.xp, self.rules.breaker
        peak = xp.maximum(state.peak, equity)
        if not levels:
            return MarketState(now, state.begun, book, entry, equity, state.day_equity, peak, state.halted, state.rung)
        new_day = self.tape.new_day[now]
        first = xp.where(new_day, state.equity, state.day_equity)
        rung = xp.where(new_day, 0, state.rung)
        halted = (state.halted - 1).clip(0)
        loss = 1.0 - equity / first
        for number, level in enumerate(levels):
            passed = (loss >= level.drawdown) & (rung <= number)
            rung = xp.where(passed, number + 1, rung)
            halted = xp.where(passed, level.bars, halted)
        return MarketState(now, state.begun, book, entry, equity, first, peak, halted, rung)

    def _take(self, array: Any, rows: Any) -> Any:
        return self.xp.take(array, rows, axis=0)

    def _quotes(self, rows: Any) -> tuple[Any, Any | None, Any]:
        """(closes, rates, last rows of the paths) at these rows; a step has looked up those of the next one already."""
        quoted = self._quoted  # read once: another thread may step this core, too
        if quoted[0] is rows:
            return quoted[1:]
        return self._take(self.tape.close, rows), self._rates(rows), self._take(self._last, rows)

    def _rates(self, rows: Any) -> Any | None:
        return None if self.tape.rates is None else self._take(self.tape.rates, rows)

    def _weights(self, units: Any, prices: Any, rates: Any | None, equity: Any) -> Any:
        value = units * prices
        return (value if rates is None else value * rates) / equity[:, None]


def _check(tape: Tape, rules: MarketRules) -> None:
    """Rules and tape fit; said before anything is trained."""
    for name, held, key in (
        ("covariance", rules.max_portfolio_var is not None and rules.var_method != "historical", "max_portfolio_var"),
        ("returns", rules.max_portfolio_var is not None and rules.var_method == "historical", "max_portfolio_var"),
        ("correlation", rules.max_correlation_exposure is not None, "max_correlation_exposure"),
    ):
        if held and getattr(tape, name) is None:
            raise ConfigError(f"the tape was made without {name}, which {key} needs; make it with the same rules")
    for place, instrument in enumerate(tape.instruments):
        if rules.max_participation is not None and not bool((tape.volume[:, place] > 0).any()):
            raise ConfigError(
                f"max_participation limits orders by volume, and the bars of {instrument.name} have none; leave it out"
            )
        if instrument.impact and not instrument.daily_value:
            raise ConfigError(f"{instrument.name}: impact needs daily_value, the value traded per day")


def idle_limits(instruments: Sequence[Instrument], rules: MarketRules) -> list[str]:
    """A sentence for each limit that is so wide that it can never act, given the largest position."""
    largest, count = rules.max_position_size, len(instruments)
    sectors = [instrument.sector for instrument in instruments]
    most = largest * max(sectors.count(sector) for sector in sectors)
    reached = {
        "max_sector_allocation": most,
        "max_leverage": largest * count,
        "max_correlation_exposure": largest * count,
    }
    return [
        f"{name}={limit} never acts: positions of at most {largest} reach {total:.3g}"
        for name, total in reached.items()
        if (limit := getattr(rules, name)) is not None and limit >= total
    ]
