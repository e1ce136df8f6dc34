"""`troupe data prepare`: every name leads to a preparer, and what it prints says how to use what it stored."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from tests.tasks.hub import hub
from tests.tasks.test_swe import checkout, commits
from tests.tasks.test_swebench import SWE
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
    use = "score a team on it with data.val=aime2024, or `troupe evaluate --data aime2024`"
    assert f"stored under {root / 'aime2024'}; {use}\n" in out


def test_tasks_that_cannot_be_trained_on_are_not_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r2e.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in commits(3)))
    root = tmp_path / "data"
    assert main(["data", "prepare", "swe", "--from", str(path), "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "R2E_Gym_Subset/without_checkout: 3\n" in out and "data.train=" not in out
    assert (
        f"stored under {root / 'R2E_Gym_Subset'}; it cannot be trained on, nor can a team be scored on it, yet\n" in out
    )
    assert "not for training yet, R2E_Gym_Subset/without_checkout: tasks that lack a checkout" in out
    assert f"{tmp_path}/checkouts/pack__0000 for pack at 1f0a" in out and f"prepare again with --from {path}\n" in out


def test_with_some_checkouts_both_are_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sandbox: Any,  # noqa: F811
) -> None:
    path = tmp_path / "r2e.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*commits(3), SWE]))
    for task in ("pack__0000", "pack__0001", "org__pack-1"):
        checkout(tmp_path, task)
    shutil.move(path, tmp_path / "verified.jsonl")
    command = ["data", "prepare", "swe", "--from", str(tmp_path), "--root", str(tmp_path / "data"), "--held-out", "0.5"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "train on it with data.train=R2E_Gym_Subset\n" in out and out.count("not for training yet") == 1
    assert "score a team on it with data.val=SWE_Bench_Verified" in out and "data.train=SWE" not in out


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


def test_help_says_which_sets_need_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the help says of `--from` is what happens without it."""

    def lost(*name: str) -> Any:
        raise ConnectionError("there is no line")

    asked = hub(monkeypatch, lost)
    with pytest.raises(SystemExit):
        main(["data", "prepare", "--help"])
    said = (
        " ".join(capsys.readouterr().out.split()).partition("default: the Hugging Face hub;")[2].partition(" need ")[0]
    )
    need_files = re.findall(r"\w+", said.replace(" and ", " "))
    assert need_files
    for name in PREPARERS:
        asked.clear()
        assert main(["data", "prepare", name, "--root", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "--from" in error and error.count("\n") == 1
        assert bool(asked) != (name in need_files), name
        assert ("cannot be fetched from the Hugging Face hub" in error) == bool(asked)


def test_a_bad_line_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "rows.jsonl", 1, 2)
    path.write_text(path.read_text() + "{")
    assert main(["data", "prepare", "deepscaler", "--from", str(path), "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}:3: not a JSON object") and error.count("\n") == 1
    assert main(["data", "prepare", "deepscalr"]) == 2
    assert "did you mean 'deepscaler'" in capsys.readouterr().err.lower()
