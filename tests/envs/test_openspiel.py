from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from troupe.envs import make_game
from troupe.envs.connect_four import ConnectFour
from troupe.envs.openspiel import from_openspiel, to_openspiel
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe
from troupe.errors import ConfigError, DataError, MissingExtra
from troupe.protocols import Game
from troupe.search.minimax import optimal_actions, solve

pyspiel = pytest.importorskip("pyspiel", reason="pip install 'troupe-train[games]'")

TRIES = 40


class Race:
    """Two players take 1 or 2 of seven tokens; who takes the last wins 1. `paying` tokens pay at once."""

    players, actions, observation_shape = 2, 2, (2,)

    def __init__(self, paying: bool = False) -> None:
        self.paying = paying

    def initial(self) -> tuple[int, int]:
        return 7, 0

    def to_play(self, state: tuple[int, int]) -> int:
        return state[1]

    def legal(self, state: tuple[int, int]) -> list[int]:
        return [0, 1] if state[0] > 1 else [0]

    def step(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, int]:
        left, player = state[0] - 1 - action, 1 - state[1]
        return (left, player), float(self.paying or left == 0), left == 0, player

    def observe(self, state: tuple[int, int]) -> np.ndarray:
        return np.array(state, np.float32)


# --- OpenSpiel's games as ours ----------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "own"), [("tic_tac_toe", TicTacToe()), ("connect_four", ConnectFour())])
def test_random_games_agree_step_by_step_with_our_own(name: str, own: Game) -> None:
    theirs, generator = from_openspiel(name), np.random.default_rng(0)
    assert isinstance(theirs, Game) and (theirs.players, theirs.actions) == (2, own.actions)
    results = set()
    for _ in range(TRIES):
        a, b, done = own.initial(), theirs.initial(), False
        while not done:
            assert list(own.legal(a)) == list(theirs.legal(b))
            action = int(generator.choice(own.legal(a)))
            a, reward, done, player = own.step(a, action)
            b, *found = theirs.step(b, action)
            assert found[:2] == [reward, done]
            assert done or found[2] == player
        results.add(reward)
    assert 1.0 in results and (0.0 in results or name == "connect_four")  # a draw at random is rare there


def test_states_are_never_changed() -> None:
    game = from_openspiel("tic_tac_toe")
    state = game.initial()
    before = str(state), game.key(state)
    children = [game.step(state, action)[0] for action in game.legal(state)]
    assert (str(state), game.key(state)) == before
    assert len({str(child) for child in children}) == 9


def test_observations_say_who_moves() -> None:
    game = from_openspiel("connect_four")
    assert game.observation_shape == (4, 6, 7)
    state = game.initial()
    for player in (0, 1, 0):
        seen = game.observe(state)
        assert seen.dtype == np.float32 and seen.shape == (4, 6, 7)
        assert (seen[:3].reshape(-1) == state.observation_tensor(player)).all() and (seen[3] == player).all()
        state = game.step(state, 3)[0]
    flat = from_openspiel("pig")
    assert flat.observe(flat.initial()).shape == flat.observation_shape
    assert len(flat.observation_shape) == 1 or flat.observation_shape[0] == flat.spiel.observation_tensor_shape()[0] + 1


def test_equal_positions_share_a_key_and_others_do_not() -> None:
    game = from_openspiel("tic_tac_toe")
    one, other = game.initial(), game.initial()
    for a, b in zip((0, 1, 2), (2, 1, 0), strict=True):
        one, other = game.step(one, a)[0], game.step(other, b)[0]
    assert game.key(one) == game.key(other)
    assert len({game.key(game.step(one, action)[0]) for action in game.legal(one)}) == len(game.legal(one))


def test_chance_has_outcomes_and_keeps_who_rolled() -> None:
    game = from_openspiel("pig(winscore=6,diceoutcomes=3,horizon=20)")
    state = game.initial()
    assert game.chance(state) == () and game.to_play(state) == 0
    rolling, reward, done, player = game.step(state, game.legal(state)[0])
    assert (reward, done, player) == (0.0, False, 0)
    outcomes = list(game.chance(rolling))
    assert len(outcomes) == 3 and sum(p for _, p in outcomes) == pytest.approx(1)
    assert game.legal(rolling) == []
    movers = {game.step(rolling, outcome)[3] for outcome, _ in outcomes}
    assert movers == {0, 1}  # one face ends the turn
    assert not hasattr(from_openspiel("tic_tac_toe"), "chance")


