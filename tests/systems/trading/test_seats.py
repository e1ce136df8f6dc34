"""One agent learns, the others are played: what it sees, what it is paid, what the others do."""

from __future__ import annotations

import numpy as np
import torch

from tests.systems.trading.teams import rotation
from troupe.envs.market.team import META, TeamVector
from troupe.systems.trading.backtest import episodes
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.seats import Seat, equal_allocation


def test_a_specialist_alone_trades_its_sector_at_full_size() -> None:
    core, _, team, net = rotation()
    envs = TeamVector(core, team, 4)
    seat = Seat(envs, "commodities", net)
    seen = seat.reset(np.random.default_rng(0))
    assert seen.shape == (4, team.views["commodities"].stop - team.views["commodities"].start)
    _, rewards, _, _ = seat.step(np.full((4, 2), 0.5))
    held = core.weights(envs.state)
    places = [core.instruments.index(name) for name in team.members["commodities"]]
    others = [i for i in range(len(core.instruments)) if i not in places]
    assert not held[:, others].any() and (np.abs(held[:, places] - 0.5) < 0.05).all()
    assert envs.outcome is not None
    np.testing.assert_allclose(rewards, envs.reward.scale * envs.outcome.gain)  # what it adds is all there is


def test_the_meta_controller_leads_frozen_specialists_that_do_not_explore() -> None:
    core, _, team, net = rotation()
    envs = TeamVector(core, team, 3)
    seat = Seat(envs, META, net)
    seen = seat.reset(np.random.default_rng(0))
    whole = torch.tensor(seat._whole)
    expected = torch.cat([whole[:, team.views[META]], net.embeddings(whole)], 1)
    np.testing.assert_allclose(seen, expected.detach())
    signals = net.act(whole, None).actions.clamp(-1, 1)
    seat.step(np.tile(equal_allocation(3), (3, 1)))
    assert envs.said is not None
    np.testing.assert_allclose(envs.said.shares, 1 / 3)
    order = [name for sector in team.sectors for name in team.members[sector]]
    for place, name in enumerate(order):
        found = envs.said.signals[:, core.instruments.index(name)]
        np.testing.assert_allclose(found, signals[:, 4 + place], atol=1e-5)


def test_a_seat_goes_on_exactly() -> None:
    core, _, team, net = rotation()
    one, two = (Seat(TeamVector(core, team, 3), META, net) for _ in range(2))
    one.reset(np.random.default_rng(0))
    action = np.array([[0.3, -0.2, 0.1, 0.5]] * 3)
    for _ in range(3):
        one.step(action)
    seen = two.load_state_dict(one.state_dict())
    for _ in range(3):
        a, b = one.step(action), two.step(action)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert seen.shape == (3, seen.shape[1])


def test_the_strategy_trades_as_the_environment_does() -> None:
    """One and the same team, as an environment and in a backtest: same messages, same equity, to the bit."""
    core, names, team, net = rotation()
    rows = np.array([20, 150, 260])
    envs = TeamVector(core, team, 3)
    seen, gains, shares = envs.place(rows), [], []
    for _ in range(40):
        acted = net.likeliest(torch.tensor(seen)).clamp(-1, 1).double().numpy()
        seen, _, _, _ = envs.step(acted)
        assert envs.outcome is not None and envs.said is not None
        gains.append(envs.outcome.gain)
        shares.append(envs.said.shares)
    strategy = HierarchyStrategy(net, names, typical=team.typical)
    track = episodes(core, strategy, rows, 40)
    np.testing.assert_array_equal(track.returns, np.stack(gains, 1))
    np.testing.assert_array_equal(strategy.shares, np.stack(shares, 1))
    np.testing.assert_allclose(strategy.sector_gains.sum(2), track.returns, atol=1e-12)


def test_equal_allocation_and_silent_sectors() -> None:
    core, names, team, net = rotation()
    rows = np.array([20, 150])
    strategy = HierarchyStrategy(net, names, typical=team.typical, mode="equal", active=("forex",))
    track = episodes(core, strategy, rows, 10)
    np.testing.assert_allclose(strategy.shares[:, :, 0], 1 / 3)
    assert not strategy.shares[:, :, 1:].any() and (strategy.risk == 1.0).all()
    traded = {name for i, name in enumerate(core.instruments) if np.abs(track.weights[:, :, i]).any()}
    assert traded == set(team.members["forex"])
