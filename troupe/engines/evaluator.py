"""Who judges the leaves of a search: a network, nobody, random play, or somebody who knows.

    evaluator = NetworkEvaluator(net)
    priors, values = evaluator.evaluate(positions)  # float64 [n, W], [n]
    ...                                             # an update of `net`
    evaluator.refresh(net)

An evaluator keeps a copy of the weights, so the network may train meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np

from troupe.engines.evaluation_cache import EvaluationCache
from troupe.engines.runtimes import PrecisionName, RuntimeName, choose
from troupe.engines.symmetries import SymmetryTables, symmetry_tables, turned
from troupe.errors import ConfigError, DataError, TrainingError
from troupe.models.policy_value import PolicyValueNet
from troupe.protocols import Game, Positions

__all__ = [
    "NetworkEvaluator",
    "OracleEvaluator",
    "RolloutEvaluator",
    "UniformEvaluator",
    "masked_softmax",
    "uniform_priors",
]

Judgement = tuple[np.ndarray, np.ndarray]


def masked_softmax(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """pi_a = exp(l_a) / sum of exp(l_b) over the legal b, 0 for illegal a: float64 `[n, W]` from `[n, W]` and bool
    `[n, W]`. Every row needs a legal action."""
    weights = np.where(legal, logits, -np.inf).astype(np.float64, copy=False)
    weights -= np.maximum.reduce(weights, axis=1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= np.add.reduce(weights, axis=1, keepdims=True)
    return weights


def uniform_priors(legal: np.ndarray) -> np.ndarray:
    """The same probability for each legal action: float64 `[n, W]`."""
    share = legal.astype(np.float64)
    share /= (share @ np.ones(legal.shape[1]))[:, None]  # a product is the fastest sum of short rows
    return share


class NetworkEvaluator:
    """A policy-value network that answers for positions of fixed actions.

    `cache` is how many judgements are remembered by position key (0: none), until the next `refresh` or `clear`;
    positions with one key are evaluated once, within a batch too. Where a game names canonical keys, the network is
    shown the canonical position and its policy is turned back: so a hit gives what an evaluation would give, and with
    or without a cache equal positions get equal judgements. `symmetry="average"` shows it each position in all
    symmetries of the game and takes the mean of logits and values, at as many times the cost. An evaluator serves one
    game.

    The same calls give the same answers. Which rows are evaluated together changes only rounding.

    Counters: `calls`; `evaluated`, the positions that the network judged; `cache_hits`, those it did not have to.
    """

    def __init__(
        self,
        net: PolicyValueNet,
        *,
        precision: PrecisionName = "auto",
        runtime: RuntimeName = "auto",
        device: str = "cpu",
        cache: int = 2**18,
        symmetry: Literal["average"] | None = None,
    ) -> None:
        """Raises ConfigError for runtime, precision and device that do not fit together (`runtimes.choose`),
        MissingExtra for a runtime that is not installed."""
        if cache < 0:
            raise ConfigError(f"an evaluation cache holds 0 entries or more, not {cache}")
        if symmetry not in (None, "average"):
            raise ConfigError(f"there is no symmetry {symmetry!r}; write 'average' or None")
        self._runtime = choose(runtime, precision, device)
        self._cache = EvaluationCache(cache, net.actions) if cache else None
        self._average = symmetry == "average"
        self._tables: SymmetryTables | None = None
        self._shape, self._actions = net.observation_shape, net.actions
        self.calls = self.evaluated = self.cache_hits = 0
        self._runtime.load(net)

    @property
    def runtime(self) -> str:
        """Which runtime was chosen."""
        return self._runtime.name

    @property
    def precision(self) -> str:
        """Which precision was chosen."""
        return self._runtime.precision

    def evaluate(self, positions: Positions) -> Judgement:
        """(priors float64 `[n, A]`, values float64 `[n]`).

        Raises ConfigError for positions that the network cannot take, TrainingError where its answer is not finite.
        """
        self._check(positions)
        self.calls += 1
        if len(positions) == 0:
            return np.zeros((0, self._actions)), np.zeros(0)
        keys, which = positions.keys() or (None, None)
        if self._cache is None or keys is None:
            logits, values = self._judge(positions, which)
        else:
            logits, values = self._recall(self._cache, positions, keys, which)
        if which is not None:
            starts = np.arange(0, logits.size, self._actions)[:, None]
            logits = logits.take(starts + self._symmetries(positions).back[which])
        return masked_softmax(logits, positions.legal), values.astype(np.float64)

    def refresh(self, net: PolicyValueNet) -> None:
        """Takes the weights of `net` and forgets what the last ones said."""
        if (net.observation_shape, net.actions) != (self._shape, self._actions):
            raise ConfigError(
                f"the new network is for observations {list(net.observation_shape)} and {net.actions} actions, this "
                f"evaluator for {list(self._shape)} and {self._actions}; make a new evaluator"
            )
        self._runtime.load(net)
        self.clear()

    def clear(self) -> None:
        """Empties the cache."""
        if self._cache is not None:
            self._cache.clear()

    def _recall(
        self, cache: EvaluationCache, positions: Positions, keys: Sequence[Hashable], which: np.ndarray | None
    ) -> Judgement:
        """What `_judge` says, asked only about keys that the cache does not know, once each."""
        slots = cache.find(keys)
        missing = np.flatnonzero(slots < 0)
        logits, values = cache.rows(slots)  # before anything is stored over them; slot -1 is filled below
        if missing.size:
            first: dict[Hashable, int] = {}  # where each new key comes first
            for i in missing.tolist():
                first.setdefault(keys[i], i)
            new = np.fromiter(first.values(), np.int64, len(first))
            some = positions if len(new) == len(keys) else positions.take(new)
            judged = self._judge(some, None if which is None else which[new])
            logits[new], values[new] = judged
            twins = [first[keys[i]] for i in missing.tolist()]
            logits[missing], values[missing] = logits[twins], values[twins]
            cache.store(list(first), *judged)
            self.cache_hits -= len(new)
        self.cache_hits += len(keys)
        return logits, values

    def _judge(self, positions: Positions, which: np.ndarray | None) -> Judgement:
        """(logits float32 `[n, A]`, values float32 `[n]`) of the positions turned by the symmetries `which`."""
        observations = np.require(positions.observations(), np.float32, ["C", "W"])
        if observations.shape[1:] != self._shape:
            found = list(observations.shape[1:])
            raise ConfigError(f"the game's observations have shape {found}, the network takes {list(self._shape)}")
        if which is not None:
            observations = _each_turned(observations, self._symmetries(positions).cells, which)
        if self._average:
            logits, values = self._mean(observations, self._symmetries(positions))
        else:
            logits, values = self._runtime.run(observations)
        self.evaluated += len(observations)
        total = np.add.reduce(logits, axis=None, dtype=np.float64) + np.add.reduce(values, dtype=np.float64)
        if not math.isfinite(total):
            raise TrainingError(_not_finite(observations, logits, values))
        return logits, values

    def _mean(self, observations: np.ndarray, tables: SymmetryTables) -> Judgement:
        logits = np.zeros((len(observations), self._actions), np.float32)
        values = np.zeros(len(observations), np.float32)
        for cells, back in zip(tables.cells, tables.back, strict=True):
            logit, value = self._runtime.run(turned(observations, cells[None]))
            logits += logit[:, back]
            values += value
        return logits / len(tables.cells), values / len(tables.cells)

    def _symmetries(self, positions: Positions) -> SymmetryTables:
        if self._tables is None:
            self._tables = symmetry_tables(positions.symmetries(), int(np.prod(self._shape)), self._actions)
        return self._tables

    def _check(self, positions: Positions) -> None:
        if positions.candidates() is not None:
            raise ConfigError("the game lists candidates, this network is for fixed actions; write another evaluator")
        if positions.legal.shape[1] != self._actions:
            raise ConfigError(f"the game has {positions.legal.shape[1]} actions, the network {self._actions}")


class UniformEvaluator:
    """Knows nothing: uniform priors and one value, best the middle of the returns: 0 for games that are won or lost,
    0.5 for tasks. It looks at no observation, so a search's own cost can be timed."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    @property
    def is_uniform(self) -> bool:
        """Whether its values are 0, so that the search of a compiled game need not ask."""
        return self.value == 0.0

    def evaluate(self, positions: Positions) -> Judgement:
        """(priors float64 `[n, W]`, the value `[n]`)."""
        return uniform_priors(positions.legal), np.full(len(positions), self.value)


