"""Where a search's states live: one world per kind of game, the same few verbs for all of them.

The tree knows nodes by number; a world keeps the state of every (slot, node). States are made once, when a node is
first reached, and never replayed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from troupe.errors import DataError
from troupe.protocols import BatchGame, Game, Symmetry

__all__ = ["Arrivals", "BatchWorld", "GamePositions", "PythonWorld", "World", "is_batch", "world_of"]


_REMEMBERED = 4096
"""Lists of legal actions whose masks a world of plain Python keeps."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What n steps led to. `legal` is False everywhere in states that have ended or that chance decides."""

    reward: np.ndarray  # float64 [n], of the player who moved
    done: np.ndarray  # bool [n]
    to_play: np.ndarray  # int8 [n]
    legal: np.ndarray  # bool [n, W]
    chance: np.ndarray | None = None  # bool [n]; None: the game has no chance


class World(Protocol):
    """States by (slot, node). Arrays of slots and nodes run along; `W` is the width of the tree's edges."""

    players: int
    observation_shape: tuple[int, ...]
    symmetries: tuple[Symmetry, ...]

    @property
    def width(self) -> int: ...

    def resize(self, slots: int, nodes: int) -> None:
        """Makes room; states already there stay."""
        ...

    def place(self, slots: np.ndarray, states: Any | None) -> Arrivals:
        """Puts states (None: the game's first) at the roots. `done` and `reward` are meaningless here; `to_play` is -1
        where the game cannot say who moves."""
        ...

    def step(self, slots: np.ndarray, parents: np.ndarray, edges: np.ndarray, nodes: np.ndarray) -> Arrivals: ...

    def renumber(self, slot: int, old: np.ndarray) -> None:
        """Node i of the slot is now what node `old[i]` was."""
        ...

    def outcomes(self, slot: int, node: int) -> Sequence[float]:
        """Probabilities of a chance state's outcomes, by edge."""
        ...

    def legal(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray: ...

    def observations(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray: ...

    def keys(self, slots: np.ndarray, nodes: np.ndarray) -> tuple[Sequence[Hashable], np.ndarray | None] | None: ...

    def states(self, slots: np.ndarray, nodes: np.ndarray) -> Any: ...

    def candidates(self, slots: np.ndarray, nodes: np.ndarray) -> Sequence[Sequence[Any]] | None: ...

    def game_of(self, slot: int) -> Any: ...

    def edge_of(self, slot: int, node: int, action: Any) -> int:
        """The edge of an action; DataError where it is not legal there."""
        ...

    def action_of(self, slot: int, node: int, edge: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class GamePositions:
    """`troupe.protocols.Positions` over a world."""

    world: World
    slots: np.ndarray
    nodes: np.ndarray
    legal: np.ndarray
    to_play: np.ndarray

    def __len__(self) -> int:
        return len(self.slots)

    def observations(self) -> np.ndarray:
        return self.world.observations(self.slots, self.nodes)

    def keys(self) -> tuple[Sequence[Hashable], np.ndarray | None] | None:
        return self.world.keys(self.slots, self.nodes)

    def symmetries(self) -> Sequence[Symmetry]:
        return self.world.symmetries

    def states(self) -> Sequence[Any]:
        return self.world.states(self.slots, self.nodes)

    def candidates(self) -> Sequence[Sequence[Any]] | None:
        return self.world.candidates(self.slots, self.nodes)

    def games(self) -> Sequence[Any]:
        """The game that each position belongs to; tasks have games of their own."""
        return [self.world.game_of(slot) for slot in self.slots.tolist()]

    def take(self, indices: np.ndarray) -> GamePositions:
        return GamePositions(
            self.world, self.slots[indices], self.nodes[indices], self.legal[indices], self.to_play[indices]
        )


def world_of(game: Game | BatchGame) -> World:
    """The world for a game. Raises DataError for more than two players."""
    if game.players not in (1, 2):
        raise DataError(
            f"{type(game).__name__} has {game.players} players; a search is for one player, or for two whose rewards "
            "are opposite"
        )
    if hasattr(game, "step_function"):
        from troupe.search.compiled import CompiledWorld  # which needs this module

        return CompiledWorld(game)  # type: ignore[arg-type]
    return BatchWorld(game) if is_batch(game) else PythonWorld(game)  # type: ignore[arg-type]


def is_batch(game: Game | BatchGame) -> bool:
    """Whether a game steps arrays: `initial(n)` instead of `initial()`."""
    return bool(inspect.signature(game.initial).parameters)


class BatchWorld:
    """States of a `BatchGame` in one array `[B, N, ...]`."""

    def __init__(self, game: BatchGame) -> None:
        self.game = game
        self.players = game.players
        self.observation_shape = game.observation_shape
        self.symmetries = tuple(game.symmetries()) if hasattr(game, "symmetries") else ()
        self._canonical: Callable[..., Any] | None = getattr(game, "canonical", None)
        self._keys: Callable[..., Any] | None = getattr(game, "keys", None)
        first = game.initial(1)
        self._states = np.zeros((0, 0, *first.shape[1:]), dtype=first.dtype)

    @property
    def width(self) -> int:
        return self.game.actions

    def resize(self, slots: int, nodes: int) -> None:
        old = self._states
        room = max(slots, old.shape[0]), max(nodes, old.shape[1])
        self._states = np.zeros((*room, *old.shape[2:]), dtype=old.dtype)
        self._states[: len(old), : old.shape[1]] = old

    def place(self, slots: np.ndarray, states: Any | None) -> Arrivals:
        first = self.game.initial(len(slots)) if states is None else np.asarray(states, dtype=self._states.dtype)
        self._states[slots, 0] = first
        n = len(slots)
        to_play = np.full(n, 0 if states is None or self.players == 1 else -1, np.int8)
        return Arrivals(np.zeros(n), np.zeros(n, bool), to_play, self.game.legal(first))

    def step(self, slots: np.ndarray, parents: np.ndarray, edges: np.ndarray, nodes: np.ndarray) -> Arrivals:
        states, reward, done, to_play = self.game.step(self._states[slots, parents], edges)
        self._states[slots, nodes] = states
        return Arrivals(reward, done, to_play, self.game.legal(states) & ~done[:, None])

    def renumber(self, slot: int, old: np.ndarray) -> None:
        self._states[slot, : len(old)] = self._states[slot, old]

    def outcomes(self, slot: int, node: int) -> Sequence[float]:
        raise DataError(f"{type(self.game).__name__} is an array game; chance is for games in plain Python")

    def legal(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return self.game.legal(self._states[slots, nodes])

    def observations(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return self.game.observe(self._states[slots, nodes])

    def keys(self, slots: np.ndarray, nodes: np.ndarray) -> tuple[Sequence[Hashable], np.ndarray | None] | None:
        states = self._states[slots, nodes]
        if self._canonical is not None:
            return self._canonical(states)
        return None if self._keys is None else (self._keys(states), None)

    def states(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return self._states[slots, nodes]

    def candidates(self, slots: np.ndarray, nodes: np.ndarray) -> None:
        return None

    def game_of(self, slot: int) -> BatchGame:
        return self.game

    def edge_of(self, slot: int, node: int, action: Any) -> int:
        legal = self.game.legal(self._states[slot, node][None])[0]
        if not (isinstance(action, (int, np.integer)) and 0 <= action < len(legal) and legal[action]):
            raise _illegal(self.game, action, np.flatnonzero(legal).tolist())
        return int(action)

    def action_of(self, slot: int, node: int, edge: int) -> int:
        return int(edge)


class PythonWorld:
    """States of a `Game` in lists, one list per slot; a slot may have a game of its own (a task, a puzzle).

    Actions are edges by their index, or by their place in the state's own list where the game has candidates; the width
    grows with the longest list. Games that share a world agree in players and observations.
    """

    def __init__(self, game: Game) -> None:
        self.players = game.players
        self.observation_shape = game.observation_shape
        symmetries = getattr(game, "symmetries", None)
        self.symmetries = tuple(symmetries()) if symmetries is not None else ()
        self._game = game
        self._width = 1
        self._fewest = sys.maxsize  # actions of any game whose actions are fixed
        self._games: list[Game] = []
        self._states: list[list[Any]] = []
        self._named: list[list[Any]] = []  # per (slot, node): candidates, or outcomes of chance; None: fixed actions
        self._has_chance = False
        self._is_plain = game.actions is not None and not hasattr(game, "chance")
        self._seen: dict[tuple[Any, ...], int] = {}  # lists of legal actions, and the row of `_masks` that each has
        self._masks = np.zeros((1, game.actions or 1), dtype=bool)  # row 0: nothing is legal
        self._admit(game)

    def _admit(self, game: Game) -> None:
        self._width = max(self._width, game.actions or 1)
        if game.actions is not None:
            self._fewest = min(self._fewest, game.actions)
        self._has_chance = self._has_chance or hasattr(game, "chance")

    @property
    def width(self) -> int:
        return self._width

    def resize(self, slots: int, nodes: int) -> None:
        for table in (self._states, self._named):
            for row in table:
                row.extend([None] * (nodes - len(row)))
            table.extend([None] * nodes for _ in range(slots - len(table)))
        self._games.extend([self._game] * (slots - len(self._games)))

    def assign(self, slot: int, game: Game) -> None:
        """Gives a slot a game of its own. Raises DataError where it does not fit beside the others."""
        if (game.players, game.observation_shape) != (self.players, self.observation_shape):
            raise DataError(
                f"{type(game).__name__} has {game.players} players and observations {game.observation_shape}; the "
                f"games it would be searched beside have {self.players} and {self.observation_shape}"
            )
        self._is_plain = False
        self._games[slot] = game
        self._named[slot] = [None] * len(self._named[slot])
        self._admit(game)

    def game_of(self, slot: int) -> Game:
        return self._games[slot]

    def place(self, slots: np.ndarray, states: Any | None) -> Arrivals:
        where = slots.tolist()
        chosen = [self._games[slot].initial() for slot in where] if states is None else list(states)
        for slot, state in zip(where, chosen, strict=True):
            self._states[slot][0] = state
        n = len(chosen)
        arrivals = self._arrive(where, [0] * n, chosen, [0.0] * n, [False] * n, [0] * n)
        return arrivals if states is None else replace(arrivals, to_play=self._movers(where, chosen))

    def _movers(self, slots: list[int], states: list[Any]) -> np.ndarray:
        asked = [getattr(self._games[slot], "to_play", None) for slot in slots]
        unknown = 0 if self.players == 1 else -1
        movers = [unknown if ask is None else ask(state) for ask, state in zip(asked, states, strict=True)]
        return np.array(movers, dtype=np.int8)

    def step(self, slots: np.ndarray, parents: np.ndarray, edges: np.ndarray, nodes: np.ndarray) -> Arrivals:
        if self._is_plain:
            return self._step_plain(slots.tolist(), parents.tolist(), edges.tolist(), nodes.tolist())
        games, states, rewards, dones, players = self._games, [], [], [], []
        where, at = slots.tolist(), nodes.tolist()
        for slot, parent, edge, node in zip(where, parents.tolist(), edges.tolist(), at, strict=True):
            row, named = self._states[slot], self._named[slot][parent]
            state, reward, done, to_play = games[slot].step(row[parent], edge if named is None else named[edge])
            row[node] = state
            states.append(state)
            rewards.append(reward)
            dones.append(done)
            players.append(to_play)
        return self._arrive(where, at, states, rewards, dones, players)

    def _step_plain(self, slots: list[int], parents: list[int], edges: list[int], nodes: list[int]) -> Arrivals:
        """`step` where one game of fixed actions and without chance is all there is: a third less time per state."""
        step, legal, tables = self._game.step, self._game.legal, self._states
        if len(self._seen) > _REMEMBERED:
            self._seen, self._masks = {}, self._masks[:1]
        seen, size = self._seen, len(self._masks)
        new: dict[tuple[Any, ...], int] = {}
        steps: list[tuple[Any, float, bool, int]] = []
        rows: list[int] = []
        for slot, parent, edge, node in zip(slots, parents, edges, nodes, strict=True):
            row = tables[slot]
            taken = step(row[parent], edge)
            steps.append(taken)
            row[node] = state = taken[0]
            if taken[2]:
                rows.append(0)
                continue
            actions = tuple(legal(state))
            place = seen.get(actions)
            if place is None:
                if not actions:
                    raise self._stuck(slot, state)
                place = new.setdefault(actions, size + len(new))
            rows.append(place)
        states, rewards, dones, players = zip(*steps, strict=True)
        if new:
            edges, counts = [edge for actions in new for edge in actions], list(map(len, new))
            self._masks = np.concatenate([self._masks, self._filled(edges, counts, slots, states, dones)])
            seen.update(new)
        to_play = self._next(slots, players)
        return Arrivals(np.array(rewards, np.float64), np.array(dones, bool), to_play, self._masks[rows])

    def _next(self, slots: list[int], players: Sequence[int]) -> np.ndarray:
        """Who moves next. Raises DataError for somebody who does not play."""
        to_play = np.array(players, dtype=np.int8)
        if to_play.size and (to_play.min() < 0 or to_play.max() >= self.players):
            odd = next(player for player in to_play.tolist() if not 0 <= player < self.players)
            raise DataError(
                f"{type(self._games[slots[0]]).__name__}.step named player {odd} as next, and the game "
                f"has {self.players}; players are numbered from 0"
            )
        return to_play

    def _stuck(self, slot: int, state: Any) -> DataError:
        return DataError(
            f"{type(self._games[slot]).__name__}.legal gave no action in the unfinished state {state!r}; let `step` "
            "say that it has ended"
        )

    def _arrive(
        self, slots: list[int], nodes: list[int], states: list[Any], rewards: list, dones: list, players: list
    ) -> Arrivals:
        chance = self._roll(slots, nodes, states, dones) if self._has_chance else None
        over = dones if chance is None else [d or c for d, c in zip(dones, chance, strict=True)]
        legal = self._mask(slots, nodes, states, over)
        to_play = self._next(slots, players)
        rolled = None if chance is None else np.array(chance, dtype=bool)
        return Arrivals(np.array(rewards, dtype=np.float64), np.array(dones, dtype=bool), to_play, legal, rolled)

    def _roll(self, slots: list[int], nodes: list[int], states: list[Any], dones: list) -> list[bool]:
        """Which states chance decides; their outcomes take the place of actions."""
        found = []
        for slot, node, state, done in zip(slots, nodes, states, dones, strict=True):
            pairs = () if done else self._pairs(slot, state)
            self._named[slot][node] = [outcome for outcome, _ in pairs] if pairs else None
            found.append(bool(pairs))
        return found

    def _pairs(self, slot: int, state: Any) -> Sequence[tuple[Any, float]]:
        chance = getattr(self._games[slot], "chance", None)
        return () if chance is None else chance(state)

    def _mask(self, slots: list[int], nodes: list[int], states: list[Any], over: Sequence[bool]) -> np.ndarray:
        """Legal edges, from each state's list of actions."""
        edges: list[int] = []
        counts = []
        for slot, node, state, ended in zip(slots, nodes, states, over, strict=True):
            before = len(edges)
            if not ended:
                game = self._games[slot]
                actions = game.legal(state)
                if game.actions is None:
                    self._named[slot][node] = actions = list(actions)
                    edges.extend(range(len(actions)))
                    self._width = max(self._width, len(actions))
                else:
                    edges.extend(actions)
                if len(edges) == before:
                    raise self._stuck(slot, state)
            counts.append(len(edges) - before)
        return self._filled(edges, counts, slots, states, over)

    def _filled(
        self, edges: list[int], counts: list[int], slots: list[int], states: Sequence[Any], over: Sequence[bool]
    ) -> np.ndarray:
        """A mask whose rows have their `counts` of `edges`, given one after the other. An edge that is none is looked
        for in the states, which must be all that the edges come from."""
        mask = np.zeros((len(counts), self._width), dtype=bool)
        if edges:
            whole = all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in set(map(type, edges)))
            taken = np.array(edges if whole else [-1])
            if taken.min() < 0 or taken.max() >= self._fewest:
                self._check_indices(slots, states, over)
            mask[np.repeat(np.arange(len(counts)), counts), taken] = True
        return mask

    def _check_indices(self, slots: list[int], states: Sequence[Any], over: Sequence[bool]) -> None:
        """Raises DataError for an action that is no index of its own game's, which may have fewer than another."""
        for slot, state, ended in zip(slots, states, over, strict=True):
            game = self._games[slot]
            if ended or game.actions is None:
                continue
            for action in game.legal(state):
                whole = isinstance(action, (int, np.integer)) and not isinstance(action, bool)
                if not (whole and 0 <= action < game.actions):
                    raise DataError(
                        f"{type(game).__name__}.legal gave the action {action!r} in the state {state!r}; actions are "
                        f"the numbers 0 to {game.actions - 1}"
                    )

    def renumber(self, slot: int, old: np.ndarray) -> None:
        for table in (self._states, self._named):
            row = table[slot]
            row[: len(old)] = [row[i] for i in old.tolist()]

    def outcomes(self, slot: int, node: int) -> Sequence[float]:
        return [probability for _, probability in self._pairs(slot, self._states[slot][node])]

    def legal(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        states = self.states(slots, nodes)
        return self._mask(slots.tolist(), nodes.tolist(), list(states), [False] * len(states))

    def observations(self, slots: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        games, states = self._games, self.states(slots, nodes)
        return np.stack([games[slot].observe(state) for slot, state in zip(slots.tolist(), states, strict=True)])

    def keys(self, slots: np.ndarray, nodes: np.ndarray) -> tuple[Sequence[Hashable], np.ndarray | None] | None:
        games, states = [self._games[slot] for slot in slots.tolist()], self.states(slots, nodes)
        if all(hasattr(game, "canonical") for game in games):
            pairs = [game.canonical(state) for game, state in zip(games, states, strict=True)]  # type: ignore[attr-defined]
            return [key for key, _ in pairs], np.array([k for _, k in pairs], dtype=np.int64)
        if all(hasattr(game, "key") for game in games):
            return [game.key(state) for game, state in zip(games, states, strict=True)], None  # type: ignore[attr-defined]
        return None

    def states(self, slots: np.ndarray, nodes: np.ndarray) -> Sequence[Any]:
        return [self._states[slot][node] for slot, node in zip(slots.tolist(), nodes.tolist(), strict=True)]

    def candidates(self, slots: np.ndarray, nodes: np.ndarray) -> Sequence[Sequence[Any]] | None:
        if all(self._games[slot].actions is not None for slot in slots.tolist()):
            return None
        return [self._named[slot][node] for slot, node in zip(slots.tolist(), nodes.tolist(), strict=True)]

    def name_candidates(self, slot: int, node: int, actions: Sequence[Any]) -> None:
        """Puts a proposer's actions in the place of the game's own."""
        self._named[slot][node] = list(actions)
        self._width = max(self._width, len(actions))

    def edge_of(self, slot: int, node: int, action: Any) -> int:
        named = self._named[slot][node]
        legal = list(self._games[slot].legal(self._states[slot][node])) if named is None else named
        if action not in legal:
            raise _illegal(self._games[slot], action, legal)
        return int(action) if named is None else int(named.index(action))

    def action_of(self, slot: int, node: int, edge: int) -> Any:
        named = self._named[slot][node]
        return edge if named is None else named[edge]


def _illegal(game: Any, action: Any, legal: list[Any]) -> DataError:
    return DataError(f"{type(game).__name__}: the action {action!r} is not legal here; legal: {legal}")
