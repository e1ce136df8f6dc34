from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.search.textbook import Whimsical, whims
from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFourBatch
from troupe.envs.othello import OthelloBatch
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.search.worlds import BatchWorld

pytest.importorskip("numba", reason="compiled games need numba")

from troupe.search.compiled import CompiledGame, CompiledWorld, compiled_game

GAMES: dict[str, Any] = {"connect four": ConnectFourBatch(), "othello": OthelloBatch()}
CONFIGS = {
    "gumbel": {"algorithm": "gumbel", "considered": 5},
    "puct": {"algorithm": "puct", "discount": 0.95},
    "puct, reuse": {"algorithm": "puct", "reuse": True, "fpu": "parent"},
}


def trees(world: Any, options: dict[str, Any], evaluator: Any, waves: int = 0) -> tuple[list[Any], int]:
    """What stands in the trees after each of three moves, and how many simulations were counted."""
    search = Search(world, SearchConfig(**options), slots=4, generator=np.random.default_rng(3))
    search.place(np.arange(4))
    found: list[Any] = []
    for _ in range(3):
        for _ in range(waves):
            wave = search.select()
            assert wave is not None
            search.update(wave, *evaluator.evaluate(wave.positions))
        roots = run(search, evaluator)
        used = int(search.tree.size.max())  # one driver makes more room than the other
        found.append(
            {name: a[:, :used].copy() if a.ndim > 1 else a.copy() for name, a in search.tree._asdict().items()}
        )
        found.append({name: getattr(roots, name) for name in roots.__slots__})
        search.play(roots.slots, roots.edges)
    return found, search.simulations


def assert_same(first: list[Any], second: list[Any]) -> None:
    """Equal numbers; a drawn game of Othello pays 0.0 in one version and -0.0 in another."""
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], name)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("game", GAMES)
def test_a_search_run_in_one_call_leaves_the_same_numbers_as_its_waves(game: str, config: str) -> None:
    options = CONFIGS[config] | {"simulations": 60}
    world = CompiledWorld(compiled_game(GAMES[game]))
    expected, counted = trees(BatchWorld(GAMES[game]), options | {"kernels": "numpy"}, UniformEvaluator())
    for waves in (0, 7):  # from the start, or after some waves
        found, simulations = trees(world, options, UniformEvaluator(), waves)
        assert_same(expected, found)
        assert simulations == counted == 4 * 3 * 60


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("game", GAMES)
def test_waves_of_a_compiled_game_are_those_of_the_array_game(game: str, leaves: int) -> None:
    options = CONFIGS["puct, reuse"] | {"simulations": 40, "leaves": leaves}
    for evaluator in (Whimsical(whims(2)), UniformEvaluator()):
        found = (
            trees(w, options, evaluator)[0]
            for w in (BatchWorld(GAMES[game]), CompiledWorld(compiled_game(GAMES[game])))
        )
        assert_same(*found)


def test_it_is_used_where_it_can_be() -> None:
    class Counting(UniformEvaluator):
        asked = 0

        def evaluate(self, positions: Any) -> Any:
            Counting.asked += len(positions)
            return super().evaluate(positions)

    game = compiled_game(ConnectFourBatch())
    for kernels, leaves, expected in (("numba", 1, 0), ("numpy", 1, 2), ("numba", 2, 2)):
        Counting.asked = 0
        options: Any = {"kernels": kernels, "leaves": leaves, "simulations": 3}
        search = Search(CompiledWorld(game), SearchConfig(**options), slots=2, generator=np.random.default_rng(0))
        search.place(np.arange(2))
        roots = run(search, Counting())
        assert roots.visits.sum() == 6
        assert (Counting.asked > 0) == (expected > 0), (kernels, leaves)


def test_slots_that_are_stopped_or_cut_stay_as_they_are() -> None:
    search = Search(
        CompiledWorld(compiled_game(ConnectFourBatch())), SearchConfig(simulations=30), slots=3,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    search.place(np.arange(3))
    for _ in range(5):
        wave = search.select()
        assert wave is not None
        search.update(wave, *UniformEvaluator().evaluate(wave.positions))
    search.stop(np.array([0]))
    search.cut(np.array([1]))
    assert run(search, UniformEvaluator()).slots.tolist() == [1, 2]
    assert search.tree.visits[:, 0].sum(1).tolist() == [4, 4, 30]


@pytest.mark.parametrize("game", GAMES)
def test_a_compiled_game_is_an_array_game(game: str) -> None:
    plain, compiled = GAMES[game], compiled_game(GAMES[game])
    assert isinstance(compiled, CompiledGame) and compiled.actions == plain.actions
    generator = np.random.default_rng(0)
    states = plain.initial(20)
    assert (compiled.initial(20) == states).all()
    for _ in range(6):
        legal = plain.legal(states)
        assert (compiled.legal(states) == legal).all()
        assert (compiled.observe(states) == plain.observe(states)).all()
        actions = np.array([generator.choice(np.flatnonzero(row)) for row in legal])
        one, other = plain.step(states, actions), compiled.step(states, actions)
        for mine, its in zip(one, other, strict=True):
            assert mine.dtype == its.dtype and (mine == its).all()
        states = one[0][~one[2]]
