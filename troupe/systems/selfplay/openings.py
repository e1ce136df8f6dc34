"""Random openings: where games of training and of matches begin."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from troupe.errors import ConfigError
from troupe.protocols import BatchGame, Game
from troupe.search.worlds import is_batch

__all__ = ["Opening", "different_openings", "openings", "rolled"]

Opening = tuple[Any, int]
"""A state and the player to move in it."""

_TRIES = 1000

_LOOKED = 10
"""Draws in a row that must find nothing new, per opening that was found, before those count as all there are: one of k
equally likely openings is then missed with a chance below e^-10."""

_CHANCELESS = 1000
"""Moves without chance after which a game counts as one that goes on without."""


def openings(game: Game | BatchGame, plies: np.ndarray, generator: np.random.Generator) -> tuple[Any, np.ndarray]:
    """(states, players to move int8 `[n]`) after `plies` `[n]` uniformly random moves; a line that ends is drawn again.

    Where a game cannot be played for so long without ending, the opening is what it is one move before its end.
    """
    walk = _batch_walk if is_batch(game) else _walk
    found = [walk(game, int(length), generator) for length in plies]
    states = [state for state, _ in found]
    return (np.stack(states) if is_batch(game) else states), np.array([player for _, player in found], dtype=np.int8)


def different_openings(game: Game, n: int, plies: int, generator: np.random.Generator) -> list[Opening]:
    """Up to `n` openings of `plies` random moves, all different; fewer where there are no more. `n` or fewer are
    counted exactly (but in games of chance), and more are drawn.

    Two deterministic players play an opening that they have met before as they played it then, which says nothing new
    and must not be counted again. Openings are told apart by the game's `key`, else by its `canonical`, else by the
    states themselves. Repeats are allowed where chance still decides after the opening: those games differ all the
    same. Raises ConfigError for a game without `key` and `canonical` whose states cannot be compared.
    """
    identity = _identity(game)
    if (every := _every(game, n, plies, identity)) is not None:
        return [every[i] for i in generator.permutation(len(every))]
    found: list[Opening] = []
    seen: set[Hashable] = set()
    misses = 0
    while len(found) < n and misses < _LOOKED * (len(seen) + 1):
        state, player = _walk(game, plies, generator)
        if (name := identity(state)) not in seen or _rolls(game, state, generator):
            found.append((state, player))
            seen.add(name)
            misses = 0
        else:
            misses += 1
    return found


def _every(game: Any, most: int, plies: int, identity: Callable[[Any], Hashable]) -> list[Opening] | None:
    """All openings, ply by ply; None where that leads to more than `most` positions at once, or through chance."""
    if hasattr(game, "chance"):
        return None
    found: dict[Hashable, Opening] = {identity(game.initial()): (game.initial(), 0)}
    for _ in range(plies):
        following: dict[Hashable, Opening] = {}
        for state, _ in found.values():
            for action in game.legal(state):
                after, _, done, player = game.step(state, action)
                if not done:
                    following.setdefault(identity(after), (after, player))
            if len(following) > most:
                return None
        if not following:  # every line ends here: one move before
            break
        found = following
    return list(found.values())


def _identity(game: Any) -> Callable[[Any], Hashable]:
    """What is equal for two states in which the same would be played."""
    if hasattr(game, "key"):
        return game.key
    if hasattr(game, "canonical"):
        return lambda state: game.canonical(state)[0]
    # The same line twice: states without `__eq__` are hashable too, and no two of them are equal.
    one, same = (_walk(game, 1, np.random.default_rng(0))[0] for _ in range(2))
    try:
        alike = hash(one) == hash(same) and bool(one == same)
    except TypeError:
        alike = False
    if not alike:
        raise ConfigError(
            f"{type(game).__name__} has states that a match cannot tell apart (a {type(one).__name__} is not hashable, "
            "or not equal to another of the same moves); define key(state), hashable and equal for equal positions"
        )
    return lambda state: state


def _rolls(game: Any, state: Any, generator: np.random.Generator) -> bool:
    """Whether chance decides anything in a random game from here on."""
    chance = getattr(game, "chance", None)
    if chance is None:
        return False
    for _ in range(_CHANCELESS):
        actions = list(game.legal(state))
        state, _, done, _ = game.step(state, actions[int(generator.integers(len(actions)))])
        if done or chance(state):
            return not done
    return False


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
