"""Every way of stepping gives the same transitions, ends are told apart, and a resume is exact or says so."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from troupe.batch import Batch
from troupe.errors import ConfigError, DataError
from troupe.models.actions import Box, Discrete
from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.protocols import BatchEnv
from troupe.stores.state import join_state, split_state
from troupe.training.collection import Collector, play_episodes
from troupe.training.vector_envs import GymnasiumEnvs, stepper

GAMMA, LAM = 0.9, 0.8


class Counting(gymnasium.Env):
    """Shows (episode, step) and pays the step; episodes 0, 2, 4, ... are cut off after 3 steps, the others end after
    2."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode, self.step_of = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.step_of = self.episode + 1, 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.step_of += 1
        odd = self.episode % 2 == 1
        return self._seen(), float(self.step_of), odd and self.step_of == 2, not odd and self.step_of == 3, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.episode, self.step_of], dtype=np.float32)


class Arrays:
    """`Counting` as a BatchEnv, N at a time, with a state; in torch where it is asked for."""

    single_observation_space, single_action_space = Counting.observation_space, Discrete(2)

    def __init__(self, n: int, *, torch_arrays: bool = False) -> None:
        self.num_envs = n
        self.episode, self.step_of = np.full(n, -1), np.zeros(n, dtype=np.int64)
        self._given = torch.from_numpy if torch_arrays else np.asarray

    def reset(self, generator: np.random.Generator, where: Any | None = None) -> Any:
        chosen = np.ones(self.num_envs, dtype=bool) if where is None else np.asarray(where)
        self.episode, self.step_of = self.episode + chosen, np.where(chosen, 0, self.step_of)
        return self._seen()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        assert isinstance(actions, Tensor) == (self._given is torch.from_numpy)
        self.step_of = self.step_of + 1
        odd = self.episode % 2 == 1
        columns = self.step_of.astype(np.float64), odd & (self.step_of == 2), ~odd & (self.step_of == 3)
        return self._seen(), *map(self._given, columns)

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode, "step_of": self.step_of}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        self.episode, self.step_of = state["episode"], state["step_of"]
        return self._seen()

    def _seen(self) -> Any:
        return self._given(np.stack([self.episode, self.step_of], 1).astype(np.float32))