def test_rewards_of_chance_games_are_those_of_who_moved() -> None:
    """A player who always rolls and banks at six wins for himself, whoever he is."""
    game, generator = from_openspiel("pig(winscore=6,diceoutcomes=3,horizon=200)"), np.random.default_rng(0)
    winners = set()
    for _ in range(TRIES):
        state, done, player = game.initial(), False, 0
        while not done:
            outcomes = game.chance(state)
            actions = [outcome for outcome, _ in outcomes] or game.legal(state)
            mover = player
            state, reward, done, player = game.step(state, int(generator.choice(actions)))
        assert state.returns()[mover] == reward
        winners.add((mover, reward))
    assert {(0, 1.0), (1, 1.0)} <= winners


def test_values_of_openspiel_games_are_those_of_our_minimax() -> None:
    game = from_openspiel("nim(pile_sizes=1;2;4)")
    # Bouton 1901: won unless the exclusive or of the piles is 0; misere play is the same where a pile is above 1.
    assert solve(game, game.initial()) == 1.0
    lost = from_openspiel("nim(pile_sizes=1;2;3)")
    assert solve(lost, lost.initial()) == -1.0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("goofspiel", "move at the same time"),
        ("kuhn_poker", "hides something"),
        ("oh_hell", "for 3 players"),
        ("trade_comm", "not zero-sum"),
        ("2048", "for 1 players"),
        ("tic_tac_to", "did you mean 'tic_tac_toe'"),
        ("tic_tac_toe(size=4)", "cannot load 'tic_tac_toe\\(size=4\\)': .*size"),
    ],
)
def test_what_from_openspiel_refuses(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        from_openspiel(name)


# --- ours as OpenSpiel's ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tictactoe() -> Any:
    return to_openspiel(TicTacToe(), "troupe_tictactoe_for_tests")


@pytest.fixture(scope="module")
def race() -> Any:
    return to_openspiel(Race(), "troupe_race_for_tests", max_game_length=7)


@pytest.mark.oracle
def test_our_game_passes_openspiels_own_checks(tictactoe: Any) -> None:
    pyspiel.random_sim_test(tictactoe, num_sims=5, serialize=False, verbose=False)


@pytest.mark.oracle
def test_a_round_trip_is_openspiels_game(tictactoe: Any) -> None:
    theirs, generator = pyspiel.load_game("tic_tac_toe"), np.random.default_rng(1)
    for _ in range(TRIES):
        a, b = tictactoe.new_initial_state(), theirs.new_initial_state()
        while not b.is_terminal():
            assert (a.legal_actions(), a.current_player()) == (b.legal_actions(), b.current_player())
            action = int(generator.choice(b.legal_actions()))
            a.apply_action(action)
            b.apply_action(action)
        assert a.is_terminal() and a.returns() == b.returns() and a.history() == b.history()


def test_clones_are_independent_and_names_load(tictactoe: Any) -> None:
    state = pyspiel.load_game("troupe_tictactoe_for_tests").new_initial_state()
    clone = state.clone()
    clone.apply_action(4)
    assert state.legal_actions() == list(range(9)) and 4 not in clone.legal_actions()
    assert str(state) != str(clone)
    own = TicTacToe()
    tensor = np.reshape(clone.observation_tensor(1), own.observation_shape)
    np.testing.assert_array_equal(tensor, own.observe(own.step(own.initial(), 4)[0]))


def test_openspiels_search_plays_our_game(tictactoe: Any) -> None:
    """With its rollouts it never loses to a random player, and it beats him."""
    from open_spiel.python.algorithms import mcts

    evaluator = mcts.RandomRolloutEvaluator(1, np.random.RandomState(0))
    bot = mcts.MCTSBot(tictactoe, 1.4, 150, evaluator, solve=True, random_state=np.random.RandomState(0))
    generator, returns = np.random.default_rng(0), []
    for game in range(6):
        state = tictactoe.new_initial_state()
        while not state.is_terminal():
            ours = state.current_player() == game % 2
            state.apply_action(bot.step(state) if ours else int(generator.choice(state.legal_actions())))
        returns.append(state.returns()[game % 2])
    assert min(returns) >= 0 and sum(returns) >= 3


@pytest.mark.oracle
def test_openspiels_expectiminimax_plays_our_game_of_chance() -> None:
    from open_spiel.python.algorithms import minimax

    pig = Pig(target=3, sides=3)
    spiel = to_openspiel(pig, "troupe_pig_for_tests", max_chance_outcomes=3)
    state = spiel.new_initial_state()
    state.apply_action(0)
    assert state.is_chance_node() and state.chance_outcomes() == [(i, pytest.approx(1 / 3)) for i in range(3)]
    state.apply_action(2)  # the third outcome is the face 3, which is enough to win by holding
    assert state.current_player() == 0
    assert minimax.expectiminimax(state, 2, lambda s: 0.0, maximizing_player_id=0)[0] == 1.0
    state.apply_action(1)
    assert state.is_terminal() and state.returns() == [1.0, -1.0]


@pytest.mark.parametrize(("moves", "winner"), [((0, 1, 1, 1), 1), ((0, 0, 0, 1, 1), 0)])
def test_rewards_have_the_sign_of_who_took_them(race: Any, moves: tuple[int, ...], winner: int) -> None:
    """1 + 2 + 2 + 2 tokens: the fourth move is player 1's. 1 + 1 + 1 + 2 + 2: the fifth is player 0's."""
    state = race.new_initial_state()
    for action in moves:
        assert not state.is_terminal()
        state.apply_action(action)
    assert state.is_terminal() and state.returns()[winner] == 1.0 and state.returns()[1 - winner] == -1.0


@pytest.mark.oracle
def test_openspiels_minimax_finds_the_values_of_ours(race: Any) -> None:
    """Who faces a multiple of three loses: 7 is won by taking one."""
    from open_spiel.python.algorithms import minimax

    assert minimax.alpha_beta_search(race) == (1.0, 0)
    assert solve(Race(), (7, 0)) == 1.0 and optimal_actions(Race(), (7, 0)) == (0,)


def test_what_to_openspiel_refuses(tictactoe: Any) -> None:
    with pytest.raises(ConfigError, match="already has a game 'tic_tac_toe'"):
        to_openspiel(TicTacToe(), "tic_tac_toe")
    alone = Race()
    alone.players = 1
    with pytest.raises(ConfigError, match="Race has players=1"):
        to_openspiel(alone, "troupe_alone_for_tests")
    paying = to_openspiel(Race(paying=True), "troupe_paying_for_tests").new_initial_state()
    with pytest.raises(DataError, match=r"Race paid 1.0 before its end"):
        paying.apply_action(0)
    endless = to_openspiel(Race(), "troupe_endless_for_tests", max_game_length=2).new_initial_state()
    endless.apply_action(0)
    endless.apply_action(0)
    with pytest.raises(DataError, match="raise max_game_length"):
        endless.apply_action(0)
    rolls = to_openspiel(Pig(target=3, sides=6), "troupe_dice_for_tests", max_chance_outcomes=3).new_initial_state()
    rolls.apply_action(0)
    with pytest.raises(DataError, match="chance has 6 outcomes"):
        rolls.chance_outcomes()


def test_a_config_can_name_a_game_of_openspiels() -> None:
    game = make_game("troupe.envs.openspiel:from_openspiel", game="breakthrough(rows=5,columns=5)")
    assert (game.players, len(game.legal(game.initial()))) == (2, 13)


def test_without_open_spiel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(MissingExtra, match=r"from_openspiel needs the package 'open_spiel'.*troupe-train\[games\]"):
        from_openspiel("tic_tac_toe")
    with pytest.raises(MissingExtra, match="to_openspiel needs"):
        to_openspiel(TicTacToe(), "troupe_missing_for_tests")
