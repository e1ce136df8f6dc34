"""The core against numbers worked by hand, an independent accountant, and the errors of public trading environments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.market.samples import bars_of, core_of, plain, random_bars, run
from troupe.envs.market.config import BreakerLevel, MarketRules
from troupe.envs.market.core import MarketCore, idle_limits
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.tape import make_tape
from troupe.errors import ConfigError, DataError

CAPITAL = 100_000.0


# ---------------------------------------------------------------------------------- what others get wrong


def test_the_same_actions_on_other_prices_earn_something_else():
    rising, falling = core_of(bars_of([100, 101, 102.0])), core_of(bars_of([100, 99, 98.0]))
    gains = [run(core, [[1.0], [1.0]])[1][0].gain[0] for core in (rising, falling)]
    assert gains == pytest.approx([0.01, -0.01])


def test_minus_one_and_one_give_opposite_positions():
    core = core_of(random_bars(0, 20, 1))
    (long, _), (short, _) = run(core, [[1.0]]), run(core, [[-1.0]])
    assert long.book.units[0, 0] == -short.book.units[0, 0] > 0


def test_a_flat_account_is_its_cash():
    core = core_of(random_bars(1, 50), transaction_cost=0.001)
    state, _ = run(core, [[0.5, -0.5, 0.2]] * 10 + [[0.0, 0.0, 0.0]])
    assert (state.book.units == 0).all() and (state.book.paid == 0).all()
    assert state.equity[0] == state.book.cash[0] < CAPITAL


def test_accounts_start_at_different_bars():
    core = core_of(random_bars(2, 200))
    state = core.begin(np.array([3, 50, 120]))
    _, outcome = core.step(state, np.full((3, 3), 1.0))
    assert len(set(outcome.gain.tolist())) == 3


def test_costs_leave_the_equity():
    free, charged = core_of(bars_of([100.0] * 5)), core_of(bars_of([100.0] * 5), transaction_cost=0.003)
    assert run(free, [[1.0]])[0].equity[0] == CAPITAL
    assert run(charged, [[1.0]])[0].equity[0] == pytest.approx(CAPITAL * 0.997)


def test_an_order_is_filled_at_the_open_after_the_decision():
    """Seen at 100, filled at 110, marked at 121: the gap belongs to nobody who decided at 100."""
    core = core_of(bars_of([100, 121.0, 121.0], [100, 110.0, 121.0]))
    state, (outcome,) = run(core, [[1.0]])
    assert outcome.fills[0, 0] == 110.0 and state.book.units[0, 0] == pytest.approx(1000.0)
    assert state.equity[0] == pytest.approx(CAPITAL + 1000 * 11)


def test_a_series_of_closes_is_filled_at_the_next_close():
    core = core_of(bars_of([100, 121.0, 133.1], close_only=np.array([True])))
    state, outcomes = run(core, [[1.0], [1.0]])
    assert outcomes[0].fills[0, 0] == 121.0 and outcomes[0].gain[0] == 0.0
    assert state.equity[0] == pytest.approx(CAPITAL + 1000 * 12.1)  # 1,000 units, as they were ordered at 100


def test_a_bar_that_opened_before_the_decision_is_filled_at_its_close():
    """A daily bar among hourly ones: whoever decides at 23:00 has seen the day, and its open lies 23 hours back."""
    hours = np.arange(1, 73)
    daily = hours % 24 == 0
    closes = np.stack([np.full(72, 50.0), np.repeat([100.0, 110.0, 120.0], 24)], axis=1)
    opens = np.stack([np.full(72, 50.0), np.where(daily, closes[:, 1] - 9, closes[:, 1])], axis=1)
    traded = np.stack([np.ones(72, dtype=bool), daily], axis=1)
    core = core_of(bars_of(closes, opens, times=1_400_025_600 + 3600 * hours, traded=traded))
    assert core.tape.close_only.tolist() == [False, True]
    _, (outcome,) = run(core, [[0.5, 0.5]], start=46)
    assert outcome.fills[0].tolist() == [50.0, 110.0] and outcome.gain[0] == 0.0
    assert not core_of(random_bars(0, 60)).tape.close_only.any()
    holes = np.random.default_rng(0).random((60, 3)) < 0.7
    assert not core_of(random_bars(0, 60, traded=holes)).tape.close_only.any()  # holidays are not early opens


def test_an_instrument_without_a_bar_is_not_filled():
    traded = np.array([[True], [False], [True], [True]])
    core = core_of(bars_of([100, 100, 110.0, 110.0], [100, 100, 105.0, 110.0], traded=traded))
    state, outcomes = run(core, [[1.0], [1.0]])
    assert outcomes[0].amounts[0, 0] == 0.0 and outcomes[1].fills[0, 0] == 105.0
    assert state.book.units[0, 0] == pytest.approx(1000.0)


def test_reducing_sells_and_reversing_opens_the_other_side():
    core = core_of(bars_of([100.0] * 5))
    state, _ = run(core, [[1.0], [0.4]])
    assert state.book.units[0, 0] == pytest.approx(400.0)
    state, _ = run(core, [[1.0], [-0.5]])
    assert state.book.units[0, 0] == pytest.approx(-500.0)


def test_profit_in_yen_is_converted():
    """USDJPY 100 -> 110 on 100,000 dollars: 1,000,000 yen at 110 are 9,090.91 dollars."""
    yen = Instrument("USDJPY", "forex", "JPY", "USD", half_spread=0.0)
    core = core_of(bars_of([100, 100, 110.0], names=["USDJPY"]), [yen])
    state, _ = run(core, [[1.0], [1.0]])
    assert state.equity[0] == pytest.approx(CAPITAL + 1_000_000 / 110, rel=1e-4)
    assert state.book.units[0, 0] == pytest.approx(100_000, rel=1e-2)


# ---------------------------------------------------------------------------------- an independent accountant


def reference_equity(core: MarketCore, outcomes: list, rates: np.ndarray, last: int) -> float:
    """Equity from the fills alone, in plain Python, with all balances kept in their own currencies until flat."""
    cash, m = CAPITAL, len(core.instruments)
    units, balance = [0.0] * m, [0.0] * m
    tape = core.tape
    for t, outcome in enumerate(outcomes):
        for i in range(m):
            amount, price, rate = outcome.amounts[0, i], outcome.fills[0, i], rates[t + 1, i]
            cash -= abs(amount) * price * rate * float(core._cost[i])
            units[i] += amount
            balance[i] -= amount * price
            if units[i] == 0.0:
                cash += balance[i] * rate
                balance[i] = 0.0
    return cash + sum((units[i] * tape.close[last, i] + balance[i]) * rates[last, i] for i in range(m))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]), st.booleans(), st.booleans())
def test_equity_agrees_with_the_accountant(seed, sparsity, foreign, partial):
    generator = np.random.default_rng(seed)
    bars = random_bars(seed, 60, 3, names=["USDJPY", "X", "Y"])
    volume = np.where(generator.random(bars.close.shape) < 0.5, 50.0, 5000.0)
    traded = generator.random(bars.close.shape) < 0.8
    bars = replace(bars, volume=volume, traded=traded)
    quote = "JPY" if foreign else "USD"
    known = [Instrument("USDJPY", "forex", quote, "USD", half_spread=1e-4), plain("X"), plain("Y", half_spread=2e-4)]
    rules = {"transaction_cost": None, "max_participation": 0.5 if partial else None, "max_position_size": 0.8}
    core = core_of(bars, known, **rules)
    actions = generator.uniform(-1, 1, (50, 3)) * (generator.random((50, 3)) > sparsity)
    state, outcomes = run(core, actions)
    rates = np.ones(bars.close.shape) if core.tape.rates is None else core.tape.rates
    exact = reference_equity(core, outcomes, rates, 50)
    assert state.equity[0] == pytest.approx(exact, rel=1e-9)
    assert np.prod([1 + o.gain[0] for o in outcomes]) * CAPITAL == pytest.approx(exact, rel=1e-9)
    if not partial and not foreign and traded.all():
        assert np.abs(core.weights(state)).max() < 1.0


def test_the_profit_of_the_instruments_is_what_the_equity_gains():
    generator = np.random.default_rng(8)
    bars = random_bars(6, 120, 3, names=["USDJPY", "X", "Y"])
    known = [
        Instrument("USDJPY", "forex", "JPY", "USD", swap_long=0.1), plain("X", impact=1.0, daily_value=1e8), plain("Y")
    ]  # fmt: skip
    core = core_of(bars, known, stop_loss_pct=0.01, transaction_cost=None, margin_call=0.9, max_position_size=5.0)
    state = core.begin(np.array([0]))
    for action in generator.uniform(-1, 1, (100, 3)):
        after, outcome = core.step(state, action[None], detail=True)
        assert outcome.profit.sum() == pytest.approx(after.equity[0] - state.equity[0], abs=1e-7)
        state = after
    assert core.step(state, action[None])[1].profit is None


# ---------------------------------------------------------------------------------- limits that act


def fired(core: MarketCore, actions: list, name: str) -> list[bool]:
    return [bool(outcome.fired[name][0]) for outcome in run(core, actions)[1]]


def test_a_stop_loss_closes_within_the_bar_and_at_the_open_after_a_gap():
    low = np.array([[100], [100], [97.0], [100.0]])
    core = core_of(bars_of([100, 100, 99.0, 99.0], [100, 100, 100, 99.0], low=low), stop_loss_pct=0.02)
    state, outcomes = run(core, [[1.0], [1.0]])
    assert bool(outcomes[1].fired["stop_loss"][0]) and state.book.units[0, 0] == 0
    assert state.equity[0] == pytest.approx(CAPITAL * 0.98)
    gap = core_of(bars_of([100, 100, 90.0, 90.0], [100, 100, 95.0, 90.0]), stop_loss_pct=0.02)
    assert run(gap, [[1.0], [1.0]])[0].equity[0] == pytest.approx(CAPITAL * 0.95, rel=1e-3)
    short = core_of(bars_of([100, 100, 104.0, 104.0], [100, 100, 100, 104.0]), stop_loss_pct=0.02)
    assert run(short, [[-1.0], [-1.0]])[0].equity[0] == pytest.approx(CAPITAL * 0.98)


def test_value_at_risk_shrinks_positions_and_a_hedge_keeps_its_size():
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 150)))
    twins = bars_of(np.stack([100 * walk, 50 * walk], axis=1))
    core = core_of(twins, max_portfolio_var=0.02, correlation_window=100)
    both, (outcome,) = run(core, [[1.0, 1.0]], start=120)
    assert bool(outcome.fired["var"][0]) and outcome.value_at_risk[0] == pytest.approx(0.02)
    hedged, (outcome,) = run(core, [[1.0, -1.0]], start=120)
    assert not bool(outcome.fired["var"][0])
    assert np.abs(core.weights(both)).sum() < 0.5 * np.abs(core.weights(hedged)).sum()


@pytest.mark.parametrize("method", ["historical", "monte_carlo"])
def test_other_value_at_risk_methods_are_near_the_parametric_one_for_normal_returns(method):
    bars = random_bars(3, 400, 2)
    weights, row = np.array([[0.6, -0.3]]), np.array([399])
    core, other = (
        core_of(bars, max_portfolio_var=0.02, correlation_window=300, var_method=m, var_draws=20_000)
        for m in ("parametric", method)
    )
    found, expected = other.value_at_risk(weights, row)[0], core.value_at_risk(weights, row)[0]
    assert found == pytest.approx(expected, rel=0.25) and found > 0
    assert other.value_at_risk(2 * weights, row)[0] == pytest.approx(2 * found)


def test_sector_leverage_and_correlation_limits_trigger():
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 150)))
    twins = bars_of(np.stack([100 * walk, 50 * walk], axis=1))
    for name, key, limit in (
        ("sector", "max_sector_allocation", 0.4),
        ("leverage", "max_leverage", 1.0),
        ("correlation", "max_correlation_exposure", 0.7),
    ):
        core = core_of(twins, **{key: limit})
        state, (outcome,) = run(core, [[1.0, 1.0]], start=120)
        assert bool(outcome.fired[name][0])
        assert np.abs(core.weights(state)).sum() == pytest.approx(limit, rel=0.05)
        calm, (outcome,) = run(core, [[0.1, 0.1]], start=120)
        assert not bool(outcome.fired[name][0]) and np.abs(core.weights(calm)).sum() == pytest.approx(0.2, rel=0.05)


def test_the_circuit_breaker_closes_positions_for_its_bars_and_escalates():
    closes = [100, 100, 94.0, 94, 94, 94, 94]
    levels = (BreakerLevel(drawdown=0.05, bars=2), BreakerLevel(drawdown=0.2, bars=4))
    core = core_of(bars_of(closes), breaker=levels)
    state, outcomes = run(core, [[1.0]] * 6)
    assert [bool(o.fired["breaker"][0]) for o in outcomes] == [False, False, True, True, False, False]
    assert outcomes[2].amounts[0, 0] < 0 and state.book.units[0, 0] > 0
    deep = core_of(bars_of([100, 100, 75.0, 75, 75, 75, 75, 75]), breaker=levels)
    assert [bool(o.fired["breaker"][0]) for o in run(deep, [[1.0]] * 7)[1]] == [
        False,
        False,
        True,
        True,
        True,
        True,
        False,
    ]


def test_a_margin_call_closes_everything():
    known = [plain("A", margin=0.5)]
    core = core_of(bars_of([100, 100, 70.0, 70.0]), known, max_position_size=1.9, margin_call=1.0)
    state, outcomes = run(core, [[1.0], [1.0]])
    assert bool(outcomes[1].fired["margin_call"][0]) and state.book.units[0, 0] == 0
    assert not bool(outcomes[0].fired["margin_call"][0])


def test_swap_is_paid_for_time():
    known = [plain("A", swap_long=0.1, swap_short=-0.05)]
    core = core_of(bars_of([100.0] * 3), known, transaction_cost=None)
    hour = 3600 / (365.25 * 24 * 3600)
    assert run(core, [[1.0]])[0].equity[0] == pytest.approx(CAPITAL * (1 - 0.1 * hour), rel=1e-12)
    assert run(core, [[-1.0]])[0].equity[0] == pytest.approx(CAPITAL * (1 + 0.05 * hour), rel=1e-12)


def test_a_weekend_is_financed_by_who_held_over_it():
    """49 hours lie between two closes of hourly bars: 48 on what was held before the fill at Monday's open, 1 after."""
    times = 1_400_000_400 + 3600 * np.array([0, 1, 2, 51, 52])
    known = [plain("A", swap_long=0.1)]
    core = core_of(bars_of([100.0] * 5, times=times), known, transaction_cost=None)
    year = 365.25 * 24
    held, bought, sold = (
        [o.cost[0] * year / 0.1 for o in run(core, [[a] for a in actions])[1]]
        for actions in ((1, 1, 1), (0, 0, 1), (1, 1, 0))
    )
    assert held == pytest.approx([1, 1, 49], rel=1e-3)
    assert bought == pytest.approx([0, 0, 1], rel=1e-3)
    assert sold == pytest.approx([1, 1, 48], rel=1e-3)


