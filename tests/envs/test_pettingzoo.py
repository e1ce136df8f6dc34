from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from troupe.envs.connect_four import ConnectFour
from troupe.envs.pettingzoo import from_pettingzoo, to_pettingzoo
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe
from troupe.errors import ConfigError, DataError, MissingExtra
from troupe.protocols import Game
from troupe.search.minimax import optimal_actions, solve

pytest.importorskip("pettingzoo", reason="pip install 'troupe-train[games]'")

from gymnasium.spaces import Box, Dict, Discrete  # gymnasium comes with pettingzoo
from pettingzoo import AECEnv


class Take(AECEnv):
    """Two agents take 1 or 2 of `tokens`; who takes the last wins 1 and the other loses 1. Faults for the refusals."""

    metadata = {"name": "take_v0", "render_modes": []}  # noqa: RUF012

    def __init__(self, tokens: int = 7, fault: str = "", agents: int = 2) -> None:
        super().__init__()
        self.tokens, self.fault = tokens, fault
        self.possible_agents = [f"taker_{i}" for i in range(agents)]
        self.kept = 0

    def observation_space(self, agent: str) -> Any:
        wide = self.fault == "spaces" and agent == "taker_1"
        look = Box(0, 99, (3 if wide else 2,), np.float32)
        return look if self.fault == "mask" else Dict({"observation": look, "action_mask": Box(0, 1, (2,), np.int8)})

    def action_space(self, agent: str) -> Any:
        return Box(0, 1, (2,), np.float32) if self.fault == "actions" else Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents = list(self.possible_agents)
        self.left = self.tokens + (seed or 0 if self.fault == "seed" else 0)
        self.agent_selection = self.agents[-1] if self.fault == "second" else self.agents[0]
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.kept *= self.fault == "reset"

    def observe(self, agent: str) -> Any:
        seen = np.array([self.left + 10 * self.kept, self.possible_agents.index(agent)], np.float32)
        mask = np.array([1, self.left > 1], np.int8)
        if self.fault == "mask":
            return seen
        if self.fault == "info":
            self.infos[agent]["action_mask"] = mask
            return seen
        return {"observation": seen, "action_mask": mask}

    def step(self, action: int) -> None:
        self.left -= action + 1
        mover = self.agent_selection
        other = next(agent for agent in self.agents if agent != mover)
        self.agent_selection = other
        self.kept += self.fault == "reset"
        self.rewards = {mover: int(self.left == 0), other: 0 if self.fault == "sum" else -int(self.left == 0)}
        if self.left == 0:
            self.terminations = {mover: True, other: self.fault != "alone"}


# --- PettingZoo's environments as games -------------------------------------------------------------------------


def test_an_environment_is_a_game() -> None:
    game = from_pettingzoo(Take)
    assert isinstance(game, Game)
    assert (game.players, game.actions, game.observation_shape) == (2, 2, (2,))
    state = game.initial()
    assert (game.to_play(state), list(game.legal(state))) == (0, [0, 1])
    np.testing.assert_array_equal(game.observe(state), np.array([7, 0], np.float32))
    for action, left, player in ((0, 6, 1), (1, 4, 0), (1, 2, 1)):
        state, reward, done, found = game.step(state, action)
        assert (reward, done, found) == (0.0, False, player)
        np.testing.assert_array_equal(game.observe(state), np.array([left, player], np.float32))
    last, reward, done, _ = game.step(state, 1)
    assert (reward, done, list(game.legal(last))) == (1.0, True, [])
    one = game.step(state, 0)[0]
    assert list(game.legal(one)) == [0]
    with pytest.raises(DataError, match=r"action 1 is not legal, \[0\] are"):
        game.step(one, 1)


def test_states_are_never_changed_and_a_search_may_branch_from_them() -> None:
    """Who faces a multiple of three loses (Bouton 1901): exact values by thousands of steps from shared states."""
    game = from_pettingzoo(Take)
    state = game.initial()
    assert solve(game, state) == 1.0 and optimal_actions(game, state) == (0,)
    assert game.observe(state)[0] == 7
    six = game.step(state, 0)[0]
    assert solve(game, six) == -1.0 and optimal_actions(game, six) == (0, 1)


