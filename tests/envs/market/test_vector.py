"""Accounts side by side: random starts, resets in some places, exact continuation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.market.samples import FREE, core_of, plain, random_bars
from troupe.envs.market.config import MarketRules
from troupe.envs.market.core import MarketCore
from troupe.envs.market.rewards import RewardRules
from troupe.envs.market.tape import make_tape
from troupe.envs.market.vector import MarketVector
from troupe.errors import DataError


def vector(n: int = 8, **rules) -> MarketVector:
    core = core_of([random_bars(0, 120), random_bars(1, 90)], warmup_steps=20, episode_length=30, **rules)
    return MarketVector(core, n, RewardRules(kind="differential_sharpe"))


def test_environments_differ_and_seeds_repeat():
    one, two = vector(), vector()
    assert (one.reset(np.random.default_rng(0)) == two.reset(np.random.default_rng(0))).all()
    assert len(set(one.state.row.tolist())) > 4
    one.reset(np.random.default_rng(1))
    assert not (one.state.row == two.state.row).all()
    rewards = one.step(np.ones((8, 3)))[1]
    assert len(set(rewards.tolist())) == len(set(one.state.row.tolist())) > 4


def test_a_reset_touches_only_the_places_that_are_named():
    env = vector()
    env.reset(np.random.default_rng(0))
    env.step(np.ones((8, 3)))
    before = env.state
    where = np.arange(8) < 3
    observations = env.reset(np.random.default_rng(5), where)
    assert (env.state.equity[:3] == 100_000).all() and (env.state.book.units[:3] == 0).all()
    for name in ("row", "equity", "peak"):
        assert (getattr(env.state, name)[3:] == getattr(before, name)[3:]).all()
    assert (env.state.book.units[3:] == before.book.units[3:]).all()
    assert observations.shape == (8, env.core.observation_size) and observations.dtype == np.float32


def test_a_stored_state_continues_bit_for_bit():
    one, two, generator = vector(), vector(), np.random.default_rng(3)
    one.reset(generator)
    actions = generator.uniform(-1, 1, (40, 8, 3))
    for action in actions[:20]:
        _, _, terminated, truncated = one.step(action)
        one.reset(generator, terminated | truncated)
    found = two.load_state_dict(one.state_dict())
    assert (found == one.core.observe(one.state)).all()
    for action in actions[20:]:
        for a, b in zip(stepped := one.step(action), two.step(action), strict=True):
            assert (a == b).all()
        seed = int(generator.integers(1000))
        for env in (one, two):
            env.reset(np.random.default_rng(seed), stepped[2] | stepped[3])
    with pytest.raises(DataError, match="other bars"):
        vector(4).load_state_dict(one.state_dict())


def test_limits_are_counted():
    env = vector(max_leverage=1.0, max_position_size=1.0)
    env.reset(np.random.default_rng(0))
    for _ in range(3):
        env.step(np.ones((8, 3)))
    assert env.fired == {"leverage": 24} and env.steps == 24


def test_actions_may_be_translated():
    core = core_of(random_bars(0, 60))
    env = MarketVector(core, 2, translate=lambda core, state, actions: actions * np.ones((1, 3)), actions=1)
    env.reset(np.random.default_rng(0))
    env.step(np.array([[0.5], [-0.5]]))
    assert env.single_action_space.shape == (1,)
    assert (np.sign(env.state.book.units) == [[1, 1, 1], [-1, -1, -1]]).all()
    with pytest.raises(DataError, match="belong together"):
        MarketVector(core, 2, actions=1)


@pytest.mark.parametrize("kind", ["return", "log_return", "mean_variance", "differential_sharpe", "portfolio"])
def test_tensors_trade_restart_and_resume_the_same(monkeypatch, kind):
    """The same numbers in torch, without NumPy ever reading a tensor: on another device it could not."""
    import torch

    rules = MarketRules(**{**FREE, "warmup_steps": 20, "episode_length": 7, "max_leverage": 1.5})
    known = [plain(name, sector=sector) for name, sector in zip("ABC", ("fx", "oil", "fx"), strict=True)]
    tape = make_tape(random_bars(0, 120), known, rules)
    reward = RewardRules(kind=kind)
    ours, theirs = (MarketVector(MarketCore(each, rules), 6, reward) for each in (tape, tape.to_torch()))
    generators = np.random.default_rng(0), np.random.default_rng(0)
    actions = np.random.default_rng(1).uniform(-1, 1, (30, 6, 3))

    def refuse(*_, **__):
        raise TypeError("can't convert a tensor of another device")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    again = MarketVector(theirs.core, 6, reward)
    for envs, generator in zip((ours, theirs), generators, strict=True):
        envs.reset(generator)
    for step, action in enumerate(actions):
        found, stepped = ours.step(action), theirs.step(torch.tensor(action))
        np.testing.assert_allclose(found[1], stepped[1].numpy(), rtol=1e-9, atol=1e-12)
        ends = found[2] | found[3], stepped[2] | stepped[3]
        assert ends[0].tolist() == ends[1].tolist()
        if step == 15:
            again.load_state_dict(theirs.state_dict())
            theirs = again
        for envs, generator, over in zip((ours, theirs), generators, ends, strict=True):
            envs.reset(generator, over)
    assert ours.fired == theirs.fired and ours.fired["leverage"] > 0
    theirs.reset(generators[1], ends[0])  # places may be named by NumPy, too
