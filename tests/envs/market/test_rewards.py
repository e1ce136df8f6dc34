"""Rewards against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
import torch

from tests.envs.market.samples import bars_of, core_of, plain, random_bars
from troupe.envs.market.env_config import core_of as environments_core
from troupe.envs.market.env_config import read_env_config
from troupe.envs.market.faces import JointTrainingEnv
from troupe.envs.market.rewards import Bar, RewardRules, RewardState, begin_reward, left_out, pay
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError

GAIN = np.array([0.02, -0.01])
START = begin_reward(xp, 1e-4, GAIN)
DOCUMENTED = {
    "risk_penalty_weight": 1.0, "transaction_cost_weight": 1.0, "diversification_bonus_weight": 0.5,
    "sharpe_target": 2.0, "max_drawdown_target": 0.15, "risk_free_rate": 0.02, "downside_volatility_weight": 1.0,
}  # fmt: skip
"""The reward of document 002, as it stands there."""


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RewardRules(kind="return", scale=1), [0.02, -0.01]),
        (RewardRules(kind="return", scale=100), [2.0, -1.0]),
        (RewardRules(kind="log_return", scale=1), [0.0198026273, -0.0100503359]),
        (RewardRules(kind="mean_variance", aversion=10, scale=1), [0.018, -0.0105]),
    ],
)
def test_plain_rewards(rules, expected):
    rewards, after = pay(xp, rules, START, Bar(GAIN))
    assert rewards == pytest.approx(np.array(expected))
    assert after is START


def test_differential_sharpe_is_the_slope_of_the_moving_sharpe_ratio():
    """The reward is what the moving ratio gains, to first order in the decay."""
    decay, generator = 1e-5, np.random.default_rng(0)
    rules = RewardRules(kind="differential_sharpe", decay=decay, scale=1)
    _, state = pay(xp, rules.model_copy(update={"decay": 0.05}), START, Bar(GAIN))
    for gain in generator.normal(0.001, 0.01, (20, 2)):
        rewards, after = pay(xp, rules, state, Bar(gain))
        ratio = [s.mean / np.sqrt(s.square - s.mean**2) for s in (state, after)]
        assert rewards == pytest.approx(ratio[1] - ratio[0], rel=1e-3)
        _, state = pay(xp, rules.model_copy(update={"decay": 0.05}), state, Bar(gain))


def test_an_account_that_does_nothing_is_paid_nothing_and_nothing_overflows():
    rules = RewardRules(kind="differential_sharpe", decay=0.5)
    state = START
    for _ in range(200):
        rewards, state = pay(xp, rules, state, Bar(np.zeros(2)))
        assert np.isfinite(rewards).all()
    assert rewards == pytest.approx(np.zeros(2))


# --- the portfolio's reward -------------------------------------------------------------------------------------

PLAIN = {
    "kind": "portfolio", "scale": 1.0, "decay": 0.5, "diversification_bonus_weight": 0.0, "sharpe_target": None,
    "max_drawdown_target": None, "risk_free_rate": 0.0,
}  # fmt: skip
"""The change of a moving Sharpe ratio and nothing else."""


def a_bar(gains: Any, costs: Any = 0.0, exposures: Any = 0.0, equity: float = 1.0, peak: float = 1.0) -> Bar:
    """Of one account; 100 bars a year."""
    gains = np.array([gains], dtype=np.float64)
    costs, exposures = (np.broadcast_to(np.array(each, dtype=np.float64), gains.shape) for each in (costs, exposures))
    return Bar(gains.sum(1), gains, costs, exposures, np.array([equity]), np.array([peak]), 100.0)


def paid(rules: dict[str, Any], *bars: Bar) -> list[float]:
    """Rewards of one account whose ordinary bar moves it by 1 %."""
    chosen, state, found = RewardRules(**{**PLAIN, **rules}), begin_reward(xp, 1e-4, np.zeros(1)), []
    for bar in bars:
        rewards, state = pay(xp, chosen, state, bar)
        found.append(float(rewards[0]))
    return found


TWO = a_bar([0.03, -0.02]), a_bar([-0.1, -0.1], equity=1.01, peak=1.01)
"""1 % is won, then 20 % are lost."""


def test_two_bars_by_hand():
    """A = .005, B = 1e-4: S = .005 / sqrt(7.5e-5) = .57735. Then A = -.0975, B = .5e-4 + .02 = .02005, so that
    B - A^2 = .01054375 and S = -.0975 / .1026828 = -.94953."""
    assert paid({}, *TWO) == pytest.approx([0.5773502692, -0.9495264474 - 0.5773502692], abs=1e-8)
    assert paid({"scale": 100.0}, *TWO) == pytest.approx([57.73502692, -152.68767165], abs=1e-6)


def test_losses_may_count_twice_in_the_volatility():
    """B = .5e-4 + .5 * 2 * .04 = .04005, less .00950625: S = -.0975 / .17476770."""
    first, second = paid({"downside_volatility_weight": 2.0}, *TWO)
    assert (first, second) == pytest.approx((0.5773502692, -0.5578833935 - 0.5773502692), abs=1e-8)


def test_the_drawdown_beyond_its_target_costs_until_it_is_made_good():
    """1 - .8 = .2 below the peak, .05 beyond the target, 5 ordinary bars; times decay .5. Then half of it is recovered:
    .8 * 1.03125 = .825."""
    bars = *TWO, a_bar([0.03125, 0.0], equity=0.808, peak=1.01), a_bar([0.2, 0.2], equity=0.83325, peak=1.01)
    free = np.array(paid({}, *bars))
    assert paid({"max_drawdown_target": 0.15}, *bars) - free == pytest.approx([0, -2.5, 1.25, 1.25])
    twice = {"max_drawdown_target": 0.15, "risk_penalty_weight": 2.0}
    assert paid(twice, *bars) - free == pytest.approx([0, -5.0, 2.5, 2.5])
    assert paid({"max_drawdown_target": 0.0}, *bars[:2]) - free[:2] == pytest.approx([0, -10.0])


def test_sectors_that_cancel_are_paid_and_ones_that_move_as_one_pay():
    """P = .5e-4 + .5 * 13e-4 = 7e-4, Q = .5e-4 + .5 * 1e-4 = 1e-4: 6/7 of half a point a year, or .5 / 10 a bar. Then
    P = 3.5e-4 + .01 = .01035 and Q = .5e-4 + .02 = .02005."""
    found = paid({"diversification_bonus_weight": 0.5}, *TWO) - np.array(paid({}, *TWO))
    first, second = 0.05 * 6 / 7, 0.05 * (0.01035 - 0.02005) / 0.01035
    assert found == pytest.approx([first, second - first], abs=1e-12)
    one = paid({"diversification_bonus_weight": 0.5}, a_bar([0.03, 0.0]), a_bar([-0.01, 0.0]))
    assert one == paid({}, a_bar([0.03, 0.0]), a_bar([-0.01, 0.0]))  # a single sector is not diversified


def test_a_hedge_too_small_to_count_is_paid_next_to_nothing():
    """100 bars on, the moments are those of positions that move the account by a millionth: P = 2e-12 of 1e-6."""
    found = paid({"diversification_bonus_weight": 0.5}, *[a_bar([1e-6, -1e-6])] * 100)
    assert sum(found) == pytest.approx(0.05 * 2e-12 / 1e-6, rel=1e-9)


def test_costs_may_count_more_or_less_often_than_they_are_paid():
    """Gains .01 after costs of .002 + .001: counted twice, .007 is left; not at all, .013."""
    bar, plain_bar = a_bar([0.006, 0.004], costs=[0.002, 0.001]), a_bar
    assert paid({}, bar) == paid({}, plain_bar([0.006, 0.004]))
    assert paid({"transaction_cost_weight": 2.0}, bar) == pytest.approx(paid({}, plain_bar([0.003, 0.004])))
    assert paid({"transaction_cost_weight": 0.0}, bar) == pytest.approx(paid({}, plain_bar([0.009, 0.004])))


def test_what_is_in_positions_must_earn_the_risk_free_rate():
    """5 % a year are 5e-4 a bar, of positions of .8 + .4 of the equity 6e-4."""
    found = paid({"risk_free_rate": 0.05}, a_bar([0.006, 0.004], exposures=[0.8, 0.4]))
    assert found == pytest.approx(paid({}, a_bar([0.0054, 0.004])))


def test_beyond_its_target_a_sharpe_ratio_is_worth_no_more():
    """2 a year are .2 a bar; at decay .5 the standard error is sqrt(.5 / 1.5) = .57735, at .02 it is .10050."""
    high = [a_bar([0.05, 0.0])] * 60
    assert sum(paid({"sharpe_target": 2.0}, *high)) == pytest.approx(0.2 + 2 * 0.5773502692)
    assert sum(paid({"sharpe_target": 2.0, "decay": 0.02}, *high)) == pytest.approx(0.2 + 2 * 0.1005037815)
    assert paid({"sharpe_target": 2.0}, *high)[-1] == 0 and sum(paid({}, *high)) > 10
    assert paid({"sharpe_target": 2.0}, *TWO) == paid({}, *TWO)  # below it nothing changes


def random_market(seed: int, t: int, n: int, s: int = 3) -> list[Bar]:
    """Bars of N accounts whose equity follows their gains."""
    generator, equity, bars = np.random.default_rng(seed), np.full(n, 1e5), []
    peak = equity
    for gains in generator.normal(0.0002, 0.01, (t, n, s)):
        costs, exposures = generator.uniform(0, 1e-3, (n, s)), generator.uniform(0, 1, (n, s))
        bars.append(Bar(gains.sum(1), gains, costs, exposures, equity, peak, 6000.0))
        equity = equity * (1 + gains.sum(1))
        peak = np.maximum(peak, equity)
    return bars


def played(
    rules: RewardRules, bars: list[Bar], namespace: Any = xp, typical: float = 1e-4
) -> tuple[np.ndarray, RewardState]:
    state = begin_reward(namespace, typical, bars[0].gain * 0)
    rewards = []
    for bar in bars:
        reward, state = pay(namespace, rules, state, bar)
        rewards.append(np.asarray(reward))
    return np.array(rewards), state


def test_rewards_add_up_to_where_the_account_stands():
    """The Sharpe ratio, the diversification and the drawdown at the end, and nothing of the way there."""
    bars = random_market(0, 300, 5)
    rules = RewardRules(kind="portfolio", **DOCUMENTED)
    rewards, state = played(rules, bars)
    sharpe = state.mean / np.sqrt(state.square - state.mean**2)
    sharpe = np.minimum(sharpe, 2 / np.sqrt(6000) + 2 * np.sqrt(0.01 / 1.99))
    apart = 0.5 * (state.apart - state.together) / state.apart / np.sqrt(6000)
    equity = 1e5 * np.prod([1 + bar.gain for bar in bars], axis=0)
    drawdown = 1 - equity / np.maximum(bars[-1].peak, equity)
    beyond = np.maximum(drawdown - 0.15, 0) / 0.01
    assert (beyond > 0).any() and (beyond == 0).any()
    assert rewards.sum(0) == pytest.approx(100 * (sharpe + apart - 0.01 * beyond), abs=1e-9)


def test_a_flat_account_is_paid_exactly_nothing_at_every_bar():
    """Also while its moving moments fade: its Sharpe ratio does not drift, whatever the risk-free rate."""
    flat = Bar(np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)), np.ones(2), np.ones(2), 252.0)
    for rate in (0.02, 0.5, -0.01):
        rules = RewardRules(kind="portfolio", **{**DOCUMENTED, "risk_free_rate": rate})
        rewards, state = played(rules, [flat] * 2000)
        assert (rewards == 0).all() and (state.mean == 0).all() and (state.square < state.floor).all()


def test_no_part_of_a_reward_is_the_same_at_every_step():
    """A per-step Sharpe ratio less its target was a constant near -4, whatever was traded."""
    bars = random_market(1, 400, 4)
    rewards, _ = played(RewardRules(kind="portfolio", **DOCUMENTED), bars)
    assert abs(rewards.mean()) < 0.1 * rewards.std()
    low, high = (
        played(RewardRules(kind="portfolio", **{**DOCUMENTED, "sharpe_target": target}), bars)[0]
        for target in (1.0, 3.0)
    )
    same = (low == high).mean()
    assert 0.3 < same < 1.0 and low.sum() <= high.sum()  # a target moves only what lies beyond it


def worth_on_the_way(gains: np.ndarray, exposure: float = 0.3) -> np.ndarray:
    """Discounted rewards `[N]` of accounts with gains `[T, N, S]`, hourly bars, as a learner adds them up."""
    equity, bars = np.full(gains.shape[1], 1e5), []
    peak, costs = equity, np.zeros(gains.shape[1:])
    for each in gains:
        bars.append(Bar(each.sum(1), each, costs, costs + exposure * (each != 0), equity, peak, 6000.0))
        equity = equity * (1 + each.sum(1))
        peak = np.maximum(peak, equity)
    rewards, _ = played(RewardRules(kind="portfolio", **DOCUMENTED), bars, typical=1e-6)
    return (rewards * 0.99 ** np.arange(len(rewards))[:, None]).sum(0)


def test_the_best_wrong_answers_lose():
    """An edge at the target, a Sharpe ratio of 2 a year after what cash earns, must be worth more than no trade at all,
    more than a perfect hedge without any edge, and far more than one position in three sectors."""
    generator, n, t = np.random.default_rng(2), 4000, 400
    moves = generator.normal(0, 0.001 / np.sqrt(3), (t, n, 3))
    edge = worth_on_the_way(moves + (2 / np.sqrt(6000) * 0.001 + 0.3 * 3 * 0.02 / 6000) / 3)
    common = generator.normal(0, 0.001, (t, n, 1))
    hedge = worth_on_the_way(common * np.array([1.0, -0.5, -0.4999]), exposure=0.0)
    as_one = worth_on_the_way(common * np.array([1.0, 1.0, 1.0]) / 3)
    error = np.sqrt((edge.var() + hedge.var()) / n)
    assert edge.mean() > 5 * error  # nothing is paid 0
    assert edge.mean() - hedge.mean() > 5 * error
    assert edge.mean() - as_one.mean() > 5 * error


def test_the_bar_without_each_sector():
    (bar,) = random_market(3, 1, 4)
    others = 1.0 - np.eye(3)[:, None]
    without = left_out(bar, others)
    rules = RewardRules(kind="portfolio", **{**DOCUMENTED, "transaction_cost_weight": 3.0})
    state = begin_reward(xp, 1e-4, bar.gain)
    found = pay(xp, rules, state, without)[0]
    assert found.shape == (3, 4)
    for k in range(3):
        keep = np.arange(3) != k
        parts = (np.where(keep, each, 0.0) for each in (bar.gains, bar.costs, bar.exposures))
        alone = Bar(bar.gains[:, keep].sum(1), *parts, bar.equity, bar.peak, bar.periods_per_year)
        assert found[k] == pytest.approx(pay(xp, rules, state, alone)[0], abs=1e-12)
    plain_bar = left_out(Bar(bar.gain, bar.gains), others)
    assert plain_bar.gain == pytest.approx(bar.gain - bar.gains.T) and plain_bar.costs is None


@pytest.mark.parametrize("kind", ["return", "log_return", "mean_variance", "differential_sharpe", "portfolio"])
def test_tensors_are_paid_the_same(kind):
    bars = random_market(4, 60, 5)
    rules = RewardRules(kind=kind, **({**DOCUMENTED, "downside_volatility_weight": 1.3} if kind == "portfolio" else {}))
    tensors = [Bar(*(torch.as_tensor(each) for each in bar[:-1]), bar.periods_per_year) for bar in bars]
    ours, theirs = played(rules, bars), played(rules, tensors, torch_namespace)
    np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-12, atol=1e-12)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert b.dtype == torch.float64
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-12)


# --- through environments and configurations --------------------------------------------------------------------


def test_the_environment_hands_over_what_a_bar_brought():
    """One bar of two sectors: bought at the open at 100 with 1 % cost, marked at 110 and 95."""
    closes = np.array([[100, 100], [100, 100], [110, 95.0], [110, 95.0]])
    known = [plain("A", sector="fx"), plain("B", sector="oil")]
    rules = {"transaction_cost": 0.01, "max_position_size": 0.5}
    core = core_of(bars_of(closes), known, **rules)
    reward = RewardRules(kind="portfolio", **{**DOCUMENTED, "transaction_cost_weight": 2.0})
    envs = MarketVector(core, 1, reward)
    envs.place(np.array([1]))
    typical = envs._typical
    rewards = envs.step(np.array([[1.0, 1.0]]))[1]
    gains, costs = [0.05 - 0.005, -0.025 - 0.005], [0.005, 0.005]
    equity = 1 + sum(gains)
    assert envs.state.equity[0] == pytest.approx(1e5 * equity)
    exposures = [0.55 / equity, 0.475 / equity]
    bar = a_bar(gains, costs, exposures)._replace(periods_per_year=core.tape.periods_per_year)
    expected, after = pay(xp, reward, begin_reward(xp, typical, np.zeros(1)), bar)
    assert rewards == pytest.approx(expected, rel=1e-9) and rewards[0] != 0
    for found, wanted in zip(envs._moments, after, strict=True):
        assert found == pytest.approx(wanted, rel=1e-9)


def test_an_account_of_one_sector_cannot_be_paid_for_diversification():
    core = core_of(random_bars(0, 60))
    with pytest.raises(
        ConfigError, match=r"weight=0\.5 needs two sectors or more, and all that is traded is of equity; "
    ):
        MarketVector(core, 2, RewardRules(kind="portfolio"))
    envs = MarketVector(core, 2, RewardRules(kind="portfolio", diversification_bonus_weight=0))
    envs.reset(np.random.default_rng(0))
    assert np.isfinite(envs.step(np.ones((2, 3)))[1]).all()
    MarketVector(core, 2, RewardRules())  # which does not read the weight


def test_the_documents_reward_is_accepted_as_written():
    small = {"episode_length": 20, "warmup_steps": 30, "simulation": {"paths": 1, "bars": 60}}
    config = read_env_config({**small, "reward": {"kind": "portfolio", **DOCUMENTED}})
    assert config.reward == RewardRules(kind="portfolio") == RewardRules(kind="portfolio", **DOCUMENTED)
    envs = MarketVector(environments_core(config), 2, config.reward)
    envs.reset(np.random.default_rng(0))
    assert (envs.step(np.ones((2, 8)))[1] != 0).all()
    env = JointTrainingEnv({**small, "reward": {"kind": "portfolio", **DOCUMENTED}})
    env.reset(seed=0)
    assert env.step(np.ones(env.action_space.shape))[1] != 0


@pytest.mark.parametrize("key", [*DOCUMENTED, "decay", "aversion"])
def test_keys_of_another_kind_are_refused(key):
    kinds = {"aversion": ("mean_variance",), "decay": ("differential_sharpe", "portfolio")}.get(key, ("portfolio",))
    for kind in ("return", "log_return", "mean_variance", "differential_sharpe", "portfolio"):
        given = {"reward": {"kind": kind, key: 0.5}}
        if kind in kinds:
            assert getattr(read_env_config(given).reward, key) == 0.5
            continue
        with pytest.raises(ConfigError, match=rf"reward\.{key}: is for reward\.kind={' or '.join(kinds)}; write that"):
            read_env_config(given)


def test_targets_may_be_none_and_then_nothing_weighs_them():
    given = {"kind": "portfolio", "sharpe_target": None, "max_drawdown_target": None}
    reward = read_env_config({"reward": given}).reward
    assert reward.sharpe_target is None and reward.max_drawdown_target is None
    with pytest.raises(
        ConfigError, match=r"reward\.risk_penalty_weight: is for reward\.max_drawdown_target; write one"
    ):
        read_env_config({"reward": {**given, "risk_penalty_weight": 2.0}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("risk_penalty_weight", -1), ("transaction_cost_weight", -1), ("diversification_bonus_weight", -0.1),
        ("sharpe_target", 0), ("max_drawdown_target", 1), ("risk_free_rate", 2), ("downside_volatility_weight", 0),
    ],
)  # fmt: skip
def test_values_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"reward.{key}: must be"):
        read_env_config({"reward": {"kind": "portfolio", key: value}})
