from __future__ import annotations

import numpy as np
import pytest

from tests.envs.agreement import assert_played_like_openspiel, assert_versions_agree
from troupe.envs.tictactoe import SYMMETRIES, TURNED, TicTacToe, TicTacToeBatch, turns
from troupe.errors import DataError
from troupe.testing import check_batch_game, check_game

GAME = TicTacToe()


def play(*cells: int) -> tuple[tuple[int, int], float, bool, int]:
    state, reward, done, to_play = GAME.initial(), 0.0, False, 0
    for cell in cells:
        assert not done
        state, reward, done, to_play = GAME.step(state, cell)
    return state, reward, done, to_play


def test_the_versions_agree() -> None:
    pytest.importorskip("numba")
    assert assert_versions_agree(GAME, TicTacToeBatch(), np.random.default_rng(0), 200) > 1000


@pytest.mark.oracle
def test_games_are_those_of_openspiel() -> None:
    assert_played_like_openspiel(GAME, "tic_tac_toe")


def test_the_checkers_pass() -> None:
    check_game(GAME, np.random.default_rng(1), 50, max_steps=9)
    check_batch_game(TicTacToeBatch(), np.random.default_rng(2), 50, max_steps=9)


@pytest.mark.parametrize("line", ["012", "345", "678", "036", "147", "258", "048", "246"])
def test_each_line_wins_for_the_one_who_closes_it(line: str) -> None:
    cells = [int(c) for c in line]
    others = [c for c in range(9) if c not in cells]
    _, reward, done, to_play = play(cells[0], others[0], cells[1], others[1], cells[2])
    assert (reward, done, to_play) == (1.0, True, 1)
    # and for the second player, where the first wastes a move: the first's three stones must not make a line
    waste = next(o for o in others[2:] if not play(others[0], cells[0], others[1], cells[1], o)[2])
    assert play(others[0], cells[0], others[1], cells[1], waste, cells[2])[1:] == (1.0, True, 0)


def test_a_full_board_is_a_draw() -> None:
    assert play(0, 1, 2, 4, 3, 5, 7, 6, 8)[1:] == (0.0, True, 1)


def test_a_line_on_the_last_cell_wins() -> None:
    # X 0 1 5 6 and O 2 3 4 7; X on 8 fills the board, without a line: 5 8 and 6 8 lack 2 and 7. X 0 4 8 would be one.
    assert play(0, 1, 2, 3, 4, 5, 7, 6, 8)[1:] == (1.0, True, 1)


def test_a_taken_cell_is_refused() -> None:
    with pytest.raises(DataError, match=r"cell 4 is taken .* take one of \(0, 1, 2, 3, 5, 6, 7, 8\)"):
        play(4, 4)


def test_turns_by_hand() -> None:
    # a quarter turn to the left takes the right column to the top
    assert turns(3)[1].tolist() == [2, 5, 8, 1, 4, 7, 0, 3, 6]
    assert turns(3)[4].tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    assert len({tuple(turn) for turn in turns(3)}) == 8


def test_canonical_is_the_smallest_of_the_eight() -> None:
    state = play(5, 2, 3)[0]
    images = [(TURNED[k][state[0]], TURNED[k][state[1]]) for k in range(8)]
    key, k = GAME.canonical(state)
    assert key == min(map(GAME.key, images)) == GAME.key(images[k])
    assert {GAME.canonical(image)[0] for image in images} == {key}
    for image, symmetry in zip(images, SYMMETRIES, strict=True):
        turned = GAME.observe(state).reshape(-1)[symmetry.cells].reshape(2, 3, 3)
        np.testing.assert_array_equal(GAME.observe(image), turned)


def test_render() -> None:
    assert GAME.render(play(4, 0)[0]) == "O 1 2\n3 X 5\n6 7 8\nX to move"
