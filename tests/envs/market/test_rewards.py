"""Rewards against numbers worked by hand."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np
import pytest

from troupe.envs.market.rewards import RewardRules, begin_reward, pay

GAIN = np.array([0.02, -0.01])
START = begin_reward(xp, 1e-4, GAIN)


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
    rewards, after = pay(xp, rules, START, GAIN)
    assert rewards == pytest.approx(np.array(expected))
    assert after is START


def test_differential_sharpe_is_the_slope_of_the_moving_sharpe_ratio():
    """The reward is what the moving ratio gains, to first order in the decay."""
    decay, generator = 1e-5, np.random.default_rng(0)
    rules = RewardRules(kind="differential_sharpe", decay=decay, scale=1)
    _, state = pay(xp, rules.model_copy(update={"decay": 0.05}), START, GAIN)
    for gain in generator.normal(0.001, 0.01, (20, 2)):
        rewards, after = pay(xp, rules, state, gain)
        ratio = [s.mean / np.sqrt(s.square - s.mean**2) for s in (state, after)]
        assert rewards == pytest.approx(ratio[1] - ratio[0], rel=1e-3)
        _, state = pay(xp, rules.model_copy(update={"decay": 0.05}), state, gain)


def test_an_account_that_does_nothing_is_paid_nothing_and_nothing_overflows():
    rules = RewardRules(kind="differential_sharpe", decay=0.5)
    state = START
    for _ in range(200):
        rewards, state = pay(xp, rules, state, np.zeros(2))
        assert np.isfinite(rewards).all()
    assert rewards == pytest.approx(np.zeros(2))
