"""Games as tasks: play on from a position, both sides searched, and do as well as perfect play would.

{"task_id": "tictactoe-...", "type": "game", "difficulty": 0.2, "problem": "Play tictactoe on from moves 4, 0.",
 "game": "tictactoe", "moves": [4, 0]}
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar

import numpy as np

from troupe.envs import GAMES, make_game
from troupe.episode import Task
from troupe.errors import ConfigError, DataError, did_you_mean
from troupe.protocols import Game
from troupe.search.minimax import solve
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.splits import content_id

__all__ = ["GameTaskGenerator", "PlayedOn", "exact_value", "game_world"]

SOLVABLE = 6000
"""Positions that a game may still reach so that it is solved for the verdict; all of tic-tac-toe has 5,478."""


OPTIONAL = ("chance", "key", "canonical", "symmetries", "heuristic", "render", "to_play", "encode", "encoding")
"""What a game may have beside the verbs of `Game`."""


class PlayedOn:
    """A `Game` that begins with some moves of another; everything else is that game's."""

    def __init__(self, game: Game, moves: Sequence[Any] = (), name: str = "") -> None:
        """Raises DataError for a move that is not legal, or that ends the game."""
        self.game, self.name = game, name or type(game).__name__
        self.players, self.actions, self.observation_shape = game.players, game.actions, game.observation_shape
        self.moves = tuple(moves)
        self._first, self.first_player = _after(game, self.moves, self.name)

    def initial(self) -> Any:
        return self._first

    def legal(self, state: Any) -> Sequence[Any]:
        return self.game.legal(state)

    def step(self, state: Any, action: Any) -> tuple[Any, float, bool, int]:
        return self.game.step(state, action)

    def observe(self, state: Any) -> np.ndarray:
        return self.game.observe(state)

    def __getattr__(self, name: str) -> Any:
        if name in ("game", *OPTIONAL):
            return getattr(self.__dict__["game"], name)
        raise AttributeError(name)


def game_world(task: Task) -> PlayedOn:
    """The world of a task of type "game": `data["game"]` names it, `data["moves"]` are played first, `data["args"]`
    go to its class. Raises DataError for other keys and moves that are not legal, ConfigError for an unknown game."""
    known = ("game", "moves", "args", "key", "steps")
    for key in task.data:
        if key not in known:
            raise DataError(f"task {task.id!r} of type 'game' has the unknown key {key!r}{did_you_mean(key, known)}")
    if not isinstance(task.data.get("game"), str):
        raise DataError(f"task {task.id!r} is of type 'game' and names none; write game: one of {', '.join(GAMES)}")
    name, args = task.data["game"], task.data.get("args", {})
    return PlayedOn(make_game(name, **args), task.data.get("moves", ()), name)


def _after(game: Game, moves: Sequence[Any], name: str) -> tuple[Any, int]:
    state, player = game.initial(), 0
    chance = getattr(game, "chance", lambda state: ())
    for number, move in enumerate(moves):
        legal = [outcome for outcome, _ in chance(state)] or list(game.legal(state))
        if move not in legal:
            raise DataError(f"move {number} of {name} is {move!r}, which is not legal there; legal: {legal}")
        state, _, done, player = game.step(state, move)
        if done:
            raise DataError(f"move {number} of {name} ends the game; leave nothing to play out")
    if moves and chance(state):
        raise DataError(f"the moves of {name} end where chance decides; add the outcome")
    return state, player


def exact_value(world: PlayedOn) -> float | None:
    """The value of the first position to the player to move there, where the game can be solved at once; else None.

    At once: without chance, at most 6,000 positions can still come, and none of them comes back.
    """
    return None if hasattr(world.game, "chance") else _solved(_Keyed(world))


class _Keyed:
    """A world by its class and its first position, so that equal ones are solved once."""

    def __init__(self, world: PlayedOn) -> None:
        self.world = world
        self._name = (type(world.game), repr(sorted(vars(world.game).items(), key=str)), repr(world.initial()))

    def __hash__(self) -> int:
        return hash(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self._name == other._name


@lru_cache(maxsize=4096)
def _solved(keyed: _Keyed) -> float | None:
    world = keyed.world
    return solve(world.game, world.initial(), {}, to_play=world.first_player) if _is_solvable(world) else None


def _is_solvable(world: PlayedOn) -> bool:
    """Whether at most `SOLVABLE` positions can come, and none of them again."""
    game = world.game
    key = getattr(game, "key", lambda state: state)
    first = key(world.initial())
    following: dict[Any, set[Any]] = {first: set()}
    waiting = [(first, world.initial())]
    while waiting:
        name, state = waiting.pop()
        for action in game.legal(state):
            after, _, done, _ = game.step(state, action)
            if done:
                continue
            following[name].add(key(after))
            if key(after) not in following:
                following[key(after)] = set()
                waiting.append((key(after), after))
        if len(following) > SOLVABLE:
            return False
    try:
        TopologicalSorter(following).prepare()
    except CycleError:
        return False
    return True


class GameTaskGenerator(BaseTaskGenerator):
    """Positions to play on from, by random moves: the harder, the earlier in the game.

    At difficulty 1 a game begins at its start, at 0 after `longest` random moves; what has ended by then is drawn
    again.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("tictactoe", "connect_four")
    DEFAULT_KINDS: ClassVar[tuple[str, ...]] = ("tictactoe",)

    def __init__(
        self,
        difficulty_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        longest: int = 4,
    ) -> None:
        super().__init__(difficulty_range, seed, self.DEFAULT_KINDS if kinds is None else kinds, weights)
        if longest < 0:
            raise ConfigError(f"longest is {longest}; write how many moves may be made first, 0 or more")
        self.longest = longest

    def make(self, difficulty: float) -> Task:
        name = self.draw_kind()
        moves = _random_line(make_game(name), self._difficulty_to_params(difficulty)["moves"], self.rng)
        told = f"on from moves {', '.join(map(str, moves))}" if moves else "from the start"
        prompt = f"Play {name} {told}."
        data = {"game": name, "moves": moves}
        return Task(content_id(name, prompt), "game", prompt, data=data, difficulty=round(difficulty, 4))

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        return {"moves": round(self.longest * (1.0 - difficulty))}


def _random_line(game: Game, length: int, rng: random.Random) -> list[Any]:
    while True:
        state, moves = game.initial(), []
        for _ in range(length):
            move = rng.choice(list(game.legal(state)))
            state, _, done, _ = game.step(state, move)
            moves.append(move)
            if done:
                break
        else:
            return moves
