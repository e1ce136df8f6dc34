from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from troupe.envs.pig import HOLD, ROLL, Pig
from troupe.errors import ConfigError, DataError
from troupe.search.minimax import negamax, solve
from troupe.testing import check_game


def win_probabilities(target: int, sides: int) -> dict[tuple[int, int, int], float]:
    """P(own, other, turn): the player to move wins under optimal play. Value iteration on the equations of Neller and
    Presser, written from the rules alone."""
    states = [(i, j, k) for i, j in product(range(target), repeat=2) for k in range(target - i + 1)]
    p = dict.fromkeys(states, 0.5)
    change = 1.0
    while change > 1e-12:
        change = 0.0
        for i, j, k in states:
            roll = (1 - p[j, i, 0]) / sides
            roll += sum(p[i, j, min(k + face, target - i)] for face in range(2, sides + 1)) / sides
            hold = 0.0 if k == 0 else 1.0 if i + k >= target else 1 - p[j, i + k, 0]
            best = max(roll, hold) if k else roll
            change = max(change, abs(best - p[i, j, k]))
            p[i, j, k] = best
    return p


@pytest.fixture(scope="module")
def table() -> dict[tuple[int, int, int], float]:
    return win_probabilities(20, 6)


def test_the_checker_passes() -> None:
    check_game(Pig(), np.random.default_rng(0), 50)
    check_game(Pig(target=7, sides=2), np.random.default_rng(1), 50)


def test_a_turn_by_hand() -> None:
    game = Pig()
    assert game.legal(game.initial()) == (ROLL,)
    rolling = game.step(game.initial(), ROLL)
    assert rolling == ((0, 0, 0, True, 0), 0.0, False, 0)
    assert game.legal(rolling[0]) == () and game.chance(rolling[0]) == tuple((f, 1 / 6) for f in range(1, 7))
    five = game.step(rolling[0], 5)
    assert five == ((0, 0, 5, False, 0), 0.0, False, 0)
    assert game.legal(five[0]) == (ROLL, HOLD) and game.chance(five[0]) == ()
    assert game.step(five[0], HOLD) == ((0, 5, 0, False, 1), 0.0, False, 1)
    assert game.step((3, 4, 5, True, 1), 1) == ((4, 3, 0, False, 0), 0.0, False, 0)
    assert game.step((15, 4, 5, False, 1), HOLD) == ((4, 20, 0, False, 0), 1.0, True, 0)
    assert game.step((15, 4, 3, True, 1), 6)[0] == (15, 4, 5, False, 1)  # capped at what wins
    np.testing.assert_allclose(game.observe((15, 4, 3, False, 1)), [0.75, 0.2, 0.15], rtol=1e-6)


def test_smallest_game_by_hand() -> None:
    # target 2, two sides: a roll shows 2 and wins, or 1 and passes the die. p = 1/2 + 1/2 (1 - p): p = 2/3.
    assert win_probabilities(2, 2)[0, 0, 0] == pytest.approx(2 / 3)


def test_probabilities_of_play_are_those_of_the_solver(table: dict[tuple[int, int, int], float]) -> None:
    """Optimal against optimal, as the game itself rolls: the first player's share of wins."""
    game, generator, games = Pig(), np.random.default_rng(2), 4000
    wins = 0
    for _ in range(games):
        state, done, player = game.initial(), False, 0
        while not done:
            outcomes = game.chance(state)
            action = int(generator.choice(6)) + 1 if outcomes else best_action(table, state)
            mover = player
            state, reward, done, player = game.step(state, action)
        wins += mover == 0 and reward == 1.0
    expected = table[0, 0, 0]
    assert 0.5 < expected < 0.65
    assert abs(wins / games - expected) < 4 * (expected * (1 - expected) / games) ** 0.5


def best_action(table: dict[tuple[int, int, int], float], state: tuple[int, int, int, bool, int]) -> int:
    own, other, turn = state[:3]
    if turn == 0:
        return ROLL
    hold = 1.0 if own + turn >= 20 else 1 - table[other, own + turn, 0]
    return HOLD if hold >= table[own, other, turn] - 1e-12 else ROLL


def test_expectimax_on_the_solved_values_finds_the_solved_values(table: dict[tuple[int, int, int], float]) -> None:
    """With the exact value at its horizon, a search of any depth must return the exact value, and the same actions."""
    game = Pig()

    def exact(state: tuple[int, int, int, bool, int]) -> float:
        return 2 * table[state[:3]] - 1

    generator = np.random.default_rng(3)
    states = list(table)
    for index in generator.choice(len(states), 40, replace=False):
        own, other, turn = states[index]
        player = int(generator.integers(2))
        for depth in (1, 2, 3):
            value, actions = negamax(game, (own, other, turn, False, player), depth, exact)
            assert value == pytest.approx(exact((own, other, turn, False, player)), abs=1e-9)
        assert best_action(table, (own, other, turn, False, player)) in actions
        value, actions = negamax(game, (own, other, turn, True, player), 2, exact)
        faces = [exact((other, own, 0, False, 0)) * -1]
        faces += [exact((own, other, min(turn + f, 20 - own), False, 0)) for f in range(2, 7)]
        assert actions == () and value == pytest.approx(sum(faces) / 6, abs=1e-9)


def test_search_to_the_end_does_not_end_and_says_so() -> None:
    with pytest.raises(DataError, match=r"Pig: state .* can come back"):
        solve(Pig(target=5), (0, 0, 0, False, 0))


def test_nonsense_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="target must be 1 or more"):
        Pig(target=0)
    with pytest.raises(ConfigError, match="sides 2 or more"):
        Pig(sides=1)


def test_render() -> None:
    assert Pig().render((3, 9, 4, True, 1)) == "9 : 3, player 1 has 4 in hand, the die is rolling"
