"""`troupe data prepare`: every name leads to a preparer, and what it prints says how to use what it stored."""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from troupe.cli import main
from troupe.cli.data import PREPARERS, VERIFIED


@pytest.mark.parametrize("name", PREPARERS)
def test_every_preparer_takes_what_it_is_given(name: str) -> None:
    module, _, function = PREPARERS[name].partition(":")
    signature = inspect.signature(getattr(import_module(module), function))
    more = {"reward_function": None} if name in VERIFIED else {}
    signature.bind("source", "registry", seed=0, held_out=0.1, **more)


def rows(path: Path, *years: int) -> Path:
    row = '{{"problem": "Find {}.", "answer": "{}", "year": {}}}\n'
    path.write_text("".join(row.format(n, n, year) for n, year in enumerate(years)))
    return path


def test_a_test_set_is_not_offered_for_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "aime.jsonl", 2023, 2022, 2024)
    root = tmp_path / "data"
    assert main(["data", "prepare", "aime", "--from", str(path), "--root", str(root), "--held-out", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "rows: 3\n" in out and "left_out: 0\n" in out
    assert f"stored under {root / 'aime'}; train on it with data.train=aime\n" in out
    assert f"stored under {root / 'aime2024'}; score a team on it with `troupe evaluate --data aime2024`\n" in out


def test_math_does_not_take_the_generators_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "rows.jsonl", *range(4))
    assert main(["data", "prepare", "math", "--from", str(path), "--root", str(tmp_path), "--held-out", "0.5"]) == 0
    assert "data.train=hendrycks_math" in capsys.readouterr().out
    assert json.loads((tmp_path / "hendrycks_math" / "train.json").read_text())["rows"] == 2


def test_help_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "prepare", "--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", shown) for name in PREPARERS)


def test_a_bad_line_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "rows.jsonl", 1, 2)
    path.write_text(path.read_text() + "{")
    assert main(["data", "prepare", "deepscaler", "--from", str(path), "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}:3: not a JSON object") and error.count("\n") == 1
    assert main(["data", "prepare", "deepscalr"]) == 2
    assert "did you mean 'deepscaler'" in capsys.readouterr().err.lower()
