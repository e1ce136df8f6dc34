from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # as `python benchmarks/search.py` has it

import search as benchmark
import search_peers as peers

from troupe.engines.evaluator import NetworkEvaluator
from troupe.envs import make_batch_game

SCRIPT = str(Path(__file__).parents[2] / "benchmarks" / "search.py")
OPENINGS = [[], [3, 3, 2, 6], [0, 0, 0, 0, 0], [4], [1, 2, 3]]


def random_games(size: int) -> list[list[int]]:
    """Moves of whole games."""
    generator, game, found = np.random.default_rng(0), make_batch_game("connect_four"), []
    for _ in range(size):
        state, done, moves = game.initial(1), False, []
        while not done:
            moves.append(int(generator.choice(np.flatnonzero(game.legal(state)[0]))))
            state, _, (done,), _ = game.step(state, np.array(moves[-1:]))
        found.append(moves)
    return found


def command(*words: str) -> str:
    arguments = [sys.executable, SCRIPT, "--seconds", "0.01", "--rounds", "1", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.slow
def test_the_command_prints_every_side_and_what_they_visited() -> None:
    said = command("--only", "tree", "--budgets", "16")
    for name in (benchmark.FUSED, benchmark.NUMPY, benchmark.PURE, benchmark.OPENSPIEL, benchmark.MCTX):
        assert any(line.startswith(name) for line in said.splitlines())
    assert "root visits on every side: [2, 2, 2, 2, 2, 2, 3]" in said  # 15 simulations over seven equal columns


def test_the_command_counts_games_and_cache_hits() -> None:
    rows = [line.split() for line in command("--only", "games", "--games", "3").splitlines() if "Gumbel" in line]
    assert [row[:3] for row in rows] == [
        ["Gumbel", "16,", "cache"], ["Gumbel", "16,", "no"], ["Gumbel", "32,", "cache"], ["Gumbel", "32,", "no"],
    ]  # fmt: skip
    hits, search, ours = ([float(row[column].rstrip("%")) for row in rows] for column in (-4, -2, -1))
    assert hits[0] > 0 and hits[1] == 0 and hits[2] > 0 and hits[3] == 0
    assert all(0 < part < whole < 100 for part, whole in zip(search, ours, strict=True))


def test_sides_that_visit_otherwise_end_the_command() -> None:
    even, turned, odd = np.array([[2, 3, 2], [2, 2, 3]]), np.array([[3, 2, 2]]), np.array([[2, 4, 1]])
    assert benchmark.same_visits({"one": even, "other": turned}) == [2, 2, 3]
    with pytest.raises(SystemExit, match="do not search the same"):
        benchmark.same_visits({"one": even, "other": odd})
    with pytest.raises(SystemExit, match="do not search the same"):  # all of a side's positions count
        benchmark.same_visits({"one": np.concatenate([even, odd])})


def test_a_side_that_is_not_installed_gets_a_row_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def absent() -> peers.Arm:
        raise ImportError("No module named 'mctx'")

    arms = benchmark.prepared({"here": lambda: lambda: np.array([[1, 2]]), "away": absent})
    rates, counts = benchmark.measured(arms, 0.0, 2)
    benchmark.table("title", arms, rates, ["here", "away"], {})
    assert list(rates) == list(counts) == ["here"]
    assert "away" + " " * 32 + "not here: No module named 'mctx'" in capsys.readouterr().out


def test_ratios_are_medians_of_the_rounds_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"a": [10.0, 40.0, 90.0], "b": [10.0, 10.0, 30.0]}
    assert benchmark.ratio(rates, "a", "b") == 3.0  # of 1, 4 and 3; that of the medians would be 4
    benchmark.against(rates, ["a", "absent"], ["b"], 3.5)
    benchmark.against(rates, ["a"], ["absent"], 3.5)
    assert capsys.readouterr().out == "  a / b: 3, target >= 3.5: MISSED\n"


def test_sides_take_turns_backwards_in_every_other_round() -> None:
    order: list[str] = []

    def once(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert benchmark.in_turns(["a", "b"], 2, once) == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    assert order == ["a", "b", "b", "a"]


def test_openspiel_sees_what_our_games_show() -> None:
    pyspiel = pytest.importorskip("pyspiel", reason="OpenSpiel is a peer of the benchmark")
    game, ours = pyspiel.load_game("connect_four"), make_batch_game("connect_four")
    for moves in OPENINGS:
        state = game.new_initial_state()
        for move in moves:
            state.apply_action(move)
        states, to_play = benchmark.stepped(ours, [moves])
        assert state.current_player() == to_play[0]
        np.testing.assert_array_equal(peers.observed(state, state.current_player()), ours.observe(states)[0])


def test_openspiel_searches_as_we_do_with_the_network() -> None:
    pytest.importorskip("pyspiel", reason="OpenSpiel is a peer of the benchmark")
    np.testing.assert_array_equal(peers.openspiel_arm(OPENINGS, 40, benchmark.default_network())(), our_visits(40))


def test_mctx_searches_as_we_do_with_the_network() -> None:
    pytest.importorskip("mctx", reason="mctx is a peer of the benchmark")
    np.testing.assert_array_equal(peers.mctx_arm(OPENINGS, 40, benchmark.default_network())(), our_visits(40))


def our_visits(budget: int) -> np.ndarray:
    evaluator = NetworkEvaluator(benchmark.default_network(), runtime="torch", precision="fp32", cache=0)
    return benchmark.our_arm(benchmark.uncanonical(), benchmark.puct(budget), evaluator, len(OPENINGS), OPENINGS)()


def test_the_game_in_jax_is_ours_to_the_end() -> None:
    jnp = pytest.importorskip("jax.numpy", reason="JAX is a peer of the benchmark")
    ours = make_batch_game("connect_four")
    for moves in random_games(10):
        state, other = ours.initial(1), jnp.zeros((1, 4), jnp.uint32)
        for move in moves:
            np.testing.assert_array_equal(peers.legal(other[:, :2] | other[:, 2:]), ours.legal(state))
            np.testing.assert_array_equal(peers.planes(other).transpose(0, 3, 1, 2), ours.observe(state))
            state, reward, done, _ = ours.step(state, np.array([move]))
            other, won, over = peers.step(other, jnp.array([move]))
            assert (float(won[0]), bool(over[0])) == (reward[0], done[0])
        assert done[0]
