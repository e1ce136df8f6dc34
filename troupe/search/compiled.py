"""Games compiled by numba: three plain functions over a few uint64 words, stepped without Python in between.

    step, legal, encode = connect_four.compiled_functions()
    game = CompiledGame(step, legal, encode, start=(0, 0), players=2, actions=7, observation_shape=(2, 6, 7))
    game = compiled_game(ConnectFourBatch())  # the same, where an array game brings its functions along

`step(state, action, out) -> (reward, done, to_play)` writes the next state to `out`; `legal(state, mask)` fills
bool [A]; `encode(state, planes)` fills the flat float32 observation. All three are `numba.njit` functions. A compiled
game is a `BatchGame`, too, so that whatever plays those plays it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from troupe.errors import MissingExtra
from troupe.protocols import Symmetry
from troupe.search.rule import Rule
from troupe.search.tree import DECISION, TERMINAL, Tree
from troupe.search.worlds import Arrivals, BatchWorld

__all__ = ["CompiledGame", "CompiledWorld", "compile_functions", "compiled_game"]


@dataclass(frozen=True)
class CompiledGame:
    """A two- or one-player game of fixed actions as three njit functions. Games with chance stay in Python.

    `canonical` and `keys` take states `[n, words]` (see `troupe.protocols.BatchGame`).
    """

    step_function: Callable[..., Any]
    legal_function: Callable[..., Any]
    encode_function: Callable[..., Any]
    start: tuple[int, ...]
    players: int
    actions: int
    observation_shape: tuple[int, ...]
    symmetry_list: tuple[Symmetry, ...] = ()
    canonical: Callable[[np.ndarray], tuple[Sequence[Hashable], np.ndarray]] | None = field(default=None)

    def initial(self, n: int) -> np.ndarray:
        return np.tile(np.array(self.start, dtype=np.uint64), (n, 1))

    def legal(self, states: np.ndarray) -> np.ndarray:
        mask = np.zeros((len(states), self.actions), dtype=np.bool_)
        _loops(*self.functions).legal(np.ascontiguousarray(states), mask)
        return mask

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        n = len(states)
        after = np.empty_like(states, order="C")
        reward, done, to_play = np.zeros(n), np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int8)
        actions = np.asarray(actions, dtype=np.int64)
        _loops(*self.functions).step(np.ascontiguousarray(states), actions, after, reward, done, to_play)
        return after, reward, done, to_play

    def observe(self, states: np.ndarray) -> np.ndarray:
        planes = np.zeros((len(states), int(np.prod(self.observation_shape))), dtype=np.float32)
        _loops(*self.functions).encode(np.ascontiguousarray(states), planes)
        return planes.reshape(len(states), *self.observation_shape)

    def keys(self, states: np.ndarray) -> list[bytes]:
        return [row.tobytes() for row in states]

    def symmetries(self) -> tuple[Symmetry, ...]:
        return self.symmetry_list

    @property
    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        return self.step_function, self.legal_function, self.encode_function


@cache
def compile_functions(*functions: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Plain functions, compiled by numba. Raises MissingExtra without it."""
    try:
        from numba import njit
    except ImportError as error:
        raise MissingExtra("numba", "accel", f"compiled {functions[0].__module__}") from error
    compiled = njit(error_model="numpy", nogil=True)
    return tuple(compiled(function) for function in functions)


def compiled_game(game: Any) -> CompiledGame:
    """The compiled version of a `BatchGame` that has `compiled_functions()`. Raises MissingExtra without numba."""
    step, legal, encode = game.compiled_functions()
    symmetries = tuple(game.symmetries()) if hasattr(game, "symmetries") else ()
    start = tuple(int(word) for word in game.initial(1)[0])
    return CompiledGame(
        step, legal, encode, start, game.players, game.actions, game.observation_shape, symmetries,
        getattr(game, "canonical", None),
    )  # fmt: skip


