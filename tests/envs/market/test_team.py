"""A team over a market: who sees what, whose signal goes where, who is paid for what, and exact continuation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.envs.market.samples import FREE, bars_of, plain, random_bars
from troupe.envs.market.config import MarketRules
from troupe.envs.market.core import MarketCore
from troupe.envs.market.features import FEATURES
from troupe.envs.market.hierarchy import allocate, joint_vector
from troupe.envs.market.rewards import Bar, RewardRules, begin_reward, pay
from troupe.envs.market.tape import make_tape
from troupe.envs.market.team import META, Team, TeamVector, columns_of
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError

SECTORS = ("fx", "oil", "fx", "index")
NAMES = ("vix", "A_return", "signal_A", "B_return", "C_return", "C_std_20", "signal_C", "D_return", "active_oil")
MIXED = [plain(name, sector=sector) for name, sector in zip("ABCD", SECTORS, strict=True)]
KINDS = ("return", "log_return", "mean_variance", "differential_sharpe", "portfolio")
ACTION_ORDER = [0, 2, 1, 3]  # A and C are forex's, then B, then D


def make_core(t: int = 120, *, torch: bool = False, instruments: Any = None, **rules: Any) -> MarketCore:
    chosen = MarketRules(**{**FREE, "max_position_size": 0.5, "warmup_steps": 10, "episode_length": 15, **rules})
    features = np.random.default_rng(9).normal(size=(t, len(NAMES))).astype(np.float32)
    tape = make_tape(random_bars(4, t, 4), MIXED if instruments is None else instruments, chosen, features)
    return MarketCore(tape.to_torch() if torch else tape, chosen)


def make_envs(n: int = 3, *, reward: RewardRules | None = None, core: MarketCore | None = None) -> TeamVector:
    core = make_core() if core is None else core
    return TeamVector(core, Team.of(core, NAMES), n, reward)


def an_action(logits: Any, risk: float, a: float, c: float, b: float, d: float, n: int = 3) -> np.ndarray:
    return np.tile(np.array([*logits, risk, a, c, b, d], dtype=np.float64), (n, 1))


def random_actions(seed: int, steps: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n, 8))


# --- layout -----------------------------------------------------------------------------------------------------


def test_columns_belong_to_one_instrument_by_their_whole_name() -> None:
    names = ["EURUSD_return", "EURUSD_rsi", "EURUSDX_return", "signal_EURUSD", "signal_EURUSDX", "EURUSD_mood", "vix"]
    assert columns_of(names, "EURUSD") == [0, 1, 3]
    assert columns_of(names, "EURUSDX") == [2, 4]
    assert columns_of(names, "USD") == []
    assert columns_of([f"A_{feature}" for feature in FEATURES], "A") == list(range(len(FEATURES)))


def test_who_sees_what_and_who_says_what() -> None:
    team = make_envs().team
    assert team.agents == (META, "fx", "oil", "index") and team.sectors == ("fx", "oil", "index")
    assert team.members == {"fx": ("A", "C"), "oil": ("B",), "index": ("D",)}
    by_sector = [f"{kind}_{s}" for kind in ("share", "record", "wins", "gross", "net") for s in team.sectors]
    assert team.columns == {
        META: ("vix", "active_oil", "drawdown", "risk", *by_sector),
        "fx": (
            "A_return", "signal_A", "C_return", "C_std_20", "signal_C", "weight_A", "weight_C", "profit_A", "profit_C",
            "drawdown", "share_fx", "risk",
        ),
        "oil": ("B_return", "weight_B", "profit_B", "drawdown", "share_oil", "risk"),
        "index": ("D_return", "weight_D", "profit_D", "drawdown", "share_index", "risk"),
    }  # fmt: skip
    assert team.parts == {META: slice(0, 4), "fx": slice(4, 6), "oil": slice(6, 7), "index": slice(7, 8)}
    assert team.views == {META: slice(0, 19), "fx": slice(19, 31), "oil": slice(31, 37), "index": slice(37, 43)}
    assert (team.observation_size, team.action_size) == (43, 8)


def test_spaces_are_those_of_what_comes_and_goes() -> None:
    envs = make_envs()
    seen = envs.reset(np.random.default_rng(0))
    assert seen.shape == (3, 43) and seen.dtype == np.float32
    assert envs.single_observation_space.contains(seen[0]) and envs.single_action_space.shape == (8,)


def test_columns_are_seen_by_their_owners_at_every_row() -> None:
    envs = make_envs()
    envs.reset(np.random.default_rng(0))
    seen, features = envs.step(an_action([0, 0, 0], 1, 0, 0, 0, 0))[0], envs.core.tape.features
    own = features[envs.state.row]
    assert (seen[:, [0, 1]] == own[:, [0, 8]]).all()
    assert (seen[:, 19:24] == own[:, [1, 2, 4, 5, 6]]).all()
    assert (seen[:, [31, 37]] == own[:, [3, 7]]).all()


def test_what_is_held_is_seen_in_units_of_the_largest_position() -> None:
    """At the fill's price nothing moves: weights are what was asked for, times 0.5, and are seen without that."""
    core = make_core(20, episode_length=5)
    flat = bars_of(np.full((20, 4), 100.0))
    core = MarketCore(make_tape(flat, MIXED, core.rules, np.zeros((20, 9), dtype=np.float32)), core.rules)
    envs = make_envs(1, core=core)
    envs.place(np.array([10]))
    seen = dict(zip(_labels(envs), envs.step(an_action([0, 0, 0], 1, 0.4, -0.2, -0.8, 1.0, 1))[0][0], strict=True))
    for name, weight in {"A": 0.4, "B": -0.8, "C": -0.2, "D": 1.0}.items():
        sector = SECTORS["ABCD".index(name)]
        assert seen[f"{sector}.weight_{name}"] == pytest.approx(weight, abs=1e-6)
        assert seen[f"{sector}.profit_{name}"] == 0
    assert [seen[f"meta.gross_{s}"] for s in ("fx", "oil", "index")] == pytest.approx([0.6, 0.8, 1.0], abs=1e-6)
    assert [seen[f"meta.net_{s}"] for s in ("fx", "oil", "index")] == pytest.approx([0.2, -0.8, 1.0], abs=1e-6)


