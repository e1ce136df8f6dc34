"""Gymnasium's faces: its own checks, its vectors as the yardstick, document 002's environments as it writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.envs.market.samples import core_of, plain, random_bars
from troupe.envs.market.build import market_of
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS, MarketConfig, MarketRules
from troupe.envs.market.faces import (
    ENV_ID,
    JointTrainingEnv,
    MarketEnv,
    MarketVectorEnv,
    MetaControllerTrainingEnv,
    SpecialistEnv,
    register_market,
)
from troupe.envs.market.hierarchy import meta_vector
from troupe.envs.market.instruments import instrument
from troupe.envs.market.simulator import scenario, simulate
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError
from troupe.training.vector_envs import stepper

SMALL = {"episode_length": 15, "warmup_steps": 30, "simulation": {"paths": 2, "bars": 80}}

# As document 002 writes them, in "Training Environments".
SPECIALIST = {
    "instrument": "EURUSD",
    "episode_length": 1000,
    "initial_capital": 100000.0,
    "transaction_cost": 0.003,
    "max_position_size": 0.1,
    "stop_loss_pct": 0.02,
}
META = {
    "instruments": ["EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30"],
    "episode_length": 1000,
    "initial_capital": 100000.0,
    "max_portfolio_var": 0.02,
    "max_correlation_exposure": 0.7,
}
JOINT = {**META, "gradient_coordination": True, "curriculum_learning": True}

FACES = [
    (MarketEnv, {}, 8),
    (SpecialistEnv, {"instrument": "EURUSD"}, 1),
    (SpecialistEnv, {"instruments": ["EURUSD", "GBPUSD", "USDJPY"]}, 3),
    (MetaControllerTrainingEnv, {}, 4),
    (JointTrainingEnv, {"curriculum_learning": True}, 12),
]


def small(**changes: Any) -> MarketEnv:
    return MarketEnv({**SMALL, "instruments": ["EURUSD", "XAUUSD"], **changes})


# --- Gymnasium's conventions ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.parametrize(("face", "config", "size"), FACES)
def test_gymnasium_finds_nothing_to_say(face: type[MarketEnv], config: dict[str, Any], size: int) -> None:
    env = face({**SMALL, **config})
    check_env(env)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (size,), np.float32)
    assert face.vector(3, {**SMALL, **config}).action_size == size


def test_gymnasium_makes_it_by_name() -> None:
    register_market()  # a second time
    config = {**SMALL, "instrument": "EURUSD"}
    env = gymnasium.make(f"troupe.envs.market.faces:{ENV_ID}", env_config=config)
    assert isinstance(env.unwrapped, MarketEnv) and env.unwrapped.instruments == ("EURUSD",)
    envs = gymnasium.make_vec("troupe/Market-v0", num_envs=8, env_config=config)
    assert isinstance(envs, MarketVectorEnv) and envs.num_envs == 8
    assert envs.reset(seed=1)[0].shape == envs.observation_space.shape == (8, *env.observation_space.shape)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_seeds_repeat_and_differ() -> None:
    env, twin = small(), small()
    (first, info), (again, _) = env.reset(seed=3), twin.reset(seed=3)
    assert (first == again).all() and first.dtype == np.float32
    rows = {env.reset(seed=seed)[1]["row"] for seed in range(8)}
    assert len(rows) > 4
    env.reset(seed=3)
    more = [env.reset()[1]["row"] for _ in range(6)]  # an unseeded reset goes on with the generator
    twin.reset(seed=3)
    assert more == [twin.reset()[1]["row"] for _ in range(6)] and len(set(more)) > 2
    assert info["equity"] == 100_000


def test_a_row_is_where_the_episode_begins() -> None:
    env = small()
    for row in (30, 78, 110):  # the second path begins at row 80
        observation, info = env.reset(options={"row": row})
        assert info["row"] == row
        assert (observation[: env.market.core.tape.features.shape[1]] == env.market.core.tape.features[row]).all()


def test_infos_say_what_happened() -> None:
    env = small(max_leverage=0.15, transaction_cost=0.001)
    env.reset(options={"row": 40})
    _, reward, _, _, info = env.step(np.ones(2, dtype=np.float32))
    assert info["row"] == 41 and info["fired"] == {"leverage": True}
    assert info["turnover"] == pytest.approx(0.15, rel=0.02)
    assert info["cost"] == pytest.approx(info["turnover"] / 1000, rel=0.01)  # impact comes on top
    assert reward == pytest.approx(100 * (info["equity"] / 100_000 - 1))  # reward.scale is 100
    assert env.step(np.zeros(2, dtype=np.float32))[4]["fired"] == {"leverage": False}


def test_an_episode_ends_at_its_length() -> None:
    env = small()
    env.reset(options={"row": 30})
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(15)]
    assert ends == [(False, False)] * 14 + [(False, True)]
    with pytest.raises(DataError, match="the episode is over; call reset"):
        env.step(env.action_space.sample())


# --- vectors ----------------------------------------------------------------------------------------------------


def risky_markets(n: int, kind: Callable[..., MarketVector]) -> MarketVector:
    """Accounts that begin at one bar, some of which are ruined before their episodes end. Actions of 0 are orders to an
    allocator, so that a step which a fresh account should not have taken would show."""
    core = core_of(
        random_bars(3, 60), warmup_steps=20, episode_length=7, ruin=0.98, max_leverage=1.2, transaction_cost=0.0005
    )
    return kind(core, n, starts=np.array([25]))


@pytest.mark.parametrize("kind", [MarketVector, meta_vector])
def test_the_vector_is_gymnasiums_vector_of_single_accounts(kind: Callable[..., MarketVector]) -> None:
    """The same observations, rewards, ends and infos, through some forty episodes."""
    ours = MarketVectorEnv(market=risky_markets(6, kind))
    theirs = SyncVectorEnv([lambda: MarketEnv(market=risky_markets(1, kind))] * 6)
    (seen, infos), (wanted, expected) = ours.reset(seed=0), theirs.reset(seed=0)
    assert (seen == wanted).all()
    same_infos(infos, expected)
    ends = np.zeros(2, dtype=int)
    for actions in np.random.default_rng(0).uniform(-1, 1, (60, *ours.action_space.shape)).astype(np.float32):
        *arrays, infos = ours.step(actions)
        *others, expected = theirs.step(actions)
        for mine, other in zip(arrays, others, strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)
        same_infos(infos, expected)
        ends += [int(arrays[2].sum()), int(arrays[3].sum())]
    assert (ends > 5).all()  # by ruin and by length
    fired = sum(env.market.fired["leverage"] for env in theirs.envs)
    steps = sum(env.market.steps for env in theirs.envs)
    assert (ours.market.fired["leverage"], ours.market.steps) == (fired, steps) and 0 < fired < steps < 360


def test_the_step_after_an_end_ignores_its_action() -> None:
    """Episodes of one bar: every second step begins one, whatever it is told to do."""
    envs = MarketVectorEnv(market=MarketVector(core_of(random_bars(0, 60), warmup_steps=20, episode_length=1), 3))
    envs.reset(seed=0)
    for step in range(6):
        is_begun = step % 2 == 1
        action = np.full((3, 3), np.nan if is_begun else 1.0)
        _, rewards, _, truncated, infos = envs.step(action)
        assert truncated.all() != is_begun and (rewards == 0).all() == is_begun
        assert (infos["equity"] == 100_000).all() == is_begun


def same_infos(mine: dict[str, Any], other: dict[str, Any]) -> None:
    """Where every account begins anew, Gymnasium leaves keys out that here are masked."""
    for key in mine.keys() - other.keys():
        assert not np.any(mine[f"_{key.lstrip('_')}"])
    for key in other:
        if isinstance(other[key], dict):
            same_infos(mine[key], other[key])
        else:
            np.testing.assert_allclose(mine[key], other[key], rtol=1e-9)


def test_environments_differ_and_one_seed_or_a_list_repeats_them() -> None:
    envs = MarketVectorEnv(8, {**SMALL, "instrument": "EURUSD"})
    rows = {}
    for seed in (0, 1, [*range(8)], [*range(1, 9)]):
        observations, infos = envs.reset(seed=seed)
        assert (observations == envs.reset(seed=seed)[0]).all()
        rows[str(seed)] = tuple(infos["row"].tolist())
        assert len(set(rows[str(seed)])) > 4
    assert len(set(rows.values())) == 4


def test_options_begin_accounts_where_they_are_told_to() -> None:
    envs = MarketVectorEnv(3, {**SMALL, "instrument": "EURUSD"})
    assert envs.reset(options={"row": 40})[1]["row"].tolist() == [40, 40, 40]
    assert envs.reset(options={"row": np.array([40, 50, 110])})[1]["row"].tolist() == [40, 50, 110]
    envs.step(np.ones((3, 1), dtype=np.float32))
    mask = np.array([False, True, False])
    _, infos = envs.reset(seed=0, options={"reset_mask": mask})
    assert infos["row"][[0, 2]].tolist() == [41, 111] and (infos["equity"] == 100_000).tolist() == mask.tolist()
    assert (infos["_row"] == mask).all()


def test_what_a_caller_writes_on_does_not_reach_the_accounts() -> None:
    envs = MarketVectorEnv(2, {**SMALL, "instrument": "EURUSD"})
    for _, infos in (envs.reset(seed=0), envs.step(np.ones((2, 1), dtype=np.float32))[3:]):
        infos["equity"][:] = infos["row"][:] = 0
    assert (envs.market.state.equity > 0).all() and (envs.market.state.row > 0).all()


def test_gymnasiums_wrappers_and_the_trainer_step_it() -> None:
    envs = RecordEpisodeStatistics(MarketVectorEnv(2, {**SMALL, "instrument": "EURUSD"}))
    envs.reset(seed=0, options={"row": 30})
    rewards, found = np.zeros(2), {}
    for _ in range(15):
        _, paid, _, _, found = envs.step(np.full((2, 1), 0.5, dtype=np.float32))
        rewards += paid
    assert found["episode"]["l"].tolist() == [15, 15]
    np.testing.assert_allclose(found["episode"]["r"], rewards)
    walker = stepper(MarketVectorEnv(2, {**SMALL, "instrument": "EURUSD"}))
    generator = np.random.default_rng(0)
    walker.reset(generator)
    taken = np.array([walker.step(np.zeros((2, 1), dtype=np.float32), generator).taken for _ in range(40)])
    assert (~taken).sum(axis=0).min() >= 2 and taken.mean() > 0.8


def test_any_kind_has_a_vector() -> None:
    config = {**SMALL, "instruments": ["EURUSD", "XAUUSD"]}
    envs = MarketVectorEnv(market=JointTrainingEnv.vector(4, config))
    assert envs.action_space.shape == (4, 5)
    single = JointTrainingEnv(config)
    envs.reset(options={"row": 40})
    observation, _ = single.reset(options={"row": 40})
    action = np.array([0.5, -0.5, 0.3, 1.0, -1.0], dtype=np.float32)
    wanted, reward, *_ = single.step(action)
    seen, rewards, *_ = envs.step(np.tile(action, (4, 1)))
    assert not (wanted == observation).all()
    np.testing.assert_allclose(seen, np.tile(wanted, (4, 1)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(rewards, reward)


# --- what public code got wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "config", "size"), FACES)
def test_the_same_actions_on_other_prices_are_paid_otherwise(
    face: type[MarketEnv], config: dict[str, Any], size: int
) -> None:
    rewards = []
    for seed in (0, 1):
        env = face({**SMALL, **config, "simulation": {**SMALL["simulation"], "seed": seed}})  # type: ignore[dict-item]
        env.reset(options={"row": 40})
        rewards.append([env.step(np.ones(size, dtype=np.float32))[1] for _ in range(10)])
    assert not np.isclose(*rewards).any()
    assert len(set(rewards[0])) == 10  # nor is a constant paid


def test_long_and_short_are_opposites() -> None:
    rewards = []
    for side in (1.0, -1.0):
        env = SpecialistEnv({**SMALL, "instrument": "EURUSD", "cost_scale": 0.0})
        env.reset(options={"row": 40})
        rewards.append(env.step(np.array([side], dtype=np.float32))[1])
        assert np.sign(env.market.state.book.units[0, 0]) == side
    assert rewards[0] == pytest.approx(-rewards[1]) and rewards[0] != 0


def test_every_instrument_is_seen() -> None:
    """A close of one instrument alone, and a position in it, change what is observed; public code showed the first four
    of eight."""
    known = [instrument(name) for name in DOCUMENTED_INSTRUMENTS]
    (bars,) = simulate(scenario("trending", 1.0, known), 80, 1, np.random.default_rng(0))
    market = market_of([bars], known, MarketConfig(rules=MarketRules(warmup_steps=30)))

    def observed(row: int, closes: np.ndarray) -> np.ndarray:
        changed = market_of([replace(bars, close=closes)], known, MarketConfig(rules=market.rules))
        env = MarketEnv(market=MarketVector(changed.core(market.fitted()), 1))
        return env.reset(options={"row": row})[0]

    for place, name in enumerate(DOCUMENTED_INSTRUMENTS):
        closes = bars.close.copy()
        closes[45, place] *= 1.001
        assert (observed(45, closes) != observed(45, bars.close)).sum() >= 5, name
        assert (observed(44, closes) == observed(44, bars.close)).all(), name  # nor does anybody see it before
    env = MarketEnv({**META, **SMALL})
    size = env.market.core.tape.features.shape[1]
    for place in range(8):
        before, _ = env.reset(options={"row": 45})
        after = env.step(np.eye(8, dtype=np.float32)[place])[0]
        assert not before[size:].any() and np.flatnonzero(after[size : size + 8]).tolist() == [place]


# --- document 002's configurations ------------------------------------------------------------------------------


def fired(envs: MarketVector, steps: int = 150) -> dict[str, int]:
    """How often each limit acts on accounts that want all of everything."""
    generator = np.random.default_rng(0)
    envs.reset(generator)
    for _ in range(steps):
        _, _, terminated, truncated = envs.step(np.ones((envs.num_envs, envs.action_size)))
        envs.reset(generator, terminated | truncated)
    return envs.fired


def test_the_documents_configurations_as_written() -> None:
    """The stop loss acts as it stands. The portfolio limits do not where markets trend: eight positions of 10 % lose
    too little, and are never alike enough. VaR does in a crisis, correlation with larger positions."""
    specialist = fired(SpecialistEnv.vector(64, SPECIALIST))
    assert specialist.keys() == {"stop_loss"} and specialist["stop_loss"] > 0
    joint = JointTrainingEnv(JOINT)
    assert joint.gradient_coordination and joint.curriculum_learning
    assert joint.sectors == ("forex", "commodities", "equity") and joint.action_space.shape == (12,)
    assert MetaControllerTrainingEnv(META).action_space.shape == (4,)
    assert fired(JointTrainingEnv.vector(64, JOINT)) == {"correlation": 0, "var": 0}
    crisis = {**META, "simulation": {"scenario": "crisis"}}
    assert fired(MetaControllerTrainingEnv.vector(64, crisis))["var"] > 1000
    assert fired(MetaControllerTrainingEnv.vector(64, {**crisis, "max_position_size": 0.3}))["correlation"] > 1000


def test_costs_are_the_documents() -> None:
    env = SpecialistEnv(SPECIALIST)
    env.reset(options={"row": 60})
    info = env.step(np.ones(1, dtype=np.float32))[4]
    assert info["cost"] == pytest.approx(0.003 * info["turnover"], rel=0.05)  # impact comes on top
    assert info["turnover"] == pytest.approx(0.1, rel=0.02)


def test_the_flags_of_a_trainer_do_not_change_the_environment() -> None:
    one, two = JointTrainingEnv({**SMALL}), JointTrainingEnv({**SMALL, "gradient_coordination": True})
    assert (one.gradient_coordination, two.gradient_coordination) == (False, True)
    assert JointTrainingEnv.read({"curriculum_learning": True}).curriculum_learning
    for env in (one, two):
        env.reset(seed=0)
    action = one.action_space.sample()
    assert one.step(action)[1] == two.step(action)[1]


def test_a_metacontroller_moves_between_its_sectors() -> None:
    env = MetaControllerTrainingEnv({**SMALL, "cost_scale": 0.0})
    env.reset(options={"row": 40})
    env.step(np.array([1.0, -1.0, -1.0, 1.0], dtype=np.float32))
    weights = env.market.core.weights(env.market.state)[0]
    assert env.sectors[0] == "forex" and weights[:3] == pytest.approx([0.1] * 3, rel=0.02)
    assert (weights[3:] > 0).all() and (weights[3:] < 0.02).all()


def test_a_metacontroller_listens_to_its_specialists() -> None:
    def short(core: Any, state: Any, instruments: tuple[str, ...]) -> np.ndarray:
        return -np.ones((len(state.row), len(instruments)))

    env = MetaControllerTrainingEnv(SMALL, dict.fromkeys(("forex", "commodities", "equity"), short))
    env.reset(seed=0)
    env.step(np.array([0.0, 0.0, 0.0, 1.0], dtype=np.float32))
    assert (env.market.state.book.units < 0).all()


# --- what is refused --------------------------------------------------------------------------------------------


def test_other_environments_refuse_what_only_a_trainer_reads() -> None:
    for face in (MarketEnv, SpecialistEnv, MetaControllerTrainingEnv):
        with pytest.raises(ConfigError, match=f"is for JointTrainingEnv, and {face.__name__} does not read it"):
            face({**SMALL, "gradient_coordination": False})
    with pytest.raises(ConfigError, match="instrument: is required; write what the specialist trades"):
        SpecialistEnv(SMALL)
    with pytest.raises(ConfigError, match="did you mean 'instrument'"):
        gymnasium.make(ENV_ID, env_config={"instrumen": "EURUSD"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 40}, r"reset has no option 'rows' \(did you mean 'row'\?\)"),
        ({"row": 40.5}, "must be an integer"),
        ({"row": 160}, "must lie between 0 and 159"),
        ({"row": -1}, "must lie between 0 and 159"),
        ({"row": 29}, "after the warm-up"),
        ({"row": 79}, "before its last bar"),
    ],
)
def test_options_that_there_are_none_of(options: dict[str, Any], message: str) -> None:
    for env in (small(), MarketVectorEnv(2, SMALL)):
        with pytest.raises((ConfigError, DataError), match=message):
            env.reset(options=options)


def test_faces_that_do_not_fit() -> None:
    core = core_of(random_bars(0, 60), [plain(name) for name in "ABC"], warmup_steps=20)
    with pytest.raises(ConfigError, match="market has 2 accounts, an Env one; make a MarketVectorEnv"):
        MarketEnv(market=MarketVector(core, 2))
    with pytest.raises(ConfigError, match="leave num_envs and env_config out"):
        MarketVectorEnv(4, market=MarketVector(core, 2))
    with pytest.raises(ConfigError, match="list of num_envs=2 integers"):
        MarketVectorEnv(market=MarketVector(core, 2)).reset(seed=[1, 2, 3])
    with pytest.raises(ConfigError, match="row begins all accounts"):
        MarketVectorEnv(2, SMALL).reset(options={"row": 40, "reset_mask": np.array([True, False])})
    env = MarketEnv(market=MarketVector(core, 1))
    with pytest.raises(DataError, match="was not reset"):
        env.step(np.zeros(3))
    env.reset(seed=0)
    with pytest.raises(DataError, match=r"shape \(1, 2\), not \(1, 3\)"):
        env.step(np.zeros(2))
    with pytest.raises(DataError, match="not finite"):
        env.step(np.full(3, np.nan))


# --- another library --------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_learns_on_it() -> None:
    ppo = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3").PPO
    from stable_baselines3.common.env_checker import check_env as check

    for face, config, _ in FACES:
        check(face({**SMALL, **config}))
    env = JointTrainingEnv(SMALL)
    model = ppo("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = model.policy.action_net.weight.detach().clone()
    model.learn(64)
    assert model.num_timesteps == 64 and not (model.policy.action_net.weight == before).all()