def test_a_series_of_closes_is_financed_from_its_fill():
    known = [plain("A", swap_long=0.1)]
    core = core_of(bars_of([100.0] * 4, close_only=np.array([True])), known, transaction_cost=None)
    costs = [o.cost[0] * 365.25 * 24 / 0.1 for o in run(core, [[1.0], [1.0], [0.0]])[1]]
    assert costs == pytest.approx([0, 1, 1], rel=1e-3)


def test_nothing_is_closed_by_a_margin_call_where_there_is_no_bar():
    known = [plain("A", margin=0.5), plain("B", margin=0.5)]
    traded = np.ones((5, 2), dtype=bool)
    traded[2, 1] = False
    closes = np.array([[100, 100], [100, 100], [40, 100], [40, 100], [40, 100.0]])
    core = core_of(bars_of(closes, traded=traded), known, max_position_size=1.0, margin_call=1.0)
    state, outcomes = run(core, [[1.0, 1.0], [1.0, 1.0]])
    assert bool(outcomes[1].fired["margin_call"][0]) and state.book.units[0].tolist() == [0.0, 1000.0]


def test_the_forecast_is_of_what_the_orders_lead_to():
    """An order that is not filled leaves the account above its limit, and the forecast says so."""
    bars = random_bars(3, 200, 2)
    traded = np.ones((200, 2), dtype=bool)
    traded[152, 0] = False
    rules = {"max_portfolio_var": 0.02, "correlation_window": 50, "max_position_size": 2.0}
    core = core_of(replace(bars, traded=traded), **rules)
    _, outcomes = run(core, [[0.3, 0.0], [-0.3, 1.0]], start=150)
    assert outcomes[0].value_at_risk[0] == pytest.approx(0.02) and outcomes[1].value_at_risk[0] > 0.025
    _, outcomes = run(core_of(bars, **rules), [[0.3, 0.0], [-0.3, 1.0]], start=150)
    assert max(o.value_at_risk[0] for o in outcomes) <= 0.02 * (1 + 1e-12)


