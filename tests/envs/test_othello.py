from __future__ import annotations

import numpy as np
import pytest

from tests.envs.agreement import assert_versions_agree
from troupe.envs.othello import PASS, SYMMETRIES, Othello, OthelloBatch, State, _turned
from troupe.errors import DataError
from troupe.testing import check_batch_game, check_game

GAME, BATCH = Othello(), OthelloBatch()


def turned(state: State, k: int) -> State:
    return _turned(state[0], k), _turned(state[1], k), state[2]


def drawn(text: str, flags: int = 0) -> State:
    """A state from six lines: x own, o the other's."""
    cells = "".join(text.split())
    assert len(cells) == 36
    return sum(1 << i for i in range(36) if cells[i] == "x"), sum(1 << i for i in range(36) if cells[i] == "o"), flags


def by_hand(state: State) -> dict[int, set[int]]:
    """cell -> what a disc there flips, walking ray by ray over a list."""
    board = ["x" if state[0] >> i & 1 else "o" if state[1] >> i & 1 else "." for i in range(36)]
    moves = {}
    for cell in (i for i in range(36) if board[i] == "."):
        flips: set[int] = set()
        for down, right in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            row, column, run = cell // 6 + down, cell % 6 + right, set()
            while 0 <= row < 6 and 0 <= column < 6 and board[6 * row + column] == "o":
                run.add(6 * row + column)
                row, column = row + down, column + right
            if 0 <= row < 6 and 0 <= column < 6 and board[6 * row + column] == "x":
                flips |= run
        if flips:
            moves[cell] = flips
    return moves


def test_the_versions_agree() -> None:
    pytest.importorskip("numba")
    assert assert_versions_agree(GAME, BATCH, np.random.default_rng(0), 100) > 3000


def test_the_versions_agree_on_passes_and_early_ends() -> None:
    """Greedy players run out of moves more often than random ones."""
    step = BATCH.compiled_functions()[0] if pytest.importorskip("numba") else None
    generator, passes, early = np.random.default_rng(1), 0, 0
    for _ in range(150):
        state, done = GAME.initial(), False
        while not done:
            legal = GAME.legal(state)
            count = [len(by_hand(state).get(a, ())) + generator.random() for a in legal]
            action = legal[int(np.argmax(count))]
            expected = GAME.step(state, action)
            rows = BATCH.step(np.array([state], np.uint64), np.array([action]))
            assert expected == (tuple(rows[0][0].tolist()), rows[1][0], rows[2][0], rows[3][0])
            out = np.zeros(3, np.uint64)
            assert expected[1:] == step(np.array(state, np.uint64), action, out)
            assert expected[0] == tuple(out.tolist())
            passes += action == PASS
            state, _, done, _ = expected
        early += (state[0] | state[1]).bit_count() < 36
    assert passes > 50 and early > 5


def test_the_checkers_pass() -> None:
    def turned_row(row: np.ndarray, k: int) -> np.ndarray:
        return np.array(turned(tuple(row.tolist()), k), np.uint64)

    check_game(GAME, np.random.default_rng(2), 8, max_steps=80, transform=turned)
    check_batch_game(BATCH, np.random.default_rng(3), 4, max_steps=80, transform=turned_row)


def test_the_start() -> None:
    state = GAME.initial()
    assert GAME.render(state).split("\n") == [
        ". . . . . .",
        ". . * . . .",
        ". * O X . .",
        ". . X O * .",
        ". . . * . .",
        ". . . . . .",
        "X to move",
    ]
    following, reward, done, to_play = GAME.step(state, 8)
    # X on row 1, column 2 flips the O below it
    assert following == drawn("...... ..o... ..oo.. ..ox.. ...... ......", flags=1)
    assert (reward, done, to_play) == (0.0, False, 1)


def test_moves_and_flips_are_those_of_a_walk_along_the_rays() -> None:
    generator = np.random.default_rng(4)
    for _ in range(40):
        state, done = GAME.initial(), False
        while not done:
            moves = by_hand(state)
            assert GAME.legal(state) == (tuple(moves) or (PASS,))
            action = int(generator.choice(GAME.legal(state)))
            following, _, done, _ = GAME.step(state, action)
            if action != PASS:
                flips = sum(1 << i for i in moves[action])
                assert following[:2] == (state[1] & ~flips, state[0] | flips | 1 << action)
            state = following


def test_runs_do_not_go_around_the_edge() -> None:
    # o at the right end of row 0; the free cell behind it in the bits is the left end of row 1
    state = drawn("....xo ...... ...... ...... ...... ......")
    assert GAME.legal(state) == (PASS,)
    state = drawn("...... o..... ...... ...... ...... ......")
    assert GAME.legal((1 << 5, state[1], 0)) == (PASS,)


def test_a_pass_is_forced_then_two_end_the_game() -> None:
    alone = drawn("xxo... ...... ...... ...... ...... ......", flags=1)  # o cannot be taken? it can, at cell 3
    assert GAME.legal(alone) == (3,)
    stuck = drawn("oxx... ...... ...... ...... ...... ......", flags=1)  # x has nothing to flip, o has cell 3
    assert GAME.legal(stuck) == (PASS,)
    state, reward, done, to_play = GAME.step(stuck, PASS)
    assert (state, reward, done, to_play) == ((stuck[1], stuck[0], 2), 0.0, False, 0)
    assert GAME.legal(state) == (3,) and GAME.step(state, 3)[0][2] == 1  # a move takes the flag away
    dead = drawn("xx..oo xxx... ...... ...... ...... ......")
    state, reward, done, to_play = GAME.step(dead, PASS)
    assert (reward, done, to_play) == (0.0, False, 1)
    assert GAME.step(state, PASS)[1:] == (-1.0, True, 0)  # the last to pass has two discs against five


@pytest.mark.parametrize(("others", "expected"), [(14, 1.0), (13, 0.0), (12, -1.0)])
def test_the_mover_who_fills_the_board_is_paid_by_discs(others: int, expected: float) -> None:
    # The last cell, 35, flips 34 alone: x on 33, and x at once on 28 and 29. Of 36 discs x has 3 + others + 1 + 1.
    own = 1 << 28 | 1 << 29 | 1 << 33 | (1 << others) - 1
    state = (own, (1 << 35) - 1 & ~own, 0)
    assert by_hand(state) == {35: {34}}
    assert GAME.step(state, 35) == (((1 << 36) - 1 & ~own & ~(3 << 34), own | 3 << 34, 1), expected, True, 1)


def test_illegal_actions_are_refused() -> None:
    start = GAME.initial()
    for action in (0, 14, PASS):
        with pytest.raises(DataError, match=rf"action {action} is not legal .* take one of \(8, 13, 22, 27\)"):
            GAME.step(start, action)


def test_the_table_of_turns_is_that_of_the_observation() -> None:
    state = GAME.step(GAME.step(GAME.initial(), 8)[0], 7)[0]
    for k, symmetry in enumerate(SYMMETRIES):
        expected = GAME.observe(state).reshape(-1)[symmetry.cells].reshape(2, 6, 6)
        np.testing.assert_array_equal(GAME.observe(turned(state, k)), expected)
    keys = {GAME.canonical(turned(state, k))[0] for k in range(8)}
    assert len(keys) == 1 and keys <= {GAME.key(turned(state, k)) for k in range(8)}