class Judge:
    """Takes action 0, with log-prob -1; a state is worth 10 times its step, plus its episode."""

    def act(self, observations: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        n = len(observations)
        return torch.zeros(n, dtype=torch.long), torch.full((n,), -1.0), self.values(observations)

    def values(self, observations: Tensor) -> Tensor:
        return 10 * observations[:, 1] + observations[:, 0]


def vector(mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([Counting] * 2, autoreset_mode=mode)


WAYS = {
    "arrays": lambda: Arrays(2),
    "torch": lambda: Arrays(2, torch_arrays=True),
    "gymnasium": lambda: GymnasiumEnvs([Counting(), Counting()]),
    "disabled": lambda: vector(AutoresetMode.DISABLED),
    "same step": lambda: vector(AutoresetMode.SAME_STEP),
    "next step": lambda: vector(AutoresetMode.NEXT_STEP),
}


def collector(envs: Any, n_steps: int = 7, **options: Any) -> Collector:
    return Collector(envs, n_steps=n_steps, gamma=GAMMA, gae_lambda=LAM, seed=0, **options)


def transitions(batch: Batch, row: int) -> list[tuple[float, ...]]:
    """(episode, step, reward, terminated, truncated) of what was learned from."""
    kept = batch["mask"][row].bool()
    columns = [batch[name][row][kept] for name in ("rewards", "terminated", "truncated")]
    seen = batch.inputs["observations"][row][kept]
    return [tuple(v) for v in torch.cat([seen, torch.stack(columns, 1)], 1).tolist()]


LIFE = [
    (0, 0, 1, 0, 0), (0, 1, 2, 0, 0), (0, 2, 3, 0, 1), (1, 0, 1, 0, 0), (1, 1, 2, 1, 0),
    (2, 0, 1, 0, 0), (2, 1, 2, 0, 0), (2, 2, 3, 0, 1), (3, 0, 1, 0, 0), (3, 1, 2, 1, 0),
    (4, 0, 1, 0, 0), (4, 1, 2, 0, 0), (4, 2, 3, 0, 1), (5, 0, 1, 0, 0), (5, 1, 2, 1, 0),
]  # fmt: skip
"""What happens in `Counting`, by hand."""


def credit(life: list[tuple[float, ...]]) -> list[float]:
    """GAE by hand: V(episode, step) = 10 step + episode, at the state that a step reaches whatever follows."""
    advantages: list[float] = []
    following = 0.0
    for episode, step, reward, terminated, truncated in reversed(life):
        reached = 0.0 if terminated else 10 * (step + 1) + episode
        delta = reward + GAMMA * reached - (10 * step + episode)
        following = delta + (0.0 if terminated or truncated else GAMMA * LAM * following)
        advantages.append(following)
    return advantages[::-1]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_transitions(way: str) -> None:
    """Two rollouts of 7 steps; with NEXT_STEP some of them only begin an episode, and are masked."""
    envs = collector(WAYS[way]())
    batches = [envs.collect(Judge()) for _ in range(2)]
    for row in range(2):
        lives = [transitions(batch, row) for batch in batches]
        expected = LIFE[: len(lives[0]) + len(lives[1])]
        assert lives[0] + lives[1] == expected
        assert len(expected) == (10 if way == "next step" else 14)
        for batch, life in zip(batches, lives, strict=True):
            kept = batch["mask"][row].bool()
            assert batch["advantages"][row][kept].tolist() == pytest.approx(credit(life), abs=1e-4)
            assert torch.allclose(batch["returns"], batch["advantages"] + batch["values"])
    assert batches[0]["actions"].shape == batches[0]["mask"].shape == (2, 7)
    assert {c.dtype for n, c in batches[0].columns.items() if n != "actions"} == {torch.float32}


@pytest.mark.parametrize("way", WAYS)
def test_episodes_are_counted_across_rollouts(way: str) -> None:
    """Lengths 3 and 2 in turn, returns 6 and 3."""
    envs = collector(WAYS[way](), n_steps=4)
    found = [envs.collect(Judge()).metadata["episodes"] for _ in range(4)]
    lengths = np.concatenate([f.lengths for f in found])
    assert np.concatenate([f.returns for f in found]).tolist() == np.where(lengths == 3, 6.0, 3.0).tolist()
    assert sorted(lengths.tolist()) == [2] * 6 + [3] * 6 if way != "next step" else len(lengths) >= 8
    assert set(np.bincount(lengths)) == {0, 6} or way == "next step"


def test_a_state_that_both_ends_and_is_cut_off_has_ended() -> None:
    class Both(Counting):
        def step(self, action: int) -> Any:
            seen, reward, _, _, info = super().step(action)
            return seen, reward, True, True, info

    batch = collector(GymnasiumEnvs([Both()]), n_steps=2).collect(Judge())
    assert batch["terminated"].tolist() == [[1.0, 1.0]] and batch["truncated"].tolist() == [[0.0, 0.0]]
    assert batch["returns"].tolist() == [[1.0, 1.0]]


def test_rollouts_may_begin_anew() -> None:
    envs = collector(Arrays(1), n_steps=2, carry=False)
    lives = [transitions(envs.collect(Judge()), 0) for _ in range(2)]
    assert lives == [LIFE[:2], LIFE[3:5]]  # episode 0 was left after two steps


# ---------------------------------------------------------------------------------------------- what comes in and out


class Shown(Counting):
    """Shows what it is told to, and remembers the actions."""

    def __init__(
        self, observation: Any, observations: spaces.Space, actions: spaces.Space, reward: float = 1.0
    ) -> None:
        super().__init__()
        self.observation, self.reward, self.taken = observation, reward, []
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.taken.append(action)
        return self.observation, self.reward, False, False, {}


UNIT = spaces.Box(0.0, 1.0, (1,), np.float32)
HALF = np.array([0.5], dtype=np.float32)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Discrete(3, start=5),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(-0.1, 0.1, (2, 2), np.float32),
        spaces.Box(-1.0, 1.0, (1,), np.float64),
    ],
    ids=str,
)
def test_actions_arrive_as_the_space_wants_them(actions: spaces.Space) -> None:
    env = Shown(HALF, UNIT, actions)
    envs = collector(GymnasiumEnvs([env]), n_steps=20)
    net = ActorCritic(ActorCriticConfig(hidden=(8,)), envs.observation_shape, envs.space, seed=0)
    batch = envs.collect(net)
    assert len(env.taken) == 20  # each was checked by the environment
    if isinstance(envs.space, Box):
        assert batch["actions"].shape == (1, 20, len(envs.space.low))
        assert batch["actions"].abs().max() > 1.0  # as drawn; the environment saw them clipped
    again = net.evaluate(batch.inputs["observations"], batch["actions"])
    assert torch.allclose(again.logprobs, batch["old_logprobs"], atol=1e-5)


