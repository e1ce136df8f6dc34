"""Paths: the game's rules worked by hand, the optimum against a spreading front, and public instances."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.grids import PathGame, distances, make_path, path_task, read_mapf_grids, solves_path

GRID = {"grid": ["S..#", "##..", "...G"]}


def task(data: dict[str, Any] = GRID) -> Task:
    return path_task(data, "Go.", 0.5)


def test_a_game_worked_by_hand() -> None:
    game = PathGame(side=4, longest=10)
    state = game.begin(task().problem)
    assert game.legal(state) == (3,)  # a wall below, the edge above and to the left
    # Free 1, wall 2, here 3, goal 4, padding 0; five moves left are token 5 + 5.
    assert game.observe(state).tolist() == [3, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 4, 0, 0, 0, 0, 10]
    assert game.describe(state, 3) == "go right to row 0, column 1; 4 moves are left"
    for action, legal in ((3, (2, 3)), (3, (1, 2)), (1, (0, 1, 3)), (3, (1, 2))):
        state, reward, done, _ = game.step(state, action)
        assert (reward, done, game.legal(state), game.answer(state)) == (0.0, False, legal, None)
    state, reward, done, _ = game.step(state, 1)
    assert (reward, done, game.answer(state)) == (1.0, True, "RRDRD")
    assert task().answer == "5" and len(task().solution) == 5 and solves_path(task(), "RRDRD")


def test_who_cannot_arrive_any_more_has_failed() -> None:
    game = PathGame()
    state, _, done, _ = game.step(game.begin(task().problem), 3)
    assert not done
    state, reward, done, _ = game.step(state, 2)  # back at the start: 5 away, 3 moves left
    assert (reward, done, game.answer(state)) == (0.0, True, None)


def front(rows: list[str]) -> int:
    """Moves from S to G: how often the cells that are reached must spread."""
    cells = np.array([list(row) for row in rows])
    reached, moves = cells == "S", 0
    while not (reached & (cells == "G")).any():
        wide = np.pad(reached, 1)
        reached = (wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]) & (
            cells != "#"
        )
        moves += 1
    return moves


def test_the_optimum_is_that_of_a_spreading_front() -> None:
    rng = random.Random(2)
    for least in (1, 4, 9, 14):
        for _ in range(15):
            data, prompt = make_path(rng, 8, 0.35, (least, least + 2))
            found = path_task(data, prompt, 0.0)
            assert int(found.answer) == front(data["grid"]) and least <= int(found.answer) <= least + 2
            assert solves_path(found, found.solution)


@pytest.mark.parametrize(
    "answer", ["RRDR", "RRDDRR", "RRDRDUD", "DDRRR", "LRRDRD", "RRRRD", "rrdrd", "", "5", "RRD RD"]
)
def test_what_is_no_shortest_path_fails(answer: str) -> None:
    assert not solves_path(task(), answer)
    assert solves_path(task(), "RRDDR") and solves_path(task(), " RRDDR\n")


def test_distances_worked_by_hand() -> None:
    assert distances(3, "..#..#...", 0) == (0, 1, -1, 1, 2, -1, 2, 3, 4)


def test_bad_input_is_one_sentence() -> None:
    game = PathGame()
    for grid, words in (
        (["S#G"], "no path leads from S to G"),
        (["S.", "G"], "rows of one length"),
        (["S..", "..."], "one S and one G"),
        ("S.G", "write a list of rows"),
        (["S" + "." * 7 + "G"], "has 1 x 9 cells, more than 8 a side"),
        (None, "write a list of rows"),
    ):
        with pytest.raises(DataError, match=words):
            game.begin(Problem("t", "path", "", {"grid": grid}))
    with pytest.raises(DataError, match="U runs into a wall"):
        game.step(game.initial(), 0)
    with pytest.raises(DataError, match="the shortest path has 5 moves; this game holds 4"):
        PathGame(longest=4).begin(task().problem)


def written(folder: Path, **changed: Any) -> Path:
    agents = [{"name": "a", "start": [0, 0], "goal": [2, 1]}, {"name": "b", "start": [1, 1], "goal": [1, 1]}]
    row = {"id": "one", "dimensions": [3, 2], "obstacles": [[1, 0]], "agents": agents}
    path = folder / "instances.jsonl"
    path.write_text(json.dumps({**row, **changed}) + "\n")
    return path


def test_public_instances_are_read_agent_by_agent(tmp_path: Path) -> None:
    (found,) = read_mapf_grids(written(tmp_path))  # who stands at the goal has nothing to find
    assert found.data["grid"] == ["S#.", "..G"] and found.answer == "3" and solves_path(found, "DRR")
    assert found.difficulty == round(3 / 16, 4) and read_mapf_grids(tmp_path, side=2) == []


def test_broken_instances_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances.jsonl:1: no instance with dimensions"):
        read_mapf_grids(written(tmp_path, dimensions=[3]))
    with pytest.raises(DataError, match=r"instances.jsonl:1: an agent starts or ends in a wall"):
        read_mapf_grids(written(tmp_path, obstacles=[[0, 0]]))


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA names no folder of public data")
def test_the_public_instances_are_solved() -> None:
    tasks = read_mapf_grids(Path(os.environ["TROUPE_DATA"]) / "mapf_grids")
    game = PathGame()
    assert len(tasks) == len({task.id for task in tasks}) > 4000
    for found in tasks[::20]:
        assert int(found.answer) == front(found.data["grid"]) == game.begin(found.problem).left
        assert solves_path(found, found.solution)
