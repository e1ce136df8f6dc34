"""The game of a run, in the form that each part needs, and who plays it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from troupe.envs import BATCH_GAMES, make_batch_game, make_game
from troupe.errors import ConfigError, MissingExtra
from troupe.protocols import BatchGame, Evaluator, Game
from troupe.search.compiled import compiled_game
from troupe.search.config import SearchConfig
from troupe.search.minimax import MinimaxPlayer
from troupe.search.search import Search, run
from troupe.search.worlds import is_batch
from troupe.systems.selfplay.config import GameConfig

__all__ = ["Minimax", "Player", "RandomPlayer", "RowGame", "SearchPlayer", "match_game", "search_game"]


def search_game(config: GameConfig, given: Game | BatchGame | None = None) -> Game | BatchGame:
    """The game as a search likes it best: compiled where there is such a version and numba to compile it, or else on
    arrays; `given` in code, or by its name. The numbers are the same. A process that steps the game compiles it first,
    for a second or so; self-play with a network of 2 blocks of 64 channels then takes 2 to 5 % less time.

    Raises ConfigError for a name that nobody knows, and for games that a network of fixed actions cannot play against
    itself.
    """
    if given is None and config.name in BATCH_GAMES and not config.args:
        return _compiled(make_batch_game(config.name))
    game = _own(config) if given is None else given
    if game.actions is None:
        raise ConfigError(
            f"game {config.name!r} names its actions anew in each state (actions=None); this network needs fixed ones, "
            "so give the game `actions` and indices"
        )
    if game.players != 2:
        raise ConfigError(
            f"game {config.name!r} has {game.players} players; self-play and its matches are for two whose rewards are "
            "opposite"
        )
    return game


def _compiled(game: Any) -> Any:
    if not hasattr(game, "compiled_functions"):
        return game
    try:
        return compiled_game(game)
    except MissingExtra:
        return game


def match_game(config: GameConfig, given: Game | BatchGame | None = None) -> Game:
    """The game as matches need it, state by state."""
    game = _own(config) if given is None else given
    return RowGame(game) if is_batch(game) else game  # type: ignore[return-value, arg-type]


def _own(config: GameConfig) -> Any:
    try:
        return make_game(config.name, **config.args)
    except ConfigError:
        if ":" not in config.name:
            raise
        return make_batch_game(config.name, **config.args)


class RowGame:
    """A `Game` whose states are single rows of a `BatchGame`."""

    def __init__(self, game: BatchGame) -> None:
        self._game = game
        self.players, self.actions = game.players, game.actions
        self.observation_shape = game.observation_shape

    def initial(self) -> np.ndarray:
        return self._game.initial(1)[0]

    def legal(self, state: np.ndarray) -> list[int]:
        return np.flatnonzero(self._game.legal(state[None])[0]).tolist()

    def step(self, state: np.ndarray, action: int) -> tuple[np.ndarray, float, bool, int]:
        states, reward, done, to_play = self._game.step(state[None], np.array([action]))
        return states[0], float(reward[0]), bool(done[0]), int(to_play[0])

    def observe(self, state: np.ndarray) -> np.ndarray:
        return self._game.observe(state[None])[0]

    def key(self, state: np.ndarray) -> Hashable:
        return state.tobytes()

    def __getattr__(self, name: str) -> Any:
        """What an array game says of single states by the same names: `heuristic`, `render`, `to_play`."""
        if name not in ("heuristic", "render", "to_play"):
            raise AttributeError(name)
        return getattr(self._game, name)


class Player(Protocol):
    """Who moves in matches. `choose` answers for many states at once: actions, one per state."""

    def choose(self, states: Sequence[Any], to_play: Sequence[int]) -> list[Any]: ...


class SearchPlayer:
    """Searches with an evaluator and plays the best move found; equal states get equal moves."""

    def __init__(self, game: Game, evaluator: Evaluator, config: SearchConfig) -> None:
        self.game, self.evaluator, self.config = game, evaluator, config
        self._search: Search | None = None

    def choose(self, states: Sequence[Any], to_play: Sequence[int] | None = None) -> list[Any]:
        n = len(states)
        if self._search is None or self._search.slots < n:
            generator = np.random.default_rng(0)  # chance before a root alone; states of matches have none
            self._search = Search(self.game, self.config, slots=n, generator=generator, explore=False)
        search, slots = self._search, np.arange(n)
        search.stop(np.arange(search.slots))
        search.place(slots, list(states), None if to_play is None else np.array(to_play, dtype=np.int8))
        roots = run(search, self.evaluator)
        return [search.world.action_of(slot, 0, edge) for slot, edge in enumerate(roots.edges.tolist())]


class RandomPlayer:
    """Plays any legal move, all alike."""

    def __init__(self, game: Game, generator: np.random.Generator) -> None:
        self._game, self._generator = game, generator

    def choose(self, states: Sequence[Any], to_play: Sequence[int] | None = None) -> list[Any]:
        lists = [list(self._game.legal(state)) for state in states]
        return [actions[int(self._generator.integers(len(actions)))] for actions in lists]


class Minimax:
    """A full search of some depth, with the game's heuristic at its horizon where it has one."""

    def __init__(self, game: Game, depth: int, generator: np.random.Generator) -> None:
        self._player = MinimaxPlayer(game, depth, getattr(game, "heuristic", None), generator)

    def choose(self, states: Sequence[Any], to_play: Sequence[int]) -> list[Any]:
        return [self._player(state, player) for state, player in zip(states, to_play, strict=True)]
