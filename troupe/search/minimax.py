"""Exact play for small games, and a serious opponent for larger ones: minimax over the `Game` protocol.

Values are those of the player to move and change sign only where the player to move changes, so one player alone, two
players and extra turns need no case of their own. A state of chance is worth the mean of its outcomes (expectiminimax,
Michie 1966); a window cannot be kept across it, as no bounds of the values are known, so each outcome gets the
whole one. Elsewhere alpha-beta (Knuth and Moore 1975, Artificial Intelligence 6(4)) cuts, fail-soft, the middle actions
first.

    value, actions = negamax(game, state, depth=5, heuristic=line_heuristic)
    player = MinimaxPlayer(game, 5, line_heuristic, np.random.default_rng(0))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from troupe.errors import ConfigError, DataError
from troupe.protocols import Game

__all__ = ["Heuristic", "MinimaxPlayer", "Table", "negamax", "optimal_actions", "solve"]

Heuristic = Callable[[Any], float]
"""What an unfinished state is worth to the player to move."""

Table = MutableMapping[tuple[Hashable, float], tuple[float, float]]
"""(key, depth left) -> (lower, upper) bound of the value."""

TIE = 1e-9
"""Root actions this close to the best one are equally good. A true difference is far larger, rounding far smaller."""

INFINITY = math.inf


def negamax(
    game: Game,
    state: Any,
    depth: float,
    heuristic: Heuristic | None = None,
    cache: Table | None = None,
    *,
    to_play: int | None = None,
    discount: float = 1.0,
) -> tuple[float, tuple[Any, ...]]:
    """(value to the player to move, all equally best actions in the order of `game.legal`).

        V(s) = max_a r(s, a) + discount * sign * V(s'),    sign = -1 where the player to move changes, else 1

    An edge into a state of chance is not discounted. `depth` counts decisions, chance is free; beyond it `heuristic`
    judges, or 0 stands. `cache`, an empty dict at first, carries bounds from call to call; it belongs to one game,
    heuristic and discount, and goes by `game.key`, or by the state where the game has none. `to_play` says who moves;
    left out, `game.to_play(state)` does, which only games of one player may lack. A state of chance has no actions, so
    the tuple is empty there.

    Raises ConfigError for a depth below 1, for a state whose player nobody names, and for a cache where neither key
    nor state can be hashed; DataError for a state without actions and, with an endless depth, for one that can come
    back.
    """
    if depth < 1:
        raise ConfigError(f"negamax: depth must be 1 or more, found {depth}")
    if not 0 < discount <= 1:
        raise ConfigError(f"negamax: discount must be above 0 and at most 1, found {discount}")
    player = _who_moves(game, state, to_play)
    search = _Search(game, heuristic or _even, cache, discount, endless=math.isinf(depth))
    if cache is not None:
        _check_hashable(game, search.key(state))
    outcomes = search.chance(state) if search.chance is not None else ()
    if outcomes:
        return search.mean(state, player, depth + 1, outcomes), ()
    return search.root(state, player, depth)


def solve(game: Game, state: Any, cache: Table | None = None, *, to_play: int | None = None) -> float:
    """The exact value of a state to the player to move, by search to the end of the game.

    Bounds go into a table by `game.key` or state; hand the same `cache` to further calls to reuse them. For games
    that must end: a state that can come back raises DataError, and such a game needs value iteration.
    """
    return negamax(game, state, INFINITY, None, {} if cache is None else cache, to_play=to_play)[0]


def optimal_actions(
    game: Game, state: Any, cache: Table | None = None, *, to_play: int | None = None
) -> tuple[Any, ...]:
    """All actions of exactly optimal play, by the search of `solve`."""
    return negamax(game, state, INFINITY, None, {} if cache is None else cache, to_play=to_play)[1]


@dataclass(frozen=True, slots=True)
class MinimaxPlayer:
    """Plays one of the best actions of a `negamax` of this depth, drawn uniformly.

    The discount makes the sooner of two wins and the later of two losses the better one; at 1 a player who sees that
    all is lost would move at random, even where the other has yet to find the win.
    """

    game: Game
    depth: int
    heuristic: Heuristic | None
    generator: np.random.Generator
    discount: float = 0.999

    def __call__(self, state: Any, to_play: int | None = None) -> Any:
        _, actions = negamax(self.game, state, self.depth, self.heuristic, to_play=to_play, discount=self.discount)
        if not actions:
            raise DataError(f"MinimaxPlayer: chance decides in state {state!r}, no player does")
        return actions[int(self.generator.integers(len(actions)))]


def _even(state: Any) -> float:
    return 0.0


def _itself(state: Any) -> Hashable:
    return state


def _who_moves(game: Game, state: Any, to_play: int | None) -> int:
    if to_play is not None:
        return to_play
    if game.players == 1:
        return 0
    who = getattr(game, "to_play", None)
    if who is None:
        name = type(game).__name__
        raise ConfigError(f"{name} has no method to_play(state); pass to_play=, the player who moves in the state")
    return int(who(state))


def _check_hashable(game: Game, key: Any) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise ConfigError(
            f"{type(game).__name__}: states of type {type(key).__name__} cannot be hashed for the table; give the game "
            "a method key(state)"
        ) from error


@dataclass(slots=True)
class _Search:
    """One search: the game's verbs looked up once, and the orders in which actions are tried."""

    game: Game
    heuristic: Heuristic
    cache: Table | None
    discount: float
    endless: bool
    step: Callable[..., Any] = field(init=False)
    legal: Callable[..., Any] = field(init=False)
    key: Callable[[Any], Hashable] = field(init=False)
    chance: Callable[[Any], Sequence[tuple[Any, float]]] | None = field(init=False)
    orders: dict[tuple[Any, ...], tuple[Any, ...]] = field(init=False, default_factory=dict)
    path: set[Hashable] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.step, self.legal = self.game.step, self.game.legal
        self.key = getattr(self.game, "key", _itself)
        self.chance = getattr(self.game, "chance", None)

    def root(self, state: Any, player: int, depth: float) -> tuple[float, tuple[Any, ...]]:
        """Every action is searched with a window that opens a little below the best value so far: an action as good
        comes back with its true value, a worse one with a bound that is at least `TIE` below."""
        self._enter(state)
        best = -INFINITY
        found: dict[Any, float] = {}
        for action in self._ordered(state):
            alpha = best - TIE * max(1.0, abs(best)) if found else -INFINITY
            found[action] = self._after(state, action, player, depth, alpha, INFINITY)
            best = max(best, found[action])
        tolerance = TIE / 2 * max(1.0, abs(best))
        return best, tuple(action for action in self.legal(state) if found[action] >= best - tolerance)

    def value(self, state: Any, player: int, depth: float, alpha: float, beta: float) -> float:
        """The value of a decision where it lies between alpha and beta; otherwise a bound of it on the same side."""
        if depth <= 0:
            return self.heuristic(state)
        if self.cache is None:
            return self._best(state, player, depth, alpha, beta)
        return self._remembered(self.cache, state, player, depth, alpha, beta)

    def mean(self, state: Any, player: int, depth: float, outcomes: Sequence[tuple[Any, float]]) -> float:
        """The expected value of a state in which chance decides; `depth` is that of the decision before it."""
        return sum(p * self._after(state, o, player, depth, -INFINITY, INFINITY) for o, p in outcomes)

    def _remembered(self, cache: Table, state: Any, player: int, depth: float, alpha: float, beta: float) -> float:
        entry = (self.key(state), depth)
        lower, upper = cache.get(entry, (-INFINITY, INFINITY))
        if lower >= beta or lower == upper:
            return lower
        if upper <= alpha:
            return upper
        self._enter(state)
        found = self._best(state, player, depth, alpha, beta)
        self.path.discard(entry[0])
        # At or below alpha it is only known not to be more, at or above beta not to be less.
        cache[entry] = (found if found > alpha else lower, found if found < beta else upper)
        return found

    def _best(self, state: Any, player: int, depth: float, alpha: float, beta: float) -> float:
        best = -INFINITY
        for action in self._ordered(state):
            found = self._after(state, action, player, depth, alpha, beta)
            if found > best:
                best = found
                if best > alpha:
                    alpha = best
                    if alpha >= beta:
                        break
        return best

    def _after(self, state: Any, action: Any, player: int, depth: float, alpha: float, beta: float) -> float:
        """What taking one action is worth to the player."""
        following, reward, done, mover = self.step(state, action)
        if done:
            return reward
        outcomes = self.chance(following) if self.chance is not None else ()
        if outcomes:
            return reward + (1 if mover == player else -1) * self.mean(following, mover, depth, outcomes)
        low, high = (alpha - reward) / self.discount, (beta - reward) / self.discount
        if mover == player:
            return reward + self.discount * self.value(following, mover, depth - 1, low, high)
        return reward - self.discount * self.value(following, mover, depth - 1, -high, -low)

    def _ordered(self, state: Any) -> tuple[Any, ...]:
        """The legal actions, middle ones first where their indices are fixed: most cut, as on most boards."""
        actions = tuple(self.legal(state))
        if not actions:
            raise DataError(
                f"{type(self.game).__name__}.legal: no action in state {state!r}; has the game ended there?"
            )
        if self.game.actions is None:
            return actions
        order = self.orders.get(actions)
        if order is None:
            middle = (self.game.actions - 1) / 2
            order = self.orders[actions] = tuple(sorted(actions, key=lambda action: abs(action - middle)))
        return order

    def _enter(self, state: Any) -> None:
        """Without a depth a state that comes back would be searched for ever."""
        if not self.endless:
            return
        key = self.key(state)
        if key in self.path:
            raise DataError(
                f"{type(self.game).__name__}: state {state!r} can come back, so search to the end does not end; use "
                "negamax with a depth, or value iteration"
            )
        self.path.add(key)
