from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from troupe.envs.connect_four import ConnectFour, line_heuristic
from troupe.envs.othello import Othello
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe
from troupe.errors import ConfigError, DataError
from troupe.search.minimax import MinimaxPlayer, negamax, optimal_actions, solve

TTT, FOUR = TicTacToe(), ConnectFour()


def plain(game: Any, state: Any, player: int, depth: int, heuristic: Any) -> tuple[float, list[Any]]:
    """Minimax in two voices, for player 0 and against, without cuts, orders or tables: value to player 0."""
    if hasattr(game, "chance") and game.chance(state):
        total = 0.0
        for outcome, probability in game.chance(state):
            total += probability * after(game, state, outcome, player, depth, heuristic)
        return total, []
    if depth == 0:
        return heuristic(state) * (1 if player == 0 else -1), []
    found = {a: after(game, state, a, player, depth - 1, heuristic) for a in game.legal(state)}
    best = max(found.values()) if player == 0 else min(found.values())
    return best, [action for action, value in found.items() if abs(value - best) < 1e-12]


def after(game: Any, state: Any, action: Any, player: int, depth: int, heuristic: Any) -> float:
    following, reward, done, mover = game.step(state, action)
    reward = reward if player == 0 else -reward
    return reward if done else reward + plain(game, following, mover, depth, heuristic)[0]


def positions(game: Any, seed: int, n: int) -> list[tuple[Any, int]]:
    """(state, player to move) from random games."""
    generator, found = np.random.default_rng(seed), []
    while len(found) < n:
        state, done, player, game_ = game.initial(), False, 0, []
        while not done:
            outcomes = list(game.chance(state)) if hasattr(game, "chance") else []
            game_.append((state, player))
            choices = [outcome for outcome, _ in outcomes] or game.legal(state)
            state, _, done, player = game.step(state, int(generator.choice(choices)))
        found += [game_[int(i)] for i in generator.choice(len(game_), min(3, len(game_)), replace=False)]
    return found[:n]


def play(game: Any, *actions: int) -> Any:
    state = game.initial()
    for action in actions:
        state, _, done, _ = game.step(state, action)
        assert not done
    return state


# --- small positions


def test_tictactoe_is_a_draw_from_every_opening() -> None:
    table: dict = {}
    assert solve(TTT, TTT.initial(), table) == 0.0
    assert optimal_actions(TTT, TTT.initial()) == tuple(range(9))
    for cell in range(9):
        assert solve(TTT, play(TTT, cell), table) == 0.0


def test_tictactoe_answers_by_hand() -> None:
    # Against a corner only the middle holds; against the middle only the corners do.
    assert optimal_actions(TTT, play(TTT, 0)) == (4,)
    assert optimal_actions(TTT, play(TTT, 4)) == (0, 2, 6, 8)
    # X in opposite corners, O in the middle: O must take an edge, a corner loses to a fork.
    assert optimal_actions(TTT, play(TTT, 0, 4, 8)) == (1, 3, 5, 7)
    # X 0 1, O 3 4: X wins at 2 and nowhere else.
    assert negamax(TTT, play(TTT, 0, 3, 1, 4), 1) == (1.0, (2,))


def test_connect_four_threats_by_hand() -> None:
    # X on 2 3 4 of the lowest row, O above: both ends are open, X to move wins at either.
    state = play(FOUR, 2, 2, 3, 3, 4, 4)
    assert negamax(FOUR, state, 1) == (1.0, (1, 5))
    # One stone less and O to move: X threatens three with two open ends. O holds beside the pair alone; against O on 5
    # X takes 1, and has 0 and 4.
    assert negamax(FOUR, play(FOUR, 2, 2, 3), 4) == (0.0, (1, 4))
    # Too late: whatever O does, X has two places.
    lost = play(FOUR, 2, 2, 3, 3, 4)
    assert negamax(FOUR, lost, 2) == (-1.0, tuple(range(7)))