@pytest.mark.parametrize(
    ("observation", "space", "read"),
    [
        (np.int64(4), spaces.Discrete(3, start=2), [0.0, 0.0, 1.0]),
        (np.array([1, 0], dtype=np.int8), spaces.MultiBinary(2), [1.0, 0.0]),
        (np.array(0.25, dtype=np.float32), spaces.Box(0.0, 1.0, (), np.float32), [0.25]),
        (np.array([[7, 8]], dtype=np.uint8), spaces.Box(0, 255, (1, 2), np.uint8), [[7.0, 8.0]]),
    ],
)
def test_observations_are_read(observation: Any, space: spaces.Space, read: Any) -> None:
    envs = collector(GymnasiumEnvs([Shown(observation, space, spaces.Discrete(2))]), n_steps=1)
    net = ActorCritic(ActorCriticConfig(hidden=(8,)), envs.observation_shape, envs.space, seed=0)
    assert envs.collect(net).inputs["observations"][0, 0].tolist() == read


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_observations_without_a_vector_are_refused(kind: str) -> None:
    space = spaces.Dict(a=UNIT) if kind == "dict" else spaces.Tuple((UNIT, UNIT))
    with pytest.raises(ConfigError, match=rf"(?i)space {kind} cannot be read .*FlattenObservation"):
        collector(GymnasiumEnvs([Shown({"a": HALF}, space, spaces.Discrete(2))]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    env = Shown(np.array([bad], dtype=np.float32), UNIT, spaces.Discrete(2))
    net = ActorCritic(ActorCriticConfig(hidden=(8,)), (1,), Discrete(2), seed=0)
    with pytest.raises(DataError, match="environment Shown gave an observation that is NaN or infinite"):
        collector(GymnasiumEnvs([env])).collect(net)
    with pytest.raises(DataError, match="gave a reward that is NaN"):
        collector(GymnasiumEnvs([Shown(HALF, UNIT, spaces.Discrete(2), reward=bad)])).collect(net)


def test_large_numbers_are_no_mistake() -> None:
    largest = np.full(2, 3e38, dtype=np.float32)  # their sum is infinite
    env = Shown(largest, spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(2))
    assert len(collector(GymnasiumEnvs([env])).collect(Judge())) == 1


def test_what_cannot_be_stepped_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Counting cannot be collected from; give a BatchEnv"):
        stepper(Counting())
    envs = vector(AutoresetMode.NEXT_STEP)
    del envs.metadata["autoreset_mode"]
    with pytest.raises(ConfigError, match="does not say in metadata"):
        stepper(envs)
    assert isinstance(Arrays(1), BatchEnv) and isinstance(GymnasiumEnvs([Counting()]), BatchEnv)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("CartPol-v1", {}, "does not make the environment 'CartPol-v1'.*CartPole"),
        ("CartPole-v1", {"gravitas": 1}, "gravitas"),
        ("no_such_package:Env-v0", {}, "no_such_package"),
    ],
)
def test_environments_that_there_are_none_of(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GymnasiumEnvs.make(name, 2, **arguments)


def test_scaling_is_learned_on_the_way() -> None:
    envs = collector(GymnasiumEnvs.make("Pendulum-v1", 4), 300, normalize_observations=True, normalize_rewards=True)
    net = ActorCritic(ActorCriticConfig(), envs.observation_shape, envs.space, seed=0)
    envs.collect(net)
    batch = envs.collect(net)
    seen = batch.inputs["observations"].reshape(-1, 3)
    assert seen.mean(0).abs().max() < 0.5 and (seen.std(0) - 1).abs().max() < 0.4
    assert batch["rewards"].abs().max() < 2 < 5 < -batch.metadata["episodes"].returns.mean() / 200 * 1.5
    assert batch["truncated"].sum() == 8 and batch["terminated"].sum() == 0


# ---------------------------------------------------------------------------------------------- resume


def rollouts(envs: Collector, net: ActorCritic, count: int) -> list[Batch]:
    return [envs.collect(net) for _ in range(count)]


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.columns, b.columns), (a.inputs, b.inputs)]
    return all(torch.equal(x[name], y[name]) for x, y in pairs for name in x)