def test_historical_value_at_risk_counts_the_returns_that_there_are():
    """Ten returns under a window of a hundred: their quantile, and not that of ninety zeros more."""
    bars = random_bars(3, 400, 1)
    core = core_of(bars, max_portfolio_var=0.02, correlation_window=100, var_method="historical")
    returns = bars.close[1:11, 0] / bars.close[:10, 0] - 1
    found = core.value_at_risk(np.array([[1.0]]), np.array([10]))[0] / np.sqrt(core.tape.periods_per_day)
    assert found == pytest.approx(-np.quantile(np.repeat(returns, 10), 0.05)) and found > 0.005


def test_impact_grows_with_the_square_root_of_the_order():
    known = [plain("A", impact=1.0, daily_value=1e6)]
    core = core_of(random_bars(4, 200, 1), known, transaction_cost=None)
    small, large = (run(core, [[size]], start=150)[1][0] for size in (0.1, 0.4))
    assert large.cost[0] / large.turnover[0] == pytest.approx(2 * small.cost[0] / small.turnover[0], rel=1e-6)


def test_partial_fills_follow_volume():
    core = core_of(bars_of([100.0] * 4, volume=np.full((4, 1), 800.0)), max_participation=0.5)
    _, outcomes = run(core, [[1.0]] * 3)
    assert [o.amounts[0, 0] for o in outcomes] == pytest.approx([400, 400, 200])


