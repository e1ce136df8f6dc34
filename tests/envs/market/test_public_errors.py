"""Eighteen errors of public trading environments, one test for each: what they got wrong, and what is right here.

The numbers are those of the list that this project keeps of them; each test shows the error's own situation.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest

from tests.envs.market.samples import bars_of, core_of, plain, random_bars, run
from troupe.envs.market.build import Market, market_of
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS, MarketConfig, MarketRules
from troupe.envs.market.faces import JointTrainingEnv, MarketEnv, MetaControllerTrainingEnv
from troupe.envs.market.features import Normaliser, instrument_features, market_features
from troupe.envs.market.hierarchy import allocate
from troupe.envs.market.instruments import Instrument, instrument
from troupe.envs.market.rewards import RewardRules
from troupe.envs.market.simulator import scenario, simulate
from troupe.envs.market.vector import MarketVector

CAPITAL = 100_000.0
SMALL = {"episode_length": 15, "warmup_steps": 30, "simulation": {"paths": 2, "bars": 80}}


def documented() -> Market:
    """Document 002's eight instruments on one simulated path."""
    known = [instrument(name) for name in DOCUMENTED_INSTRUMENTS]
    (bars,) = simulate(scenario("trending", 1.0, known), 80, 1, np.random.default_rng(0))
    return market_of([bars], known, MarketConfig(rules=MarketRules(warmup_steps=30)))


def test_a_flat_account_has_its_cash() -> None:
    """1. Equity was the sum of quantity times price, so that a flat account was worth 0."""
    core = core_of(random_bars(0, 40), transaction_cost=0.001)
    assert run(core, [[0.0, 0.0, 0.0]] * 9)[0].equity[0] == CAPITAL
    state, outcomes = run(core, [[0.5, -0.5, 0.2], [0.0, 0.0, 0.0]])
    gained = np.prod([1 + outcome.gain[0] for outcome in outcomes])
    assert state.equity[0] == state.book.cash[0] == pytest.approx(CAPITAL * gained) and gained != 1.0


def test_costs_are_paid_by_the_equity() -> None:
    """2. Costs lowered the reward and never the equity."""
    (before, _), (after, _) = (run(core_of(bars_of([50.0] * 3), transaction_cost=c), [[1.0]]) for c in (0.0, 0.003))
    assert before.equity[0] == CAPITAL and after.equity[0] == pytest.approx(CAPITAL - 300)


def test_a_short_earns_when_the_price_falls() -> None:
    """3. Profit was (price - entry) times a size without a sign: shorts earned like longs."""
    for closes in ([100, 100, 90.0, 90.0], [100, 100, 110.0, 110.0]):
        long, short = (run(core_of(bars_of(closes)), [[side]] * 2)[0].equity[0] - CAPITAL for side in (0.5, -0.5))
        assert long == pytest.approx(-short) and np.sign(long) == np.sign(closes[2] - 100)


def test_to_reduce_is_to_sell_and_to_reverse_is_to_stand_on_the_other_side() -> None:
    """4. Reducing a position added to it, and reversing one only closed it."""
    core = core_of(bars_of([100.0] * 5))
    units = [run(core, [[1.0], [then]])[0].book.units[0, 0] for then in (0.3, -0.5)]
    assert units == pytest.approx([300.0, -500.0])


def test_an_action_has_a_sign() -> None:
    """5. Sizes lost their sign: actions of -1 and +1 both ended long."""
    long, short = (run(core_of(random_bars(1, 20, 1)), [[side]])[0].book.units[0, 0] for side in (1.0, -1.0))
    assert long == -short > 0


def test_episodes_begin_at_different_bars_after_the_warm_up() -> None:
    """6. Every reset went back to bar 0: eight environments were eight copies of one. Warm-up, random starts and the
    stop loss were configured and never used."""
    core = core_of(random_bars(2, 300), warmup_steps=50, stop_loss_pct=0.01)
    envs = MarketVector(core, 8)
    envs.reset(np.random.default_rng(0))
    rows = envs.state.row
    assert len(set(rows.tolist())) == 8 and rows.min() >= 50
    rewards = envs.step(np.ones((8, 3)))[1]
    assert len(set(rewards.tolist())) == 8
    generator = np.random.default_rng(1)
    envs.reset(generator)
    assert not (envs.state.row == rows).all()
    for _ in range(20):
        _, _, terminated, truncated = envs.step(np.ones((8, 3)))
        envs.reset(generator, terminated | truncated)
    assert envs.fired["stop_loss"] > 0