def test_player_zero_is_who_begins_and_masks_may_stand_in_infos() -> None:
    game = from_pettingzoo(lambda: Take(fault="second"))
    state = game.initial()
    assert game.agents == ("taker_1", "taker_0") and game.to_play(state) == 0
    np.testing.assert_array_equal(game.observe(state), np.array([7, 1], np.float32))
    assert game.step(state, 0)[3] == 1
    informed = from_pettingzoo(lambda: Take(fault="info"))
    assert list(informed.legal(informed.initial())) == [0, 1]
    assert solve(informed, informed.initial()) == 1.0


def test_steps_from_any_state_replay_only_where_they_must() -> None:
    stepped = []

    class Counted(Take):
        def step(self, action: int) -> None:
            stepped.append(action)
            super().step(action)

    game = from_pettingzoo(Counted)
    state = game.initial()
    stepped.clear()
    line = [state]
    for _ in range(4):
        line.append(game.step(line[-1], 0)[0])
    assert stepped == [0, 0, 0, 0]  # each goes on from the last
    branch = game.step(line[2], 1)[0]
    assert stepped[4:] == [0, 0, 1]
    assert (branch.actions, line[2].actions) == ((0, 0, 1), (0, 0))
    assert game.observe(branch)[0] == 3 and game.observe(line[4])[0] == 3 and game.observe(line[2])[0] == 5


def test_keys_tell_positions_apart() -> None:
    game = from_pettingzoo(Take)
    state = game.initial()
    both = [game.step(game.step(state, a)[0], b)[0] for a, b in ((0, 1), (1, 0))]
    assert game.key(both[0]) == game.key(both[1]) != game.key(state)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("seed", "take_v0 shows something else after a second reset and 0 moves"),
        ("reset", "reset must undo everything"),
        ("mask", "has no action_mask"),
        ("spaces", "different spaces"),
        ("actions", r"has the actions Box.*Discrete\(n\)"),
    ],
)
def test_what_from_pettingzoo_refuses(fault: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        from_pettingzoo(lambda: Take(fault=fault))


def test_three_agents_other_sums_and_early_leavers_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 3 agents"):
        from_pettingzoo(lambda: Take(agents=3))
    with pytest.raises(DataError, match=r"paid \[1.0, 0.0\].*zero-sum"):
        from_pettingzoo(lambda: Take(fault="sum"))
    with pytest.raises(DataError, match="ended for one agent"):
        from_pettingzoo(lambda: Take(fault="alone"))


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "own"), [("tictactoe_v3", TicTacToe()), ("connect_four_v3", ConnectFour())])
def test_pettingzoos_classics_are_our_games(name: str, own: Game) -> None:
    pytest.importorskip("pygame", reason="pettingzoo's own games draw with it: pip install pygame")
    from importlib import import_module

    theirs, generator = from_pettingzoo(import_module(f"pettingzoo.classic.{name}").env), np.random.default_rng(0)
    for _ in range(8):
        a, b, done = own.initial(), theirs.initial(), False
        while not done:
            assert sorted(own.legal(a)) == list(theirs.legal(b))
            assert np.moveaxis(theirs.observe(b), -1, 0).sum((1, 2)).tolist() == own.observe(a).sum((1, 2)).tolist()
            action = int(generator.choice(own.legal(a)))
            a, reward, done, player = own.step(a, action)
            b, *found = theirs.step(b, action)
            assert found[:2] == [reward, done] and (done or found[2] == player)


# --- games as PettingZoo's environments -------------------------------------------------------------------------