# ---------------------------------------------------------------------------------- ends


def test_ruin_terminates_and_time_truncates():
    core = core_of(bars_of([100, 100, 100, 5.0, 5.0]), ruin=0.1, episode_length=3)
    _, outcomes = run(core, [[1.0]] * 3)
    assert [bool(o.terminated[0]) for o in outcomes] == [False, False, True]
    assert [bool(o.truncated[0]) for o in outcomes] == [False, False, True]
    _, outcomes = run(core_of(bars_of([100.0] * 3)), [[0.0]] * 2)
    assert [bool(o.truncated[0]) for o in outcomes] == [False, True]  # the end of the bars


def test_episodes_begin_after_the_warm_up_and_stay_on_their_path():
    core = core_of([random_bars(0, 30), random_bars(1, 40)], warmup_steps=10)
    assert core.starts.tolist() == [*range(10, 29), *range(40, 69)]
    with pytest.raises(DataError, match="warm-up"):
        core.begin(np.array([35]))
    with pytest.raises(DataError, match="last bar"):
        core.begin(np.array([29]))


# ---------------------------------------------------------------------------------- no look-ahead


EVERYTHING = {
    "stop_loss_pct": 0.02, "max_portfolio_var": 0.01, "max_correlation_exposure": 0.5, "max_sector_allocation": 0.6,
    "max_leverage": 0.9, "breaker": (BreakerLevel(drawdown=0.03, bars=3),), "transaction_cost": 0.0005,
    "margin_call": 0.5, "correlation_window": 20, "max_position_size": 0.6,
}  # fmt: skip