class CompiledWorld(BatchWorld):
    """The world of a `CompiledGame`: a wave is stepped by one call, and a search whose evaluator says nothing runs to
    its end in one."""

    def __init__(self, game: CompiledGame) -> None:
        super().__init__(game)
        self._loops = _loops(*game.functions)

    def step(self, slots: np.ndarray, parents: np.ndarray, edges: np.ndarray, nodes: np.ndarray) -> Arrivals:
        n = len(slots)
        reward, done, to_play = np.zeros(n), np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int8)
        mask = np.zeros((n, self.width), dtype=np.bool_)
        self._loops.wave(self._states, slots, parents, edges, nodes, reward, done, to_play, mask)
        return Arrivals(reward, done, to_play, mask)

    def run_uniform(
        self, tree: Tree, rule: Rule, slots: np.ndarray, counts: np.ndarray, root_scores: np.ndarray, table: np.ndarray
    ) -> None:
        """Runs simulations `counts[i, 0]` to `counts[i, 1]` of each slot with uniform priors and values 0, in its
        expanded tree; `table` `[B, S]` is the schedule of sequential halving."""
        self._loops.uniform(
            tree.kind, tree.to_play, tree.parent, tree.edge, tree.reward, tree.value, tree.node_visits, tree.prior,
            tree.visits, tree.total, tree.child, tree.inflight, tree.size, tree.low, tree.high, rule, self._states,
            slots, counts, root_scores, table,
        )  # fmt: skip


class _Loops:
    """The loops around one game's functions, each compiled when it is first called: one to two seconds for all in each
    process. numba can keep none of them on disk: they close over compiled functions, and those are named anew in every
    process. Slices of arrays are avoided; to assign one costs two seconds of compilation."""

    def __init__(self, step: Any, legal: Any, encode: Any) -> None:
        try:
            from numba import njit
        except ImportError:
            raise MissingExtra("numba", "accel", "a compiled game") from None
        from troupe.search.accelerated import back_up, descend

        compiled = njit(error_model="numpy")

        @compiled
        def legal_loop(states, mask):  # type: ignore[no-untyped-def]
            for i in range(len(states)):
                legal(states[i], mask[i])

        @compiled
        def step_loop(states, actions, after, reward, done, to_play):  # type: ignore[no-untyped-def]
            for i in range(len(states)):
                reward[i], done[i], to_play[i] = step(states[i], actions[i], after[i])

        @compiled
        def encode_loop(states, planes):  # type: ignore[no-untyped-def]
            for i in range(len(states)):
                encode(states[i], planes[i])

        @compiled
        def wave(states, slots, parents, edges, nodes, reward, done, to_play, mask):  # type: ignore[no-untyped-def]
            out = np.empty(states.shape[2], dtype=states.dtype)
            for i in range(len(slots)):  # by way of `out`: a root may take its own successor's place
                b = slots[i]
                reward[i], done[i], to_play[i] = step(states[b, parents[i]], edges[i], out)
                for word in range(states.shape[2]):  # a slice would take two seconds to compile
                    states[b, nodes[i], word] = out[word]
                if not done[i]:
                    legal(out, mask[i])

        @compiled
        def uniform(  # type: ignore[no-untyped-def]
            kind, to_play, parent, edge, reward, value, node_visits, prior, visits, total, child, inflight, size, low,
            high, rule, states, slots, spans, root_scores, table,
        ):  # fmt: skip
            width = prior.shape[2]
            counts, sigma = np.zeros(width, dtype=np.int64), np.zeros(width)
            mask = np.zeros(width, dtype=np.bool_)
            for i in range(len(slots)):
                b = slots[i]
                for simulation in range(spans[i, 0], spans[i, 1]):
                    n, fresh = descend(
                        kind, parent, edge, value, node_visits, prior, visits, total, child, inflight, size, low, high,
                        rule, b, np.int64(0), root_scores, table[b, simulation], counts, sigma,
                    )  # fmt: skip
                    if fresh:
                        p, e = np.int64(parent[b, n]), np.int64(edge[b, n])
                        reward[b, n], done, to_play[b, n] = step(states[b, p], e, states[b, n])
                        kind[b, n] = TERMINAL if done else DECISION
                        if not done:
                            for a in range(width):
                                mask[a] = False
                            legal(states[b, n], mask)
                            free = 0
                            for a in range(width):
                                free += mask[a]
                            share = 1.0 / free
                            for a in range(width):
                                prior[b, n, a] = share if mask[a] else -np.inf
                    back_up(
                        kind, to_play, parent, edge, reward, node_visits, visits, total, inflight, low, high, rule, b,
                        n, 0.0,
                    )  # fmt: skip

        self.legal, self.step, self.encode, self.wave, self.uniform = legal_loop, step_loop, encode_loop, wave, uniform


@cache
def _loops(step: Any, legal: Any, encode: Any) -> _Loops:
    return _Loops(step, legal, encode)
