"""Allocation, risk appetite and signals become actions: by hand, and through the core."""

from __future__ import annotations

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
import torch

from tests.envs.market.samples import FREE, core_of, plain, random_bars
from troupe.envs.market.config import MarketRules
from troupe.envs.market.core import MarketCore
from troupe.envs.market.hierarchy import allocate, joint_vector, meta_vector, sectors_of
from troupe.envs.market.tape import make_tape
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError

SECTOR_OF = np.array([0, 1, 0, 2])  # two instruments of the first sector, with one of the second between them
MIXED = [plain(name, sector=sector) for name, sector in zip("ABCD", ("fx", "oil", "fx", "index"), strict=True)]


def mixed_core(**rules: float) -> MarketCore:
    return core_of(random_bars(0, 80, 4), MIXED, **rules)


def allocated(logits: list[float], risk: float, signals: list[float]) -> list[float]:
    return allocate(np, np.array([logits]), np.array([risk]), np.array([signals]), SECTOR_OF)[0].tolist()


# --- by hand ----------------------------------------------------------------------------------------------------


def test_equal_shares_at_full_risk_are_the_signals_themselves() -> None:
    assert allocated([0.3, 0.3, 0.3], 1.0, [0.2, -1.0, 0.0, 1.0]) == pytest.approx([0.2, -1.0, 0.0, 1.0], abs=1e-15)


def test_by_hand() -> None:
    """Shares 2/4, 1/4, 1/4 of 3 sectors: factors 1.5, 0.75, 0.75; at half the risk 0.75, 0.375, 0.375."""
    found = allocated([np.log(2.0), 0.0, 0.0], 0.5, [0.4, -0.8, 1.0, 0.0])
    assert found == pytest.approx([0.3, -0.3, 0.75, 0.0], abs=1e-15)
    assert allocated([np.log(2.0), 0.0, 0.0], 1.0, [-0.4, -0.8, 1.0, 0.4]) == pytest.approx([-0.6, -0.6, 1.0, 0.3])


def test_no_risk_is_no_position_and_large_logits_are_one_sector() -> None:
    assert allocated([1.0, 2.0, 3.0], 0.0, [1.0, -1.0, 1.0, 1.0]) == [0, 0, 0, 0]
    assert allocated([800.0, 0.0, 0.0], 0.25, [1.0, 1.0, -1.0, 1.0]) == pytest.approx([0.75, 0, -0.75, 0])


def test_torch_allocates_the_same() -> None:
    generator = np.random.default_rng(0)
    arrays = generator.normal(size=(9, 3)), generator.uniform(size=9), generator.uniform(-1, 1, (9, 4))
    ours = allocate(np, *arrays, SECTOR_OF)
    theirs = allocate(torch_namespace, *map(torch.as_tensor, arrays), torch.as_tensor(SECTOR_OF))
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-12, atol=1e-15)


def test_sectors_come_in_the_order_of_the_instruments() -> None:
    assert sectors_of(MIXED) == ("fx", "oil", "index")


# --- through the core -------------------------------------------------------------------------------------------


def test_joint_actions_are_signals_where_shares_are_equal_and_risk_is_full() -> None:
    core, generator = mixed_core(), np.random.default_rng(1)
    joint, flat = joint_vector(core, 3), MarketVector(core, 3)
    for envs in (joint, flat):
        envs.place(np.array([5, 10, 20]))
    for signals in generator.uniform(-1, 1, (6, 3, 4)):
        fixed = np.tile([0.5, 0.5, 0.5, 1.0], (3, 1))
        rewards = joint.step(np.concatenate([fixed, signals], axis=1))[1]
        np.testing.assert_allclose(rewards, flat.step(signals)[1], rtol=1e-9, atol=1e-12)