@pytest.mark.parametrize("change", ["scrambled", "cut"])
def test_the_future_changes_nothing_that_came_before(change):
    """Bit for bit: observations, orders and fills up to bar t, whatever happens after it."""
    bars, cut = random_bars(5, 160), 100
    generator = np.random.default_rng(9)
    after = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in after.values():
        values[cut + 1 :] *= np.exp(generator.normal(0, 0.2, values[cut + 1 :].shape))
    after["high"] = np.maximum.reduce([after[n] for n in ("open", "high", "low", "close")])
    after["low"] = np.minimum.reduce([after[n] for n in ("open", "low", "close")])
    other = replace(bars, **after) if change == "scrambled" else bars.between(0, cut + 2)
    actions = generator.uniform(-1, 1, (cut - 40, 3))
    seen = []
    for market in (bars, other):
        core = core_of(market, **EVERYTHING)
        state, rows = core.begin(np.array([40])), []
        for action in actions:
            rows.append(core.observe(state))
            state, outcome = core.step(state, action[None])
            rows += [outcome.amounts, outcome.fills, outcome.gain, outcome.value_at_risk, state.equity]
        seen.append(rows)
    for one, two in zip(*seen, strict=True):
        assert (one == two).all()


# ---------------------------------------------------------------------------------- torch


