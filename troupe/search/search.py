"""One search over many trees at once: `select` gives a wave of positions, `update` takes their evaluations.

    search = Search(ConnectFourBatch(), SearchConfig(simulations=64), slots=128, generator=generator)
    search.place(np.arange(128))
    while (wave := search.select()) is not None:
        search.update(wave, *evaluator.evaluate(wave.positions))
    roots = search.roots()
    search.play(roots.slots, roots.edges)

The search does no input or output and knows no network; whoever drives it evaluates, at once or by and by. Slots are
independent of one another: a slot can be placed anew while the others go on.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from troupe.errors import DataError, MissingExtra
from troupe.protocols import BatchGame, Evaluator, Game
from troupe.search import gumbel, puct, reference
from troupe.search.config import SearchConfig
from troupe.search.rule import Rule
from troupe.search.tree import CHANCE, DECISION, PENDING, TERMINAL, Steps, Tree, allocate, clear, grow, keep_subtree
from troupe.search.worlds import Arrivals, GamePositions, World, world_of

__all__ = ["Played", "Roots", "Search", "Wave", "kernels_of", "run"]

_BEFORE_END = 1_000_000
"""Chance moves in a row after which a game counts as one that never decides."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Leaves that wait. `positions` are those to evaluate; `rows` says which of them each leaf gets (-1: none, the game
    has ended there)."""

    slots: np.ndarray  # int64 [L]
    nodes: np.ndarray  # int64 [L]
    rows: np.ndarray  # int64 [L]
    opens: np.ndarray  # bool [L]: the first leaf of its position, which is expanded
    groups: tuple[int, ...]  # ends of runs in which no slot occurs twice
    positions: GamePositions


@dataclass(frozen=True, slots=True)
class Roots:
    """What finished searches found, one row per slot. Edges are actions where the game's actions are fixed."""

    slots: np.ndarray  # int64 [n]
    edges: np.ndarray  # int64 [n]: what to play
    policy: np.ndarray  # float64 [n, W]: the target for a policy
    visits: np.ndarray  # int32 [n, W]
    q: np.ndarray  # float64 [n, W]: mean returns; 0 where unvisited
    prior: np.ndarray  # float64 [n, W]: before any noise; 0 where illegal
    value: np.ndarray  # float64 [n]: mean return over all simulations and the evaluation


@dataclass(frozen=True, slots=True)
class Played:
    """What playing the chosen edges led to. Rewards are those of the player who moved, chance's included."""

    reward: np.ndarray  # float64 [n]
    done: np.ndarray  # bool [n]
    to_play: np.ndarray  # int8 [n]


def kernels_of(name: str) -> Any:
    """The module that walks the trees: `numpy`, `numba`, or `auto`, numba where it is installed."""
    if name == "numpy":
        return reference
    try:
        from troupe.search import accelerated
    except ImportError:
        if name == "auto":
            return reference
        raise MissingExtra("numba", "accel", "search.kernels=numba") from None
    return accelerated


