"""Tree search as its papers tell it: one object a node, recursion, Python floats. Slow, and easy to check by eye.

AlphaZero's PUCT is from Silver et al. 2018, min-max Q for one player from Schrittwieser et al. 2020 (appendix B), the
Gumbel search from Danihelka et al. 2022. Nothing here is shared with `troupe.search`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Judge = Callable[[Any, Sequence[int]], tuple[list[float], float]]
"""(state, legal actions) -> (a prior for each of them, the value to the player to move)."""


@dataclass
class Node:
    state: Any
    player: int
    reward: float = 0.0  # of the step that led here, to the player who made it
    done: bool = False
    odds: list[float] = field(default_factory=list)  # of the outcomes 0, 1, ..., where chance decides
    evaluated: bool = False
    value: float = 0.0
    count: int = 0
    actions: list[int] = field(default_factory=list)
    prior: dict[int, float] = field(default_factory=dict)
    visits: dict[int, int] = field(default_factory=dict)
    returns: dict[int, float] = field(default_factory=dict)
    children: dict[int, Node] = field(default_factory=dict)

    def q(self, action: int) -> float:
        return self.returns[action] / self.visits[action]


@dataclass
class Textbook:
    game: Any
    judge: Judge
    discount: float = 1.0
    c_puct: float = 1.25
    fpu_reduction: float | None = None  # None: an unvisited action counts as 0
    c_visit: float = 50.0
    c_scale: float = 0.1
    low: float = math.inf
    high: float = -math.inf

    def puct(self, state: Any, player: int, simulations: int) -> Node:
        """The root after so many simulations, its own evaluation not counted."""
        root = Node(state, player)
        for _ in range(simulations + 1):
            self._simulate(root, self._puct_choice)
        return root

    def gumbel(self, state: Any, player: int, simulations: int, considered: int) -> Node:
        """As `puct`, without noise; the root shares its simulations by sequential halving, phase by phase."""
        root = Node(state, player)
        self._simulate(root, self._improved_choice)
        spent = 0

        def visit(action: int) -> None:
            nonlocal spent
            self._through(root, action, self._improved_choice)
            spent += 1

        pool, most = list(root.actions), min(considered, len(root.actions))
        left, phases = most, math.ceil(math.log2(most)) if most > 1 else 1
        while spent < simulations:
            rounds = max(1, simulations // (phases * left))
            chosen: list[int] = []
            for number in range(rounds):
                waiting = list(pool) if number == 0 else list(chosen)
                for _ in range(left):
                    if spent == simulations:
                        return root
                    best = self._best(root, waiting)
                    waiting.remove(best)
                    if number == 0:
                        chosen.append(best)
                    visit(best)
            pool = chosen
            left = max(min(2, most), left // 2)
        return root

    def answer(self, root: Node) -> int:
        """What the Gumbel search plays: the best of the most visited."""
        most = max(root.visits.values())
        return self._best(root, [a for a in root.actions if root.visits[a] == most])

    def improved(self, node: Node) -> dict[int, float]:
        """softmax(logit + sigma(completed Q))."""
        sigma = self._sigma(node)
        top = max(sigma.values())
        weights = {a: node.prior[a] * math.exp(sigma[a] - top) for a in node.actions}
        everything = sum(weights.values())
        return {a: weight / everything for a, weight in weights.items()}

    # ------------------------------------------------------------------------------------------ one simulation

    def _simulate(self, node: Node, choose: Callable[[Node], int]) -> float:
        """One visit of a node; returns what it was worth to the node's player."""
        if node.done:
            node.count += 1
            return 0.0
        if node.odds:
            return self._through(node, self._outcome(node), choose)
        if not node.evaluated:
            return self._evaluate(node)
        return self._through(node, choose(node), choose)

    def _evaluate(self, node: Node) -> float:
        node.actions = list(self.game.legal(node.state))
        priors, node.value = self.judge(node.state, node.actions)
        node.prior = dict(zip(node.actions, priors, strict=True))
        node.visits, node.returns = dict.fromkeys(node.actions, 0), dict.fromkeys(node.actions, 0.0)
        node.evaluated = True
        node.count += 1
        return node.value

    def _through(self, node: Node, action: int, choose: Callable[[Node], int]) -> float:
        if action not in node.children:
            node.children[action] = self._child(node, action)
        child = node.children[action]
        later = self._simulate(child, choose)
        gamma = 1.0 if child.odds else self.discount  # once per decision: a roll of dice is none
        gain = child.reward + gamma * (later if child.player == node.player else -later)
        node.visits[action] += 1
        node.returns[action] += gain
        node.count += 1
        self.low, self.high = min(self.low, node.q(action)), max(self.high, node.q(action))
        return gain

    def _child(self, node: Node, action: int) -> Node:
        state, reward, done, player = self.game.step(node.state, action)
        odds = [] if done or not hasattr(self.game, "chance") else [p for _, p in self.game.chance(state)]
        none, nothing = dict.fromkeys(range(len(odds)), 0), dict.fromkeys(range(len(odds)), 0.0)
        return Node(state, player, reward, done, odds, visits=none, returns=nothing)

    def _outcome(self, node: Node) -> int:
        """The one that lags furthest behind its odds, this visit included."""
        lag = [(node.count + 1) * p - node.visits[outcome] for outcome, p in enumerate(node.odds)]
        return lag.index(max(lag))

    # ------------------------------------------------------------------------------------------ choices

    def _normal(self, q: float) -> float:
        """Min-max Q of one player's game."""
        if self.game.players == 2:
            return q
        return min(max((q - self.low) / (self.high - self.low), 0.0), 1.0) if self.high > self.low else 0.0

    def _puct_choice(self, node: Node) -> int:
        first = 0.0
        if self.fpu_reduction is not None:
            mean = (node.value + sum(node.returns.values())) / node.count
            first = self._normal(mean) - self.fpu_reduction

        def score(action: int) -> float:
            n = node.visits[action]
            q = self._normal(node.q(action)) if n else first
            return q + self.c_puct * math.sqrt(node.count) * node.prior[action] / (1 + n)

        return max(node.actions, key=score)

    def _sigma(self, node: Node) -> dict[int, float]:
        seen = [a for a in node.actions if node.visits[a]]
        total = sum(node.visits.values())
        mixed = node.value
        if seen:
            mean = sum(node.prior[a] * node.q(a) for a in seen) / sum(node.prior[a] for a in seen)
            mixed = (node.value + total * mean) / (1 + total)
        scale = (self.c_visit + max(node.visits.values())) * self.c_scale
        completed = {a: node.q(a) if node.visits[a] else mixed for a in node.actions}
        if self.game.players == 2:
            return {a: scale * (q + 1) / 2 for a, q in completed.items()}
        return {a: scale * self._normal(q) for a, q in completed.items()}

    def _best(self, root: Node, among: Sequence[int]) -> int:
        sigma = self._sigma(root)
        return max(sorted(among), key=lambda a: math.log(root.prior[a]) + sigma[a])

    def _improved_choice(self, node: Node) -> int:
        policy, total = self.improved(node), sum(node.visits.values())
        return max(node.actions, key=lambda a: policy[a] - node.visits[a] / (1 + total))


