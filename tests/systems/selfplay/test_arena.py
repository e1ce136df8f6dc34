from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs import make_game
from troupe.errors import DataError
from troupe.maths.ratings import Pairs, Score, Sprt
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.arena import Match, play_match, play_until
from troupe.systems.selfplay.players import Minimax, RandomPlayer, RowGame, SearchPlayer
from troupe.training.evaluation import MatchGate


class First:
    """Always the first legal move; remembers whose turns it was asked about."""

    def __init__(self, game: Any) -> None:
        self.game, self.asked = game, []

    def choose(self, states: Sequence[Any], to_play: Sequence[int]) -> list[Any]:
        self.asked.extend(to_play)
        return [self.game.legal(state)[0] for state in states]


def test_each_opening_is_played_from_both_sides() -> None:
    """A player against itself wins exactly what it loses, pair by pair."""
    game = make_game("connect_four")
    match = play_match(game, First(game), First(game), 12, 5, np.random.default_rng(0))
    assert match.points == (1.0,) * 12
    assert match.score.wins == match.score.losses and match.score.games == 24


def test_a_stronger_player_wins_and_draws_count_as_draws() -> None:
    game = make_game("tictactoe")
    rng = np.random.default_rng(0)
    perfect, other = Minimax(game, 9, rng), RandomPlayer(game, rng)
    match = play_match(game, perfect, other, 20, 1, rng)
    assert match.score.losses == 0 and match.score.wins > 25
    even = play_match(game, perfect, Minimax(game, 9, rng), 5, 0, rng)
    assert even.score == Score(0, 10, 0) and even.points == (1.0,) * 5
    mirrored = play_match(game, other, perfect, 20, 1, np.random.default_rng(1))
    assert mirrored.score.wins == 0


def test_players_are_asked_only_about_their_own_turns() -> None:
    game = make_game("tictactoe")
    ours = First(game)
    play_match(game, ours, RandomPlayer(game, np.random.default_rng(0)), 1, 0, np.random.default_rng(0))
    assert set(ours.asked) == {0, 1} and ours.asked.count(0) >= 3


def test_a_search_player_finds_wins_on_arrays_too() -> None:
    game = make_game("connect_four")
    config = SearchConfig(simulations=64)
    state = ((1 << 0) | (1 << 7) | (1 << 14), (1 << 1) | (1 << 8) | (1 << 15))
    player = SearchPlayer(game, UniformEvaluator(), config)
    assert player.choose([state, state], [0, 0]) == [3, 3]
    from troupe.envs.connect_four import ConnectFourBatch

    rows = SearchPlayer(RowGame(ConnectFourBatch()), UniformEvaluator(), config)
    assert rows.choose([np.array(state, np.uint64)], [0]) == [3]


def test_matches_go_on_until_they_are_decided() -> None:
    gate = MatchGate(Sprt(0, 50, cap=400))
    win = Match((2.0,) * 20, Score(40, 0, 0))
    total = play_until(lambda part, pairs: win, 400, lambda match: gate.is_decided(match.pairs))
    assert gate.decide(total.pairs).promote and total.score.games < 400
    draw = play_until(lambda part, pairs: Match((1.0,) * pairs, Score(0, 2 * pairs, 0)), 100, lambda match: False)
    assert draw.score.games == 100


def test_the_gate_keeps_the_incumbent_unless_the_candidate_is_stronger() -> None:
    gate = MatchGate()
    assert gate.decide(Pairs((0, 0, 5, 10, 25))).promote
    for pairs in (Pairs((25, 10, 5, 0, 0)), Pairs((1, 0, 8, 2, 1)), Pairs((0, 0, 0, 0, 0))):
        decision = gate.decide(pairs)
        assert not decision.promote and len(decision.reasons) == 1
    undecided = MatchGate(Sprt(0, 50, cap=40)).decide(Pairs((3, 4, 4, 5, 4)))
    assert "undecided" in undecided.reasons[0]


def test_matches_of_three_or_one_are_refused() -> None:
    game = make_game("tictactoe")
    game.players = 1
    with pytest.raises(DataError, match="for two players"):
        play_match(game, First(game), First(game), 1, 0, np.random.default_rng(0))
