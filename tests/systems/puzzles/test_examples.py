from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.systems.puzzles.test_trainer import ARC, PLAIN, arc_file, config
from troupe.systems.puzzles.evaluation import Outcome
from troupe.systems.puzzles.examples import choose
from troupe.systems.puzzles.solving import load_puzzle_solver
from troupe.systems.puzzles.trainer import PuzzleTrainer

MAZE = {"data__name": "maze", "data__size": 7, "data__givens": None}


def outcome(first: list[int], last: list[int]) -> Outcome:
    exact = np.array([first, last], bool)
    return Outcome(exact, exact.astype(float), exact)


def test_every_outcome_is_shown_where_there_is_one() -> None:
    assert choose(outcome([1, 0, 0, 1, 0, 1], [1, 0, 1, 0, 1, 1])) == [2, 0, 1, 4]  # later, at once, never, later
    assert choose(outcome([0, 0], [0, 0])) == [0, 1]
    assert choose(outcome([1, 1, 1], [1, 1, 1])) == [0, 1, 2]


def test_the_answers_are_those_that_the_solver_gives(tmp_path: Path) -> None:
    run = PuzzleTrainer(config(tmp_path / "run"))
    run.train()
    found = json.loads((tmp_path / "run" / "examples.json").read_text())
    solver = load_puzzle_solver(tmp_path / "run")
    assert found["kind"] == "sudoku" and found["boxes"] == [2, 2] and len(found["puzzles"]) == 4
    for shown in found["puzzles"]:
        assert [step["step"] for step in shown["steps"]] == [1, 4]
        given, solution = "".join(shown["given"]), "".join(shown["solution"])
        assert solver.solve(given).text.split() == shown["steps"][1]["cells"]
        assert all(a in (".", b) for a, b in zip(given, solution, strict=True)) and "." in given
        solved = run.data.held_out.answers[shown["number"]]
        assert solution == "".join(str(token - 1) for token in solved)


def test_mazes_and_one_pass(tmp_path: Path) -> None:
    PuzzleTrainer(config(tmp_path / "run", **MAZE, **PLAIN)).train()
    found = json.loads((tmp_path / "run" / "examples.json").read_text())
    assert found["boxes"] is None and len(found["puzzles"][0]["steps"]) == 1
    given, solution = ("".join(found["puzzles"][0][key]) for key in ("given", "solution"))
    assert set(given) <= set(".#SG") and given.count("S") == 1 and "*" not in given
    assert solution.replace("*", ".") == given


def test_grids_of_arc_are_cropped(tmp_path: Path) -> None:
    """A grid of one cell with its end below and beside it, in a square of four."""
    PuzzleTrainer(config(tmp_path / "run", **ARC, data__file=arc_file(tmp_path))).train()
    found = json.loads((tmp_path / "run" / "examples.json").read_text())
    for shown in found["puzzles"]:
        colour = shown["given"][0][0]
        assert colour.isdecimal() and shown["given"] == shown["solution"] == [f"{colour}|", "| "]
        assert all(len(step["cells"]) == 2 for step in shown["steps"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Held-out puzzles and its answers" in page and "troupe solve" not in page