class RolloutEvaluator:
    """Uniform priors; a value is the mean return of `rollouts` random games of a Python game played to their end, as
    the player to move sees it: the evaluation of Monte Carlo tree search before networks.

    `generator` is drawn from in the order of the calls. Chance events are drawn by their probabilities; a reward that
    comes with one belongs to the player whom the step before it names. The discount applies once per decision: what
    chance pays after one counts as the decision's own reward does.
    """

    def __init__(self, game: Game, generator: np.random.Generator, rollouts: int = 1, *, discount: float = 1.0) -> None:
        if rollouts < 1:
            raise ConfigError(f"a rollout evaluator plays 1 game or more per position, not {rollouts}")
        self._game, self._generator, self._rollouts, self._discount = game, generator, rollouts, discount
        self._chance: Callable[[Any], Sequence[tuple[Any, float]]] = getattr(game, "chance", lambda state: ())

    def evaluate(self, positions: Positions) -> Judgement:
        """(priors float64 `[n, W]`, values float64 `[n]`)."""
        pairs = zip(positions.states(), positions.to_play.tolist(), strict=True)
        values = [sum(self._play(state, player) for _ in range(self._rollouts)) for state, player in pairs]
        return uniform_priors(positions.legal), np.array(values, np.float64) / self._rollouts

    def _play(self, state: Any, player: int) -> float:
        """The return of one random game for `player`, who is to move."""
        total, weight, mover = 0.0, 1.0, player
        outcomes = self._chance(state)
        while True:
            state, reward, done, following = self._game.step(state, self._draw(state, outcomes))
            total += weight * reward * (1 if mover == player else -1)
            if done:
                return total
            mover, outcomes = following, self._chance(state)
            if not outcomes:
                weight *= self._discount

    def _draw(self, state: Any, outcomes: Sequence[tuple[Any, float]]) -> Any:
        if outcomes:
            ends = np.cumsum([probability for _, probability in outcomes])
            place = int(np.searchsorted(ends, self._generator.random() * ends[-1], side="right"))
            return outcomes[place][0]
        actions = self._game.legal(state)
        return actions[int(self._generator.integers(len(actions)))]


