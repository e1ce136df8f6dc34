from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs import make_game
from troupe.errors import ConfigError, DataError
from troupe.maths.ratings import Pairs, Score, Sprt
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.arena import Match, play_match, play_until
from troupe.systems.selfplay.openings import different_openings
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
    match = play_match(game, perfect, other, 9, 1, rng)
    assert match.score.losses == 0 and match.score.wins > 11 and match.score.games == 18
    even = play_match(game, perfect, Minimax(game, 9, rng), 5, 1, rng)
    assert even.score == Score(0, 10, 0) and even.points == (1.0,) * 5
    mirrored = play_match(game, other, perfect, 9, 1, np.random.default_rng(1))
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
    openings = [(i, 0) for i in range(200)]
    total = play_until(lambda part, some: win, openings, lambda match: gate.is_decided(match.pairs))
    assert gate.decide(total.pairs).promote and total.score.games < 400


def test_the_parts_of_a_match_share_its_openings_out() -> None:
    seen: list[tuple[int, list[int]]] = []

    def draws(part: int, some: Sequence[tuple[int, int]]) -> Match:
        seen.append((part, [state for state, _ in some]))
        return Match((1.0,) * len(some), Score(0, 2 * len(some), 0))

    match = play_until(draws, [(i, 0) for i in range(50)], lambda match: False)
    assert match.score.games == 100 and [len(some) for _, some in seen] == [20, 20, 10]
    assert [part for part, _ in seen] == [0, 1, 2] and [i for _, some in seen for i in some] == list(range(50))


@pytest.mark.parametrize(("plies", "different"), [(0, 1), (1, 9), (2, 72), (3, 252)])
def test_a_match_is_no_longer_than_there_are_openings(plies: int, different: int) -> None:
    """Tic-tac-toe after one, two and three moves: 9, 9 * 8 and C(9, 2) * 7 positions."""
    game = make_game("tictactoe")
    openings = different_openings(game, 300, plies, np.random.default_rng(0))
    assert len(openings) == different == len({game.key(state) for state, _ in openings})
    match = play_match(game, First(game), First(game), 300, plies, np.random.default_rng(0))
    assert match.score.games == 2 * different and len(match.points) == different
    assert len(different_openings(game, 5, plies, np.random.default_rng(0))) == min(5, different)


def test_rare_openings_are_found_and_too_many_are_drawn() -> None:
    """Of 12 moves that add 0 or 1, all zeros come once in 4,096 lines; a thirteenth move would end the game."""
    game = Race(tuple, length=13)
    game.key = sum  # type: ignore[attr-defined]
    for plies in (12, 13, 20):
        openings = different_openings(game, 40, plies, np.random.default_rng(0))
        assert sorted(sum(state) for state, _ in openings) == list(range(13))
        assert all(len(state) == 12 and player == 0 for state, player in openings)
    drawn = [different_openings(make_game("connect_four"), 30, 6, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and [len(set(openings)) for openings in drawn] == [30] * 3


class Race:
    """Two players in turn write 0 or 1 until ten are written: a history that some wrap in a state of their own."""

    players, actions, observation_shape = 2, 2, (1,)

    def __init__(self, wrap: Any, length: int = 10) -> None:
        self.wrap, self.length = wrap, length

    def initial(self) -> Any:
        return self.wrap(())

    def legal(self, state: Any) -> tuple[int, ...]:
        return 0, 1

    def step(self, state: Any, action: int) -> tuple[Any, float, bool, int]:
        moves = (*tuple(getattr(state, "moves", state)), action)
        return self.wrap(moves), 0.0, len(moves) == self.length, len(moves) % 2

    def observe(self, state: Any) -> np.ndarray:
        return np.zeros(1, np.float32)


class Board:
    """Hashable by its identity alone: no two are equal, whatever they hold."""

    def __init__(self, moves: tuple[int, ...]) -> None:
        self.moves = moves


def test_without_a_key_openings_are_told_apart_by_canonical_or_by_the_states() -> None:
    plain = Race(tuple)
    assert len(different_openings(plain, 50, 3, np.random.default_rng(0))) == 8
    mirrored = Race(list)
    mirrored.canonical = lambda moves: (min(tuple(moves), tuple(1 - m for m in moves)), 0)  # type: ignore[attr-defined]
    assert len(different_openings(mirrored, 50, 3, np.random.default_rng(0))) == 4
    keyed = Race(Board)
    keyed.key = lambda board: sum(board.moves)  # type: ignore[attr-defined]
    assert len(different_openings(keyed, 50, 3, np.random.default_rng(0))) == 4


@pytest.mark.parametrize(("wrap", "named"), [(list, "list"), (np.array, "ndarray"), (Board, "Board")])
def test_states_that_cannot_be_told_apart_are_refused(wrap: Any, named: str) -> None:
    game = Race(wrap)
    with pytest.raises(ConfigError, match=rf"Race has states .*a {named} is not hashable, .*; define key\(state\)"):
        play_match(game, First(game), First(game), 4, 2, np.random.default_rng(0))


class Tossed(Race):
    """After the third move, or none (`at` -1), a coin is tossed; states tell it apart as 2 or 3."""

    def __init__(self, at: int) -> None:
        super().__init__(tuple)
        self.at = at

    def chance(self, state: tuple[int, ...]) -> list[tuple[int, float]]:
        return [(2, 0.5), (3, 0.5)] if len(state) == self.at else []


def test_openings_repeat_only_where_chance_still_decides() -> None:
    rng = np.random.default_rng(0)
    assert len(different_openings(Tossed(at=3), 50, 2, rng)) == 50  # four openings, and a coin in every game
    assert len(different_openings(Tossed(at=1), 50, 2, rng)) == 8  # the coin is part of the opening: 2 * 2 * 2
    assert len(different_openings(Tossed(at=-1), 50, 2, rng)) == 4  # a game with `chance` that never comes
    assert len(different_openings(make_game("pig"), 30, 0, rng)) == 30


def test_the_gate_keeps_the_incumbent_unless_the_candidate_is_stronger() -> None:
    gate = MatchGate()
    assert gate.decide(Pairs((0, 0, 5, 10, 25))).promote
    for pairs in (Pairs((25, 10, 5, 0, 0)), Pairs((1, 0, 8, 2, 1)), Pairs((0, 0, 0, 0, 0))):
        decision = gate.decide(pairs)
        assert not decision.promote and len(decision.reasons) == 1
    undecided = MatchGate(Sprt(0, 50, cap=40)).decide(Pairs((3, 4, 4, 5, 4)))
    assert "undecided" in undecided.reasons[0]


def test_a_shortage_of_openings_is_a_reason_where_it_left_a_match_undecided() -> None:
    gate, said = MatchGate(Sprt(0, 50, cap=400)), "the openings ran out"
    undecided = gate.decide(Pairs((0, 0, 0, 1, 1)), said)
    assert not undecided.promote and undecided.reasons[0].startswith("undecided") and undecided.reasons[1:] == (said,)
    assert gate.decide(Pairs((0, 0, 5, 10, 25)), said).promote
    for decided in (Pairs((0, 0, 5, 10, 25)), Pairs((25, 10, 5, 0, 0))):
        assert len(gate.decide(decided, said).reasons) == 1


def test_matches_of_three_or_one_are_refused() -> None:
    game = make_game("tictactoe")
    game.players = 1
    with pytest.raises(DataError, match="for two players"):
        play_match(game, First(game), First(game), 1, 0, np.random.default_rng(0))