def test_what_was_seen_is_not_what_is_paid() -> None:
    """7. Orders were decided, filled and marked at the same close. Here the gap after the decision is nobody's."""
    core = core_of(bars_of([100, 121.0, 121.0], [100, 110.0, 121.0]))
    _, (outcome,) = run(core, [[1.0]])
    assert outcome.fills[0, 0] == 110.0 and outcome.gain[0] == pytest.approx(0.11)


def test_no_observation_knows_what_follows_or_how_high_a_price_is() -> None:
    """8. Features were scaled by the minimum, maximum and mean of the whole series, and held price levels."""
    bars = random_bars(3, 200, 2)
    after = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in after.values():
        values[120:] *= 7.0
    one, two = (np.concatenate([instrument_features(b).reshape(200, -1), market_features(b)], 1)
                for b in (bars, replace(bars, **after)))  # fmt: skip
    assert one[:120].tobytes() == two[:120].tobytes() and not (one[120:] == two[120:]).all()
    fitted = [Normaliser.fit(table[:120]) for table in (one, two)]
    assert (fitted[0].mean == fitted[1].mean).all() and (fitted[0].std == fitted[1].std).all()
    dear = {name: 20_000 * getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    assert instrument_features(replace(bars, **dear)) == pytest.approx(instrument_features(bars), abs=1e-9)


def test_a_reward_depends_on_no_clock_and_on_no_number_of_trades(monkeypatch: pytest.MonkeyPatch) -> None:
    """9. A penalty compared wall-clock times of simulated trades; drawdown was 0 under water."""
    core = core_of(bars_of([100.0] * 6 + [90.0] * 3), episode_length=100)
    rewards = []
    for step, earlier in ((1e-6, [0, 0, 0, 0, 1]), (1e6, [1, 0, 1, 0, 1])):
        clock = iter(np.arange(1, 10_000) * step)
        for name in ("time", "perf_counter", "monotonic", "process_time"):
            monkeypatch.setattr(time, name, lambda clock=clock: next(clock))
        envs = MarketVector(core, 1)
        envs.place(np.array([0]))
        rewards.append([envs.step(np.array([[float(action)]]))[1][0] for action in [*earlier, 1]])
        seen = envs.core.observe(envs.state)[0]
        assert seen[-1] == pytest.approx(-0.1)  # the drawdown
    assert rewards[0] == rewards[1] and rewards[0][-1] == pytest.approx(100 * -0.1)


def test_the_rules_act_in_the_environments() -> None:
    """10. Risk checks were called with arguments that they did not have, and the error was swallowed: none ever
    acted."""
    market = {**SMALL, "simulation": {"scenario": "crisis", "paths": 2, "bars": 80}, "max_position_size": 0.5}
    limits = {"max_portfolio_var": 0.01, "max_correlation_exposure": 0.5, "max_sector_allocation": 0.6}
    env = MarketEnv({**market, **limits, "max_leverage": 1.0})
    env.reset(options={"row": 60})
    free = MarketEnv(market)
    free.reset(options={"row": 60})
    info = env.step(np.ones(8, dtype=np.float32))[4]
    free.step(np.ones(8, dtype=np.float32))
    assert info["fired"] == {"sector": True, "leverage": True, "correlation": True, "var": True}
    held, wanted = (np.abs(each.market.core.weights(each.market.state)).sum() for each in (env, free))
    assert held < 0.5 < wanted


def test_two_like_positions_pass_a_correlation_limit() -> None:
    """11. The largest w_i w_j |rho_ij| of weights that sum to 1 is 0.25 at most: a limit of 0.7 never acted."""
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 150)))
    core = core_of(bars_of(np.stack([100 * walk, 50 * walk], axis=1)), max_correlation_exposure=0.7)
    acted = [bool(run(core, [action], start=120)[1][0].fired["correlation"][0]) for action in ([1, 1], [1, -1])]
    assert acted == [True, False]