class OracleEvaluator:
    """Somebody who knows: `value_of_state(state)` is the value for the player to move. `priors_of_state(state)` gives a
    weight >= 0 for each fixed action, or for each candidate; uniform priors without it. With exact values a search must
    play perfectly, so this is what a search is tested with."""

    def __init__(
        self,
        value_of_state: Callable[[Any], float],
        priors_of_state: Callable[[Any], Sequence[float]] | None = None,
    ) -> None:
        self._value, self._priors = value_of_state, priors_of_state

    def evaluate(self, positions: Positions) -> Judgement:
        """(priors float64 `[n, W]`, values float64 `[n]`). Raises DataError where no legal action has a weight."""
        states = positions.states()
        values = np.array([self._value(state) for state in states], np.float64)
        if self._priors is None:
            return uniform_priors(positions.legal), values
        weights = np.zeros(positions.legal.shape)
        for row, state in zip(weights, states, strict=True):
            given = self._priors(state)
            row[: len(given)] = given
        weights[~positions.legal] = 0.0
        totals = weights.sum(axis=1, keepdims=True)
        if not (np.isfinite(totals) & (totals > 0) & (weights >= 0).all(axis=1, keepdims=True)).all():
            raise DataError(
                "priors_of_state must give weights >= 0, finite, and not 0 for all legal actions of a state"
            )
        return weights / totals, values


def _each_turned(observations: np.ndarray, cells: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Row i turned by symmetry `which[i]` of `cells` `[K, P]`; symmetry 0 leaves things as they are."""
    flat = observations.reshape(len(observations), -1)
    out = flat.copy()
    for k in range(1, len(cells)):
        rows = (which == k).nonzero()[0]
        if len(rows):
            out[rows] = flat[rows].take(cells[k], axis=1)
    return out.reshape(observations.shape)


def _not_finite(observations: np.ndarray, logits: np.ndarray, values: np.ndarray) -> str:
    bad = ~(np.isfinite(logits).all(axis=1) & np.isfinite(values))
    if not np.isfinite(observations).all():
        return "the game's observations contain NaN or infinity; observe must return finite numbers"
    return (
        f"the network's answer is NaN or infinite for {int(bad.sum())} of {len(bad)} positions; its weights have "
        "diverged: go back to an earlier checkpoint and lower the learning rate"
    )
