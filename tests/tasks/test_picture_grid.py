"""Rooms seen as pictures: the game's rules and pixels worked by hand, the optimum against a spreading front."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.picture_grid import PictureGame, Room, make_picture, picture_task, shortest_way, solves_picture

ROOM = {"grid": ["S.#..", "..D.G", "K.#.."]}


def task(data: dict[str, Any] = ROOM) -> Task:
    return picture_task(data, "Go.", 0.5)


def moved(moves: str) -> tuple[Any, list[float], bool]:
    game, paid, done = PictureGame(), [], False
    state = game.begin(task().problem)
    for letter in moves:
        state, reward, done, _ = game.step(state, "UDLR".index(letter))
        paid.append(reward)
    return state, paid, done


def test_a_game_worked_by_hand() -> None:
    game = PictureGame()
    # Down twice to the key, up, right, through the door, and two more: 7 moves, 4 of grace.
    assert task().answer == "7" and game.begin(task().problem).left == 11
    before, _, _ = moved("DR")
    assert game.legal(before) == (0, 1, 2)  # the door is shut
    state, paid, done = moved("DDU")
    assert (paid, done, state.holds) == ([0.0, 0.5, 0.0], False, True)
    assert game.legal(game.step(state, 3)[0]) == (0, 1, 2, 3)  # the door is open
    ended, paid, done = moved("DDURRRR")
    assert (sum(paid), done, game.answer(ended)) == (1.0, True, "DDURRRR")
    assert solves_picture(task(), "DDURRRR")
    assert game.describe(moved("D")[0], 1) == "go down to row 2, column 0 and take the key"
    assert game.describe(moved("DDUR")[0], 3) == "go right to row 1, column 2, through the door"


def test_who_cannot_arrive_any_more_has_failed() -> None:
    # 11 moves; to the key and over to the goal it is 2 + 5 from the start, so two steps aside and back are forgiven.
    state, paid, done = moved("RLRL")
    assert (paid, done) == ([0.0] * 4, False)
    state, paid, done = moved("RLRLR")
    assert done and sum(paid) == 0 and PictureGame().answer(state) is None


def test_the_picture_pixel_by_pixel() -> None:
    game = PictureGame()
    picture = game.observe(game.begin(task().problem))
    assert picture.shape == game.observation_shape == (3, 16, 14) and picture.dtype == np.float32
    assert picture.min() == 0 and picture.max() == 1

    def cell(row: int, column: int, shown: np.ndarray = picture) -> list[list[float]]:
        return shown[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(3, 4).round(1).T.tolist()

    assert cell(0, 0) == [[1, 0, 0]] * 4  # who walks is red
    assert cell(2, 0) == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]  # the key, yellow from corner to corner
    assert np.allclose(cell(1, 2), [[0, 0.2, 1]] * 4)  # the door is blue
    assert cell(1, 4) == [[0, 1, 0]] * 4 and cell(0, 2) == [[0.5, 0.5, 0.5]] * 4  # the goal, a wall
    assert cell(5, 5) == [[0.5, 0.5, 0.5]] * 4  # beyond the room
    assert picture[0, 14:].reshape(-1).tolist() == [1.0] * 11 + [0.0] * 17  # eleven moves
    later = game.observe(moved("DD")[0])
    assert cell(0, 0, later) == [[0, 0, 0]] * 4
    assert cell(2, 0, later) == [[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]  # who holds the key
    assert np.allclose(cell(1, 2, later), [[0, 0.2, 1], [0, 0, 0]] * 2)
    assert picture[0, 14:].sum() - later[0, 14:].sum() == 2


def front(rows: list[str]) -> int:
    """Moves that are needed: how often the places that are reached, without and with the key, must spread."""
    cells = np.array([list(row) for row in rows])
    bare, holding, moves = cells == "S", np.zeros(cells.shape, bool), 0
    while not ((bare | holding) & (cells == "G")).any():
        holding = spread(holding) & (cells != "#")
        bare = spread(bare) & (cells != "#") & (cells != "D")
        holding |= bare & (cells == "K")
        moves += 1
    return moves


def spread(reached: np.ndarray) -> np.ndarray:
    wide = np.pad(reached, 1)
    return wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]


@pytest.mark.parametrize(("locked", "least", "most"), [(False, 1, 4), (True, 5, 8), (True, 12, 16)])
def test_the_optimum_is_that_of_a_spreading_front(locked: bool, least: int, most: int) -> None:
    rng = random.Random(4)
    for _ in range(20):
        data, prompt = make_picture(rng, locked, 0.15, (least, most))
        found = picture_task(data, prompt, 0.0)
        assert least <= int(found.answer) == front(data["grid"]) <= most
        assert solves_picture(found, found.solution)
        shut = "".join(data["grid"]).replace("D", "#")
        without = shortest_way(Room(7, shut.replace("S", ".")), shut.index("S"))
        assert not (locked and without)  # there is no way but through the door


@pytest.mark.parametrize("answer", ["DRRRR", "DDURRRRU", "DDURRR", "RRRRD", "ddurrrr", "", "7", "DDURRRL", "UDDURRRR"])
def test_what_is_no_way_fails(answer: str) -> None:
    assert not solves_picture(task(), answer)


def test_four_moves_more_are_forgiven_and_no_more() -> None:
    assert solves_picture(task(), "RLRL" + "DDURRRR") and not solves_picture(task(), "RLRLRL" + "DDURRRR")


def test_bad_input_is_one_sentence() -> None:
    game = PictureGame()
    for grid, words in (
        (["S.#KG"], "no way leads from S to G"),
        (["S.G"], "one S, one K and one G"),
        (["SKG", ".."], "rows of one length"),
        (["SK" + "." * 5 + "G"], "shows 7 x 7 cells"),
        ("SKG", "write a list of rows"),
    ):
        with pytest.raises(DataError, match=words):
            game.begin(Problem("t", "picture", "", {"grid": grid}))
    with pytest.raises(DataError, match="U is blocked; take one of"):
        game.step(game.initial(), 0)


def test_who_need_not_fetch_the_key_is_not_cut_off_for_it() -> None:
    """Two moves to the goal and four of grace; by way of the key it would be ten."""
    room = {"grid": ["S.G..", "###D#", "K...."]}
    game, state, done = PictureGame(), PictureGame().begin(task(room).problem), False
    for letter in "RLRLRR":
        assert not done
        state, reward, done, _ = game.step(state, "UDLR".index(letter))
    assert (reward, done, game.answer(state)) == (1.0, True, "RLRLRR") and solves_picture(task(room), "RLRLRR")


def test_every_worked_solution_is_a_game_that_is_won() -> None:
    rng, game = random.Random(2), PictureGame()
    for locked in (False, True):
        for _ in range(60):
            made = picture_task(*make_picture(rng, locked, 0.2, (3, 12)), 0.5)
            state, paid, done = game.begin(made.problem), 0.0, False
            for letter in made.solution:
                assert not done
                state, reward, done, _ = game.step(state, "UDLR".index(letter))
                paid += reward
            assert done and paid == 1.0 and game.answer(state) == made.solution
