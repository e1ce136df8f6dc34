"""A trained network at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.puzzle_runs import LEARNING, words
from troupe.cli import main
from troupe.config import load
from troupe.errors import ConfigError, DataError, StorageError
from troupe.systems.puzzles.config import PuzzleConfig
from troupe.systems.puzzles.solving import load_puzzle_solver
from troupe.systems.puzzles.trainer import PuzzleTrainer


def trained(folder: Path, **changed: Any) -> PuzzleTrainer:
    run = PuzzleTrainer(load(PuzzleConfig, overrides=words(folder, **changed)).config)
    run.train()
    return run


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> PuzzleTrainer:
    folder = tmp_path_factory.mktemp("solving") / "run"
    return trained(folder, **{key.replace(".", "__"): value for key, value in LEARNING.items()})


def test_it_solves_what_the_run_says_that_it_solves(learned: PuzzleTrainer) -> None:
    solver = load_puzzle_solver(learned.folder)
    solved = json.loads((learned.folder / "held_out.json").read_text())["solved"]
    for right, puzzle, answer in zip(solved, learned.data.held_out.puzzles, learned.data.held_out.answers, strict=True):
        found = solver.solve("".join(".1234"[token - 1] for token in puzzle))
        assert bool(right) == (found.tokens == answer).all()
        assert found.text.replace("\n", "") == "".join("?.1234"[token] for token in found.tokens)
        if right:
            assert found.keeps_givens


def test_the_command(learned: PuzzleTrainer, capsys: pytest.CaptureFixture) -> None:
    solved = json.loads((learned.folder / "held_out.json").read_text())["solved"]
    puzzle, answer = (rows[solved.index(1)] for rows in (learned.data.held_out.puzzles, learned.data.held_out.answers))
    letters = "".join(".1234"[token - 1] for token in puzzle)
    assert main(["solve", str(learned.folder), letters[:8], letters[8:]]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "".join(said[:4]) == "".join(str(token - 1) for token in answer) and "sure" in said[4]
    assert main(["solve", str(learned.folder), "1234"]) == 2
    assert "write 16 letters, each one of '.1234'" in capsys.readouterr().err


def test_mazes(tmp_path: Path) -> None:
    trained(tmp_path / "run", data__name="maze", data__size=4, data__givens=None, trainer__steps=2)
    solver = load_puzzle_solver(tmp_path / "run")
    found = solver.solve("S.## #.## #..G ####")
    assert len(found.text.splitlines()) == 4 and set(found.text) <= set(".#SG*?\n")
    with pytest.raises(DataError, match=r"each one of '\.#SG'"):
        solver.solve("1" * 16)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no complete checkpoint"):
        load_puzzle_solver(tmp_path)
    run = trained(tmp_path / "run", trainer__steps=2)
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    config["net"]["trm"]["prefix"] = 1
    path.write_text(json.dumps({**config, "data": {**config["data"], "name": "arc", "file": "x"}}))
    with pytest.raises(ConfigError, match="does not say which task"):
        load_puzzle_solver(run.folder)
    path.write_text("{}")
    with pytest.raises(StorageError, match="is no run on puzzles"):
        load_puzzle_solver(run.folder)
    path.unlink()
    with pytest.raises(StorageError, match=r"has no config\.json to read"):
        load_puzzle_solver(run.folder)