class Search:
    """B trees over one kind of world.

    `explore` adds what training needs (Dirichlet noise, temperature; Gumbel noise) and takes it from `generator`;
    without it a move is the best that was found. `returns` are the least and the greatest return of a world of one
    player, where they are known: Q is then measured against them, and not against what a tree has met so far, which
    makes much of differences that are none. Raises DataError for games of more than two players, and for `returns` with
    two, whose returns lie between -1 and 1.
    """

    def __init__(
        self,
        game: Game | BatchGame | World,
        config: SearchConfig,
        *,
        slots: int,
        generator: np.random.Generator,
        explore: bool = True,
        returns: tuple[float, float] | None = None,
    ) -> None:
        self.config, self._returns = config, returns
        self.world: World = game if hasattr(game, "place") else world_of(game)  # type: ignore[assignment, arg-type]
        self.explore = explore
        self.generator = generator
        self.slots = slots
        self._kernels = kernels_of(config.kernels)
        self._rule = Rule.of(config, self.world.players)
        self._capacity = config.simulations + config.leaves + 2
        self._grows = config.reuse  # whether a tree may come to need more; with chance it may, too
        if returns is not None and not (self.world.players == 1 and returns[0] < returns[1]):
            raise DataError(f"returns={returns} are two rising numbers, for a world of one player")
        self._tree = allocate(slots, self._capacity, self.world.width, self.world.players)
        self.world.resize(slots, self._capacity)
        self._budget = np.zeros(slots, dtype=np.int64)
        self._started = np.zeros(slots, dtype=np.int64)
        self._live = np.zeros(slots, dtype=bool)
        self._pending = np.zeros(slots, dtype=bool)  # roots that wait for their evaluation
        self._everyone = np.arange(slots)
        self._considered = np.zeros(slots, dtype=np.int32)  # by the schedule of each slot, at its next simulation
        self._moves = np.zeros(slots, dtype=np.int64)
        self._prior = np.full((slots, self.world.width), -np.inf)  # of the roots, before noise
        self._scores = np.full((slots, self.world.width), -np.inf)
        self._schedule = np.zeros((slots, config.simulations), dtype=np.int32)
        self.simulations = 0  # finished since the search was made, roots not counted

    # ------------------------------------------------------------------------------------------ roots

    def place(self, slots: np.ndarray, states: Any | None = None, to_play: np.ndarray | None = None) -> None:
        """Puts `states` (None: the game's first) at the roots of these slots and starts their searches.

        `to_play` says who moves in them; left out, the game's `to_play(state)` does. Chance states are rolled first.
        Raises DataError where nobody says who moves: the signs of the values below depend on it.
        """
        slots = np.asarray(slots, dtype=np.int64)
        if not len(slots):
            return
        at_root = np.zeros(len(slots), np.int64)
        clear(self._tree, slots, self.world.players, self._returns)
        arrivals = self.world.place(slots, states)
        self._arrived(slots, at_root, arrivals)
        if to_play is not None:
            self._tree.to_play[slots, 0] = to_play
        elif (arrivals.to_play < 0).any():
            raise DataError("place: the game has no to_play(state); pass to_play=, the player who moves in each state")
        if arrivals.chance is not None:
            self._open_chance(slots[arrivals.chance], at_root[arrivals.chance])
        self._moves[slots] = 0
        self._roll(slots, self._tree.to_play[slots, 0].copy())
        self._begin(slots)

    def _begin(self, slots: np.ndarray) -> None:
        self._budget[slots], self._started[slots] = self.config.simulations, 0
        self._live[slots] = True
        kinds = self._tree.kind[slots, 0]
        self._pending[slots] = kinds == PENDING
        done = slots[kinds == DECISION]  # a subtree that was kept
        if len(done):
            self._open_roots(done)

    def stop(self, slots: np.ndarray) -> None:
        """Takes slots out of the search; place them to use them again."""
        self._live[slots] = False

    def cut(self, slots: np.ndarray) -> None:
        """Ends the searches of these slots with the simulations that they have had, for a limit on time."""
        self._budget[slots] = np.minimum(self._budget[slots], self._started[slots])

    def finished(self) -> np.ndarray:
        """Slots whose searches are complete."""
        opened = self._tree.kind[:, 0] == DECISION
        return np.flatnonzero(self._live & opened & (self._started >= self._budget))

    # ------------------------------------------------------------------------------------------ waves

    def select(self) -> Wave | None:
        """The next leaves of every unfinished search, or None where all are finished."""
        going = self._live & ~self._pending & (self._started < self._budget)
        chosen = (self._live & self._pending | going).nonzero()[0]
        if not len(chosen):
            return None
        if self._grows:
            self._make_room()
        leaves = [self._descend(chosen)]
        self._started += going
        for _ in range(self.config.leaves - 1):
            going &= self._started < self._budget
            chosen = going.nonzero()[0]
            if not len(chosen):
                break
            leaves.append(self._descend(chosen))
            self._started += going
        return self._wave(leaves)

    def _descend(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(slots, leaves, fresh): down from the roots, through every chance node on the way."""
        if self._rule.gumbel:
            at = np.minimum(self._started, self.config.simulations - 1)
            self._considered = self._schedule[self._everyone, at]
        nodes, fresh, steps = self._walked(slots, np.zeros(len(slots), np.int64))
        at = steps.at
        while len(at):
            arrivals = self.world.step(steps.slots, steps.parents, steps.edges, steps.nodes)
            self._arrived(steps.slots, steps.nodes, arrivals)
            if arrivals.chance is None or not arrivals.chance.any():
                break
            at = at[arrivals.chance]
            self._open_chance(slots[at], nodes[at])
            nodes[at], fresh[at], steps = self._walked(slots[at], nodes[at])
            at = at[steps.at]
        return slots, nodes, fresh

    def _walked(self, slots: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, Steps]:
        return self._kernels.select(self._tree, self._rule, slots, starts, self._scores, self._considered)

    def _arrived(self, slots: np.ndarray, nodes: np.ndarray, arrivals: Arrivals) -> None:
        width = arrivals.legal.shape[1]
        if width > self._tree.prior.shape[2]:
            self._widen(width)
        self._kernels.arrive(self._tree, slots, nodes, arrivals.reward, arrivals.done, arrivals.to_play, arrivals.legal)

    def _open_chance(self, slots: np.ndarray, nodes: np.ndarray) -> None:
        for slot, node in zip(slots.tolist(), nodes.tolist(), strict=True):
            outcomes = np.asarray(self.world.outcomes(slot, node), dtype=np.float64)
            if len(outcomes) > self._tree.prior.shape[2]:
                self._widen(len(outcomes))
            self._tree.prior[slot, node, : len(outcomes)] = outcomes
            self._tree.kind[slot, node] = CHANCE
        self._grows = True
        self._make_room()

    def _wave(self, leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Wave:
        single = len(leaves) == 1  # by far the commonest, and worth not copying
        slots, nodes, fresh = leaves[0] if single else [np.concatenate(part) for part in zip(*leaves, strict=True)]
        opens, rows, s, n, legal, to_play = self._kernels.gather(self._tree, slots, nodes, fresh, self.world.width)
        if not single:  # a leaf that another leaf of the wave has reached before it gets the same evaluation
            place = {key: i for i, key in enumerate(zip(s.tolist(), n.tolist(), strict=True))}
            waiting = ~opens & (self._tree.kind[slots, nodes] == PENDING)
            for i in np.flatnonzero(waiting).tolist():
                rows[i] = place[int(slots[i]), int(nodes[i])]
        ends = tuple(accumulate(len(part[0]) for part in leaves))
        return Wave(slots, nodes, rows, opens, ends, GamePositions(self.world, s, n, legal, to_play))

    def update(self, wave: Wave, priors: np.ndarray, values: np.ndarray) -> None:
        """Expands the leaves of a wave and adds their values along the paths. `priors` `[n, W]`, `values` `[n]` as an
        `Evaluator` gives them for `wave.positions`. Raises DataError where they are of another shape or not finite."""
        legal = wave.positions.legal
        priors, values = np.asarray(priors, np.float64, order="C"), np.asarray(values, np.float64, order="C")
        if priors.shape != legal.shape or values.shape != (len(legal),):
            raise DataError(
                f"the evaluator gave priors {priors.shape} and values {values.shape} for {legal.shape[0]} positions of "
                f"{legal.shape[1]} actions; it must give {legal.shape} and {(len(legal),)}"
            )
        total = np.add.reduce(values) + np.add.reduce(priors, axis=None)  # one look at the sum is cheaper than two
        if not math.isfinite(total) and not (np.isfinite(values).all() and np.isfinite(priors).all()):
            raise DataError("the evaluator gave a prior or a value that is not finite; look at the network's weights")
        self._kernels.update(
            self._tree, self._rule, wave.slots, wave.nodes, wave.rows, wave.opens, wave.groups, priors, legal, values
        )
        roots = wave.slots[wave.opens & (wave.nodes == 0)]
        self.simulations += len(wave.rows) - len(roots)
        if len(roots):
            self._open_roots(roots)

    def _open_roots(self, slots: np.ndarray) -> None:
        """Noise on fresh roots; the schedule of sequential halving."""
        tree, config = self._tree, self.config
        self._pending[slots] = False
        width = self.world.width
        priors = tree.prior[slots, 0, :width].copy()
        self._prior[slots, :width] = priors
        if self._rule.gumbel:
            noise = self.generator.gumbel(size=priors.shape) if self.explore else np.zeros(priors.shape)
            self._scores[slots, :width] = gumbel.root_scores(priors, noise)
            legal = (~np.isneginf(priors)).sum(1)
            table = gumbel.schedules(config.considered, config.simulations)
            self._schedule[slots] = table[np.minimum(legal, config.considered)]
        elif self.explore and config.dirichlet_epsilon > 0:
            tree.prior[slots, 0, :width] = puct.dirichlet_mixed(
                priors, config.dirichlet_alpha, config.dirichlet_epsilon, self.generator
            )

    def run_uniform(self) -> None:
        """Runs every search to its end with uniform priors and values 0, where the game is compiled: without a wave.

        The trees are those that an evaluator which says so would have grown, wave by wave.
        """
        while (wave := self.select_roots()) is not None:
            legal = wave.positions.legal
            self.update(wave, legal / legal.sum(1, keepdims=True), np.zeros(len(legal)))
        slots = np.flatnonzero(self._live & (self._started < self._budget))
        room = int((self._tree.size[slots] + self._budget[slots] - self._started[slots]).max(initial=0))
        self._make_room(room)
        spans = np.stack([self._started[slots], self._budget[slots]], axis=1)
        world: Any = self.world
        world.run_uniform(self._tree, self._rule, slots, spans, self._scores, self._schedule)
        self.simulations += int((spans[:, 1] - spans[:, 0]).sum())
        self._started[slots] = self._budget[slots]

    def select_roots(self) -> Wave | None:
        """The roots that wait for their evaluation, without further leaves; None where none does."""
        pending = np.flatnonzero(self._live & self._pending)
        return self._wave([self._descend(pending)]) if len(pending) else None

    @property
    def is_compiled(self) -> bool:
        """Whether `run_uniform` can run: a compiled game, one leaf per wave, the compiled kernels."""
        return hasattr(self.world, "run_uniform") and not self._rule.virtual and self._kernels is not reference

    # ------------------------------------------------------------------------------------------ answers

    def roots(self, slots: np.ndarray | None = None) -> Roots:
        """What the searches of these slots (default: every finished one) found, and what they would play."""
        slots = self.finished() if slots is None else np.asarray(slots, dtype=np.int64)
        tree, width = self._tree, self.world.width
        visits, total = tree.visits[slots, 0, :width], tree.total[slots, 0, :width]
        prior, value = self._prior[slots, :width], tree.value[slots, 0]
        q = total / np.maximum(visits, 1)
        if self._rule.gumbel:
            sigma = gumbel.completed_q(self.config, prior, visits, q, value, tree.low[slots], tree.high[slots])
            edges = gumbel.gumbel_action(self._scores[slots, :width], sigma, visits)
            policy = gumbel.improved_policy(prior, sigma)
        else:
            # A search that was cut before its first simulation knows the priors alone.
            counts = np.where(visits.any(1, keepdims=True), visits, np.maximum(prior, 0.0))
            edges = self._by_visits(slots, counts, prior)
            policy = puct.visit_policy(counts)
        own = tree.node_visits[slots, 0] - visits.sum(1)  # 1; more where a wave reached a kept root several times
        mean = (own * value + total.sum(1)) / tree.node_visits[slots, 0]
        shown = np.where(np.isneginf(prior), 0.0, prior)
        return Roots(slots, edges, policy, visits.copy(), q, shown, mean)

    def _by_visits(self, slots: np.ndarray, visits: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Drawn by temperature where the search explores; a tie of the most visited goes to the larger prior."""
        if self.explore:
            temperature = puct.temperature_of(self.config, self._moves[slots])
            return puct.visit_action(visits, temperature, self.generator.random(len(slots)))
        best = visits == visits.max(1, keepdims=True)
        return np.where(best, prior, -np.inf).argmax(1)

    # ------------------------------------------------------------------------------------------ moves

    def play(self, slots: np.ndarray, edges: np.ndarray) -> Played:
        """Plays an edge in each slot, rolls what chance decides then, and starts the next searches.

        Slots whose games have ended take no part any more until they are placed. With `reuse` what was found below the
        edge stays. Raises DataError for an edge that is not legal.
        """
        slots, edges = np.asarray(slots, dtype=np.int64), np.asarray(edges, dtype=np.int64)
        ended = self._tree.kind[slots, 0] == TERMINAL
        if ended.any():
            raise DataError(f"slot {int(slots[ended][0])}: its game has ended; place the slot before playing there")
        illegal = (edges < 0) | (edges >= self._tree.prior.shape[2])
        illegal |= np.isneginf(self._tree.prior[slots, 0, np.where(illegal, 0, edges)])
        if illegal.any():
            raise DataError(f"slot {int(slots[illegal][0])}: edge {int(edges[illegal][0])} is not legal at its root")
        mover = self._tree.to_play[slots, 0].copy()
        reward = self._advance(slots, edges) + self._roll(slots, mover)
        self._moves[slots] += 1
        done = self._tree.kind[slots, 0] == TERMINAL
        self._live[slots[done]] = False
        self._begin(slots[~done])
        return Played(reward, done, self._tree.to_play[slots, 0].copy())

    def _advance(self, slots: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """The states behind these edges become the roots; returns the rewards of the steps."""
        reward = np.zeros(len(slots))
        kept = np.zeros(len(slots), dtype=bool)
        if self.config.reuse:
            for i, (slot, edge) in enumerate(zip(slots.tolist(), edges.tolist(), strict=True)):
                gained = self._tree.reward[slot, self._tree.child[slot, 0, edge]]
                old = keep_subtree(self._tree, slot, edge)
                if len(old):
                    kept[i], reward[i] = True, gained
                    self.world.renumber(slot, old)
        fresh = slots[~kept]
        if len(fresh):
            at_root = np.zeros(len(fresh), np.int64)
            arrivals = self.world.step(fresh, at_root, edges[~kept], at_root)
            clear(self._tree, fresh, self.world.players, self._returns)
            self._arrived(fresh, at_root, arrivals)
            if arrivals.chance is not None:
                self._open_chance(fresh[arrivals.chance], at_root[arrivals.chance])
            reward[~kept] = arrivals.reward
        return reward

    def _roll(self, slots: np.ndarray, mover: np.ndarray) -> np.ndarray:
        """Draws outcomes until a player decides or the game ends; returns the rewards on the way, as `mover` sees
        them."""
        reward = np.zeros(len(slots))
        for _ in range(_BEFORE_END):
            at = np.flatnonzero(self._tree.kind[slots, 0] == CHANCE)
            if not len(at):
                return reward
            rolled = slots[at]
            chances = np.maximum(self._tree.prior[rolled, 0], 0.0).cumsum(1)
            draws = self.generator.random(len(rolled)) * chances[:, -1]
            sign = np.where(self._tree.to_play[rolled, 0] == mover[at], 1.0, -1.0)
            reward[at] += sign * self._advance(rolled, (chances > draws[:, None]).argmax(1))
        raise DataError("chance moved a million times in a row; let the game come to a decision or to its end")

    def states(self, slots: np.ndarray) -> Any:
        """The states at the roots."""
        return self.world.states(slots, np.zeros(len(slots), np.int64))

    def root_positions(self, slots: np.ndarray) -> GamePositions:
        """The roots of searches that were expanded, as positions."""
        at_root = np.zeros(len(slots), np.int64)
        legal = ~np.isneginf(self._prior[slots, : self.world.width])
        return GamePositions(self.world, slots, at_root, legal, self._tree.to_play[slots, 0])

    @property
    def tree(self) -> Tree:
        """The arrays themselves, to be read."""
        return self._tree

    # ------------------------------------------------------------------------------------------ room

    def _make_room(self, need: int = 0) -> None:
        need = max(need, int(self._tree.size.max())) + self.config.leaves + 1
        if need > self._capacity:
            self._capacity = max(2 * self._capacity, need)
            self._tree = grow(self._tree, self._capacity, self._tree.prior.shape[2])
            self.world.resize(self.slots, self._capacity)

    def _widen(self, width: int) -> None:
        """Room for more edges: a state has more candidates, or chance more outcomes, than any before."""
        self._tree = grow(self._tree, self._capacity, width)
        more = width - self._prior.shape[1]
        if more > 0:
            self._prior = np.pad(self._prior, ((0, 0), (0, more)), constant_values=-np.inf)
            self._scores = np.pad(self._scores, ((0, 0), (0, more)), constant_values=-np.inf)


def run(search: Search, evaluator: Evaluator) -> Roots:
    """Drives every unfinished search to its end with an evaluator that answers at once.

    An evaluator that says of itself that it `is_uniform` is not asked where the game is compiled (`run_uniform`).
    """
    if getattr(evaluator, "is_uniform", False) and search.is_compiled:
        search.run_uniform()
    while (wave := search.select()) is not None:
        answer = evaluator.evaluate(wave.positions)
        if not isinstance(answer, tuple):
            if inspect.iscoroutine(answer):
                answer.close()
            raise DataError(
                f"{type(evaluator).__name__}.evaluate is a coroutine; a synchronous search needs one that answers at "
                "once, and troupe.search.asynchronous.Ticker awaits the others"
            )
        search.update(wave, *answer)
    return search.roots()