# ---------------------------------------------------------------------------------------------- who judges


def whims(seed: int, sharpness: float = 1.0, reach: float = 1.0) -> Judge:
    """Random priors and values in (-reach, reach), the same for the same state."""

    def judge(state: Any, legal: Sequence[int]) -> tuple[list[float], float]:
        draw = random.Random(hash((seed, *_numbers(state))))
        weights = [math.exp(sharpness * draw.gauss(0, 1)) for _ in legal]
        everything = sum(weights)
        return [weight / everything for weight in weights], reach * draw.uniform(-1, 1)

    return judge


def _numbers(state: Any) -> tuple[int, ...]:
    return tuple(int(x) for x in state)


class Whimsical:
    """An `Evaluator` that asks a judge about every position."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def evaluate(self, positions: Any) -> tuple[np.ndarray, np.ndarray]:
        priors, values = np.zeros(positions.legal.shape), np.zeros(len(positions))
        for i, (state, legal) in enumerate(zip(positions.states(), positions.legal, strict=True)):
            edges = np.flatnonzero(legal)
            priors[i, edges], values[i] = self.judge(state, edges.tolist())
        return priors, values


# ---------------------------------------------------------------------------------------------- small games


class Ledges:
    """One player climbs down `steps` ledges, `ways` to choose from at each: action a pays (a * k^2 + 3 a) mod 7 - 2 at
    ledge k, and a way that pays 3 skips a ledge. Where k is a multiple of 3 the last way is closed."""

    players = 1
    observation_shape = (2,)

    def __init__(self, steps: int = 6, ways: int = 4) -> None:
        self.steps, self.actions = steps, ways

    def initial(self) -> tuple[int, int]:
        return 1, 0

    def legal(self, state: tuple[int, int]) -> list[int]:
        return list(range(self.actions - (state[0] % 3 == 0)))

    def step(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, int]:
        ledge, path = state
        pay = (action * ledge * ledge + 3 * action) % 7 - 2
        ledge += 2 if pay == 3 else 1
        return (ledge, 8 * path + action + 1), float(pay), ledge > self.steps, 0

    def observe(self, state: tuple[int, int]) -> np.ndarray:
        return np.array(state, np.float32)


class Heaps:
    """Two players take 1 or 2 from one of some heaps, named (heap, number); who takes the last wins and who takes two
    moves once more. Actions are candidates, and their number differs from state to state."""

    players = 2
    actions = None
    observation_shape = (3,)

    def initial(self) -> tuple[int, ...]:
        return 2, 3, 1, 0

    def to_play(self, state: tuple[int, ...]) -> int:
        return state[-1]

    def legal(self, state: tuple[int, ...]) -> list[tuple[int, int]]:
        return [(heap, n) for heap, left in enumerate(state[:-1]) for n in (1, 2) if n <= left]

    def step(self, state: tuple[int, ...], action: tuple[int, int]) -> tuple[tuple[int, ...], float, bool, int]:
        heap, number = action
        left = [n - number * (i == heap) for i, n in enumerate(state[:-1])]
        player = state[-1] if number == 2 else 1 - state[-1]
        over = not any(left)
        return (*left, player), float(over), over, player

    def observe(self, state: tuple[int, ...]) -> np.ndarray:
        return np.array(state[:3], np.float32)


class Wheel:
    """Chance with unequal odds, wider than the actions are many, and rewards: a player bets 0 or 1, the wheel shows 0,
    1 or 2 (odds 0.5, 0.3, 0.2) and pays the bettor stake * (outcome - 1); then the other one bets, six bets in all.
    State (bets made, stake, spinning, player)."""

    actions = 2
    observation_shape = (2,)
    odds = (0.5, 0.3, 0.2)

    def __init__(self, players: int = 2, bets: int = 6) -> None:
        self.players, self.bets = players, bets

    def initial(self) -> tuple[int, int, bool, int]:
        return 0, 0, False, 0

    def to_play(self, state: tuple[int, int, bool, int]) -> int:
        return state[3]

    def legal(self, state: tuple[int, int, bool, int]) -> tuple[int, ...]:
        return () if state[2] else (0, 1)

    def chance(self, state: tuple[int, int, bool, int]) -> tuple[tuple[int, float], ...]:
        return tuple(enumerate(self.odds)) if state[2] else ()

    def step(self, state: Any, action: int) -> tuple[tuple[int, int, bool, int], float, bool, int]:
        made, stake, spinning, player = state
        if not spinning:
            return (made, action, True, player), 0.0, False, player
        following = (player + 1) % self.players
        pay = 0.1 * stake * (action - 1) + 0.01 * (1 - stake)
        return (made + 1, 0, False, following), pay, made + 1 == self.bets, following

    def observe(self, state: Any) -> np.ndarray:
        return np.array(state[:2], np.float32)