def test_logits_are_scaled_and_risk_runs_from_minus_one_to_one() -> None:
    core = mixed_core()
    envs = joint_vector(core, 3, scale=np.log(2.0))
    envs.place(np.array([5, 5, 5]))
    signals = [0.4, -0.8, 1.0, 0.0]
    envs.step(np.array([[1, 0, 0, 0, *signals], [1, 0, 0, -1, *signals], [9, 0, 0, -9, *signals]], dtype=np.float32))
    orders = envs.outcome.amounts * core.tape.close[5] / 100_000  # shares of the capital
    assert orders[0].tolist() == pytest.approx([0.3, -0.3, 0.75, 0.0], rel=1e-6)
    assert not orders[1:].any()


def test_specialists_see_their_instruments_and_are_heard_for_them() -> None:
    seen: dict[str, tuple[str, ...]] = {}

    def speaker(sector: str, signals: list[float]):
        def specialist(core, state, instruments):
            seen[sector] = instruments
            return np.tile(np.array(signals, dtype=np.float32), (len(state.row), 1))

        return specialist

    chosen = {"index": speaker("index", [0.5]), "fx": speaker("fx", [0.25, 7.0]), "oil": speaker("oil", [-0.75])}
    core = mixed_core()
    envs = meta_vector(core, 2, specialists=chosen)
    assert envs.single_action_space.shape == (4,)
    envs.place(np.array([3, 3]))
    envs.step(np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    assert seen == {"fx": ("A", "C"), "oil": ("B",), "index": ("D",)}
    orders = envs.outcome.amounts * core.tape.close[3] / 100_000
    assert orders[0].tolist() == pytest.approx([0.25, -0.75, 1.0, 0.5])  # 7.0 counts as 1
    assert orders[1].tolist() == pytest.approx([0.125, -0.375, 0.5, 0.25])


def test_without_specialists_everything_is_wanted_long() -> None:
    envs = meta_vector(mixed_core(), 1)
    envs.place(np.array([3]))
    envs.step(np.array([[0.0, 0.0, 0.0, 1.0]]))
    assert (envs.state.book.units > 0).all()


def test_tensors_trade_the_same() -> None:
    bars, rules = random_bars(0, 60, 4), MarketRules(**FREE)
    tape = make_tape(bars, MIXED, rules)
    ours, theirs = (joint_vector(MarketCore(each, rules), 5) for each in (tape, tape.to_torch()))
    for envs in (ours, theirs):
        envs.place(np.arange(5))
    for actions in np.random.default_rng(2).uniform(-1, 1, (10, 5, 8)):
        rewards = ours.step(actions)[1]
        np.testing.assert_allclose(theirs.step(torch.as_tensor(actions))[1].numpy(), rewards, rtol=1e-10, atol=1e-12)


# --- what is refused --------------------------------------------------------------------------------------------


def test_specialists_and_sectors_must_be_the_same() -> None:
    def any_signal(core, state, instruments):
        return np.ones((len(state.row), 1))

    with pytest.raises(ConfigError, match=r"'oils', which is no traded sector \(did you mean 'oil'\?\)"):
        meta_vector(mixed_core(), 1, specialists={"oils": any_signal})
    with pytest.raises(ConfigError, match="none for fx and index; give each"):
        meta_vector(mixed_core(), 1, specialists={"oil": any_signal})
    envs = meta_vector(mixed_core(), 1, specialists=dict.fromkeys(("fx", "oil", "index"), any_signal))
    envs.place(np.array([3]))
    with pytest.raises(DataError, match=r"specialist of fx gave signals of shape \(1, 1\), not \(1, 2\)"):
        envs.step(np.zeros((1, 4)))


def test_actions_of_another_shape_or_not_finite() -> None:
    envs = joint_vector(mixed_core(), 2)
    envs.place(np.array([3, 3]))
    with pytest.raises(DataError, match=r"shape \(2, 4\), not \(2, 8\)"):
        envs.step(np.zeros((2, 4)))
    with pytest.raises(DataError, match="not finite"):
        envs.step(np.full((2, 8), np.nan))