def test_the_last_columns_of_connect_four_are_solved_as_by_plain_minimax() -> None:
    generator, compared = np.random.default_rng(0), 0
    while compared < 20:
        state, done, player, plies = FOUR.initial(), False, 0, 0
        while not done and plies < 35:
            state, _, done, player = FOUR.step(state, int(generator.choice(FOUR.legal(state))))
            plies += 1
        if done:
            continue
        value, actions = plain(FOUR, state, player, 7, lambda s: pytest.fail("the board is full before that"))
        sign = 1 if player == 0 else -1
        assert solve(FOUR, state) == sign * value
        assert optimal_actions(FOUR, state) == tuple(actions)
        compared += 1


# --- against minimax without cuts


def mixed(state: Any) -> float:
    """A rough judgement with few values, so that there are many ties, and as good for either side."""
    own, other = state[0], state[1]
    return (own % 7 - other % 7) / 10


@pytest.mark.parametrize("heuristic", [mixed, line_heuristic, lambda s: 0.0], ids=["mixed", "lines", "none"])
@pytest.mark.parametrize("cached", [False, True])
def test_connect_four_agrees_with_plain_minimax(heuristic: Any, cached: bool) -> None:
    table: dict | None = {} if cached else None
    compare(FOUR, heuristic, positions(FOUR, 1, 40), (1, 2, 3, 4), table)


@pytest.mark.parametrize("cached", [False, True])
def test_tictactoe_and_othello_agree_with_plain_minimax(cached: bool) -> None:
    compare(TTT, mixed, positions(TTT, 2, 24), (1, 2, 3, 6), {} if cached else None)
    othello = Othello()
    compare(othello, mixed, positions(othello, 3, 12), (1, 2, 3), {} if cached else None)


@pytest.mark.parametrize("cached", [False, True])
def test_pig_agrees_with_plain_expectimax(cached: bool) -> None:
    game = Pig(target=9, sides=3)
    compare(game, mixed, positions(game, 4, 60), (1, 2, 3), {} if cached else None)


def compare(game: Any, heuristic: Any, found: list[tuple[Any, int]], depths: tuple[int, ...], table: Any) -> None:
    ties = 0
    for state, player in found:
        for depth in depths:
            value, actions = plain(game, state, player, depth, heuristic)
            got = negamax(game, state, depth, heuristic, table, to_play=player)
            assert got[0] == pytest.approx(value if player == 0 else -value, abs=1e-12)
            assert got[1] == tuple(actions), (state, depth)
            ties += len(actions) > 1
    assert ties  # or nothing was said about them


# --- worlds of other kinds


class Walk:
    """One player on a line of six cells, 0 to 5, who starts on 2: left or right, paid where he arrives."""

    players, actions, observation_shape = 1, 2, (1,)
    pay = (5.0, 0.0, 0.0, 1.0, 1.0, 4.0)

    def initial(self) -> tuple[int, int]:
        return 2, 0

    def legal(self, state: tuple[int, int]) -> list[int]:
        return [0, 1]

    def step(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, int]:
        cell, time = state[0] + (1 if action else -1), state[1] + 1
        return (cell, time), self.pay[cell], cell in (0, 5) or time == 4, 0

    def observe(self, state: tuple[int, int]) -> np.ndarray:
        return np.array(state[:1], np.float32)


def test_one_player_adds_up_his_rewards() -> None:
    # right, right, right: 1 + 1 + 4 = 6; left, left: 0 + 5 = 5. At depth 2: 2 against 5.
    walk = Walk()
    assert solve(walk, (2, 0)) == 6.0 and optimal_actions(walk, (2, 0)) == (1,)
    assert negamax(walk, (2, 0), 2) == (5.0, (0,))
    # discount 1/2: 1 + 1/2 + 4/4 = 2.5 either way, left 0 + 5/2 = 2.5
    assert negamax(walk, (2, 0), 4, discount=0.5) == (2.5, (0, 1))


TREE = {"": ("a", "b"), "a": ("x", "y"), "b": ("x",), "ax": ("p", "q"), "ay": ("p",), "bx": ("p",)}
PAY = {"axp": 1.0, "axq": 3.0, "ayp": 2.0, "bxp": -1.0}


class Names:
    """Two players, candidates for actions and two turns for the second: who moves is in no state."""

    players, actions, observation_shape = 2, None, (1,)

    def initial(self) -> str:
        return ""

    def legal(self, state: str) -> tuple[str, ...]:
        return TREE[state]

    def step(self, state: str, action: str) -> tuple[str, float, bool, int]:
        following = state + action
        return following, PAY.get(following, 0.0), following in PAY, 1

    def observe(self, state: str) -> np.ndarray:
        return np.zeros(1, np.float32)


