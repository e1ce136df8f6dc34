"""Random openings: where games of training and of matches begin."""

from __future__ import annotations

from typing import Any

import numpy as np

from troupe.protocols import BatchGame, Game
from troupe.search.worlds import is_batch

__all__ = ["openings", "rolled"]

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
        state, player, *_ = rolled(game, game.initial(), 0, False, generator)
        for ply in range(length):
            actions = list(game.legal(state))
            after, _, done, mover = game.step(state, actions[int(generator.integers(len(actions)))])
            after, mover, done, _ = rolled(game, after, mover, done, generator)
            if done:
                break
            state, player = after, mover
            if ply > best:
                best, shortest = ply, (state, player)
        else:
            return state, player
    return shortest


def rolled(
    game: Any, state: Any, player: int, done: bool, generator: np.random.Generator
) -> tuple[Any, int, bool, float]:
    """What chance makes of a state before the next decision: (state, player to move, whether it is over, rewards on the
    way as the given `player` sees them)."""
    chance = getattr(game, "chance", None)
    gained, asked = 0.0, player
    while chance is not None and not done and (pairs := chance(state)):
        outcome = int(generator.choice(len(pairs), p=[probability for _, probability in pairs]))
        mover = player
        state, reward, done, player = game.step(state, pairs[outcome][0])
        gained += reward if mover == asked else -reward
    return state, player, done, gained


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
