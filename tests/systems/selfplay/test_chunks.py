from __future__ import annotations

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs import make_batch_game, make_game
from troupe.errors import DataError
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.chunks import Chunk, play_chunk, surprise_weights, surprises
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


class Loaded:
    """Three moves and four rolls of dice that always fall alike; what is paid goes to the player who is named.

    Move 0, player 0: pays 0; the die pays 5 to player 0.
    Move 1, player 1: pays 2; the die pays 0, is rolled again and pays 3, both to player 1.
    Move 2, player 1 again: pays 1; the die takes 4 from player 1 and ends the game.
    """

    players, actions, observation_shape = 2, 1, (1,)
    PLAYERS = (0, 0, 1, 1, 1, 1, 1)
    PAYS = (0.0, 5.0, 2.0, 0.0, 3.0, 1.0, -4.0)
    ROLLS = (1, 3, 4, 6)

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[int, ...]:
        return (0,)

    def chance(self, state: int) -> list[tuple[int, float]]:
        return [(0, 1.0)] if state in self.ROLLS else []

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        return state + 1, self.PAYS[state], state == 6, self.PLAYERS[min(state + 1, 6)]

    def observe(self, state: int) -> np.ndarray:
        return np.full(1, state, np.float32)


def test_the_discount_applies_once_per_decision_however_often_dice_are_rolled() -> None:
    """Move 2: 1 - 4 = -3. Move 1: 2 + 0 + 3 + 0.9 * -3 = 2.3. Move 0, of the other player: 5 - 0.9 * 2.3 = 2.93."""
    settings = ActingConfig(slots=2, opening_plies=0, surprise=1.0)
    search = SearchConfig(simulations=8, considered=1, discount=0.9)
    played = play_chunk(Loaded(), UniformEvaluator(), search, settings, 3, (0,))
    assert played.columns["observations"].ravel().tolist() == [0, 2, 5] * 3
    assert played.columns["value"] == pytest.approx([2.93, 2.3, -3.0] * 3)
    assert played.results == pytest.approx([2.93] * 3) and played.lengths.tolist() == [3] * 3
    assert (played.columns["weight"] == 1).all()  # one legal move: nothing surprises


def test_surprise_is_the_divergence_from_the_prior() -> None:
    """0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.143841; ln 2; 0; and shares of nothing count as nothing."""
    policy = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.0, 0.8], [0.0, 0.0, 1.0]])
    prior = np.array([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8], [1.0, 0.0, 0.0]])
    found = surprises(policy, prior)
    assert found[:3] == pytest.approx([0.143841, np.log(2), 0.0], abs=1e-6)
    assert found[3] == pytest.approx(-np.log(1e-38))  # a prior that underflowed: large, and finite


def test_weights_by_surprise_are_one_on_average() -> None:
    """Of 0.1, 0.3 and 0.8 the mean is 0.4: shares 0.25, 0.75 and 2, half of each and a half for all."""
    surprise = np.array([0.1, 0.3, 0.8])
    assert surprise_weights(surprise, 0.5) == pytest.approx([0.625, 0.875, 1.5])
    assert surprise_weights(surprise, 1.0) == pytest.approx([0.25, 0.75, 2.0])
    assert surprise_weights(surprise, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert surprise_weights(np.zeros(3), 1.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "search", [SEARCH, SearchConfig(algorithm="puct", simulations=8, dirichlet_epsilon=0.5)], ids=["gumbel", "puct"]
)
def test_rows_weigh_by_how_far_the_search_went_from_the_network(search: SearchConfig) -> None:
    """The network is uniform here, before any noise: KL = ln(number of legal moves) - entropy of the policy."""
    plain, weighted = (
        play_chunk(
            make_game("tictactoe"), UniformEvaluator(), search, ActingConfig(slots=6, surprise=share), 20, (0, 1, 2)
        ).columns
        for share in (0.0, 0.5)
    )
    assert (plain["weight"] == 1).all() and (plain["policy"] == weighted["policy"]).all()
    policy = weighted["policy"].astype(np.float64)
    entropy = -(policy * np.log(np.maximum(policy, 1e-30))).sum(1)
    surprise = np.log(weighted["legal"].sum(1)) - entropy
    assert weighted["weight"] == pytest.approx(0.5 + 0.5 * surprise / surprise.mean(), abs=1e-5)
    assert weighted["weight"].dtype == np.float32 and weighted["weight"].mean() == pytest.approx(1)
    assert weighted["weight"].std() > 0.1


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