def test_a_second_turn_in_a_row_keeps_the_sign() -> None:
    # Player 1 moves twice after player 0: after a he takes x, q for 3, which player 0 pays; after b he loses 1.
    assert negamax(Names(), "", 3, to_play=0) == (1.0, ("b",))
    assert negamax(Names(), "a", 2, to_play=1) == (3.0, ("x",))


def test_the_player_to_move_must_be_known() -> None:
    with pytest.raises(ConfigError, match=r"Names has no method to_play\(state\)"):
        solve(Names(), "")


class Lists(Walk):
    def initial(self) -> list[int]:  # type: ignore[override]
        return [2, 0]


def test_bad_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="depth must be 1 or more, found 0"):
        negamax(TTT, (0, 0), 0)
    with pytest.raises(ConfigError, match="discount"):
        negamax(TTT, (0, 0), 1, discount=0.0)
    with pytest.raises(ConfigError, match="type list cannot be hashed"):
        solve(Lists(), [2, 0])
    with pytest.raises(DataError, match="no action in state"):
        solve(TTT, (0b101011100, 0b010100011))


# --- the player


def test_the_player_draws_uniformly_among_the_best() -> None:
    player = MinimaxPlayer(TTT, 9, None, np.random.default_rng(5))
    state = play(TTT, 4)
    drawn = [player(state) for _ in range(200)]
    counts = [drawn.count(cell) for cell in (0, 2, 6, 8)]
    assert sum(counts) == 200
    # chi-square with 3 degrees of freedom: above 16.3 once in 1000
    assert sum((count - 50) ** 2 / 50 for count in counts) < 16.3
    again = MinimaxPlayer(TTT, 9, None, np.random.default_rng(5))
    assert [again(state) for _ in range(20)] == drawn[:20]


def test_the_player_takes_the_nearer_win() -> None:
    # X 2 3 4 below, both ends open: a win at once at 1 or 5; after any other move one end is still open.
    state = play(FOUR, 2, 2, 3, 3, 4, 4)
    assert negamax(FOUR, state, 5, line_heuristic) == (1.0, tuple(range(7)))
    player = MinimaxPlayer(FOUR, 5, line_heuristic, np.random.default_rng(6))
    assert {player(state) for _ in range(20)} == {1, 5}


def test_the_player_delays_a_loss() -> None:
    """Where all is lost he still stops what would lose at once, if that can be stopped."""
    player, told = MinimaxPlayer(FOUR, 5, line_heuristic, np.random.default_rng(8)), 0
    for state, _ in positions(FOUR, 9, 400):
        value, actions = negamax(FOUR, state, 5, line_heuristic)
        at_once = {a for a in actions if negamax(FOUR, FOUR.step(state, a)[0], 1)[0] == 1.0} if value == -1.0 else set()
        if at_once and at_once < set(actions):
            assert player(state) not in at_once
            told += 1
    assert told >= 2


def test_the_player_refuses_a_state_of_chance() -> None:
    with pytest.raises(DataError, match="chance decides"):
        MinimaxPlayer(Pig(), 1, None, np.random.default_rng(0))((0, 0, 0, True, 0))


def test_depth_five_on_connect_four_is_quick_and_beats_depth_one() -> None:
    generator, spent, moves, points = np.random.default_rng(7), 0.0, 0, 0.0
    deep = MinimaxPlayer(FOUR, 5, line_heuristic, generator)
    shallow = MinimaxPlayer(FOUR, 1, line_heuristic, generator)
    for game in range(8):
        players = (deep, shallow) if game % 2 == 0 else (shallow, deep)
        state, done, mover, reward = FOUR.initial(), False, 0, 0.0
        while not done:
            before, player = time.perf_counter(), players[mover]
            action = player(state)
            if player is deep:
                spent, moves = spent + time.perf_counter() - before, moves + 1
            state, reward, done, mover = FOUR.step(state, action)
        points += reward if player is deep else -reward
    assert points >= 6
    assert spent / moves < 0.1