def _labels(envs: TeamVector) -> list[str]:
    return [f"{agent}.{name}" for agent in envs.agents for name in envs.team.columns[agent]]


# --- actions ----------------------------------------------------------------------------------------------------


def test_signals_come_sector_by_sector_and_reach_their_instruments() -> None:
    envs = make_envs()
    said = envs.team.read(envs.core, an_action([0, 0, 0], 1, 0.1, 0.3, 0.2, 0.4))
    assert said.signals[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(said.actions, said.signals, rtol=1e-15)  # equal shares at full risk
    envs.place(np.array([20, 20, 20]))
    envs.step(an_action([0, 0, 0], 1, 0.1, -0.3, 0.2, -0.4))
    orders = envs.outcome.amounts * envs.core.tape.close[20] / 100_000
    assert orders[0].tolist() == pytest.approx([0.05, 0.1, -0.15, -0.2])


def test_signals_find_their_instruments_in_any_order() -> None:
    """Forex's first and last here, so that the way there is not the way back."""
    known = [plain(name, sector=sector) for name, sector in zip("ABCD", ("fx", "oil", "index", "fx"), strict=True)]
    core = make_core(instruments=known)
    said = Team.of(core, NAMES).read(core, np.array([[0, 0, 0, 1, 0.1, 0.4, 0.2, 0.3]]))  # A, D, B, C
    assert said.signals[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert said.actions[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_allocation_is_that_of_the_hierarchy() -> None:
    """By hand at first: logits ln 2, 0, 0 are shares 2/4, 1/4, 1/4 of 3 sectors; risk 0 in [-1, 1] is half of it."""
    core = make_core()
    said = Team.of(core, NAMES, scale=np.log(2.0)).read(core, an_action([1, 0, 0], 0, 0.4, 1.0, -0.8, 0.0, 1))
    assert said.shares[0].tolist() == pytest.approx([0.5, 0.25, 0.25]) and said.risk[0] == 0.5
    assert said.actions[0].tolist() == pytest.approx([0.3, -0.3, 0.75, 0.0])
    team, (actions,) = Team.of(core, NAMES), random_actions(0, 1, 50)
    said = team.read(core, actions.astype(np.float32))
    actions = actions.astype(np.float32).astype(np.float64)
    back = np.argsort(ACTION_ORDER)
    wanted = allocate(np, 2 * actions[:, :3], (actions[:, 3] + 1) / 2, actions[:, 4:][:, back], np.array([0, 1, 0, 2]))
    assert (said.actions == wanted).all()


def test_actions_count_up_to_one() -> None:
    envs = make_envs()
    far, near = (envs.team.read(envs.core, factor * an_action([1, -1, 0], 1, 1, -1, 1, 0)) for factor in (9.0, 1.0))
    assert all((a == b).all() for a, b in zip(far, near, strict=True))


def test_a_joint_environment_trades_the_same() -> None:
    envs, core = make_envs(), make_core()
    joint = joint_vector(core, 3)
    envs.place(np.array([10, 20, 30])), joint.place(np.array([10, 20, 30]))
    for actions in random_actions(1, 12, 3):
        by_instrument = np.concatenate([actions[:, :4], actions[:, 4:][:, np.argsort(ACTION_ORDER)]], axis=1)
        np.testing.assert_allclose(envs.step(actions)[1][:, 0], joint.step(by_instrument)[1], rtol=1e-12, atol=1e-12)


# --- messages and records ---------------------------------------------------------------------------------------


def test_messages_are_read_one_bar_later() -> None:
    envs = make_envs(1)
    labels = _labels(envs)
    told = [labels.index(f"{agent}.{name}") for agent in envs.team.sectors for name in (f"share_{agent}", "risk")]
    own = [labels.index(f"meta.{name}") for name in ("share_fx", "share_oil", "share_index", "risk")]
    seen = envs.place(np.array([10]))[0]
    assert seen[told] == pytest.approx([0] * 6) and seen[own] == pytest.approx([0] * 4)  # equal shares, full risk
    first = an_action([1, 0, -1], 0.5, 0, 0, 0, 0, 1)
    shares = np.exp([2.0, 0.0, -2.0]) / np.exp([2.0, 0.0, -2.0]).sum() * 3 - 1
    seen = envs.step(first)[0][0]
    assert seen[told] == pytest.approx([shares[0], -0.25, shares[1], -0.25, shares[2], -0.25], abs=1e-6)
    assert seen[own] == pytest.approx([*shares, -0.25], abs=1e-6)
    assert envs.step(an_action([0, 0, 0], -1, 0, 0, 0, 0, 1))[0][0][told] == pytest.approx([0, -1] * 3, abs=1e-6)


def test_a_specialists_view_says_nothing_of_the_others() -> None:
    """Whatever index trades: oil sees the same, but for what is measured against the account's equity."""
    one, two = make_envs(), make_envs()
    one.place(np.array([10, 20, 30])), two.place(np.array([10, 20, 30]))
    view, of_equity = one.team.views["oil"], ("drawdown", "weight_B", "profit_B")
    same = np.array([name not in of_equity for name in one.team.columns["oil"]])
    for actions in random_actions(2, 10, 3):
        other = actions.copy()
        other[:, one.team.parts["index"]] *= -1
        seen, changed = one.step(actions)[0], two.step(other)[0]
        assert (seen[:, view][:, same] == changed[:, view][:, same]).all()
        assert not (seen[:, one.team.views["index"]] == changed[:, two.team.views["index"]]).all()


def test_records_are_moving_moments_of_the_sectors_gains() -> None:
    envs = make_envs(2)
    envs.place(np.array([10, 30]))
    start = np.full((2, 3), envs.team.typical / 3)
    mean, square, wins = np.zeros((2, 3)), start, np.zeros((2, 3))
    for actions in random_actions(3, 8, 2):
        equity = envs.state.equity
        seen = envs.step(actions)[0]
        gains = np.stack([envs.outcome.profit[:, k].sum(1) for k in ([0, 2], [1], [3])], axis=1) / equity[:, None]
        mean, square = 0.98 * mean + 0.02 * gains, 0.98 * square + 0.02 * gains**2
        wins = 0.98 * wins + 0.02 * np.sign(gains)
    for found, expected in zip(envs.memory[2:], (mean, square, wins), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    labels = _labels(envs)
    record = [labels.index(f"meta.record_{s}") for s in envs.team.sectors]
    ratio = mean / np.sqrt(np.maximum(square - mean**2, 0.01 * start))
    np.testing.assert_allclose(seen[:, record], ratio.clip(-3, 3), rtol=1e-5, atol=1e-7)
    won = [labels.index(f"meta.wins_{s}") for s in envs.team.sectors]
    np.testing.assert_allclose(seen[:, won], wins, rtol=1e-5, atol=1e-8)


# --- rewards ----------------------------------------------------------------------------------------------------


def test_sectors_gains_together_are_the_gain() -> None:
    """With yen, spread, impact, swap, stops, margin calls and instruments without a bar."""
    costs = {"half_spread": 3e-4, "swap_long": 0.2, "swap_short": 0.1}
    known = [
        plain("USDJPY", sector="fx", quote="JPY", base="USD", **costs),
        plain("B", sector="oil", impact=0.5, daily_value=1e6, **costs),
        plain("C", sector="fx", **costs),
        plain("D", sector="index", quote="JPY", **costs),
    ]
    generator = np.random.default_rng(0)
    traded = generator.uniform(size=(120, 4)) < 0.9
    traded[:11] = True
    closes = np.array(random_bars(4, 120, 4).close)
    for t in range(1, 120):
        closes[t] = np.where(traded[t], closes[t], closes[t - 1])
    bars = bars_of(closes, spread=0.006, names=[each.name for each in known], traded=traded)
    rules = MarketRules(
        max_position_size=2.0, warmup_steps=10, episode_length=40, stop_loss_pct=0.004, margin_call=1.0, ruin=0.0,
    )  # fmt: skip
    names = [f"{each.name}_return" for each in known]
    core = MarketCore(make_tape(bars, known, rules, np.zeros((120, 4), dtype=np.float32)), rules)
    envs = TeamVector(core, Team.of(core, names), 4)
    envs.place(np.array([10, 20, 30, 40]))
    for actions in random_actions(5, 30, 4):
        equity = envs.state.equity
        envs.step(actions)
        gains = envs.team.sector_gains(envs.outcome, equity)
        np.testing.assert_allclose(gains.sum(1), envs.outcome.gain, rtol=0, atol=1e-12)
        assert (envs.outcome.cost > 0).all()
    assert envs.fired["stop_loss"] > 0


def test_difference_rewards_by_hand() -> None:
    """Gains 0.03 of fx, -0.01 of oil, nothing of index: 0.02 together; without them -0.01, 0.03, 0.02."""
    gains = np.array([[0.03, -0.01, 0.0]])

    def paid(**rules: Any) -> list[float]:
        envs = make_envs(1, reward=RewardRules(scale=1, **rules))
        envs.place(np.array([10]))
        envs._moments = begin_reward(np, 1e-4, np.zeros(1))._replace(mean=np.array([0.001]))
        return envs._pay(Bar(np.array([0.02]), gains))[0].tolist()

    assert paid(kind="return") == pytest.approx([0.02, 0.03, -0.01, 0.0])
    log = [np.log(1.02), np.log(1.02 / 0.99), np.log(1.02 / 1.03), 0.0]
    assert paid(kind="log_return") == pytest.approx(log)
    # 0.02 - 5 * 0.0004 = 0.018; without fx -0.01 - 5 * 0.0001 = -0.0105; without oil 0.03 - 5 * 0.0009 = 0.0255
    assert paid(kind="mean_variance", aversion=10) == pytest.approx([0.018, 0.0285, -0.0075, 0.0])
    # A = 0.001, B = 1e-4, (B - A^2)^1.5 = (9.9e-5)^1.5; D = (B (R - A) - A (R^2 - B) / 2) / that
    # R = 0.02: 1.9e-6 - 1.5e-7 = 1.75e-6; R = -0.01: -1.1e-6 - 0 = -1.1e-6; R = 0.03: 2.9e-6 - 4e-7 = 2.5e-6
    unit = 0.1 / 9.9e-5**1.5
    expected = [1.75e-6 * unit, 2.85e-6 * unit, -0.75e-6 * unit, 0.0]
    assert paid(kind="differential_sharpe", decay=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_specialist_is_paid_what_the_portfolio_would_miss(kind: Any) -> None:
    """Against accounts that really do without the sector, in the first bar, where nothing is held before."""
    options = {"max_drawdown_target": 0.0, "risk_free_rate": 0.0, "transaction_cost_weight": 3.0, "decay": 0.1}
    reward = RewardRules(kind=kind, **(options if kind == "portfolio" else {}))
    envs = make_envs(20, reward=reward, core=make_core(transaction_cost=1e-3))
    rows, (actions,) = np.arange(10, 30), random_actions(7, 1, 20)
    envs.place(rows)
    rewards = envs.step(actions)[1]
    assert rewards.shape == (20, 4)
    for k, sector in enumerate(envs.team.sectors):
        silent = actions.copy()
        silent[:, envs.team.parts[sector]] = 0.0
        envs.place(rows)
        without = envs.step(silent)[1][:, 0]
        np.testing.assert_allclose(rewards[:, k + 1], rewards[:, 0] - without, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("torch", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_portfolios_pay_alone_is_the_first_agents(kind: Any, torch: bool) -> None:
    """To the bit, and so are the moments that the next bar's pay depends on."""
    core = make_core(torch=torch, transaction_cost=1e-3)
    whole, alone = (make_envs(4, reward=RewardRules(kind=kind), core=core) for _ in range(2))
    for envs in (whole, alone):
        envs.place(np.array([10, 20, 30, 40]))
    for actions in random_actions(11, 12, 4):
        actions = core.xp.asarray(actions)
        paid, expected = alone.step(actions, portfolio_only=True)[1], whole.step(actions)[1]
        np.testing.assert_array_equal(np.asarray(paid), np.asarray(expected)[:, 0])
        assert expected.shape == (4, 4) and not np.array_equal(expected[:, 0], expected[:, 1])
    for a, b in zip(alone._rewarded, whole._rewarded, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_holds_nothing_is_paid_exactly_nothing(kind: Any) -> None:
    envs = make_envs(4, reward=RewardRules(kind=kind))
    envs.place(np.array([10, 20, 30, 40]))
    for actions in random_actions(8, 15, 4):
        actions[:, envs.team.parts["oil"]] = 0.0
        rewards = envs.step(actions)[1]
        assert (rewards[:, 2] == 0).all() and (rewards[:, [0, 1, 3]] != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_controller_is_paid_for_the_portfolio(kind: Any) -> None:
    """As one account that trades the same is; sectors' rewards leave its moments alone."""
    envs = make_envs(3, reward=RewardRules(kind=kind))
    alone = MarketVector(envs.core, 3, RewardRules(kind=kind))
    envs.place(np.array([10, 20, 30])), alone.place(np.array([10, 20, 30]))
    for actions in random_actions(11, 15, 3):
        rewards = envs.step(actions)[1]
        assert envs.said is not None
        np.testing.assert_allclose(rewards[:, 0], alone.step(envs.said.actions)[1], rtol=1e-12, atol=1e-12)


def test_rewards_of_a_single_sector_are_its_portfolios_less_those_of_cash() -> None:
    """Gains as large as the equity's moves, with everything else silent, as in a specialist's own phase."""
    reward = RewardRules(kind="differential_sharpe")
    envs = make_envs(2, reward=reward)
    envs.place(np.array([10, 20]))
    for actions in random_actions(12, 10, 2):
        actions[:, :6] = 0.0
        actions[:, [3, 7]] = [1.0, 0.0]
        before = envs._moments
        rewards = envs.step(actions)[1]
        idle = pay(np, reward, before, Bar(np.zeros(2)))[0]
        np.testing.assert_allclose(rewards[:, 2], rewards[:, 0] - idle, rtol=1e-9, atol=1e-9)


# --- where episodes begin, and continuation ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_touches_only_the_places_that_are_named(kind: Any) -> None:
    envs = make_envs(6, reward=RewardRules(kind=kind))
    envs.reset(np.random.default_rng(0))
    for actions in random_actions(13, 5, 6):
        seen = envs.step(actions)[0]
    memory, moments, where = envs.memory, envs._moments, np.arange(6) < 2
    fresh = envs.team.begin(envs.core, envs.state.equity)
    after = envs.reset(np.random.default_rng(1), where)
    for old, new, begun in zip(memory, envs.memory, fresh, strict=True):
        assert (new[2:] == old[2:]).all() and (new[:2] == begun[:2]).all()
    for old, new in zip(moments, envs._moments, strict=True):
        assert (new[2:] == old[2:]).all()
    assert (envs._moments.mean[:2] == 0).all() and (after[2:] == seen[2:]).all() and not (after[:2] == seen[:2]).all()
    again = make_envs(6, reward=RewardRules(kind=kind))
    again.place(envs.state.row)
    (actions,) = random_actions(14, 1, 6)
    one, two = envs.step(actions), again.step(actions)
    for a, b in zip(one, two, strict=True):
        assert (a[:2] == b[:2]).all()  # as if they had always begun there
    assert not (one[0][2:] == two[0][2:]).all()


def test_placing_begins_everything_anew() -> None:
    envs, actions = make_envs(), random_actions(15, 6, 3)
    rows = np.array([10, 20, 30])

    def played() -> list[np.ndarray]:
        return [envs.place(rows), *(part for action in actions for part in envs.step(action))]

    for a, b in zip(played(), played(), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_state_continues_bit_for_bit(kind: Any) -> None:
    reward, generator = RewardRules(kind=kind), np.random.default_rng(3)
    one, two = make_envs(5, reward=reward), make_envs(5, reward=reward)
    one.reset(generator)
    actions = random_actions(16, 40, 5)
    for action in actions[:20]:
        seen, _, terminated, truncated = one.step(action)
        seen = one.reset(generator, terminated | truncated)
    assert (two.load_state_dict(one.state_dict()) == seen).all()
    for action in actions[20:]:
        for a, b in zip(stepped := one.step(action), two.step(action), strict=True):
            assert (a == b).all()
        seed = int(generator.integers(1000))
        for envs in (one, two):
            envs.reset(np.random.default_rng(seed), stepped[2] | stepped[3])
    assert one.fired == two.fired and one.steps == two.steps == 200


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_trade_restart_and_resume_the_same(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """The same numbers in torch, without NumPy ever reading a tensor: on another device it could not."""
    import torch

    reward = RewardRules(kind=kind)
    rules = {"transaction_cost": 1e-3, "episode_length": 7, "max_leverage": 0.9}
    ours, theirs, again = (
        make_envs(4, reward=reward, core=make_core(torch=torch_too, **rules)) for torch_too in (False, True, True)
    )

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("can't convert a tensor of another device")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    generators = np.random.default_rng(0), np.random.default_rng(0)
    for envs, generator in zip((ours, theirs), generators, strict=True):
        envs.reset(generator)
    for step, action in enumerate(random_actions(17, 20, 4)):
        found, stepped = ours.step(action), theirs.step(torch.tensor(action))
        np.testing.assert_allclose(found[0], stepped[0].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1], stepped[1].numpy(), rtol=1e-9, atol=1e-11)
        if step == 10:
            again.load_state_dict(theirs.state_dict())
            theirs = again
        for envs, generator, over in zip(
            (ours, theirs), generators, (found[2] | found[3], stepped[2] | stepped[3]), strict=True
        ):
            envs.reset(generator, over)
    assert ours.fired == theirs.fired and ours.fired["leverage"] > 0


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_team_that_cannot_be() -> None:
    core = make_core()
    with pytest.raises(ConfigError, match="the market has 9 feature columns, and 2 names"):
        Team.of(core, ["A_return", "B_return"])
    blind = ("vix", "A_return", "signal_A", "oil", *NAMES[4:])
    with pytest.raises(ConfigError, match="no column of the features belongs to B, so its specialist would trade bli"):
        Team.of(core, blind)


def test_steps_that_cannot_be() -> None:
    envs = make_envs()
    with pytest.raises(DataError, match="call reset first"):
        envs.step(np.zeros((3, 8)))
    with pytest.raises(DataError, match="call reset first"):
        _ = envs.memory
    envs.place(np.array([10, 20, 30]))
    for actions in (np.zeros((3, 7)), np.zeros(8)):
        with pytest.raises(DataError, match=r"not \[N, 8\]"):
            envs.step(actions)
    with pytest.raises(DataError, match="not finite"):
        envs.step(np.full((3, 8), np.nan))
    _, outcome = envs.core.step(envs.state, np.zeros((3, 4)))
    with pytest.raises(DataError, match="detail=True"):
        envs.team.sector_gains(outcome, envs.state.equity)


def test_one_sector_is_not_diversified() -> None:
    core = make_core(instruments=[plain(name) for name in "ABCD"])
    with pytest.raises(ConfigError, match=r"weight=0\.5 needs two sectors or more, and all that is traded is of equ"):
        make_envs(core=core, reward=RewardRules(kind="portfolio"))
    make_envs(core=core, reward=RewardRules(kind="portfolio", diversification_bonus_weight=0))
