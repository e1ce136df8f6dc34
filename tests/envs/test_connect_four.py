from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.envs.agreement import assert_played_like_openspiel, assert_versions_agree
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch, line_heuristic
from troupe.errors import DataError
from troupe.testing import check_batch_game, check_game

GAME = ConnectFour()
LINES = [
    [(row + i * up, column + i * right) for i in range(4)]
    for row, column, (up, right) in itertools.product(range(6), range(7), ((0, 1), (1, 0), (1, 1), (-1, 1)))
    if 0 <= row + 3 * up < 6 and column + 3 * right < 7
]
"""(row from below, column), the 69 lines."""


def play(*columns: int) -> tuple[tuple[int, int], float, bool, int]:
    state, reward, done, to_play = GAME.initial(), 0.0, False, 0
    for column in columns:
        assert not done
        state, reward, done, to_play = GAME.step(state, column)
    return state, reward, done, to_play


def random_states(seed: int, n: int) -> list[tuple[int, int]]:
    """Unfinished positions of random games."""
    generator, states = np.random.default_rng(seed), []
    while len(states) < n:
        state, done = GAME.initial(), False
        while not done:
            states.append(state)
            state, _, done, _ = GAME.step(state, int(generator.choice(GAME.legal(state))))
    return states


def test_the_versions_agree() -> None:
    pytest.importorskip("numba")
    assert assert_versions_agree(GAME, ConnectFourBatch(), np.random.default_rng(0), 150) > 2000


@pytest.mark.oracle
def test_games_are_those_of_openspiel() -> None:
    assert_played_like_openspiel(GAME, "connect_four")


def test_the_checkers_pass() -> None:
    check_game(GAME, np.random.default_rng(1), max_steps=42)
    check_batch_game(ConnectFourBatch(), np.random.default_rng(2), max_steps=42)


def test_there_are_69_lines_and_each_wins() -> None:
    assert len(LINES) == 69
    for line in LINES:
        bits = [1 << 7 * column + row for row, column in line]
        for last, (row, column) in enumerate(line):
            # Everything below the last cell is there, belongs to the other, and takes part in no line of four: put
            # there as the other's stones, which are not looked at.
            below = sum(1 << 7 * column + r for r in range(row)) & ~sum(bits)
            own = sum(bits) - bits[last]
            supported = own & ~below
            state = (supported, below)
            if any((row_, column) in line for row_ in range(row, 6) if row_ > row):
                continue  # an upright line is closed from above alone
            assert GAME.step(state, column)[1:3] == (1.0, True), line


def test_lines_do_not_run_around_the_edge() -> None:
    # X on top of columns 0 (rows 4, 5) and at the foot of 1 (rows 0, 1): neighbours in the bits but for the free one
    top = 1 << 4 | 1 << 5
    assert GAME.step((top | 1 << 7, 0b1111), 1)[1:3] == (0.0, False)


def test_random_games_end_where_a_line_is_first_seen() -> None:
    """Against a board of its own, looked at line by line."""
    generator = np.random.default_rng(3)
    for _ in range(40):
        state, done, board, player = GAME.initial(), False, {}, 0
        while not done:
            column = int(generator.choice(GAME.legal(state)))
            row = sum((r, column) in board for r in range(6))
            board[row, column] = player
            state, reward, done, to_play = GAME.step(state, column)
            won = any(all(board.get(cell) == player for cell in line) for line in LINES)
            assert (reward, done) == (float(won), won or len(board) == 42)
            player = 1 - player
            assert to_play == player
        planes = GAME.observe(state)
        for (row, column), owner in board.items():
            assert planes[:, 5 - row, column].tolist() == [float(owner == player), float(owner != player)]
        assert planes.sum() == len(board)


def test_a_full_board_is_a_draw() -> None:
    columns = [0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 2, 3, 2, 3, 2, 3, 3, 2, 3, 2, 3, 2]
    columns += [4, 5, 4, 5, 4, 5, 5, 4, 5, 4, 5, 4, 6, 6, 6, 6, 6, 6]
    assert play(*columns)[1:] == (0.0, True, 0)
    assert play(*columns[:-1])[2] is False


def test_a_full_column_is_refused() -> None:
    assert GAME.legal(play(3, 3, 3, 3, 3, 3)[0]) == (0, 1, 2, 4, 5, 6)
    with pytest.raises(DataError, match=r"column 3 is full .* take one of \(0, 1, 2, 4, 5, 6\)"):
        play(3, 3, 3, 3, 3, 3, 3)


def test_keys_are_unique_and_mirrors_share_the_canonical_one() -> None:
    states = set(random_states(4, 3000))
    assert len({GAME.key(state) for state in states}) == len(states)
    left, right = play(0, 2, 2, 5)[0], play(6, 4, 4, 1)[0]
    assert GAME.canonical(left)[0] == GAME.canonical(right)[0] == min(GAME.key(left), GAME.key(right))
    assert {GAME.canonical(left)[1], GAME.canonical(right)[1]} == {0, 1}
    assert GAME.canonical(play(3, 3)[0]) == (GAME.key(play(3, 3)[0]), 0)


def test_render() -> None:
    rows = [". . . . . . ."] * 4 + [". . . O . . .", ". . . X . . X", "0 1 2 3 4 5 6", "O to move"]
    assert GAME.render(play(3, 3, 6)[0]) == "\n".join(rows)


# --- the heuristic


def test_lines_are_counted_one_by_one() -> None:
    weight = (0, 1, 4, 16)
    for state in random_states(5, 400):
        owner = [{(b % 7, b // 7) for b in range(49) if board >> b & 1} for board in state]
        scores = []
        for own, other in (owner, owner[::-1]):
            scores.append(sum(weight[len(own & set(line))] for line in LINES if not other & set(line)))
        assert line_heuristic(state) == pytest.approx(math.tanh((scores[0] - scores[1]) / 32))


def test_heuristic_by_hand() -> None:
    # A stone at the foot of the middle is in 4 lines along the row, 1 up and 1 + 1 across: 7, all for the other's gain.
    assert line_heuristic(play(3)[0]) == pytest.approx(-math.tanh(7 / 32))
    # In the corner: 1 along, 1 up, 1 across.
    assert line_heuristic(play(0)[0]) == pytest.approx(-math.tanh(3 / 32))


def test_heuristic_is_opposite_for_the_other_player_and_inside_the_bounds() -> None:
    for own, other in random_states(6, 200):
        assert -1 < line_heuristic((own, other)) < 1
        assert line_heuristic((own, other)) == -line_heuristic((other, own))