def test_torch_agrees_to_one_part_in_a_trillion():
    import torch

    generator = np.random.default_rng(3)
    bars = random_bars(7, 200, 3, names=["USDJPY", "X", "Y"], traded=generator.random((200, 3)) < 0.9)
    known = [
        Instrument("USDJPY", "forex", "JPY", "USD", swap_long=0.02, impact=1.0, daily_value=1e9), plain("X"),
        plain("Y", half_spread=1e-4),
    ]  # fmt: skip
    for method in ("parametric", "historical", "monte_carlo"):
        rules = MarketRules(
            **{**EVERYTHING, "transaction_cost": None, "warmup_steps": 20, "max_position_size": 0.5,
               "var_method": method, "episode_length": 100}
        )  # fmt: skip
        tape = make_tape(bars, known, rules, np.random.default_rng(0).normal(size=(200, 4)))
        cores = MarketCore(tape, rules), MarketCore(tape.to_torch(), rules)
        rows = generator.integers(20, 80, 16)
        states = [core.begin(rows) for core in cores]
        for _ in range(100):
            actions = generator.uniform(-1, 1, (16, 3))
            observed = [np.asarray(core.observe(state)) for core, state in zip(cores, states, strict=True)]
            np.testing.assert_allclose(*observed, rtol=1e-6, atol=1e-6)
            found = [
                core.step(state, given)
                for core, state, given in zip(cores, states, (actions, torch.from_numpy(actions)), strict=True)
            ]
            states = [state for state, _ in found]
            for name in ("gain", "cost", "turnover", "value_at_risk", "amounts", "fills"):
                one, two = (np.asarray(getattr(outcome, name)) for _, outcome in found)
                np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(*(np.asarray(s.equity) for s in states), rtol=1e-12)
            for name, acted in found[0][1].fired.items():
                assert (np.asarray(acted) == np.asarray(found[1][1].fired[name])).all(), name


# ---------------------------------------------------------------------------------- bad input


def test_bad_input_is_one_sentence():
    bars = random_bars(0, 60)
    core = core_of(bars)
    state = core.begin(np.array([0]))
    with pytest.raises(DataError, match="not finite"):
        core.step(state, np.array([[0.0, np.nan, 0.0]]))
    with pytest.raises(DataError, match="not finite"):
        core.step(state, np.array([[0.0, np.inf, 0.0]]))
    holiday = core_of(replace(bars, traded=np.zeros(bars.close.shape, dtype=bool)))
    with pytest.raises(DataError, match="not finite"):  # also where no order is made of it
        holiday.step(state, np.array([[0.0, np.nan, 0.0]]))
    with pytest.raises(DataError, match="shape"):
        core.step(state, np.zeros((1, 2)))
    with pytest.raises(ConfigError, match="daily_value"):
        core_of(bars, [plain("A", impact=1.0), plain("B"), plain("C")])
    with pytest.raises(ConfigError, match="volume"):
        core_of(replace(bars, volume=np.zeros(bars.close.shape)), max_participation=0.1)
    unknown = bars.volume.copy()
    unknown[:, 1] = 0.0
    with pytest.raises(ConfigError, match="the bars of B have none"):
        core_of(replace(bars, volume=unknown), max_participation=0.1)
    with pytest.raises(DataError, match="warmup_steps"):
        core_of(bars, warmup_steps=80)
    with pytest.raises(ValueError, match="could ever reach"):
        MarketRules(max_position_size=0.5, max_leverage=0.3)
    with pytest.raises(ValueError, match="must rise"):
        MarketRules(breaker=(BreakerLevel(drawdown=0.1, bars=1), BreakerLevel(drawdown=0.05, bars=1)))


def test_a_limit_that_can_never_act_is_named():
    core = core_of(random_bars(0, 60), max_position_size=0.1, max_sector_allocation=0.4, max_leverage=0.2)
    assert [line.split("=")[0] for line in idle_limits(core.tape.instruments, core.rules)] == ["max_sector_allocation"]