def test_a_hedge_has_less_value_at_risk_and_leverage_more() -> None:
    """12. Weights lost their signs and were scaled to a gross of 1: a perfect hedge had the risk of two longs, and
    leverage had none."""
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 150)))
    core = core_of(bars_of(np.stack([100 * walk, 50 * walk], axis=1)), max_portfolio_var=0.02)
    risk = [core.value_at_risk(np.array([w]), np.array([140]))[0] for w in ([0.5, 0.5], [0.5, -0.5], [1.0, 1.0])]
    assert risk[1] < 0.2 * risk[0] and risk[2] == pytest.approx(2 * risk[0])


def test_one_small_position_keeps_a_sector_limit() -> None:
    """13. Sectors were limited to a share of the gross: any portfolio of one sector broke the limit, a single EURUSD
    included."""
    core = core_of(random_bars(4, 40, 1), [plain("A", sector="forex")], max_sector_allocation=0.4)
    _, outcomes = run(core, [[0.1], [0.4], [0.9]])
    assert [bool(o.fired["sector"][0]) for o in outcomes] == [False, False, True]


def test_no_share_is_no_trade() -> None:
    """14. Probabilities were scaled by the allocation and went through a softmax again: a sector without any still
    bought and sold."""
    logits, signals, sectors = np.array([[0.0, -800.0]]), np.array([[0.5, 1.0, -1.0]]), np.array([0, 1, 1])
    assert allocate(xp, logits, np.array([1.0]), signals, sectors)[0].tolist() == [1.0, 0.0, 0.0]
    assert not allocate(xp, logits, np.array([0.0]), signals, sectors).any()


def test_every_instrument_is_observed() -> None:
    """15. The state showed the first four of eight instruments: no index was ever visible."""
    market = documented()
    for place, name in enumerate(DOCUMENTED_INSTRUMENTS):
        close = market.bars[0].close.copy()
        close[45, place] *= 1.001
        other = market_of([replace(market.bars[0], close=close)], market.instruments, MarketConfig(rules=market.rules))
        assert (other.observations[0][45] != market.observations[0][45]).sum() >= 5, name


def test_spaces_are_what_the_environments_use() -> None:
    """16. Two states of one size differed, three kinds of action were in use, and a softmax of numbers in [0, 1] kept
    every share of three between 0.155 and 0.576."""
    shares = []
    for face, size in ((MarketEnv, 8), (MetaControllerTrainingEnv, 4), (JointTrainingEnv, 12)):
        env: Any = face(SMALL)
        observation, _ = env.reset(seed=0)
        assert env.action_space.shape == (size,) and env.observation_space.contains(observation)
        assert env.observation_space.shape == (env.market.core.observation_size,)
        assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    for logit in (-1.0, 1.0):
        action = np.array([[2 * logit, -2 * logit, -2 * logit]])
        weights = allocate(xp, action, np.array([1 / 3]), np.ones((1, 3)), np.arange(3))
        shares.append(weights[0, 0])
    assert shares[0] < 0.01 and shares[1] > 0.96


@pytest.mark.parametrize("kind", ["return", "log_return", "mean_variance", "differential_sharpe", "portfolio"])
def test_short_positions_are_paid_finite_rewards(kind: Any) -> None:
    """17. The entropy of actions in [-1, 1] took logarithms of negative numbers: the reward was NaN."""
    known = [plain(name, sector=sector) for name, sector in zip("ABC", ("forex", "equity", "forex"), strict=True)]
    envs = MarketVector(core_of(random_bars(5, 60), known, episode_length=100), 4, RewardRules(kind=kind))
    envs.reset(np.random.default_rng(0))
    envs.place(np.arange(4))
    for action in (-1.0, -0.3, 0.0, -1.0, 1.0):
        rewards = envs.step(np.full((4, 3), action))[1]
        assert np.isfinite(rewards).all() and np.isfinite(envs.core.observe(envs.state)).all()


def test_yen_are_not_dollars() -> None:
    """18. Prices in yen and in dollars were added as they stood."""
    known = [Instrument("USDJPY", "forex", "JPY", "USD", half_spread=0.0), plain("A")]
    closes = np.array([[100, 100], [100, 100], [110, 100.0], [110, 100.0]])
    core = core_of(bars_of(closes, names=["USDJPY", "A"]), known, max_position_size=0.5)
    state, outcomes = run(core, [[1.0, 1.0], [1.0, 1.0]])
    assert outcomes[0].amounts[0].tolist() == pytest.approx([50_000.0, 500.0])  # both are half of the equity
    assert state.equity[0] == pytest.approx(CAPITAL + 500_000 / 110, rel=1e-6)
