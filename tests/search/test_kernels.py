from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.search.textbook import Heaps, Ledges, Wheel, Whimsical, whims
from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.othello import OthelloBatch
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.errors import MissingExtra
from troupe.search import search as module
from troupe.search.config import SearchConfig
from troupe.search.rule import exp
from troupe.search.search import Search, kernels_of, run

GAMES: dict[str, Callable[[], Any]] = {
    "connect four": ConnectFourBatch,
    "connect four, plain": ConnectFour,
    "tic-tac-toe": TicTacToeBatch,
    "tic-tac-toe, plain": TicTacToe,
    "othello": OthelloBatch,
    "pig": lambda: Pig(6),
    "ledges": Ledges,
    "heaps": Heaps,
    "wheel for one": lambda: Wheel(players=1),
    "wheel for two": Wheel,
}
CONFIGS = {
    "gumbel": {"algorithm": "gumbel", "considered": 5},
    "puct": {"algorithm": "puct"},
    "puct, parent": {"algorithm": "puct", "fpu": "parent", "c_puct": 2.0},
    "puct, reuse": {"algorithm": "puct", "reuse": True, "fpu": "parent"},
}


def trees(kernels: str, game: Any, config: dict[str, Any], evaluator: Any, seed: int, moves: int = 3) -> list[Any]:
    """What stands in the trees after each of some moves of three games, and what was played."""
    search = Search(
        game, SearchConfig(kernels=kernels, **config), slots=3, generator=np.random.default_rng(seed), explore=True
    )  # type: ignore[arg-type]
    search.place(np.arange(3))
    found: list[Any] = []
    for _ in range(moves):
        roots = run(search, evaluator)
        if not len(roots.slots):
            break
        found.append({name: array.copy() for name, array in search.tree._asdict().items()})
        found.append(dict(zip(roots.__slots__, (getattr(roots, name) for name in roots.__slots__), strict=True)))
        search.play(roots.slots, roots.edges)
    return found


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        for name in one:
            assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape, name
            assert one[name].tobytes() == other[name].tobytes(), name  # -0.0 and 0.0 differ here


@pytest.mark.parametrize("leaves", [1, 4, 8])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("game", GAMES)
def test_both_kernels_leave_the_same_bits(game: str, config: str, leaves: int) -> None:
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    seed = 3 * list(GAMES).index(game) + list(CONFIGS).index(config) + leaves  # some of each everywhere
    options = CONFIGS[config] | {"simulations": 20, "leaves": leaves, "discount": (1.0, 0.9)[seed % 2]}
    evaluator = Whimsical(whims(seed, sharpness=1.0 + seed % 3, reach=0.3 + seed % 4))
    assert_same(*(trees(kernels, GAMES[game](), options, evaluator, seed, 2) for kernels in ("numpy", "numba")))


@pytest.mark.parametrize("game", ["connect four", "tic-tac-toe", "ledges", "heaps", "wheel for two"])
def test_equals_are_broken_alike(game: str) -> None:
    """Uniform priors and no values: nearly every choice is a tie."""
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    for config in (CONFIGS["gumbel"], CONFIGS["puct, reuse"]):
        for leaves in (1, 4):
            options = config | {"simulations": 40, "leaves": leaves, "dirichlet_epsilon": 0.0, "temperature": 0.0}
            found = (trees(kernels, GAMES[game](), options, UniformEvaluator(), 0) for kernels in ("numpy", "numba"))
            assert_same(*found)


@pytest.mark.parametrize("seed", range(6))
def test_priors_of_nothing_and_of_everything(seed: int) -> None:
    """A network may give 1 to one action and exactly 0 to all others."""
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    judge = whims(seed)

    def certain(state: Any, legal: Any) -> tuple[list[float], float]:
        priors, value = judge(state, legal)
        return [float(p == max(priors)) for p in priors], math.copysign(1.0, value)

    for config in ("gumbel", "puct"):
        options = CONFIGS[config] | {"simulations": 40, "leaves": 1 + 3 * (seed % 2)}
        found = (trees(k, TicTacToeBatch(), options, Whimsical(certain), seed) for k in ("numpy", "numba"))
        assert_same(*found)


def test_exp_is_that_of_the_c_library_to_two_units_in_the_last_place() -> None:
    x = np.concatenate([-np.random.default_rng(0).exponential(20.0, 20_000), -np.geomspace(1e-18, 700, 5000), [0.0]])
    x = x[x >= -700]
    expected = np.array([math.exp(v) for v in x])
    assert (np.abs(exp(x) - expected) <= 2 * np.spacing(expected)).all()
    assert exp(np.array([0.0]))[0] == 1.0
    assert exp(np.array([-1e9]))[0] == exp(np.array([-708.0]))[0] < 1e-300


def test_the_compiled_exponential_is_the_same() -> None:
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    from troupe.search.accelerated import _exp

    x = -np.random.default_rng(1).exponential(30.0, 5000)
    assert exp(x).tobytes() == np.array([_exp(v) for v in x]).tobytes()


def test_which_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_of("numpy") is module.reference
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    from troupe.search import accelerated

    assert kernels_of("auto") is kernels_of("numba") is accelerated


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import troupe.search

    monkeypatch.setitem(sys.modules, "troupe.search.accelerated", None)
    monkeypatch.delattr(troupe.search, "accelerated", raising=False)
    assert kernels_of("auto") is module.reference
    with pytest.raises(MissingExtra, match="accel"):
        kernels_of("numba")
