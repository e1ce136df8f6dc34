"""PettingZoo's turn-based environments as games, and games as environments (Terry et al. 2021, arXiv:2009.14471; extra
`games`).

    game = from_pettingzoo(connect_four_v3.env)     # searched and trained like any Game
    env = to_pettingzoo(ConnectFour())              # passes pettingzoo.test.api_test
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.errors import ConfigError, DataError, MissingExtra
from troupe.protocols import Game

__all__ = ["PettingZooGame", "Played", "from_pettingzoo", "to_pettingzoo"]

PROBE = 200
"""Moves of the trial game that looks for chance and for resets that leave something behind."""


def from_pettingzoo(env_factory: Callable[[], Any]) -> PettingZooGame:
    """A `Game` over an AEC environment of two agents with an action mask. `env_factory` makes one, without a window.

    Raises ConfigError where there are not two agents, their spaces differ, actions are not Discrete, no mask says which
    are legal, chance takes part, or a reset leaves something of the game before; MissingExtra without pettingzoo.
    """
    _aec_env("from_pettingzoo")
    return PettingZooGame(env_factory)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A state: the actions that lead to it, and what the environment then showed."""

    actions: tuple[int, ...]
    player: int  # whose turn it is
    legal: tuple[int, ...]
    seen: np.ndarray  # float32 `observation_shape`, by the player whose turn it is
    done: bool


class PettingZooGame:
    """A `Game` whose states are the actions played so far, which one environment replays.

    Copies of the environment would be faster, but are not sound: many, PettingZoo's own Connect Four among them, answer
    a deep copy with a new one in its initial state (EzPickle). A step that goes on from the last one costs one step of
    the environment, any other as many as the state has actions. One trial game, played after two resets with different
    seeds, must show the same twice. What no trial can see is hidden information: an environment must show a player
    everything that matters. Rewards must be zero-sum and both agents end together: DataError otherwise.
    One thread at a time may step a game.
    """

    players = 2

    def __init__(self, env_factory: Callable[[], Any]) -> None:
        env = env_factory()
        env.reset(seed=0)
        self.name = str(env)
        agents = list(env.possible_agents)
        if len(agents) != 2:
            raise ConfigError(f"{self.name} has {len(agents)} agents: a game here has two")
        spaces, shapes = [env.action_space(a) for a in agents], [_shape(env.observation_space(a)) for a in agents]
        if spaces[0] != spaces[1] or shapes[0] != shapes[1]:
            raise ConfigError(f"{self.name}: its agents have different spaces, and one network could not play both")
        if not hasattr(spaces[0], "n") or int(getattr(spaces[0], "start", 0)) != 0:
            raise ConfigError(f"{self.name} has the actions {spaces[0]}: from_pettingzoo takes Discrete(n), from 0")
        self.agents = (env.agent_selection, next(a for a in agents if a != env.agent_selection))
        self.actions = int(spaces[0].n)
        self.observation_shape: tuple[int, ...] = shapes[0]
        self._env = env
        self._at: tuple[int, ...] = ()
        self._first = self._look(())
        self._try()

    def initial(self) -> Played:
        return self._first

    def legal(self, state: Played) -> Sequence[int]:
        return state.legal

    def step(self, state: Played, action: int) -> tuple[Played, float, bool, int]:
        """Raises DataError for an illegal action."""
        if action not in state.legal:
            raise DataError(f"{self.name}.step: action {action} is not legal, {list(state.legal)} are")
        self._bring(state.actions)
        following = self._play(int(action))
        rewards = [float(self._env.rewards[agent]) for agent in self.agents]
        if abs(sum(rewards)) > 1e-9:
            raise DataError(f"{self.name} paid {rewards} for action {action}: from_pettingzoo takes zero-sum games")
        return following, rewards[state.player], following.done, following.player

    def to_play(self, state: Played) -> int:
        return state.player

    def observe(self, state: Played) -> np.ndarray:
        """float32 `observation_shape`: what the environment shows the agent to move."""
        return state.seen

    def key(self, state: Played) -> tuple[int, bytes, tuple[int, ...]]:
        """The player to move, what it sees, and what it may do."""
        return state.player, state.seen.tobytes(), state.legal

    def _bring(self, actions: tuple[int, ...]) -> None:
        """The environment to the state after these actions."""
        if actions[: len(self._at)] != self._at:
            self._restart(0)
        for action in actions[len(self._at) :]:
            self._advance(action)

    def _play(self, action: int) -> Played:
        self._advance(action)
        return self._look(self._at)

    def _advance(self, action: int) -> None:
        self._env.step(action)
        self._at = (*self._at, action)

    def _restart(self, seed: int) -> None:
        self._env.reset(seed=seed)
        self._at = ()

    def _look(self, actions: tuple[int, ...]) -> Played:
        """What the environment shows now."""
        agent, done = self._env.agent_selection, self._ended()
        shown = self._env.observe(agent)
        mask = _mask(shown, self._env.infos.get(agent, {}))
        if mask is None:
            raise ConfigError(
                f"{self.name} has no action_mask, in observations or infos: a search must know what is legal"
            )
        seen = np.array(shown["observation"] if isinstance(shown, dict) else shown, np.float32)
        legal = () if done else tuple(np.flatnonzero(mask).tolist())
        return Played(actions, self.agents.index(agent), legal, seen, done)

    def _ended(self) -> bool:
        env = self._env
        over = [env.terminations.get(a, True) or env.truncations.get(a, True) for a in self.agents]
        if over[0] != over[1]:
            raise DataError(f"{self.name} ended for one agent and goes on for the other: a game here ends for both")
        return over[0]

    def _try(self) -> None:
        """Plays the same moves twice from the same environment; both games must show the same."""
        shown = [self._first]
        while not shown[-1].done and len(shown) < PROBE:
            # Scattered over the legal actions, as the first of each would leave most of the game unseen.
            legal = shown[-1].legal
            shown.append(self.step(shown[-1], legal[len(shown) * 7 % len(legal)])[0])
        self._restart(1)
        for move, first in enumerate(shown):
            second = self._play(first.actions[-1]) if move else self._look(())
            if self.key(second) != self.key(first):
                raise ConfigError(
                    f"{self.name} shows something else after a second reset and {move} moves: reset must undo "
                    "everything, and chance must be a Game's `chance`"
                )
        self._restart(0)


