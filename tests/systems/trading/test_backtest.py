"""Backtests and baselines on markets whose outcome is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.market.samples import bars_of, core_of, random_bars
from troupe.errors import DataError
from troupe.systems.trading.assessment import assess
from troupe.systems.trading.backtest import Track, backtest
from troupe.systems.trading.baselines import (
    BASELINES,
    BuyAndHold,
    RandomMatched,
    cash,
    equal_weight,
    inverse_volatility,
    momentum,
    risk_parity_weights,
)
from troupe.systems.trading.trips import round_trips


def scripted(actions):
    steps = iter(actions)
    return lambda core, state: np.broadcast_to(next(steps), state.book.units.shape)


def test_a_track_holds_what_happened():
    core = core_of(bars_of([100, 100, 110, 99, 99.0]), transaction_cost=0.001)
    track = backtest(core, scripted([[1.0], [1.0], [0.0], [0.0]]), 0, 4)
    assert track.returns.shape == (1, 4) and track.times.tolist() == core.tape.times[1:5].tolist()
    assert track.equity[0, -1] == pytest.approx(100_000 * np.prod(1 + track.returns[0]))
    assert track.profit.sum() == pytest.approx(track.equity[0, -1] - 100_000)
    assert track.turnover[0, 0] == pytest.approx(1.0) and track.cost[0, 0] == pytest.approx(0.001)


def test_two_stretches_are_one():
    core = core_of(random_bars(0, 100), transaction_cost=0.001)
    whole = backtest(core, equal_weight, 10, 60)
    first, second = backtest(core, equal_weight, 10, 30), backtest(core, equal_weight, 30, 60)
    both = first + second
    assert both.returns[:, :20].tolist() == whole.returns[:, :20].tolist()
    assert both.times.tolist() == whole.times.tolist() and both.returns[0, 20] != whole.returns[0, 20]  # begins flat
    with pytest.raises(DataError, match="follow"):
        second + first


def test_a_ruined_account_stays_in_cash():
    core = core_of(bars_of([100, 100, 5, 50, 100.0]), ruin=0.1)
    track = backtest(core, equal_weight, 0, 4)
    assert track.ruined.tolist() == [True] and track.returns[0, 2:].tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("error")
def test_an_account_without_any_equity_is_over():
    """Twice the equity long, and the price halves: nothing is left to divide by."""
    core = core_of(bars_of([100, 100, 50, 70, 70.0]), max_position_size=2.0, ruin=0.0)
    track = backtest(core, equal_weight, 0, 4)
    assert track.returns[0].tolist() == [0.0, -1.0, 0.0, 0.0] and track.ruined.tolist() == [True]
    assert track.weights[0, :, 0].tolist() == [2.0, 0.0, 0.0, 0.0] and track.turnover[0, 2:].tolist() == [0.0, 0.0]


def test_stretches_must_lie_on_one_path():
    core = core_of([random_bars(0, 50), random_bars(1, 50)])
    with pytest.raises(DataError, match="different paths"):
        backtest(core, cash, 40, 60)
    with pytest.raises(DataError, match="fit"):
        backtest(core, cash, 40, 100)


# ---------------------------------------------------------------------------------- baselines


def test_every_baseline_runs_and_keeps_to_the_largest_position():
    core = core_of(random_bars(1, 300), max_position_size=0.2, correlation_window=50)
    for name, make in BASELINES.items():
        track = backtest(core, make(), 60, 200)
        assert np.abs(track.weights).max() < 0.25, name
        assert (np.abs(track.weights).max() > 0.1) == (name != "cash"), name


def test_buy_and_hold_trades_once():
    core = core_of(random_bars(2, 100), max_position_size=0.6)
    track = backtest(core, BuyAndHold(0.5), 0, 90)
    assert track.turnover[0, 0] == pytest.approx(0.9, rel=0.01) and track.turnover[0, 1:].max() < 1e-9
    closes = core.tape.close
    expected = 100_000 + (0.3 * 100_000 / closes[0] * (closes[90] - core.tape.open[1])).sum()
    assert track.equity[0, -1] == pytest.approx(expected, rel=1e-9)
    trimmed = backtest(core_of(bars_of([100, 100, 150, 150.0]), max_position_size=0.5), BuyAndHold(), 0, 3)
    assert trimmed.turnover[0, 1] == 0.0 and trimmed.turnover[0, 2] > 0.05


def test_buy_and_hold_buys_what_had_no_bar_at_first_and_keeps_out_of_what_was_stopped():
    traded = np.ones((60, 2), dtype=bool)
    traded[1, 1] = False
    core = core_of(random_bars(2, 60, 2, traded=traded), max_position_size=0.4)
    units = backtest(core, BuyAndHold(), 0, 50).units[0]
    assert (units[0] > 0).tolist() == [True, False] and (units[1] > 0).all()
    closes = np.array([[100, 100], [100, 100], [90, 100], [90, 100], [90, 100.0]])
    stopped = core_of(bars_of(closes), max_position_size=0.4, stop_loss_pct=0.05)
    assert (backtest(stopped, BuyAndHold(), 0, 4).units[0, -1] > 0).tolist() == [False, True]


def test_inverse_volatility_and_risk_parity():
    generator = np.random.default_rng(0)
    calm, wild = 0.005 * generator.standard_normal(400), 0.02 * generator.standard_normal(400)
    core = core_of(bars_of(100 * np.exp(np.cumsum(np.stack([calm, wild], 1), 0))), correlation_window=300)
    actions = inverse_volatility(core, core.begin(np.array([390])))
    assert actions[0, 0] == 1.0 and actions[0, 1] == pytest.approx(0.25, rel=0.1)
    covariance = np.array([[0.04, 0.006, 0.0], [0.006, 0.01, 0.002], [0.0, 0.002, 0.0025]])
    weights = risk_parity_weights(covariance)
    contributions = weights * (covariance @ weights)
    assert contributions == pytest.approx(
        np.full(3, contributions.mean()), rel=1e-6
    ) and weights.sum() == pytest.approx(1)


def test_momentum_follows_the_trend():
    t = np.arange(200)
    core = core_of(bars_of(np.stack([100 * 1.001**t, 100 * 0.999**t], 1) * (1 + 1e-4 * (t % 2))[:, None]))
    assert np.sign(momentum(core, core.begin(np.array([150])))).tolist() == [[1.0, -1.0]]


def test_random_trades_as_much_as_it_was_told():
    core = core_of(random_bars(3, 2000, 4), max_position_size=0.1)
    track = backtest(core, RandomMatched(np.random.default_rng(0), 0.05), 10, 1900)
    assert track.turnover[0, 1:].mean() == pytest.approx(0.05, rel=0.1)


# ---------------------------------------------------------------------------------- assessment


def test_round_trips_end_where_positions_close_or_turn():
    core = core_of(bars_of([100, 100, 110, 110, 99, 99, 99.0]))
    track = backtest(core, scripted([[1.0], [0.0], [-1.0], [1.0], [1.0], [0.0]]), 0, 6)
    trips = round_trips(track, 0)
    assert sum(trip.profit for trip in trips) == pytest.approx(track.equity[0, -1] - 100_000)
    found = [(trip.side, trip.opened, trip.closed) for trip in trips]
    assert found == [
        ("long", 0, 1),
        ("short", 2, 3),
        ("long", 3, 5),
    ]


def test_a_position_that_is_stopped_out_in_its_first_bar_is_a_trip():
    """Two buys at the open, each stopped out at 2 % in the same bar: two losses, and not none."""
    low = np.array([100, 100, 97, 97, 100.0])[:, None]
    core = core_of(bars_of([100, 100, 99, 99, 99.0], [100, 100, 100, 100, 99.0], low=low), stop_loss_pct=0.02)
    track = backtest(core, scripted([[0.0], [1.0], [1.0], [0.0]]), 0, 4)
    trips = round_trips(track, 0)
    assert [(trip.side, trip.opened, trip.closed) for trip in trips] == [("long", 1, 1), ("long", 2, 2)]
    assert [trip.profit for trip in trips] == pytest.approx([-2000.0, -1979.80], abs=0.01)
    assert assess("stopped", _longer(track), np.random.default_rng(0)).metrics["win rate"].mean == 0.0


def _longer(track: Track) -> Track:
    """With a quiet stretch behind it, so that there are bars enough to assess."""
    core = core_of(bars_of([99.0] * 30, times=int(track.times[-1]) + 3600 * np.arange(30)))
    return track + replace(backtest(core, cash, 0, 25), fired={name: np.zeros((1, 25), bool) for name in track.fired})


def test_the_mean_over_seeds_is_not_that_of_the_survivors():
    core = core_of(random_bars(5, 200, 1))
    track = backtest(core, equal_weight, 60, 160, accounts=3)
    found = assess("all", track, np.random.default_rng(0))
    assert found.metrics["sharpe"].n == 3
    returns = track.returns.copy()
    returns[1, 50] = -1.0
    lost = assess("one lost everything", replace(track, returns=returns), np.random.default_rng(0))
    assert "sharpe" not in lost.metrics and "sortino" not in lost.metrics
    assert lost.metrics["annual return"].n == 3 and not lost.edge.significant
    single = replace(backtest(core, equal_weight, 60, 160), returns=returns[1:2])
    assert "sharpe" not in assess("alone", single, np.random.default_rng(0)).metrics


def test_seeds_that_trade_alike_are_no_more_evidence_against_a_forecast():
    """One right forecast in five copies: five times the days would reject it."""
    core = core_of(random_bars(6, 1500, 1), max_portfolio_var=0.03, max_position_size=1.0, correlation_window=50)
    track = backtest(core, equal_weight, 60, 1460)
    five = track
    for _ in range(4):
        five = five.beside(track)
    alone, together = (assess("x", each, np.random.default_rng(0)).kupiec for each in (track, five))
    assert alone is not None and together == pytest.approx(min(1.0, 2 * alone))


def test_cash_has_no_edge_and_no_trades():
    core = core_of(random_bars(4, 300))
    found = assess("cash", backtest(core, cash, 0, 200), np.random.default_rng(0))
    assert found.verdict.startswith("no edge") and found.metrics["trades"].mean == 0
    assert "sharpe" not in found.metrics and found.deflated is None


def test_seeds_give_intervals_and_the_record_says_what_it_could_show():
    core = core_of(random_bars(5, 400), max_portfolio_var=0.01, max_position_size=0.5, correlation_window=50)
    generator = np.random.default_rng(1)
    track = backtest(core, lambda core, state: generator.uniform(-1, 1, state.book.units.shape), 60, 360, accounts=5)
    found = assess("random", track, np.random.default_rng(0), trials=np.array([0.01, -0.02, 0.0]), var_limit=0.01)
    sharpe = found.metrics["sharpe"]
    assert sharpe.n == 5 and sharpe.low < sharpe.mean < sharpe.high
    assert found.metrics["var compliance"].mean == 1.0 and found.kupiec is not None
    assert found.trials == 3 and found.deflated is not None and found.deflated < found.probabilistic
    assert found.detectable == pytest.approx(2.49 / np.sqrt(found.years), rel=0.01)