class Patience:
    """One player takes 1 or 2 of seven tokens and is paid for each move."""

    players, actions, observation_shape = 1, 2, (2,)

    def initial(self) -> int:
        return 7

    def legal(self, state: int) -> list[int]:
        return [0, 1] if state > 1 else [0]

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        return state - 1 - action, 1.0, state - 1 - action == 0, 0

    def observe(self, state: int) -> np.ndarray:
        return np.array([state, 1], np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("game", [TicTacToe(), ConnectFour(), Pig(), Patience()], ids=lambda game: type(game).__name__)
def test_environments_pass_pettingzoos_own_checks(game: Game) -> None:
    from pettingzoo.test import api_test, seed_test

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # style advice, such as on observations of zeros at the start
        api_test(to_pettingzoo(game), num_cycles=200)
        seed_test(lambda: to_pettingzoo(game), num_cycles=50)


def played(env: Any, generator: np.random.Generator) -> Iterator[tuple[str, Any, float, bool, int | None]]:
    """A random game by the book: agent, observation, reward since its last move, ended, its action."""
    for agent in env.agent_iter():
        observation, reward, ended, _, _ = env.last()
        action = None if ended else int(generator.choice(np.flatnonzero(observation["action_mask"])))
        yield agent, observation, reward, ended, action
        env.step(action)


def test_an_environment_plays_its_game() -> None:
    game, generator = ConnectFour(), np.random.default_rng(0)
    env = to_pettingzoo(game)
    for _ in range(5):
        env.reset()
        state, returns, last = game.initial(), {"player_0": 0.0, "player_1": 0.0}, 0.0
        for agent, observation, reward, ended, action in played(env, generator):
            returns[agent] += reward
            if ended:
                continue
            assert np.flatnonzero(observation["action_mask"]).tolist() == list(game.legal(state))
            np.testing.assert_array_equal(observation["observation"], game.observe(state))
            assert agent == f"player_{game.to_play(state)}"
            state, last, _, _ = game.step(state, action)
            mover = agent
        assert returns == {mover: last, next(a for a in returns if a != mover): -last}
        assert env.agents == []


def test_the_other_agents_mask_is_empty() -> None:
    env = to_pettingzoo(TicTacToe())
    env.reset()
    assert env.observe("player_0")["action_mask"].sum() == 9 and env.observe("player_1")["action_mask"].sum() == 0
    env.step(4)
    assert env.observe("player_0")["action_mask"].sum() == 0 and env.observe("player_1")["action_mask"].sum() == 8


def test_chance_follows_the_seed() -> None:
    def dice(seed: int) -> list[Any]:
        env = to_pettingzoo(Pig())
        env.reset(seed=seed)
        generator = np.random.default_rng(5)
        return [observation["observation"].tolist() for _, observation, *_ in played(env, generator)]

    assert dice(0) == dice(0) != dice(1)


def test_there_and_back() -> None:
    game, own = from_pettingzoo(lambda: to_pettingzoo(TicTacToe())), TicTacToe()
    a, b, done, generator = own.initial(), game.initial(), False, np.random.default_rng(2)
    while not done:
        action = int(generator.choice(own.legal(a)))
        np.testing.assert_array_equal(game.observe(b), own.observe(a))
        a, *expected = own.step(a, action)
        b, *found = game.step(b, action)
        done = expected[1]
        assert found[:2] == expected[:2]
    with pytest.raises(ConfigError, match=r"shows something else after a second reset and \d moves"):
        from_pettingzoo(lambda: to_pettingzoo(Pig()))


def test_names_pictures_and_refusals() -> None:
    env = to_pettingzoo(TicTacToe(), "ours_v1")
    env.reset()
    assert str(env) == "ours_v1" and env.render() == TicTacToe().render(TicTacToe().initial())
    assert to_pettingzoo(Patience()).possible_agents == ["player_0"] and to_pettingzoo(Patience()).render_mode is None
    env.step(0)
    with pytest.raises(DataError, match=r"player_1 played 0, legal are \[1, 2, 3, 4, 5, 6, 7, 8\]"):
        env.step(0)
    named = Patience()
    named.actions = None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="Patience lists candidates"):
        to_pettingzoo(named)


def test_without_pettingzoo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(MissingExtra, match=r"troupe-train\[games\]"):
        from_pettingzoo(Take)
    with pytest.raises(MissingExtra, match="to_pettingzoo needs the package 'pettingzoo'"):
        to_pettingzoo(TicTacToe())