def to_pettingzoo(game: Game, name: str | None = None) -> Any:
    """An AECEnv that plays `game`: agents player_0 and player_1, or player_0 alone for games of one.

    Observations are {"observation": float32, "action_mask": int8}. The position is shown as the player to move sees it,
    also to the other, whose mask is empty. Chance is drawn from a generator that `reset(seed=...)` seeds.
    `render_mode` is "ansi" where the game can render. `step` raises DataError for an illegal action.
    Raises ConfigError for a game without fixed actions; MissingExtra without pettingzoo.
    """
    aec_env = _aec_env("to_pettingzoo")
    if game.actions is None:
        raise ConfigError(
            f"to_pettingzoo takes games of fixed actions; {type(game).__name__} lists candidates per state"
        )

    class TroupeEnv(_Turns, aec_env):  # type: ignore[misc, valid-type]
        metadata = {  # noqa: RUF012  (PettingZoo reads it from the class)
            "name": name or f"troupe_{type(game).__name__.lower()}_v0",
            "render_modes": ["ansi"] if hasattr(game, "render") else [],
            "is_parallelizable": False,
        }

    return TroupeEnv(game)


class _Turns:
    """The verbs of an AECEnv; PettingZoo's class, which can be named only where it is installed, adds the rest."""

    def __init__(self, game: Game) -> None:
        from gymnasium.spaces import Box, Dict, Discrete

        super().__init__()
        assert game.actions is not None
        self.game = game
        self.possible_agents = [f"player_{i}" for i in range(game.players)]
        self.agents = list(self.possible_agents)
        self.render_mode = "ansi" if hasattr(game, "render") else None
        look = Box(-np.inf, np.inf, game.observation_shape, np.float32)
        spaces: dict[str, Any] = {"observation": look, "action_mask": Box(0, 1, (game.actions,), np.int8)}
        self._observation_spaces = {agent: Dict(spaces) for agent in self.agents}
        self._action_spaces = {agent: Discrete(game.actions) for agent in self.agents}
        self._generator = np.random.default_rng()

    def observation_space(self, agent: str) -> Any:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self._position, self._done, self.agent_selection = self.game.initial(), False, self.agents[0]
        self._roll()

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        mask = np.zeros(self.action_space(agent).n, np.int8)
        if not self._done and agent == self.agent_selection:
            mask[list(self.game.legal(self._position))] = 1
        return {"observation": np.asarray(self.game.observe(self._position), np.float32), "action_mask": mask}

    def step(self, action: int | None) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)  # type: ignore[attr-defined]
            return
        legal = list(self.game.legal(self._position))
        if action not in legal:
            raise DataError(f"{self}: {agent} played {action}, legal are {legal}; sample with the action_mask")
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards[agent] = 0.0
        self._move(action)
        self._roll()
        if self._done:
            self.terminations = dict.fromkeys(self.agents, True)
        for paid, reward in self.rewards.items():
            self._cumulative_rewards[paid] += reward

    def render(self) -> str | None:
        return self.game.render(self._position) if self.render_mode else None  # type: ignore[attr-defined]

    def close(self) -> None:
        """Nothing is open."""

    def _move(self, action: Any) -> None:
        mover = self.agent_selection
        self._position, reward, self._done, player = self.game.step(self._position, action)
        for agent in self.agents:
            self.rewards[agent] += float(reward) if agent == mover else -float(reward)
        self.agent_selection = self.possible_agents[player]

    def _roll(self) -> None:
        """Chance decides until a player does."""
        chance = getattr(self.game, "chance", None)
        while chance is not None and not self._done and (outcomes := chance(self._position)):
            shares = np.array([probability for _, probability in outcomes])
            self._move(outcomes[int(self._generator.choice(len(outcomes), p=shares / shares.sum()))][0])


def _mask(shown: Any, info: Any) -> np.ndarray | None:
    for place in (shown, info):
        if isinstance(place, dict) and "action_mask" in place:
            return np.asarray(place["action_mask"])
    return None


def _shape(space: Any) -> tuple[int, ...]:
    """Of what the network sees: the mask beside it is no part of that."""
    look = space["observation"] if hasattr(space, "spaces") else space
    return tuple(look.shape)


def _aec_env(why: str) -> Any:
    try:
        from pettingzoo import AECEnv
    except ImportError as error:
        raise MissingExtra("pettingzoo", "games", why) from error
    return AECEnv