def stored(state: Any) -> Any:
    """Through what a checkpoint keeps."""
    import json

    tensors, encoded = split_state(state)
    return join_state({name: t.clone() for name, t in tensors.items()}, json.loads(json.dumps(encoded)))


@pytest.mark.parametrize("options", [{}, {"carry": False}, {"normalize_observations": True, "normalize_rewards": True}])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_resume_is_exact(name: str, options: dict[str, Any]) -> None:
    """Episodes are open wherever the run is stopped, and some are longer than a rollout."""
    whole = collector(GymnasiumEnvs.make(name, 3), 60, **options)
    net = ActorCritic(ActorCriticConfig(), whole.observation_shape, whole.space, seed=0)
    rollouts(whole, net, 3)
    state = stored(whole.state_dict())
    expected = rollouts(whole, net, 4)
    again = collector(GymnasiumEnvs.make(name, 3), 60, **options)
    again.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(expected, rollouts(again, net, 4), strict=True))
    for a, b in zip(stored(whole.state_dict()).items(), stored(again.state_dict()).items(), strict=True):
        assert str(a) == str(b)


def test_a_batch_env_with_a_state_resumes_exactly() -> None:
    whole = collector(Arrays(2), 4)
    whole.collect(Judge())
    state = stored(whole.state_dict())
    again = collector(Arrays(2), 4)
    again.load_state_dict(state)
    assert same(whole.collect(Judge()), again.collect(Judge()))


