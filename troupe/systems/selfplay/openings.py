"""Random openings: where games of training and of matches begin."""

from __future__ import annotations

from typing import Any

import numpy as np

from troupe.protocols import BatchGame, Game
from troupe.search.worlds import is_batch

__all__ = ["openings"]

_TRIES = 1000


def openings(game: Game | BatchGame, plies: np.ndarray, generator: np.random.Generator) -> tuple[Any, np.ndarray]:
    """(states, players to move int8 `[n]`) after `plies` `[n]` uniformly random moves; a line that ends is drawn again.

    Where a game cannot be played for so long without ending, the opening is what it is one move before its end.
    """
    walk = _batch_walk if is_batch(game) else _walk
    found = [walk(game, int(length), generator) for length in plies]
    states = [state for state, _ in found]
    return (np.stack(states) if is_batch(game) else states), np.array([player for _, player in found], dtype=np.int8)


def _walk(game: Any, length: int, generator: np.random.Generator) -> tuple[Any, int]:
    best, shortest = -1, (game.initial(), 0)
    for _ in range(_TRIES):
        state, player, _ = _rolled(game, game.initial(), 0, False, generator)
        for ply in range(length):
            actions = list(game.legal(state))
            after, mover, done = _rolled(
                game, *_take(game, state, actions[int(generator.integers(len(actions)))]), generator
            )
            if done:
                break
            state, player = after, mover
            if ply > best:
                best, shortest = ply, (state, player)
        else:
            return state, player
    return shortest


def _take(game: Any, state: Any, action: Any) -> tuple[Any, int, bool]:
    after, _, done, player = game.step(state, action)
    return after, player, done


def _rolled(game: Any, state: Any, player: int, done: bool, generator: np.random.Generator) -> tuple[Any, int, bool]:
    """What chance makes of a state before the next decision."""
    chance = getattr(game, "chance", None)
    while chance is not None and not done and (pairs := chance(state)):
        outcome = int(generator.choice(len(pairs), p=[probability for _, probability in pairs]))
        state, player, done = _take(game, state, pairs[outcome][0])
    return state, player, done


def _batch_walk(game: Any, length: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    best, shortest = -1, (game.initial(1)[0], 0)
    for _ in range(_TRIES):
        states, player = game.initial(1), 0
        for ply in range(length):
            actions = np.flatnonzero(game.legal(states)[0])
            after, _, done, mover = game.step(states, generator.choice(actions, 1))
            if done[0]:
                break
            states, player = after, int(mover[0])
            if ply > best:
                best, shortest = ply, (states[0], player)
        else:
            return states[0], player
    return shortest
