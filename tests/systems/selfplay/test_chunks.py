from __future__ import annotations

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs import make_batch_game, make_game
from troupe.errors import DataError
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.chunks import Chunk, play_chunk
from troupe.systems.selfplay.config import ActingConfig
from troupe.systems.selfplay.openings import openings

SEARCH = SearchConfig(simulations=8, considered=4)


def chunk(name: str = "tictactoe", games: int = 20, seed: int = 0, **acting: object) -> Chunk:
    settings = ActingConfig.model_validate({"slots": 6, "opening_plies": 2, **acting})
    return play_chunk(make_game(name), UniformEvaluator(), SEARCH, settings, games, (seed, 1, 2))


def test_every_row_is_a_position_that_was_searched() -> None:
    played = chunk()
    columns = played.columns
    assert played.positions == played.lengths.sum() == len(columns["policy"]) and len(played.results) == 20
    assert np.allclose(columns["policy"].sum(1), 1)
    assert (columns["policy"][~columns["legal"]] == 0).all()
    # The planes of tic-tac-toe hold each player's stones: an action is legal where there is none.
    stones = columns["observations"].reshape(played.positions, -1, 9)[:, :2].sum(1)
    assert ((stones == 0) == columns["legal"]).all()
    assert played.counts["simulations"] == 8 * played.positions


def test_values_are_the_results_as_the_mover_sees_them() -> None:
    """Going back from the last move of a game the sign changes at every move."""
    played = chunk()
    begin = 0
    for length, result in zip(played.lengths, played.results, strict=True):
        values = played.columns["value"][begin : begin + length]
        stones = played.columns["observations"][begin : begin + length].reshape(length, -1)[:, :18].sum(1)
        movers = stones.astype(int) % 2  # player 0 moves when the number of stones is even
        assert values.tolist() == [result if mover == 0 else -result for mover in movers]
        begin += length
    assert {-1.0, 0.0, 1.0} >= set(played.results.tolist()) and len(set(played.results.tolist())) > 1


def test_the_search_value_can_be_mixed_in() -> None:
    pure, mixed = chunk(value_mix=0.0), chunk(value_mix=0.5)
    assert (pure.columns["policy"] == mixed.columns["policy"]).all()
    difference = np.abs(pure.columns["value"] - mixed.columns["value"])
    assert difference.mean() > 0 and np.abs(mixed.columns["value"]).max() <= 1


def test_a_chunk_depends_on_its_seed_alone() -> None:
    same = [chunk(seed=1), chunk(seed=1)]
    for name, column in same[0].columns.items():
        assert (column == same[1].columns[name]).all()
    assert not np.array_equal(chunk(seed=2).lengths, same[0].lengths)


def test_arrays_and_plain_python_play_the_same_games() -> None:
    settings = ActingConfig(slots=6, opening_plies=0)
    plain, arrays = (
        play_chunk(make("connect_four"), UniformEvaluator(), SEARCH, settings, 8, (0, 0, 0))
        for make in (make_game, make_batch_game)
    )
    for name, column in plain.columns.items():
        assert (column == arrays.columns[name]).all()


def test_chance_is_played_too() -> None:
    played = chunk("pig", games=6, slots=3)
    assert set(played.results.tolist()) <= {-1.0, 1.0} and played.columns["policy"].shape[1] == 2


def test_slots_refill() -> None:
    assert chunk(games=20, slots=3).lengths.shape == (20,)


class Endless:
    players, actions, observation_shape = 2, 2, (1,)

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[int, ...]:
        return 0, 1

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        return state + 1, 0.0, False, (state + 1) % 2

    def observe(self, state: int) -> np.ndarray:
        return np.zeros(1, np.float32)


def test_a_game_that_never_ends_is_refused() -> None:
    with pytest.raises(DataError, match=r"Endless is longer than acting\.max_moves=30"):
        play_chunk(Endless(), UniformEvaluator(), SEARCH, ActingConfig(max_moves=30, slots=2), 2, (0,))


@pytest.mark.parametrize("make", [make_game, make_batch_game])
def test_openings_are_positions_of_that_many_moves(make) -> None:  # type: ignore[no-untyped-def]
    plies = np.array([0, 1, 4, 7, 7])
    states, to_play = openings(make("connect_four"), plies, np.random.default_rng(0))
    stones = [(int(own) | int(other)).bit_count() for own, other in states]
    assert stones == plies.tolist() and to_play.tolist() == [n % 2 for n in plies]


def test_an_opening_never_ends_the_game() -> None:
    game = make_game("tictactoe")
    states, _ = openings(game, np.full(200, 8), np.random.default_rng(0))
    assert all(game.legal(state) for state in states)