class Forgetful(Counting):
    """What it shows depends on more than seed and actions."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Forgetful.made += 1
        self.number = Forgetful.made

    def _seen(self) -> np.ndarray:
        return np.array([self.number, self.step_of], dtype=np.float32)


def test_what_cannot_be_brought_back_says_so_and_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    whole = collector(GymnasiumEnvs([Forgetful()]), 2)
    whole.collect(Judge())
    again = collector(GymnasiumEnvs([Forgetful()]), 2)
    with caplog.at_level(logging.WARNING):
        again.load_state_dict(stored(whole.state_dict()))
    assert "cannot be resumed exactly: brought back to where it stood, it shows another" in caplog.text
    assert again.collect(Judge()).inputs["observations"][0, 0, 1] == 0  # a new episode


def test_a_vector_env_says_that_it_cannot_be_brought_back(caplog: pytest.LogCaptureFixture) -> None:
    whole = collector(vector(AutoresetMode.NEXT_STEP), 2)
    whole.collect(Judge())
    again = collector(vector(AutoresetMode.NEXT_STEP), 2)
    with caplog.at_level(logging.WARNING):
        again.load_state_dict(stored(whole.state_dict()))
    assert "cannot be resumed exactly, since it cannot say where it stands" in caplog.text
    assert again.collect(Judge()).inputs["observations"][0, 0, 1] == 0


def test_only_open_episodes_are_remembered() -> None:
    envs = GymnasiumEnvs([Counting(), Counting()])
    run = collector(envs, 5000)
    run.collect(Judge())
    state = run.state_dict()["open"]["envs"]
    assert len(state["actions"]) <= 3 and min(state["begun"]) == 0
    with pytest.raises(DataError, match="the state is that of 2 environments, and there are 1"):
        GymnasiumEnvs([Counting()]).load_state_dict(state)


def test_scaling_cannot_be_switched_on_later() -> None:
    state = collector(Arrays(1)).state_dict()
    with pytest.raises(ConfigError, match="no observation_scale"):
        collector(Arrays(1), normalize_observations=True).load_state_dict(state)


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("way", WAYS)
def test_every_environment_plays_its_share_of_whole_episodes(way: str) -> None:
    """5 episodes in two environments: 3 and 2, which are those numbered 0, 1, 2 and 0, 1."""
    found = play_episodes(Judge(), WAYS[way](), 5, seed=0)
    assert sorted(found.lengths.tolist()) == [2, 2, 3, 3, 3] and found.returns.sum() == 3 * 6 + 2 * 3


def test_an_episode_that_does_not_end_is_an_error() -> None:
    env = Shown(HALF, UNIT, spaces.Discrete(2))
    net = ActorCritic(ActorCriticConfig(hidden=(8,)), (1,), Discrete(2), seed=0)
    with pytest.raises(DataError, match="is not over after 50 steps; give the environment a time limit"):
        play_episodes(net, GymnasiumEnvs([env]), 1, seed=0, max_steps=50)


# ---------------------------------------------------------------------------------------------- several agents


class Pair:
    """A BatchEnv that pays two agents: the first +1, the second what it did; episodes of three steps."""

    num_envs = 2

    def __init__(self, pays: int = 2) -> None:
        from gymnasium.spaces import Box

        self.single_observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.pays = pays
        self.at = np.zeros(2, dtype=int)

    def reset(self, generator: np.random.Generator, where: Any = None) -> np.ndarray:
        self.at = np.where(np.ones(2, dtype=bool) if where is None else where, 0, self.at)
        return self.at[:, None].astype(np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        self.at = self.at + 1
        rewards = np.stack([np.ones(2), actions[:, 1], np.zeros(2)], axis=1)[:, : self.pays]
        return self.at[:, None].astype(np.float32), rewards, np.zeros(2, dtype=bool), self.at >= 3


class Two:
    """Two agents whose values are 10 and 20 in every state."""

    def act(self, observations: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, ...]:
        n = len(observations)
        actions = torch.rand((n, 2), generator=generator)
        return actions, torch.zeros(n, 2), self.values(observations)

    def values(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[10.0, 20.0]]).expand(len(observations), 2)


def test_every_agent_has_its_own_advantages() -> None:
    collector = Collector(Pair(), n_steps=4, gamma=0.5, gae_lambda=1.0, seed=0)
    batch = collector.collect(Two())
    rewards = batch["rewards"]
    assert (
        rewards.shape == (2, 4, 2) and batch["mask"].shape == (2, 4) and torch.equal(rewards[..., 0], torch.ones(2, 4))
    )
    torch.testing.assert_close(rewards[..., 1], batch["actions"][..., 1])
    # Steps 0 to 2 are an episode that is cut off and bootstrapped; step 3 begins the next.
    value = torch.tensor([10.0, 20.0])
    expected = rewards[:, 0] + 0.5 * rewards[:, 1] + 0.25 * rewards[:, 2] + 0.125 * value - value
    torch.testing.assert_close(batch["advantages"][:, 0], expected)
    torch.testing.assert_close(batch["advantages"][:, 3], rewards[:, 3] + 0.5 * value - value)
    torch.testing.assert_close(batch["returns"], batch["advantages"] + value)
    assert batch.metadata["episodes"].returns.tolist() == [3.0, 3.0]  # the first agent's


def test_a_network_that_judges_other_agents_than_are_paid_is_refused() -> None:
    with pytest.raises(DataError, match="pays"):
        Collector(Pair(pays=3), n_steps=2, gamma=0.9, gae_lambda=0.9, seed=0).collect(Two())


def test_going_on_elsewhere_begins_new_episodes() -> None:
    first, second = Pair(), Pair()
    collector = Collector(first, n_steps=2, gamma=0.9, gae_lambda=0.9, seed=0)
    collector.collect(Two())
    collector.enter(second)
    batch = collector.collect(Two())
    assert first.at.tolist() == [2, 2] and batch.inputs["observations"][:, 0, 0].tolist() == [0.0, 0.0]
    other = Pair()
    other.num_envs = 3
    with pytest.raises(ConfigError, match="no run can go on"):
        collector.enter(other)
